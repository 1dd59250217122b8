"""Laws of WaveGrad's network, at both ways of resampling."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from audiodiff.errors import InputError
from audiodiff.networks.wavegrad import (
    Blocks,
    FiLM,
    UpBlock,
    WaveGrad,
    _downsample,
    _upsample,
    noise_level_encoding,
)
from audiodiff.types import Condition

MELS, VECTOR = 5, 3
NEAREST = Blocks(
    factors=(3, 1, 2, 4),
    frame_channels=6,
    up_channels=(8, 6, 6, 4),
    up_dilations=((1, 2, 1, 2), (1, 2, 1, 2), (1, 2, 4, 8), (1, 2, 4, 8)),
    sample_channels=4,
    down_channels=(6, 8, 6),
)
LINES = replace(NEAREST, interpolate=True)
HOP = math.prod(NEAREST.factors)
TOLD: dict[str, dict[str, int]] = {
    "unconditional": {},
    "class": {"vector_features": VECTOR},
    "mel": {"local_features": MELS},
    "mel and class": {"local_features": MELS, "vector_features": VECTOR},
}
told_all = pytest.mark.parametrize("told", TOLD.values(), ids=TOLD.keys())
blocks_all = pytest.mark.parametrize("blocks", [NEAREST, LINES], ids=["nearest", "lines"])


def build(
    blocks: Blocks, told: dict[str, int], outputs: int = 1, channels: int = 1, checkpointing: bool = False
) -> WaveGrad:
    """A small network with random weights everywhere, also where a fresh one has zeros."""
    torch.manual_seed(0)
    network = WaveGrad(blocks, channels, outputs, checkpointing=checkpointing, **told)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return network


def condition_for(told: dict[str, int], items: int, length: int) -> Condition:
    frames = -(-length // HOP)
    return Condition(
        local=torch.randn(items, MELS, frames) if "local_features" in told else None,
        vector=torch.randn(items, VECTOR) if "vector_features" in told else None,
    )


@told_all
@blocks_all
@torch.no_grad()
def test_item_in_a_padded_batch_equals_the_item_alone(blocks: Blocks, told: dict[str, int]) -> None:
    network = build(blocks, told)
    lengths = torch.tensor([5 * HOP + 3, 9, 4 * HOP])
    x = torch.randn(3, 1, 6 * HOP + 5) * 10  # what lies in the padding is no signal
    levels = torch.tensor([0.99, 0.2, 0.6])
    condition = replace(condition_for(told, 3, x.shape[-1]), frames=lengths)
    together = network(x, levels, condition)
    for i, length in enumerate(lengths.tolist()):
        frames = -(-length // HOP)
        alone = Condition(
            local=None if condition.local is None else condition.local[i : i + 1, :, :frames],
            vector=None if condition.vector is None else condition.vector[i : i + 1],
        )
        expected = network(x[i : i + 1, :, :length], levels[i : i + 1], alone)
        tolerance = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(together[i : i + 1, :, :length], expected, rtol=1e-5, atol=tolerance)
        assert not together[i, :, length:].any()


@told_all
@blocks_all
@torch.no_grad()
def test_bound_network_equals_forward_at_every_call(blocks: Blocks, told: dict[str, int]) -> None:
    network = build(blocks, told)
    condition = replace(condition_for(told, 2, 3 * HOP), frames=torch.tensor([3 * HOP, 50]))
    bound = network.bind(condition)
    for length, level in ((3 * HOP, 0.9), (3 * HOP, 0.25), (60, 1.0), (3 * HOP, 0.9)):
        x, levels = torch.randn(2, 1, length), torch.tensor([level, 0.7])
        torch.testing.assert_close(bound(x, levels), network(x, levels, condition), rtol=0, atol=0)


@told_all
@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@torch.no_grad()
def test_outputs_have_the_shape_of_the_input_at_any_length(
    told: dict[str, int], channels: int, outputs: int
) -> None:
    network = build(LINES, told, outputs, channels)
    for length in (1, 2, HOP - 1, HOP, HOP + 1, 3 * HOP + 7):
        x = torch.randn(2, channels, length)
        output = network(x, torch.tensor([0.1, 0.9]), condition_for(told, 2, length))
        assert output.shape == (2, channels * outputs, length)
        assert output.isfinite().all()


@told_all
@blocks_all
def test_gradient_reaches_every_parameter(blocks: Blocks, told: dict[str, int]) -> None:
    network = build(blocks, told)
    x = torch.randn(2, 1, 70)
    network(x, torch.tensor([0.5, 0.9]), condition_for(told, 2, 70)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@told_all
@torch.no_grad()
def test_every_condition_and_the_noise_level_change_the_output(told: dict[str, int]) -> None:
    network = build(NEAREST, told)
    x, level, condition = torch.randn(1, 1, 3 * HOP), torch.tensor([0.4]), condition_for(told, 1, 3 * HOP)
    output = network(x, level, condition)
    assert not torch.equal(network(x, level + 0.01, condition), output)
    assert not torch.equal(network(x + 1, level, condition), output)
    for name in ("local", "vector"):
        given = getattr(condition, name)
        if given is not None:
            assert not torch.equal(network(x, level, replace(condition, **{name: given + 1})), output), name


@told_all
@torch.no_grad()
def test_fresh_network_predicts_zero(told: dict[str, int]) -> None:
    network = WaveGrad(NEAREST, **told)
    assert not network(torch.randn(1, 1, 40), torch.ones(1), condition_for(told, 1, 40)).any()


def test_checkpointing_changes_no_gradient() -> None:
    told = TOLD["mel and class"]
    x, levels, condition = torch.randn(2, 1, 70), torch.tensor([0.5, 0.9]), condition_for(told, 2, 70)
    condition = replace(condition, frames=torch.tensor([70, 31]))
    gradients = []
    for checkpointing in (False, True):
        network = build(LINES, told, checkpointing=checkpointing)
        network(x, levels, condition).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


@pytest.mark.parametrize("told", [TOLD["unconditional"], TOLD["mel"]], ids=["unconditional", "mel"])
@blocks_all
def test_receptive_field_is_where_the_gradient_is(blocks: Blocks, told: dict[str, int]) -> None:
    network = build(blocks, told).double()
    field = network.receptive_field()
    start = -(-field // HOP) * HOP
    x = torch.randn(1, 1, 2 * start + HOP, dtype=torch.float64, requires_grad=True)
    condition = condition_for(told, 1, x.shape[-1])
    condition = Condition(local=None if condition.local is None else condition.local.double())
    output = network(x, torch.full((1,), 0.3, dtype=torch.float64), condition)
    spans = []
    for sample in range(start, start + HOP):
        (gradient,) = torch.autograd.grad(output[0, 0, sample], x, retain_graph=True)
        touched = gradient[0, 0].nonzero().flatten()
        assert network._reach((sample, sample)) == (int(touched[0]), int(touched[-1]))
        spans.append(int(touched[-1] - touched[0]) + 1)
    assert max(spans) == field


@torch.no_grad()
def test_missing_last_frame_is_the_last_one_repeated() -> None:
    network = build(LINES, TOLD["mel"])
    x, level = torch.randn(1, 1, 3 * HOP + 5), torch.ones(1)
    local = torch.randn(1, MELS, 3)
    repeated = torch.cat([local, local[..., -1:]], dim=-1)
    expected = network(x, level, Condition(local=repeated))
    torch.testing.assert_close(network(x, level, Condition(local=local)), expected, rtol=0, atol=0)


@torch.no_grad()
def test_frames_beyond_the_audio_have_no_influence() -> None:
    network = build(NEAREST, TOLD["mel"])
    x, level = torch.randn(1, 1, 3 * HOP - 1), torch.ones(1)
    local = torch.randn(1, MELS, 7)
    expected = network(x, level, Condition(local=local[..., :3]))
    torch.testing.assert_close(network(x, level, Condition(local=local)), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("frames", "length"), [(3, 4 * HOP), (1, 5 * HOP), (0, HOP - 1)])
def test_audio_a_hop_or_more_beyond_the_frames_is_refused(frames: int, length: int) -> None:
    with pytest.raises(InputError, match=f"{frames} frames of {HOP} samples for {length} samples"):
        build(NEAREST, TOLD["mel"])(
            torch.randn(1, 1, length), torch.ones(1), Condition(local=torch.randn(1, MELS, frames))
        )


@pytest.mark.parametrize(
    ("told", "condition"),
    [
        ("mel", Condition()),
        ("mel", Condition(local=torch.zeros(1, MELS + 1, 2))),
        ("class", Condition()),
        ("class", Condition(vector=torch.zeros(1, VECTOR + 1))),
        ("unconditional", Condition(local=torch.zeros(1, MELS, 2))),
        ("unconditional", Condition(vector=torch.zeros(1, VECTOR))),
    ],
)
def test_condition_that_the_network_was_not_built_for_is_refused(told: str, condition: Condition) -> None:
    with pytest.raises(InputError, match="condition: got"):
        build(NEAREST, TOLD[told])(torch.zeros(1, 1, 2 * HOP), torch.ones(1), condition)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"factors": (3, 2, 4)}, "factors"),
        ({"factors": (3, 0, 2, 4)}, "factors"),
        ({"factors": (), "up_channels": (), "up_dilations": (), "down_channels": ()}, "factors"),
        ({"down_channels": (6, 8)}, "2 down_channels"),
        ({"down_channels": (6, 7, 8)}, "even"),
        ({"sample_channels": 3}, "even"),
        ({"up_dilations": ((1, 2),) * 4}, "four"),
    ],
)
def test_blocks_that_do_not_fit_together_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(NEAREST, **wrong)


def test_base_has_the_parameters_of_the_published_model() -> None:
    network = WaveGrad(local_features=80)  # ivanvovk's README: 15.810.401
    assert sum(parameter.numel() for parameter in network.parameters()) == 15_810_401
    assert network.hop_length == 300


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resampling_is_torch_interpolation(factor: int, mode: str) -> None:
    x = torch.randn(2, 3, 12 * factor, dtype=torch.float64)
    size = x.shape[-1]
    expected = functional.interpolate(x, size=size * factor, mode=mode)
    torch.testing.assert_close(_upsample(x, factor, None, mode == "linear"), expected, rtol=1e-12, atol=1e-12)
    expected = functional.interpolate(x, size=size // factor, mode=mode)
    torch.testing.assert_close(_downsample(x, factor, mode == "linear"), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("interpolate", [False, True])
@torch.no_grad()
def test_up_block_is_the_equation_of_the_paper(interpolate: bool) -> None:
    torch.manual_seed(0)
    block = UpBlock(3, 4, 2, (1, 2, 4, 8), interpolate).double()
    x = torch.randn(1, 3, 9, dtype=torch.float64)
    shift, scale = torch.randn(2, 1, 4, 18, dtype=torch.float64)

    def up(x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2, mode="linear" if interpolate else "nearest")

    def act(x: Tensor) -> Tensor:
        return functional.leaky_relu(x, 0.2)

    first, second, third, fourth = block.convs
    middle = second(act(shift + scale * first(up(act(x))))) + block.shortcut(up(x))
    expected = middle + fourth(act(shift + scale * third(act(shift + scale * middle))))
    torch.testing.assert_close(block(x, (shift, scale), None, None), expected, rtol=1e-12, atol=1e-12)


def test_noise_encoding_is_the_formula() -> None:
    levels, dim, scale = torch.tensor([0.001, 0.5, 0.99999]), 12, 5000.0
    exact = noise_level_encoding(levels.double(), dim, scale)
    for k in range(dim // 2):
        phase = scale * levels.double() * 10 ** (-4 * k / (dim // 2))
        torch.testing.assert_close(exact[:, k], phase.sin(), rtol=0, atol=1e-12)
        torch.testing.assert_close(exact[:, k + dim // 2], phase.cos(), rtol=0, atol=1e-12)
    rounded = noise_level_encoding(levels, dim, scale)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.double(), exact, rtol=0, atol=scale * 2**-23)


@torch.no_grad()
def test_vector_enters_film_beside_the_noise_encoding() -> None:
    torch.manual_seed(0)
    film = FiLM(4, 6, 5000.0, VECTOR).double()
    x, vector = torch.randn(2, 4, 7, dtype=torch.float64), torch.randn(2, VECTOR, dtype=torch.float64)
    level = torch.tensor([0.2, 0.9], dtype=torch.float64)
    hidden = functional.leaky_relu(film.input(x), 0.2) + noise_level_encoding(level, 4, 5000.0)[..., None]
    assert film.vector is not None
    expected = film.output(hidden + film.vector(vector)[..., None])
    shift, scale = film(x, level, film.project(vector), None)
    torch.testing.assert_close(torch.cat([shift, scale], dim=1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@blocks_all
@torch.no_grad()
def test_prediction_follows_the_precision_of_the_weights(blocks: Blocks, dtype: torch.dtype) -> None:
    told = TOLD["mel and class"]
    network = build(blocks, told)
    x, level, condition = torch.randn(1, 1, 2 * HOP), torch.tensor([0.5]), condition_for(told, 1, 2 * HOP)
    assert condition.local is not None
    assert condition.vector is not None
    expected = network(x, level, condition)
    cast = Condition(local=condition.local.to(dtype), vector=condition.vector.to(dtype))
    found: Tensor = network.to(dtype)(x.to(dtype), level, cast)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05 * float(expected.abs().max()))
