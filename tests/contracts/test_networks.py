"""What holds of every file of recipes/model/ at its tiny size, told nothing, a label, a mel or a mel's energy."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.model import AudioDiffusion, load
from audiodiff.types import Batch, Condition
from tests.contracts.test_recipes import BASE, HOP, composed, names, random_batch
from tests.tiny import random_model

CASES = [
    [*BASE, f"model={model}", f"conditioner={conditioner}", *HOP.get(model, [])]
    for model, conditioner in itertools.product(names("model"), ("unconditional", "labels", "mel"))
]
each = pytest.mark.parametrize("overrides", CASES, ids=lambda given: " ".join(given[3:5]))
LENGTHS = (1, 2, 63, 64, 65, 511, 1000)  # samples at 8 kHz; the mel has a hop of 64


def model_of(overrides: list[str], *more: str) -> AudioDiffusion:
    return random_model(composed([*overrides, *more]))


def asked(model: AudioDiffusion, batch: Batch) -> tuple[Tensor, Tensor, Condition]:
    """x, t and the condition of a batch."""
    clean, condition = model.encode(batch)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    return noise, torch.full((batch.size,), 0.4, dtype=torch.float64), condition


def prediction(model: AudioDiffusion, batch: Batch) -> Tensor:
    return model.denoiser.predict(*asked(model, batch))


@each
def test_any_length_goes_in_and_its_shape_comes_out(overrides: list[str]) -> None:
    model = model_of(overrides)
    recipe = model.recipe
    for length in LENGTHS:
        waveform = torch.randn(
            1, recipe["data"]["channels"], length, generator=torch.Generator().manual_seed(length)
        )
        batch = Batch(waveform / 8, torch.tensor([length]))
        with torch.inference_mode():
            x, _, _ = asked(model, batch)
            assert prediction(model, batch).shape == x.shape
            made = model.synthesize(
                Batch(waveform / 8, torch.tensor([length])), Sampler(DDIM(), UniformGrid(2)), seed=0
            )
        assert made[0].shape == (recipe["data"]["channels"], length)


@each
def test_a_saved_model_gives_the_same_bits(overrides: list[str], tmp_path: Path) -> None:
    model = model_of(overrides)
    model.save(tmp_path / "model", model.recipe, {}, "")
    again, batch = load(tmp_path), random_batch(model.recipe)
    with torch.inference_mode():
        assert torch.equal(prediction(model, batch), prediction(again, batch))


@each
def test_bound_network_equals_the_plain_one(overrides: list[str]) -> None:
    model, batch = model_of(overrides), random_batch(composed(overrides))
    with torch.inference_mode():
        x, t, condition = asked(model, batch)
        bound = model.denoiser.bind(condition)
        for _ in range(2):  # the second time from what was kept
            torch.testing.assert_close(bound(x, t), model.denoiser(x, t, condition), rtol=1e-5, atol=1e-5)


@each
def test_bf16_autocast_is_finite_and_near(overrides: list[str]) -> None:
    model, batch = model_of(overrides), random_batch(composed(overrides))
    with torch.inference_mode():
        exact = prediction(model, batch)
        with torch.autocast("cpu", torch.bfloat16):
            rough = prediction(model, batch).float()
    assert bool(rough.isfinite().all())
    assert float((rough - exact).abs().max()) < 0.1 * float(exact.abs().max())


@each
def test_checkpointing_gives_the_same_gradients(overrides: list[str]) -> None:
    gradients = []
    for word in ("false", "true"):
        model = model_of(overrides, f"checkpointing={word}").train()
        prediction(model, random_batch(model.recipe)).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    plain, recomputed = gradients
    assert all(gradient is not None for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


def assert_compiles(overrides: list[str], backend: str) -> None:
    model, batch = model_of(overrides), random_batch(composed(overrides))
    network = model.denoiser.network
    with torch.no_grad():
        x, t, condition = asked(model, batch)
        label = model.denoiser.noise_label(model.denoiser.schedule, t).float()
        expected = network(x, label, condition)
        compiled = torch.compile(network, backend=backend)
        found = compiled(x, label, condition)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("overrides", CASES[1::3], ids=lambda given: " ".join(given[3:5]))  # told labels
def test_traced_by_the_compiler_it_gives_the_same(overrides: list[str]) -> None:
    assert_compiles(overrides, "aot_eager")


@pytest.mark.long
@each
def test_compiled_it_gives_the_same(overrides: list[str]) -> None:
    assert_compiles(overrides, "inductor")
