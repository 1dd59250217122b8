"""The layers in tiles, as training on a CPU runs them, against the plain formula of `ResidualLayer`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from audiodiff.networks import gated, wavenet, wavenet_training
from audiodiff.networks.dilated import Reflected
from audiodiff.networks.wavenet import ResidualLayer, WaveNet
from audiodiff.types import Condition
from tests.networks.test_wavenet import HOP, SHAPES, VECTOR, build, condition_for

LENGTH = 6 * HOP
LABELS = torch.tensor([0.0, 17.5, 49.0])
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gated, "TILE", 16)


@contextmanager
def by_layers() -> Iterator[None]:
    """Within it, a network in training uses the plain formula."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wavenet, "trains_in_tiles", lambda network, x: False)
        yield


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever layers run in tiles."""
    calls: list[int] = []
    original = wavenet_training.sum_of_skips

    def counting(*arguments: object, **named: object) -> Tensor:
        calls.append(1)
        return original(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(wavenet_training, "sum_of_skips", counting)
    return calls


def results(network: WaveNet, condition: Condition, length: int = LENGTH) -> dict[str, Tensor]:
    """Prediction in training and gradient of everything, of a loss in which every valid sample counts."""
    generator = torch.Generator().manual_seed(length)
    dtype = next(network.parameters()).dtype
    x = torch.randn(3, 1, length, generator=generator).to(dtype).requires_grad_()
    network.train().zero_grad()
    weights = torch.randn(3, 1, length, generator=generator).to(dtype)
    prediction = network(x, LABELS, condition)
    (prediction * weights).sum().backward()
    assert x.grad is not None
    found = {name: each.grad for name, each in network.named_parameters() if each.grad is not None}
    return {"prediction": prediction.detach(), "x": x.grad} | found


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Compares as shares of the largest value of each."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance * scale + 1e-12, msg=name)


@each_shape
@pytest.mark.parametrize("in_residual", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_in_tiles_equal_the_plain_formula_and_its_gradients(
    shape: object, in_residual: bool, padded: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build(shape, in_residual).double()  # type: ignore[arg-type]
    network.checkpointing = checkpointing
    condition = condition_for(shape, 3, LENGTH)  # type: ignore[arg-type]
    condition = Condition(
        local=None if condition.local is None else condition.local.double(),
        vector=None if condition.vector is None else condition.vector.double(),
        frames=torch.tensor([LENGTH, 3, 5 * HOP + 1]) if padded else None,
    )
    calls = counted(monkeypatch)
    found = results(network, condition)
    assert calls == [1]
    with by_layers():
        assert_near(found, results(network, condition), 1e-12)
    assert calls == [1]


@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17, 33, 100])
def test_any_length_is_right(length: int) -> None:
    network, condition = build(SHAPES["class"]).double(), Condition(vector=torch.randn(3, VECTOR).double())
    found = results(network, condition, length)
    with by_layers():
        assert_near(found, results(network, condition, length), 1e-12)


def test_single_precision_is_right_to_a_millionth_of_the_range() -> None:
    network = WaveNet(30, 16, 16, 10, condition=SHAPES["mel"]).train()
    torch.nn.init.normal_(network.output_projection.weight, std=0.1)
    condition, x = condition_for(SHAPES["mel"], 1, 300), torch.randn(1, 1, 300)
    with torch.no_grad(), by_layers():
        exact = deepcopy(network).double()(
            x.double(),
            LABELS[:1],
            Condition(local=condition.local.double()),  # type: ignore[union-attr]
        )
        by_layer = network(x, LABELS[:1], condition)
    in_tiles = network(x, LABELS[:1], condition)
    errors = [float((each - exact).abs().max() / exact.abs().max()) for each in (by_layer, in_tiles.detach())]
    assert errors[1] < max(1e-6, 2 * errors[0]), errors


def test_frozen_weights_get_no_gradient_and_the_others_theirs() -> None:
    network, condition = build(SHAPES["mel"]), condition_for(SHAPES["mel"], 3, LENGTH)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("layers.1" in name)
    with by_layers():
        expected = results(network, condition)
    found = results(network, condition)
    assert any("layers.1" in name for name in found)
    assert_near(found, expected, 5e-6)


def test_gradients_add_up_over_two_backward_passes() -> None:
    network, condition = build(SHAPES["class"]).train(), condition_for(SHAPES["class"], 3, LENGTH)
    x = torch.randn(3, 1, LENGTH)
    network(x, LABELS, condition).sum().backward()
    once = {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}
    network(x, LABELS, condition).sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name], rtol=1e-6, atol=0, msg=name)


def test_the_gradient_of_the_gradient_is_refused() -> None:
    network, x = build(SHAPES["unconditional"]).train(), torch.randn(3, 1, LENGTH, requires_grad=True)
    prediction = network(x, LABELS, Condition())
    (gradient,) = torch.autograd.grad(prediction.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_the_plain_formula_serves_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    network, x = build(SHAPES["unconditional"]), torch.randn(3, 1, LENGTH)
    network.eval()(x, LABELS, Condition())
    network.train()
    with torch.no_grad():
        network(x, LABELS, Condition())
    with torch.autocast("cpu", torch.bfloat16):
        network(x, LABELS, Condition()).float().sum().backward()
    reflected = WaveNet(2, 4, 4, 2, convolution=Reflected()).train()
    reflected(x, LABELS, Condition())
    first = network.layers[0]
    assert isinstance(first, ResidualLayer)
    handle = first.dilated.register_forward_hook(lambda *_: None)
    network(x, LABELS, Condition())
    assert calls == []
    handle.remove()
    network(x, LABELS, Condition())
    assert calls == [1]


def test_training_keeps_less_than_the_plain_formula_and_least_with_checkpointing() -> None:
    network, x = WaveNet(6, 16, 16, 3).train(), torch.randn(1, 1, 1024)

    def kept() -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            prediction = network(x, LABELS[:1], Condition())
        weights = sum(each.untyped_storage().nbytes() for each in network.parameters())
        assert prediction.requires_grad
        return sum(storages.values()) - weights

    with by_layers():
        by_layer = kept()
    in_tiles = kept()
    network.checkpointing = True
    assert in_tiles < 0.9 * by_layer
    assert kept() < 0.5 * by_layer
