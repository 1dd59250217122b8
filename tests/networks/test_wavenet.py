"""Laws of the WaveNet and of the parts it shares with other networks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from audiodiff.errors import InputError
from audiodiff.networks.blocks import FrameUpsampler, sinusoidal_embedding, step_embedding
from audiodiff.networks.wavenet import ConditionShape, NoiseEmbedding, ResidualLayer, WaveNet
from audiodiff.types import Condition

MELS, VECTOR = 5, 3
FACTORS = (4, 4)
HOP = math.prod(FACTORS)
SHAPES = {
    "unconditional": ConditionShape(),
    "class": ConditionShape(vector_features=VECTOR),
    "mel": ConditionShape(local_features=MELS, upsample_factors=FACTORS),
    "mel per layer": ConditionShape(local_features=MELS, upsample_factors=FACTORS, shared_upsampler=False),
    "mel and class": ConditionShape(local_features=MELS, upsample_factors=FACTORS, vector_features=VECTOR),
}


def build(shape: ConditionShape, in_residual: bool = False, audio_channels: int = 1) -> WaveNet:
    """A small network with random weights everywhere, also where a fresh one has zeros."""
    torch.manual_seed(0)
    embedding = NoiseEmbedding(dim=8, hidden_dim=12, out_dim=10, in_residual=in_residual)
    network = WaveNet(4, 8, 6, 3, audio_channels, embedding, shape)
    nn.init.normal_(network.output_projection.weight)
    nn.init.normal_(network.output_projection.bias)
    return network


def condition_for(shape: ConditionShape, items: int, length: int) -> Condition:
    frames = -(-length // math.prod(shape.upsample_factors))
    return Condition(
        local=torch.randn(items, MELS, frames) if shape.local_features else None,
        vector=torch.randn(items, VECTOR) if shape.vector_features else None,
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("in_residual", [False, True])
@torch.no_grad()
def test_item_in_a_padded_batch_equals_the_item_alone(shape: ConditionShape, in_residual: bool) -> None:
    network = build(shape, in_residual)
    lengths = torch.tensor([5 * HOP + 3, 9, 4 * HOP])
    x = torch.randn(3, 1, 6 * HOP) * 10  # what lies in the padding is no signal
    labels = torch.tensor([0.0, 17.5, 49.0])
    condition = replace(condition_for(shape, 3, x.shape[-1]), frames=lengths)
    together = network(x, labels, condition)
    for i, length in enumerate(lengths.tolist()):
        frames = -(-length // HOP)
        alone = Condition(
            local=None if condition.local is None else condition.local[i : i + 1, :, :frames],
            vector=None if condition.vector is None else condition.vector[i : i + 1],
        )
        expected = network(x[i : i + 1, :, :length], labels[i : i + 1], alone)
        torch.testing.assert_close(together[i : i + 1, :, :length], expected, rtol=1e-5, atol=1e-5)
        assert not together[i, :, length:].any()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_bound_network_with_gradients_equals_forward_at_every_call(shape: ConditionShape) -> None:
    network = build(shape).eval()
    condition = replace(condition_for(shape, 2, 64), frames=torch.tensor([64, 50]))
    bound = network.bind(condition)
    for length, label in ((64, 3.0), (64, 0.25), (60, 1.0), (64, 3.0)):
        x, labels = torch.randn(2, 1, length), torch.tensor([label, 7.0])
        torch.testing.assert_close(bound(x, labels), network(x, labels, condition), rtol=0, atol=0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("channels", [1, 2])
@torch.no_grad()
def test_output_has_the_shape_of_the_input_at_any_length(shape: ConditionShape, channels: int) -> None:
    network = build(shape, audio_channels=channels)
    for length in (1, 2, HOP - 1, HOP, HOP + 1, 3 * HOP + 7):
        x = torch.randn(2, channels, length)
        output = network(x, torch.tensor([0.0, 9.0]), condition_for(shape, 2, length))
        assert output.shape == x.shape
        assert output.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_gradient_reaches_every_parameter(shape: ConditionShape) -> None:
    network = build(shape)
    x = torch.randn(2, 1, 70)
    network(x, torch.tensor([2.0, 30.0]), condition_for(shape, 2, 70)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@torch.no_grad()
def test_fresh_network_predicts_zero(shape: ConditionShape) -> None:
    network = WaveNet(2, 8, 8, 2, condition=shape)
    assert not network(torch.randn(1, 1, 40), torch.zeros(1), condition_for(shape, 1, 40)).any()


@pytest.mark.parametrize(("layers", "cycle"), [(1, 1), (3, 3), (6, 4)])
def test_receptive_field_is_where_the_gradient_is(layers: int, cycle: int) -> None:
    torch.manual_seed(0)
    network = WaveNet(layers, 16, 16, cycle, embedding=NoiseEmbedding(8, 8, 8)).double()
    nn.init.normal_(network.output_projection.weight)
    field = network.receptive_field()
    x = torch.randn(1, 1, 2 * field + 1, dtype=torch.float64, requires_grad=True)
    network(x, torch.zeros(1), Condition())[0, 0, field].backward()
    assert x.grad is not None
    touched = x.grad[0, 0].nonzero().flatten()
    assert int(touched[-1] - touched[0]) + 1 == field
    assert int(touched[-1] + touched[0]) == 2 * field


@torch.no_grad()
def test_missing_last_frame_is_the_last_one_repeated() -> None:
    network = build(SHAPES["mel"])
    x, label = torch.randn(1, 1, 3 * HOP + 5), torch.zeros(1)
    local = torch.randn(1, MELS, 3)
    repeated = torch.cat([local, local[..., -1:]], dim=-1)
    expected = network(x, label, Condition(local=repeated))
    torch.testing.assert_close(network(x, label, Condition(local=local)), expected, rtol=0, atol=0)


@torch.no_grad()
def test_frames_beyond_the_audio_have_no_influence() -> None:
    network = build(SHAPES["mel"])
    x, label = torch.randn(1, 1, 3 * HOP - 1), torch.zeros(1)
    local = torch.randn(1, MELS, 7)
    expected = network(x, label, Condition(local=local[..., :3]))
    torch.testing.assert_close(network(x, label, Condition(local=local)), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("frames", "length"), [(3, 4 * HOP), (1, 5 * HOP), (0, HOP - 1)])
def test_audio_a_hop_or_more_beyond_the_frames_is_refused(frames: int, length: int) -> None:
    with pytest.raises(InputError, match=f"{frames} frames of {HOP} samples for {length} samples"):
        build(SHAPES["mel"])(
            torch.randn(1, 1, length), torch.zeros(1), Condition(local=torch.randn(1, MELS, frames))
        )


@pytest.mark.parametrize(
    ("shape", "condition"),
    [
        ("mel", Condition()),
        ("mel", Condition(local=torch.zeros(1, MELS + 1, 2))),
        ("class", Condition()),
        ("class", Condition(vector=torch.zeros(1, VECTOR + 1))),
        ("unconditional", Condition(local=torch.zeros(1, MELS, 2))),
        ("unconditional", Condition(vector=torch.zeros(1, VECTOR))),
    ],
)
def test_condition_that_the_network_was_not_built_for_is_refused(shape: str, condition: Condition) -> None:
    with pytest.raises(InputError, match="condition: got"):
        build(SHAPES[shape])(torch.zeros(1, 1, 2 * HOP), torch.zeros(1), condition)


@pytest.mark.parametrize("sizes", [{"residual_layers": 0}, {"dilation_cycle": 0}])
def test_network_without_layers_or_cycle_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(InputError, match="1 or more"):
        WaveNet(**sizes)


@torch.no_grad()
def test_embedding_in_residual_moves_only_the_residual_path() -> None:
    torch.manual_seed(0)
    embedding = NoiseEmbedding(out_dim=10)
    plain = ResidualLayer(4, 6, 2, embedding, ConditionShape())
    carried = ResidualLayer(4, 6, 2, replace(embedding, in_residual=True), ConditionShape())
    carried.load_state_dict(plain.state_dict())
    x, features = torch.randn(2, 4, 20), torch.randn(2, 10)
    x_plain, skip_plain = plain(x, features, None, None)
    x_carried, skip_carried = carried(x, features, None, None)
    torch.testing.assert_close(skip_carried, skip_plain, rtol=0, atol=0)
    moved = plain.step_projection(features)[..., None] / math.sqrt(2)
    torch.testing.assert_close(x_carried - x_plain, moved.expand_as(x_plain), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factors", [(8, 8), (16, 16), (5, 5, 3, 2, 2), (10, 10, 3), (3,), (1,), ()])
@torch.no_grad()
def test_upsampler_makes_hop_samples_of_a_frame_symmetric_about_its_centre(factors: tuple[int, ...]) -> None:
    upsampler = FrameUpsampler(factors)
    hop = math.prod(factors)
    for stage in upsampler.stages:
        nn.init.ones_(stage.weight)
        nn.init.zeros_(stage.bias)
    impulse = torch.zeros(1, MELS, 9)
    impulse[:, MELS // 2, 4] = 1
    response = upsampler(impulse)
    assert response.shape == (1, MELS, 9 * hop)
    torch.testing.assert_close(response, response.flip(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("exponent", [4.0, -4.0, 1.0])
def test_step_embedding_is_linear_between_rows(exponent: float) -> None:
    rows = sinusoidal_embedding(torch.arange(6), 16, exponent)
    torch.testing.assert_close(step_embedding(torch.arange(6), 16, exponent), rows, rtol=0, atol=0)
    label = torch.tensor([0.25, 3.5, 4.75], dtype=torch.float64)
    expected = torch.stack(
        [0.75 * rows[0] + 0.25 * rows[1], 0.5 * (rows[3] + rows[4]), 0.25 * rows[4] + 0.75 * rows[5]]
    )
    torch.testing.assert_close(step_embedding(label, 16, exponent), expected, rtol=0, atol=1e-6)


def test_sinusoids_span_the_stated_decades() -> None:
    small = 1e-6  # where sin(label * f) is label * f
    embedding = sinusoidal_embedding(torch.tensor([small]), 12, 3.0)[0].double()
    expected = torch.logspace(0, 3, 6, dtype=torch.float64) * small
    torch.testing.assert_close(embedding[:6], expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(embedding[6:], torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@torch.no_grad()
def test_prediction_follows_the_precision_of_the_weights(dtype: torch.dtype) -> None:
    shape = SHAPES["mel and class"]
    network = build(shape)
    x, label, condition = torch.randn(1, 1, 48), torch.tensor([41.5]), condition_for(shape, 1, 48)
    assert condition.local is not None
    assert condition.vector is not None
    expected = network(x, label, condition)
    cast = Condition(local=condition.local.to(dtype), vector=condition.vector.to(dtype))
    found: Tensor = network.to(dtype)(x.to(dtype), label, cast)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05 * float(expected.abs().max()))
