"""Laws of the mel-spectrogram U-Net."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from audiodiff.errors import InputError
from audiodiff.networks.mel_unet import (
    Dialect,
    Extent,
    LinearAttention,
    MelCondition,
    MelUNet,
    time_embedding,
)
from audiodiff.types import Condition

MELS, VECTOR = 8, 3
KINDS = {
    "unconditional": MelCondition(),
    "labels": MelCondition(vector_features=VECTOR),
    "mean": MelCondition(local_features=MELS),
    "mean and speaker": MelCondition(MELS, VECTOR),
}


def build(kind: str, multipliers: tuple[int, ...] = (1, 2, 1), **details: object) -> MelUNet:
    """A small network with random weights everywhere, also where a fresh one has zeros."""
    network = MelUNet(MELS, 8, multipliers, KINDS[kind], **details)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.5, generator=generator)
    return network


def condition_for(kind: str, items: int, frames: int) -> Condition:
    generator = torch.Generator().manual_seed(1)
    features = KINDS[kind]
    return Condition(
        local=torch.randn(items, MELS, frames, generator=generator) if features.local_features else None,
        vector=torch.randn(items, VECTOR, generator=generator) if features.vector_features else None,
    )


def item_of(condition: Condition, i: int, frames: int) -> Condition:
    return Condition(
        local=None if condition.local is None else condition.local[i : i + 1, :, :frames],
        vector=None if condition.vector is None else condition.vector[i : i + 1],
    )


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_item_in_a_padded_batch_equals_the_item_alone(kind: str) -> None:
    network, lengths = build(kind), torch.tensor([30, 1, 13, 16])
    x, labels = torch.randn(4, MELS, 30) * 5, torch.tensor([0.0, 0.2, 0.7, 1.0])
    condition = condition_for(kind, 4, 30)
    together = network(x, labels, replace(condition, frames=lengths))
    for i, length in enumerate(lengths.tolist()):
        expected = network(x[i : i + 1, :, :length], labels[i : i + 1], item_of(condition, i, length))
        torch.testing.assert_close(together[i : i + 1, :, :length], expected, rtol=1e-4, atol=1e-5)
        assert not together[i, :, length:].any()


@pytest.mark.parametrize("frames", [1, 13, 16])
@torch.no_grad()
def test_counting_the_padding_changes_nothing_for_an_item_alone(frames: int) -> None:
    kind = "mean and speaker"
    network, published = build(kind), build(kind, dialect=Dialect(counts_padding=True))
    published.load_state_dict(network.state_dict())
    x, label, condition = torch.randn(1, MELS, frames), torch.tensor([0.4]), condition_for(kind, 1, frames)
    expected = network(x, label, condition)
    torch.testing.assert_close(published(x, label, condition), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_bound_network_equals_forward_at_every_call(kind: str) -> None:
    network, condition = build(kind), replace(condition_for(kind, 2, 20), frames=torch.tensor([20, 9]))
    bound = network.bind(condition)
    for frames, label in ((20, 0.3), (20, 1.0), (18, 0.0)):
        x, labels = torch.randn(2, MELS, frames), torch.tensor([label, 0.5])
        torch.testing.assert_close(bound(x, labels), network(x, labels, condition), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [1, 2])
@torch.no_grad()
def test_output_has_the_shape_of_the_input_at_any_length(kind: str, outputs: int) -> None:
    network = build(kind, outputs=outputs)
    for frames in (1, 2, 3, 4, 5, 17):
        output = network(
            torch.randn(2, MELS, frames), torch.tensor([0.0, 1.0]), condition_for(kind, 2, frames)
        )
        assert output.shape == (2, outputs * MELS, frames)
        assert output.isfinite().all()


@torch.no_grad()
def test_second_output_stands_behind_the_first() -> None:
    both, first = build("mean", outputs=2), build("mean")
    weights = both.state_dict()
    first.load_state_dict(weights | {key: weights[key][:1] for key in ("output.weight", "output.bias")})
    x, label, condition = torch.randn(1, MELS, 9), torch.tensor([0.4]), condition_for("mean", 1, 9)
    expected = first(x, label, condition)
    torch.testing.assert_close(both(x, label, condition)[:, :MELS], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("multipliers", [(1,), (2, 1), (1, 2, 4)])
@torch.no_grad()
def test_any_number_of_levels_is_a_network(multipliers: tuple[int, ...]) -> None:
    x = torch.randn(1, MELS, 7)
    output = build("mean", multipliers)(x, torch.tensor([0.5]), condition_for("mean", 1, 7))
    assert output.shape == x.shape
    assert output.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_reaches_every_parameter(kind: str, checkpointing: bool) -> None:
    network = build(kind, checkpointing=checkpointing).train()
    x = torch.randn(2, MELS, 18)
    network(x, torch.tensor([0.1, 0.5]), condition_for(kind, 2, 18)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_checkpointing_changes_memory_and_not_gradients() -> None:
    kind, x = "mean and speaker", torch.randn(2, MELS, 18)
    condition = replace(condition_for(kind, 2, 18), frames=torch.tensor([18, 7]))
    networks = [build(kind, checkpointing=checkpointing).train() for checkpointing in (False, True)]
    networks[1].load_state_dict(networks[0].state_dict())
    for network in networks:
        network(x, torch.tensor([0.1, 0.5]), condition).square().sum().backward()
    gradients = [[parameter.grad for parameter in network.parameters()] for network in networks]
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_fresh_network_predicts_zero(kind: str) -> None:
    network = MelUNet(MELS, 8, (1, 2), KINDS[kind])
    assert not network(torch.randn(2, MELS, 9), torch.tensor([0.0, 1.0]), condition_for(kind, 2, 9)).any()


@pytest.mark.parametrize("kind", ["labels", "mean", "mean and speaker"])
@torch.no_grad()
def test_label_and_condition_change_the_prediction_of_their_own_item_only(kind: str) -> None:
    network, condition = build(kind), condition_for(kind, 2, 12)
    x, labels, double = torch.randn(2, MELS, 12), torch.tensor([0.1, 0.2]), torch.tensor([1.0, 2.0])
    changed = Condition(
        local=None if condition.local is None else condition.local * double[:, None, None],
        vector=None if condition.vector is None else condition.vector * double[:, None],
    )
    before = network(x, labels, condition)
    for after in (network(x, torch.tensor([0.1, 0.9]), condition), network(x, labels, changed)):
        torch.testing.assert_close(after[0], before[0], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(after[1], before[1], atol=1e-3)


def test_every_frame_depends_on_every_other() -> None:
    network = build("unconditional")
    assert network.receptive_field() == sys.maxsize
    x = torch.randn(1, MELS, 200, requires_grad=True)
    network(x, torch.tensor([0.5]), Condition())[0, :, 0].sum().backward()
    assert x.grad is not None
    assert x.grad[0].abs().sum(0).all()


@torch.no_grad()
def test_linear_attention_is_the_sum_over_positions_that_it_stands_for() -> None:
    torch.manual_seed(0)
    layer = LinearAttention(8)
    nn.init.ones_(layer.gate)
    x = torch.randn(1, 8, 2, 5)
    query, key, value = layer.query_key_value(x)[0].flatten(1).unflatten(0, (3, 4, 32))  # [heads, d, N]
    heads = []
    for q, k, v in zip(query, key, value, strict=True):
        weights = (k - k.logsumexp(1, keepdim=True)).exp()
        heads.append(torch.stack([(weights.T @ q[:, n]) @ v.T for n in range(10)], dim=1))
    expected = x + layer.output(torch.cat(heads).view(1, 128, 2, 5))
    torch.testing.assert_close(layer(x, Extent(None, None)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dim", [4, 16, 64])
def test_time_embedding_is_sines_and_cosines_of_falling_frequencies(dim: int) -> None:
    label = torch.tensor([0.0, 0.37, 1.0], dtype=torch.float64)
    rates = [10_000 ** (-k / (dim // 2 - 1)) for k in range(dim // 2)]
    phases = torch.tensor([[1000 * float(t) * rate for rate in rates] for t in label], dtype=torch.float64)
    expected = torch.cat([phases.sin(), phases.cos()], dim=1)
    # The frequencies are float32, as in every published network.
    torch.testing.assert_close(time_embedding(label, dim, 1000.0), expected, rtol=0, atol=1e-4)
    single = time_embedding(label.float(), dim, 1000.0)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=3e-4)


@torch.no_grad()
def test_frames_of_the_mean_beyond_x_have_no_influence() -> None:
    network, x, label = build("mean"), torch.randn(1, MELS, 10), torch.tensor([0.3])
    condition = condition_for("mean", 1, 17)
    expected = network(x, label, item_of(condition, 0, 10))
    torch.testing.assert_close(network(x, label, condition), expected, rtol=0, atol=0)


def test_mean_shorter_than_x_is_refused() -> None:
    with pytest.raises(InputError, match="got 9 frames for 10 frames of x"):
        build("mean")(torch.randn(1, MELS, 10), torch.tensor([0.3]), condition_for("mean", 1, 9))


@pytest.mark.parametrize(
    ("kind", "condition"),
    [
        ("mean", Condition()),
        ("mean", Condition(local=torch.zeros(1, MELS + 1, 4))),
        ("labels", Condition()),
        ("labels", Condition(vector=torch.zeros(1, VECTOR + 1))),
        ("unconditional", Condition(local=torch.zeros(1, MELS, 4))),
        ("unconditional", Condition(vector=torch.zeros(1, VECTOR))),
    ],
)
def test_condition_that_the_network_was_not_built_for_is_refused(kind: str, condition: Condition) -> None:
    with pytest.raises(InputError, match="condition: got"):
        build(kind)(torch.zeros(1, MELS, 4), torch.zeros(1), condition)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_mels": 10, "multipliers": (1, 2, 4)}, r"n_mels a multiple of 2\^\(levels - 1\)"),
        ({"n_mels": 8, "multipliers": ()}, "one positive multiplier a level"),
        ({"n_mels": 8, "multipliers": (1, 0)}, "one positive multiplier a level"),
        ({"n_mels": 8, "width": 12}, "width 12, expected a multiple of 8"),
        ({"n_mels": 8, "condition": MelCondition(local_features=5)}, "5 features, expected 8"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(sizes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MelUNet(**sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@torch.no_grad()
def test_prediction_follows_the_precision_of_the_weights(dtype: torch.dtype) -> None:
    kind = "mean and speaker"
    network, x, label = build(kind), torch.randn(2, MELS, 12), torch.tensor([0.25, 0.5])
    condition = replace(condition_for(kind, 2, 12), frames=torch.tensor([12, 7]))
    assert condition.local is not None
    assert condition.vector is not None
    expected = network(x, label, condition)
    cast = replace(condition, local=condition.local.to(dtype), vector=condition.vector.to(dtype))
    found: Tensor = network.to(dtype)(x.to(dtype), label, cast)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05 * float(expected.abs().max()))


def test_base_has_the_parameters_of_the_published_decoder() -> None:
    published = MelUNet(80, condition=MelCondition(local_features=80))
    assert math.isclose(sum(p.numel() for p in published.parameters()), 7.63e6, rel_tol=1e-3)
