"""Laws of networks on a signal in pieces: what they see, and causal ones that go on where they stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from audiodiff.errors import InputError
from audiodiff.networks.convnext import ConvNeXt
from audiodiff.networks.dilated import FrequencyAware, LookingBack, Reflected, ZeroPadded
from audiodiff.networks.streaming import Memory
from audiodiff.networks.wavegrad import Blocks, WaveGrad
from audiodiff.networks.wavenet import ConditionShape, NoiseEmbedding, WaveNet
from audiodiff.synthesis.streaming import margins_of
from audiodiff.types import Condition
from tests.contracts.test_recipes import BASE, HOP, assert_trains_and_makes_sound, composed

MELS, VECTOR, EMBEDDING = 5, 3, NoiseEmbedding(dim=8, hidden_dim=8, out_dim=8)


def wavenet(kind: Callable[..., nn.Module], factors: tuple[int, ...], shared: bool = True) -> WaveNet:
    shape = ConditionShape(MELS, factors, shared, VECTOR)
    return WaveNet(3, 4, 4, 2, 2, EMBEDDING, shape, convolution=kind())  # type: ignore[arg-type]


def convnext(causal: bool) -> ConvNeXt:
    return ConvNeXt(
        2, 8, (1, 3, 2), kernel_size=5, embedding_width=8, local_features=MELS, vector_features=VECTOR, causal=causal
    )  # fmt: skip


def wavegrad(interpolate: bool) -> WaveGrad:
    blocks = Blocks((3, 2), 6, (6, 4), ((1, 2, 1, 2), (1, 2, 1, 1)), 4, (4,), (1, 2), interpolate)
    return WaveGrad(blocks, 2, local_features=MELS, vector_features=VECTOR)


# Networks and the positions of x in a frame of the mel.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "convnext": (lambda: convnext(False), 1),
    "convnext, causal": (lambda: convnext(True), 1),
    "wavenet": (lambda: wavenet(ZeroPadded, (3, 2)), 6),
    "wavenet, an upsampler in each layer": (lambda: wavenet(ZeroPadded, (2, 2), False), 4),
    "wavenet, reflected": (lambda: wavenet(Reflected, (4,)), 4),
    "wavenet, frequency-aware": (lambda: wavenet(FrequencyAware, (3,)), 3),
    "wavenet, causal": (lambda: wavenet(LookingBack, (3, 2)), 6),
    "wavenet, causal, an upsampler in each layer": (lambda: wavenet(LookingBack, (2, 2), False), 4),
    "wavegrad": (lambda: wavegrad(False), 6),
    "wavegrad, interpolating": (lambda: wavegrad(True), 6),
}
CAUSAL = [name for name in NETWORKS if "causal" in name]


def build(name: str) -> tuple[nn.Module, int]:
    """A network of random weights everywhere, and the positions of a frame."""
    make, hop = NETWORKS[name]
    network = make().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return network, hop


def asked(frames: int, hop: int, items: int = 1) -> tuple[Tensor, Tensor, Condition]:
    draw = torch.Generator().manual_seed(frames)
    x, local, vector = (
        torch.randn(*shape, generator=draw)
        for shape in ((items, 2, frames * hop), (items, MELS, frames), (items, VECTOR))
    )
    return x, torch.full((items,), 0.7), Condition(local, vector)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_position_depends_on_nothing_beyond_the_margins(name: str) -> None:
    network, hop = build(name)
    network.double()
    margins = margins_of(network)
    around = -(-(max(margins.before, margins.after) + 2 * hop) // hop)
    frames = 2 * around + 2 + (2 * around + 2) % 2
    x, label, condition = asked(frames, hop)
    x, label = x.double(), label.double()
    assert condition.local is not None
    condition = Condition(condition.local.double(), condition.vector.double())
    whole = network(x, label, condition)

    def reached(x: Tensor, condition: Condition) -> tuple[int, int]:
        places = (network(x, label, condition) != whole)[0].any(0).nonzero()[:, 0]
        return int(places.min()), int(places.max())

    befores, afters = [], []
    for frame in range(around, around + 2):
        for place in range(frame * hop, (frame + 1) * hop):
            changed = x.clone()
            changed[..., place] += 9
            first, last = reached(changed, condition)
            befores.append(last - place)
            afters.append(place - first)
        local = condition.local.clone()
        local[..., frame] += 9
        first, last = reached(x, replace(condition, local=local))
        # A window starts and ends with whole frames.
        befores.append(last - ((frame + 1) * hop - 1))
        afters.append(frame * hop - first)
    assert max(befores) <= margins.before
    assert max(afters) <= margins.after
    # and the margins are not much wider than that
    assert margins.before - max(befores) <= hop + margins.grain
    assert margins.after - max(afters) <= hop + margins.grain
    if "causal" in name:
        assert margins.after == 0


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_nothing_that_comes_later_changes_what_a_causal_network_says(name: str) -> None:
    network, hop = build(name)
    x, label, condition = asked(12, hop)
    assert condition.local is not None
    later = slice(7 * hop, None)
    changed = x.clone()
    changed[..., later] += 1
    local = condition.local.clone()
    local[..., 7:] -= 1
    before = network(x, label, condition)[..., : 7 * hop]
    after = network(changed, label, replace(condition, local=local))[..., : 7 * hop]
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_receptive_field_of_a_causal_network_is_what_its_output_depends_on(name: str) -> None:
    network, hop = build(name)
    field = network.receptive_field()  # type: ignore[operator]
    frames = -(-2 * field // hop) + 1
    x, label, condition = asked(frames, hop)
    place = x.shape[-1] - 1
    for distance, reached in ((0, True), (field - 1, True), (field, False)):
        broken = x.clone()
        broken[..., place - distance] = torch.nan
        assert bool(network(broken, label, condition)[..., place].isnan().any()) == reached


@pytest.mark.parametrize("name", CAUSAL)
@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6))
@torch.no_grad()
def test_a_causal_network_goes_on_where_it_stopped(name: str, sizes: list[int]) -> None:
    network, hop = build(name)
    x, label, condition = asked(sum(sizes) + 1, hop)
    assert condition.local is not None
    whole, memory, pieces, start = network(x, label, condition), Memory(), [], 0
    for size in [*sizes, 1]:
        if size == 0:
            continue
        memory.rewind()
        part = replace(condition, local=condition.local[..., start : start + size])
        bound = network.resume(part, memory)  # type: ignore[operator]
        inside = x[..., start * hop : (start + size) * hop]
        for sign in (1, -1):  # two evaluations of a step remember apart
            pieces.append((sign, bound(sign * inside, label)))
        start += size
    found = torch.cat([piece for sign, piece in pieces if sign == 1], dim=-1)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6 * float(whole.abs().max()))


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_item_of_a_causal_network_is_the_same_alone_and_padded_in_a_batch(name: str) -> None:
    network, hop = build(name)
    x, label, condition = asked(9, hop, 2)
    assert condition.local is not None
    assert condition.vector is not None
    condition.local[1, :, 4:] = condition.local[1, :, 3:4]
    together = network(x, label, replace(condition, frames=torch.tensor([9, 4]) * hop))
    alone = Condition(condition.local[1:, :, :4], condition.vector[1:])
    expected = network(x[1:, :, : 4 * hop], label[1:], alone)
    torch.testing.assert_close(together[1:, :, : 4 * hop], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["convnext", "wavenet"])
def test_causal_recipe_trains_and_makes_sound(model: str) -> None:
    recipe = composed([*BASE, f"model={model}", "conditioner=mel", *HOP.get(model, []), "causal=true"])
    assert_trains_and_makes_sound(recipe)


def test_a_network_that_looks_at_the_whole_signal_is_refused_with_the_reason() -> None:
    class Attention(nn.Module):
        pass

    with pytest.raises(InputError, match=r"Sequential looks at the whole signal.*Attention, GroupNorm"):
        margins_of(nn.Sequential(nn.GroupNorm(1, 4), Attention()))
