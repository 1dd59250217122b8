"""Laws of the frame-level network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from audiodiff.errors import InputError
from audiodiff.networks.convnext import ConvNeXt
from audiodiff.types import Condition

FEATURES, MELS, VECTOR = 6, 5, 3
KINDS = {
    "unconditional": (None, None),
    "labels": (None, VECTOR),
    "mel": (MELS, None),
    "mel and labels": (MELS, VECTOR),
}


def build(kind: str, dilations: tuple[int, ...] = (1, 3, 2), kernel_size: int = 5) -> ConvNeXt:
    """A small network with random weights everywhere, also where a fresh one has zeros."""
    local, vector = KINDS[kind]
    network = ConvNeXt(
        FEATURES, 8, dilations, kernel_size=kernel_size, embedding_width=12,
        local_features=local, vector_features=vector,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return network


def condition_for(kind: str, items: int, frames: int) -> Condition:
    local, vector = KINDS[kind]
    generator = torch.Generator().manual_seed(1)
    return Condition(
        local=None if local is None else torch.randn(items, local, frames, generator=generator),
        vector=None if vector is None else torch.randn(items, vector, generator=generator),
    )


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_item_in_a_padded_batch_equals_the_item_alone(kind: str) -> None:
    network, lengths = build(kind), torch.tensor([30, 1, 13])
    x, labels = torch.randn(3, FEATURES, 30) * 5, torch.tensor([-2.0, 0.3, 2.5])
    condition = condition_for(kind, 3, 29)
    if condition.local is not None:
        # As the conditioner hands them out: beyond an item's own frames its last one is repeated.
        for item, own in zip(condition.local, (29, 1, 11), strict=True):
            item[:, own:] = item[:, own - 1 : own]
    together = network(x, labels, replace(condition, frames=lengths))
    for i, (length, own) in enumerate(zip(lengths.tolist(), (29, 1, 11), strict=True)):
        alone = Condition(
            local=None if condition.local is None else condition.local[i : i + 1, :, :own],
            vector=None if condition.vector is None else condition.vector[i : i + 1],
        )
        expected = network(x[i : i + 1, :, :length], labels[i : i + 1], alone)
        torch.testing.assert_close(together[i : i + 1, :, :length], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_bound_network_equals_forward_at_every_call(kind: str) -> None:
    network, condition = build(kind), replace(condition_for(kind, 2, 20), frames=torch.tensor([20, 9]))
    bound = network.bind(condition)
    for frames, label in ((20, 0.3), (20, -1.0), (18, 2.0)):
        x, labels = torch.randn(2, FEATURES, frames), torch.tensor([label, 0.0])
        torch.testing.assert_close(bound(x, labels), network(x, labels, condition), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [1, 2, 3, 17])
@torch.no_grad()
def test_output_has_the_shape_of_the_input_at_any_length(kind: str, frames: int) -> None:
    output = build(kind)(
        torch.randn(2, FEATURES, frames), torch.tensor([0.0, 1.0]), condition_for(kind, 2, frames)
    )
    assert output.shape == (2, FEATURES, frames)
    assert output.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter(kind: str) -> None:
    network = build(kind)
    x = torch.randn(2, FEATURES, 20)
    network(x, torch.tensor([-1.0, 0.5]), condition_for(kind, 2, 20)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("dilations", "kernel_size"), [((1,), 3), ((1, 2, 4), 7), ((2, 1, 5), 5)])
def test_receptive_field_is_where_the_gradient_is(dilations: tuple[int, ...], kernel_size: int) -> None:
    network = build("unconditional", dilations, kernel_size).double()
    field = network.receptive_field()
    x = torch.randn(1, FEATURES, 2 * field + 1, dtype=torch.float64, requires_grad=True)
    network(x, torch.zeros(1), Condition())[0, :, field].sum().backward()
    assert x.grad is not None
    touched = x.grad[0].abs().sum(0).nonzero().flatten()
    assert int(touched[-1] - touched[0]) + 1 == field
    assert int(touched[-1] + touched[0]) == 2 * field


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_fresh_network_predicts_its_input(kind: str) -> None:
    local, vector = KINDS[kind]
    network = ConvNeXt(FEATURES, 8, (1, 2), local_features=local, vector_features=vector)
    x = torch.randn(2, FEATURES, 20)
    assert torch.equal(network(x, torch.tensor([-2.0, 2.0]), condition_for(kind, 2, 20)), x)


@pytest.mark.parametrize("kind", ["labels", "mel and labels"])
@torch.no_grad()
def test_noise_label_and_vector_change_the_prediction_of_their_own_item_only(kind: str) -> None:
    network, condition = build(kind), condition_for(kind, 2, 20)
    x, labels = torch.randn(2, FEATURES, 20), torch.tensor([0.1, 0.2])
    assert condition.vector is not None
    before = network(x, labels, condition)
    for after in (
        network(x, torch.tensor([0.1, 0.9]), condition),
        network(x, labels, replace(condition, vector=condition.vector * torch.tensor([[1.0], [2.0]]))),
    ):
        torch.testing.assert_close(after[0], before[0], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(after[1], before[1], atol=1e-2)


@pytest.mark.parametrize(("given", "frames"), [(20, 24), (20, 16), (20, 40), (1, 10)])
@torch.no_grad()
def test_mel_of_other_audio_or_another_hop_is_refused(given: int, frames: int) -> None:
    with pytest.raises(InputError, match=f"condition has {given} frames for {frames} frames of x"):
        build("mel")(torch.randn(1, FEATURES, frames), torch.zeros(1), condition_for("mel", 1, given))


@pytest.mark.parametrize(("given", "frames"), [(20, 23), (20, 20), (20, 17), (1, 2)])
@torch.no_grad()
def test_mel_may_differ_from_x_by_the_rounding_of_a_hop_and_the_overlap(given: int, frames: int) -> None:
    output = build("mel")(torch.randn(1, FEATURES, frames), torch.zeros(1), condition_for("mel", 1, given))
    assert output.shape[-1] == frames


@pytest.mark.parametrize(("kind", "missing"), [("mel", "local"), ("labels", "vector")])
def test_condition_that_the_network_needs_and_does_not_get_is_refused(kind: str, missing: str) -> None:
    with pytest.raises(InputError, match=f"needs condition.{missing}"):
        build(kind)(torch.randn(1, FEATURES, 4), torch.zeros(1), Condition())


def test_even_kernel_is_refused() -> None:
    with pytest.raises(InputError, match="kernel_size: got 4, expected an odd number"):
        ConvNeXt(FEATURES, 8, (1,), kernel_size=4)
