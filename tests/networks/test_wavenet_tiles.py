"""A WaveNet that runs in tiles gives what the plain one gives, whatever the length, the tiles and the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from audiodiff.errors import InputError
from audiodiff.interop import lmnt_diffwave
from audiodiff.networks.dilated import DilatedConvolution, FrequencyAware, LookingBack, Reflected, ZeroPadded
from audiodiff.networks.wavenet import ConditionShape, NoiseEmbedding, WaveNet
from audiodiff.networks.wavenet_tiles import TiledWaveNet, runs_in_tiles
from audiodiff.types import Condition

OF_RANGE = 1e-5
MELS, VECTOR, HOP, CHANNELS = 5, 3, 12, 8
TILE = 16  # samples
SHAPES = {
    "unconditional": ConditionShape(),
    "class": ConditionShape(vector_features=VECTOR),
    "mel": ConditionShape(MELS, (4, 3)),
    "mel per layer": ConditionShape(MELS, (4, 3), shared_upsampler=False),
    "mel and class": ConditionShape(MELS, (12,), vector_features=VECTOR),
    "mel at every sample": ConditionShape(MELS, ()),
}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def build(
    shape: ConditionShape,
    in_residual: bool = False,
    convolution: DilatedConvolution | None = None,
    **sizes: int,
) -> WaveNet:
    """A small network with random weights everywhere, also where a fresh one has zeros."""
    torch.manual_seed(0)
    embedding = NoiseEmbedding(dim=8, hidden_dim=12, out_dim=10, in_residual=in_residual)
    given = {
        "residual_layers": 5,
        "residual_channels": CHANNELS,
        "skip_channels": 6,
        "dilation_cycle": 4,
    } | sizes
    network = WaveNet(
        **given, embedding=embedding, condition=shape, convolution=convolution or ZeroPadded()
    ).eval()  # fmt: skip
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter)
    nn.init.normal_(network.output_projection.weight)
    return network


def condition_for(shape: ConditionShape, items: int, length: int) -> Condition:
    hop_length = int(np.prod(shape.upsample_factors))
    return Condition(
        local=torch.randn(items, MELS, -(-length // hop_length)) if shape.local_features else None,
        vector=torch.randn(items, VECTOR) if shape.vector_features else None,
    )


def tiled(network: WaveNet, condition: Condition, kept_bytes: int = 0) -> Callable[[Tensor, Tensor], Tensor]:
    return TiledWaveNet(network, condition, TILE * 2 * CHANNELS, kept_bytes)


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    error = float((found - expected).abs().max())
    assert error <= OF_RANGE * float(expected.abs().max()), error


@each_shape
@pytest.mark.parametrize("in_residual", [False, True])
@torch.no_grad()
def test_tiles_give_the_plain_networks_output_at_any_length(shape: ConditionShape, in_residual: bool) -> None:
    network = build(shape, in_residual)
    for length in (1, TILE - 1, TILE, TILE + 1, 9 * TILE + 3):
        x, label = torch.randn(2, 1, length), torch.tensor([3.25, 40.0])
        condition = condition_for(shape, 2, length)
        expected = network(x, label, condition)
        predict, keeping = tiled(network, condition), tiled(network, condition, kept_bytes=10**9)
        assert_near(predict(x, label), expected)
        for _ in range(2):  # the second time with what the first one left behind
            assert_near(keeping(x, label), expected)


@each_shape
@torch.no_grad()
def test_item_in_a_padded_batch_equals_the_item_alone(shape: ConditionShape) -> None:
    network, length = build(shape), 6 * HOP
    x, label = torch.randn(4, 1, length), torch.tensor([0.0, 7.5, 20.0, 49.0])
    valid = [length, 5, 3 * HOP + 1, 0]
    condition = replace(condition_for(shape, 4, length), frames=torch.tensor(valid))
    together = tiled(network, condition)(x, label)
    assert_near(together, network(x, label, condition))
    for i, own in enumerate(valid):
        assert not together[i, :, own:].any()
        if own == 0:
            continue
        alone = Condition(
            local=None if condition.local is None else condition.local[i : i + 1],
            vector=None if condition.vector is None else condition.vector[i : i + 1],
        )
        found = tiled(network, alone)(x[i : i + 1, :, :own], label[i : i + 1])
        torch.testing.assert_close(together[i : i + 1, :, :own], found, rtol=0, atol=OF_RANGE)


@pytest.mark.parametrize(
    "sizes",
    [
        {"audio_channels": 2},
        {"audio_channels": 2, "outputs": 2},
        {"outputs": 2, "skip_channels": 1},
        {"skip_channels": 19},
        {"residual_channels": 1},
        {"residual_layers": 1, "dilation_cycle": 1},
        {"residual_layers": 8, "dilation_cycle": 8},  # dilations far beyond a tile and beyond the signal
    ],
    ids=str,
)
@torch.no_grad()
def test_tiles_serve_networks_of_all_sizes(sizes: dict[str, int]) -> None:
    shape = SHAPES["mel"]
    network = build(shape, **sizes)
    for length in (1, 40, 129):
        x, label = torch.randn(1, sizes.get("audio_channels", 1), length), torch.tensor([7.0])
        condition = condition_for(shape, 1, length)
        assert_near(tiled(network, condition)(x, label), network(x, label, condition))


@torch.no_grad()
def test_causal_convolutions_run_in_tiles() -> None:
    network = build(SHAPES["mel"], convolution=LookingBack())
    for length in (1, TILE + 1, 5 * TILE + 3):
        x, label = torch.randn(2, 1, length), torch.tensor([3.0, 4.0])
        condition = condition_for(SHAPES["mel"], 2, length)
        assert runs_in_tiles(network, x)
        assert_near(tiled(network, condition)(x, label), network(x, label, condition))


@pytest.mark.parametrize("convolution", [Reflected(), FrequencyAware()], ids=lambda kind: type(kind).__name__)
@torch.no_grad()
def test_other_convolutions_take_the_plain_path(convolution: DilatedConvolution) -> None:
    network, shape = build(SHAPES["mel"], convolution=convolution), SHAPES["mel"]
    x, label, condition = torch.randn(1, 1, 50), torch.tensor([3.0]), condition_for(shape, 1, 50)
    assert not runs_in_tiles(network, x)
    assert torch.equal(network.bind(condition)(x, label), network(x, label, condition))


def test_gradients_autocast_and_hooks_take_the_plain_path() -> None:
    network, x = build(SHAPES["class"]), torch.randn(1, 1, 50)
    assert not runs_in_tiles(network, x)
    with torch.no_grad():
        assert runs_in_tiles(network, x)
        assert not runs_in_tiles(network, x.double())
        assert not runs_in_tiles(network.bfloat16(), x.bfloat16())
        network.float()
        with torch.autocast("cpu", torch.bfloat16):
            assert not runs_in_tiles(network, x)
        network.layers[0].output_projection.register_forward_hook(lambda *_: None)
        assert not runs_in_tiles(network, x)


def test_bound_network_serves_with_and_without_gradients_in_any_order() -> None:
    shape = SHAPES["mel and class"]
    network, condition = build(shape), condition_for(shape, 2, 60)
    bound, label = network.bind(condition), torch.tensor([3.0, 1.0])
    for length, context in ((60, torch.inference_mode), (60, torch.no_grad), (55, torch.enable_grad)) * 2:
        x = torch.randn(2, 1, length)
        with context():
            assert_near(bound(x, label).detach(), network(x, label, condition).detach())


@torch.no_grad()
def test_one_condition_and_one_label_serve_a_whole_batch() -> None:
    shape = SHAPES["mel and class"]
    network, condition = build(shape), condition_for(shape, 1, 50)
    x, label = torch.randn(3, 1, 50), torch.tensor([3.0])
    assert_near(tiled(network, condition)(x, label), network(x, label, condition))


@torch.no_grad()
def test_predictions_do_not_change_when_the_network_is_asked_again() -> None:
    network, condition = build(SHAPES["mel"]), condition_for(SHAPES["mel"], 1, 100)
    predict, x = network.bind(condition), torch.randn(1, 1, 100)
    first = predict(x, torch.tensor([3.0]))
    kept = first.clone()
    predict(torch.randn(1, 1, 100), torch.tensor([4.0]))
    assert torch.equal(first, kept)
    assert torch.equal(predict(x, torch.tensor([3.0])), kept)


@torch.no_grad()
def test_audio_beyond_the_frames_and_foreign_conditions_are_refused() -> None:
    network, label = build(SHAPES["mel"]), torch.tensor([0.0])
    with pytest.raises(InputError, match=f"3 frames of {HOP} samples for {4 * HOP} samples"):
        network.bind(Condition(local=torch.randn(1, MELS, 3)))(torch.randn(1, 1, 4 * HOP), label)
    for condition in (Condition(), Condition(local=torch.zeros(1, MELS + 1, 2))):
        with pytest.raises(InputError, match="condition: got"):
            network.bind(condition)(torch.zeros(1, 1, 2 * HOP), label)


class Allocations(TorchDispatchMode):
    """Counts the values of the largest tensor that an operation made anew."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        given = {each.untyped_storage().data_ptr() for each in _tensors([args, kwargs or {}])}
        result = func(*args, **(kwargs or {}))
        for made in _tensors(result):
            if made.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, made.numel())
        return result


def _tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("name", ["unconditional", "mel", "mel per layer"])
@torch.no_grad()
def test_nothing_larger_than_the_output_is_allocated(name: str) -> None:
    network, label, length = build(SHAPES[name]), torch.tensor([3.0]), 400 * HOP
    predict, x = tiled(network, condition_for(SHAPES[name], 1, length)), torch.randn(1, 1, length)
    for _ in range(2):
        with Allocations() as allocations:
            predict(x, label)
        assert allocations.largest <= length


@pytest.mark.parametrize("name", ["small", "uncond_small"])
@torch.no_grad()
def test_published_sizes_and_weights_run_in_tiles_of_the_usual_size(fixtures_dir: Path, name: str) -> None:
    network = lmnt_diffwave.load(
        fixtures_dir / "lmnt_diffwave" / f"{name}_weights.safetensors"
    ).network.eval()
    for length in (1, 10_000):
        x, label = torch.randn(1, 1, length), torch.tensor([7.3])
        frames = -(-length // network.hop_length)
        local = torch.rand(1, 80, frames) if network.upsamplers else None
        condition = Condition(local=local)
        assert runs_in_tiles(network, x)
        assert_near(TiledWaveNet(network, condition)(x, label), network(x, label, condition))
