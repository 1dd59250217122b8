"""Laws of the waveform U-Net, in both of its designs."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from audiodiff.errors import InputError
from audiodiff.networks.unet1d import ConditionShape, UNet1d, interpolate
from audiodiff.networks.unet1d_layers import (
    CubicDown,
    CubicUp,
    Extent,
    MaskedGroupNorm,
    Modulation,
    cubic_kernel,
    reflect,
)
from audiodiff.networks.unet1d_levels import ConcatenatedSkips, Design, GatedSkips, Levels
from audiodiff.types import Condition

CHANNELS, MELS, VECTOR, HOP = 2, 5, 3, 8
LEVELS = Levels(widths=(8, 16, 24), factors=(1, 3, 2), blocks=(1, 2, 2), attention=(False, True, True))
DESIGNS: dict[str, Design] = {
    "concatenated": ConcatenatedSkips(kernel_size=3, head_width=8),
    "gated": GatedSkips(groups=4, heads=2, head_width=8, label_features=8, embedding_width=12),
}
KINDS = {
    "unconditional": ConditionShape(),
    "labels": ConditionShape(vector_features=VECTOR),
    "mel": ConditionShape(MELS, HOP),
    "mel and labels": ConditionShape(MELS, HOP, VECTOR),
}
EVERY = [(design, kind) for design in DESIGNS for kind in KINDS]


def build(design: str, kind: str = "unconditional", levels: Levels = LEVELS, outputs: int = 1) -> UNet1d:
    """A small network with random weights everywhere."""
    network = UNet1d(CHANNELS, levels, DESIGNS[design], KINDS[kind], outputs=outputs)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return network


def condition_for(kind: str, items: int, samples: int) -> Condition:
    shape = KINDS[kind]
    generator = torch.Generator().manual_seed(1)
    frames = -(-samples // HOP)
    return Condition(
        local=None if shape.local_features is None else torch.randn(items, MELS, frames, generator=generator),
        vector=None if shape.vector_features is None else torch.randn(items, VECTOR, generator=generator),
    )


@pytest.mark.parametrize(("design", "kind"), EVERY)
@torch.no_grad()
def test_item_in_a_padded_batch_equals_the_item_alone(design: str, kind: str) -> None:
    network, lengths = build(design, kind), torch.tensor([60, 1, 31])
    x, labels = torch.randn(3, CHANNELS, 60) * 3, torch.tensor([0.1, 0.5, 1.0])
    condition = condition_for(kind, 3, 60)
    together = network(x, labels, replace(condition, frames=lengths))
    for i, length in enumerate(lengths.tolist()):
        alone = Condition(
            local=None if condition.local is None else condition.local[i : i + 1, :, : -(-length // HOP)],
            vector=None if condition.vector is None else condition.vector[i : i + 1],
        )
        expected = network(x[i : i + 1, :, :length], labels[i : i + 1], alone)
        torch.testing.assert_close(together[i : i + 1, :, :length], expected, rtol=1e-4, atol=1e-4)
        assert not together[i, :, length:].any()


@pytest.mark.parametrize(("design", "kind"), EVERY)
@torch.no_grad()
def test_valid_positions_that_are_all_positions_change_nothing(design: str, kind: str) -> None:
    network, condition = build(design, kind), condition_for(kind, 2, 48)
    x, labels = torch.randn(2, CHANNELS, 48), torch.tensor([0.1, 0.9])
    masked = network(x, labels, replace(condition, frames=torch.tensor([48, 48])))
    torch.testing.assert_close(masked, network(x, labels, condition), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("design", "kind"), EVERY)
@torch.no_grad()
def test_bound_network_equals_forward_at_every_call(design: str, kind: str) -> None:
    network = build(design, kind)
    condition = replace(condition_for(kind, 2, 48), frames=torch.tensor([44, 9]))
    bound = network.bind(condition)
    for samples, label in ((48, 0.3), (48, 0.9), (44, 0.5)):
        x, labels = torch.randn(2, CHANNELS, samples), torch.tensor([label, 0.1])
        torch.testing.assert_close(bound(x, labels), network(x, labels, condition), rtol=0, atol=0)


@pytest.mark.parametrize(("design", "kind"), EVERY)
@pytest.mark.parametrize("samples", [1, 2, 7, 36, 37])
@torch.no_grad()
def test_output_has_the_shape_of_the_input_at_any_length(design: str, kind: str, samples: int) -> None:
    network, x = build(design, kind, outputs=2), torch.randn(2, CHANNELS, samples)
    output = network(x, torch.tensor([0.0, 1.0]), condition_for(kind, 2, samples))
    assert output.shape == (2, 2 * CHANNELS, samples)
    assert output.isfinite().all()


@pytest.mark.parametrize(("design", "kind"), EVERY)
def test_gradient_reaches_every_parameter(design: str, kind: str) -> None:
    network = build(design, kind)
    x = torch.randn(2, CHANNELS, 40)
    network(x, torch.tensor([0.2, 0.7]), condition_for(kind, 2, 40)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("design", DESIGNS)
def test_checkpointing_changes_no_gradient(design: str) -> None:
    x, labels = torch.randn(2, CHANNELS, 36), torch.tensor([0.2, 0.7])
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = UNet1d(CHANNELS, LEVELS, DESIGNS[design], checkpointing=checkpointing).train()
        network(x, labels, Condition()).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-5, atol=1e-7)


class WithoutStatistics(nn.Module):
    """In the place of a norm: multiplies by the gains, so that every position stays by itself."""

    def __init__(self, norm: MaskedGroupNorm) -> None:
        super().__init__()
        self.gains = norm.weight

    def forward(self, x: Tensor, extent: Extent | None) -> Tensor:
        return x * self.gains[:, None]


def without_statistics(network: UNet1d) -> UNet1d:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, MaskedGroupNorm):
                setattr(module, name, WithoutStatistics(child))
    return network


FIELD_LEVELS = [
    *((design, Levels((8,), (1,), (1,), (False,))) for design in DESIGNS),
    *((design, Levels((8, 12), (1, 2), (1, 2), (False, False))) for design in DESIGNS),
    *((design, Levels((8, 12, 12), (1, 3, 4), (2, 1, 1), (False,) * 3)) for design in DESIGNS),
    ("gated", Levels((8, 12), (3, 2), (1, 1), (False, False))),
]


@pytest.mark.parametrize(("design", "levels"), FIELD_LEVELS)
def test_receptive_field_is_the_widest_reach_of_the_gradient(design: str, levels: Levels) -> None:
    network = without_statistics(build(design, levels=levels)).double()
    field, stride = network.receptive_field(), network.strides[-1]
    length = (2 * field // stride + 4) * stride
    x = torch.randn(1, CHANNELS, length, dtype=torch.float64, requires_grad=True)
    output = network(x, torch.full((1,), 0.3, dtype=torch.float64), Condition())
    widest = 0
    for position in range(length // 2 // stride * stride, (length // 2 // stride + 1) * stride):
        (gradient,) = torch.autograd.grad(output[0, :, position].sum(), x, retain_graph=True)
        touched = gradient[0].abs().sum(0).nonzero().flatten()
        widest = max(widest, int(touched[-1] - touched[0]) + 1)
    assert widest == field


@pytest.mark.parametrize("design", DESIGNS)
def test_with_attention_the_receptive_field_is_everything(design: str) -> None:
    assert build(design).receptive_field() == sys.maxsize


@pytest.mark.parametrize("design", DESIGNS)
@torch.no_grad()
def test_noise_label_vector_and_mel_change_the_prediction_of_their_own_item_only(design: str) -> None:
    network, condition = build(design, "mel and labels"), condition_for("mel and labels", 2, 40)
    x, labels = torch.randn(2, CHANNELS, 40), torch.tensor([0.1, 0.2])
    assert condition.vector is not None
    assert condition.local is not None
    before, second = network(x, labels, condition), torch.tensor([[1.0], [2.0]])
    for after in (
        network(x, torch.tensor([0.1, 0.9]), condition),
        network(x, labels, replace(condition, vector=condition.vector * second)),
        network(x, labels, replace(condition, local=condition.local * second[..., None])),
    ):
        torch.testing.assert_close(after[0], before[0], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(after[1], before[1], atol=1e-2)


@pytest.mark.parametrize("design", DESIGNS)
@torch.no_grad()
def test_bfloat16_autocast_is_near_full_precision(design: str) -> None:
    network = UNet1d(CHANNELS, LEVELS, DESIGNS[design])
    x, labels = torch.randn(2, CHANNELS, 40), torch.tensor([0.1, 0.8])
    condition = Condition(frames=torch.tensor([40, 23]))
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x, labels, condition)
    torch.testing.assert_close(rough.float(), network(x, labels, condition), rtol=0.1, atol=0.1)


def test_masked_group_norm_is_the_group_norm_of_each_item_alone() -> None:
    norm, lengths = MaskedGroupNorm(2, 6).double(), torch.tensor([9, 4])
    nn.init.normal_(norm.weight)
    x = torch.randn(2, 6, 9, dtype=torch.float64) * 3 + 1
    found = norm(x, Extent.of(lengths, 9)).double()
    for item, length in enumerate(lengths.tolist()):
        expected = functional.group_norm(x[item : item + 1, :, :length], 2, norm.weight, norm.bias)
        torch.testing.assert_close(found[item : item + 1, :, :length], expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_modulation_leaves_every_position_with_the_mean_and_deviation_of_its_label() -> None:
    modulation = Modulation(16, 4)
    found = modulation(
        torch.randn(2, 16, 5) * 7 + 3, torch.zeros(2, 4)
    )  # SiLU(0) = 0: the bias alone is left
    scale, shift = modulation.project.bias.chunk(2)
    unit = (found - shift[:, None]) / (1 + scale[:, None])
    torch.testing.assert_close(unit.mean(1), torch.zeros(2, 5), rtol=0, atol=1e-5)
    torch.testing.assert_close(unit.var(1, unbiased=False), torch.ones(2, 5), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_cubic_resampling_keeps_constants_and_lines(factor: int) -> None:
    torch.testing.assert_close(cubic_kernel(factor).sum(), torch.tensor(1.0))
    fine = torch.arange(20.0 * factor)[None, None]
    coarse = (torch.arange(20.0) * factor + (factor - 1) / 2)[None, None]  # centres of the coarse positions
    inner = slice(3, -3)
    down, up = CubicDown(factor), CubicUp(factor)
    torch.testing.assert_close(down(fine, None)[..., inner], coarse[..., inner], rtol=1e-5, atol=1e-4)
    inner = slice(3 * factor, -3 * factor)
    torch.testing.assert_close(up(coarse, None, None)[..., inner], fine[..., inner], rtol=1e-5, atol=1e-4)
    ones = torch.ones(2, 3, 4 * factor)
    torch.testing.assert_close(down(ones, None), torch.ones(2, 3, 4))
    torch.testing.assert_close(up(down(ones, None), None, None), ones)


def test_reflection_mirrors_at_each_items_own_end() -> None:
    x = torch.arange(6.0).expand(2, 1, 6)
    found = reflect(x, 3, Extent.of(torch.tensor([6, 4]), 6))
    torch.testing.assert_close(found[:1], functional.pad(x[:1], (3, 3), mode="reflect"))
    expected = functional.pad(x[:1, :, :4], (3, 3), mode="reflect")
    torch.testing.assert_close(found[1:, :, :10], expected)
    assert torch.equal(reflect(x[:1, :, :2], 3, None)[0, 0], torch.tensor([1.0, 0, 1, 0, 1, 0, 1, 0]))
    assert torch.equal(reflect(x[:1, :, :1], 3, None)[0, 0], torch.zeros(7))


@pytest.mark.parametrize("stride", [1, 2, 8, 16])
def test_frames_are_stretched_as_by_linear_interpolation(stride: int) -> None:
    local, samples = torch.randn(2, 3, 10), 10 * HOP
    found = interpolate(local, torch.tensor([samples]), samples // stride, stride, HOP)
    expected = functional.interpolate(local, samples // stride, mode="linear", align_corners=False)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_published_designs_have_their_published_sizes() -> None:
    with torch.device("meta"):
        archinet = UNet1d(
            2,
            Levels(
                widths=(8, 32, 64, 128, 256, 512, 512, 1024, 1024),
                factors=(1, 4, 4, 4, 2, 2, 2, 2, 2),
                blocks=(1, 2, 2, 2, 2, 2, 2, 4, 4),
                attention=(False,) * 5 + (True,) * 4,
            ),
            GatedSkips(),
        )
    # 217,437,436 in a-unet 0.0.16, whose two layers of the label's embedding share their weights.
    count = sum(parameter.numel() for parameter in archinet.parameters())
    assert count == pytest.approx(217_437_436, rel=0.006)


@pytest.mark.parametrize(
    ("kind", "condition", "message"),
    [
        ("mel", Condition(), "local condition: got no features, the network expects 5"),
        ("labels", Condition(), "vector condition: got no features, the network expects 3"),
        (
            "unconditional",
            Condition(vector=torch.zeros(1, 3)),
            "vector condition: got 3 features, .* expects none",
        ),
        (
            "mel",
            Condition(local=torch.zeros(1, MELS, 3)),
            "got 3 frames of 8 samples for 40 samples, expected 5",
        ),
    ],
)
def test_condition_that_does_not_fit_is_refused(kind: str, condition: Condition, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build("concatenated", kind)(torch.randn(1, CHANNELS, 40), torch.zeros(1), condition)


@pytest.mark.parametrize(
    ("levels", "design", "message"),
    [
        (
            Levels((8, 8), (1,), (1, 1), (False, False)),
            DESIGNS["gated"],
            "levels: got .*'factors': 1.*same number",
        ),
        (Levels((8,), (0,), (1,), (False,)), DESIGNS["gated"], r"factors: got \[0\], expected 1 or more"),
        (
            Levels((8,), (2,), (1,), (False,)),
            DESIGNS["concatenated"],
            "factors: got 2 for the first level, expected 1",
        ),
        (Levels((6,), (1,), (1,), (False,)), DESIGNS["gated"], "groups: got 4 for a level of 6 channels"),
        (
            Levels((8, 17), (1, 2), (1, 1), (False, True)),
            DESIGNS["concatenated"],
            "widths: got 17 .* multiple of its 2",
        ),
        (Levels((8,), (1,), (1,), (False,)), GatedSkips(label_features=7), "label_features: got 7"),
        (Levels((8,), (1,), (1,), (False,)), ConcatenatedSkips(kernel_size=4), "kernel_size: got 4"),
    ],
)
def test_levels_that_do_not_fit_the_design_are_refused(levels: Levels, design: Design, message: str) -> None:
    with pytest.raises(InputError, match=message):
        UNet1d(1, levels, design)
