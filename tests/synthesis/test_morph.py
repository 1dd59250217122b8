"""Morphs: ends are the sounds of the seeds or the recordings, inversion is an inverse, also under a prior; refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.diffusion.constraints import Clip
from audiodiff.diffusion.guidance import Guidance
from audiodiff.diffusion.inversion import check_deterministic, invert, slerp
from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler
from audiodiff.diffusion.schedules import linear
from audiodiff.diffusion.singlestep import Heun
from audiodiff.diffusion.times import LogSnrGrid, UniformGrid
from audiodiff.errors import InputError
from audiodiff.model import Steering
from audiodiff.synthesis.morph import MorphRequest, end_of, morph
from audiodiff.types import Batch
from tests import tiny_models
from tests.synthesis.free_models import KINDS, SAMPLER, free_model
from tests.synthesis.test_streaming import mel_of, vocoder

SCHEDULE = linear(1e-4, 0.02, 1000)


def gaussian(x: Tensor, t: Tensor) -> Tensor:
    """The exact denoiser of data with mean 0 and deviation 1/2."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    return x * (alpha / 4 / (alpha**2 / 4 + sigma**2))


def noise_like(x: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


@pytest.mark.parametrize("iterations", [1, 3, 20])
def test_more_iterations_invert_every_step(iterations: int) -> None:
    times = LogSnrGrid(30)(SCHEDULE)
    clean = noise_like(torch.zeros(1, 1, 50, dtype=torch.float64)) / 2
    found = invert(gaussian, SCHEDULE, clean, times, noise_like(clean, 1), iterations)
    sampler = Sampler(DDIM(), LogSnrGrid(30))
    back = sampler(gaussian, SCHEDULE, found, lambda step, draw: torch.zeros(()))
    error = float((back - clean).norm() / clean.norm())
    level = float(SCHEDULE.sigma(times[-2]))  # what the last step forgets
    assert error < (0.3, 0.05, 4 * level)[(1, 3, 20).index(iterations)]


def test_inverted_noise_of_gaussian_data_has_unit_deviation() -> None:
    clean = noise_like(torch.zeros(1, 1, 20000, dtype=torch.float64)) / 2
    found = invert(gaussian, SCHEDULE, clean, LogSnrGrid(100)(SCHEDULE), noise_like(clean, 1), 5)
    assert float(found.std()) == pytest.approx(1.0, abs=0.05)


def test_inversion_holds_in_whitened_coordinates() -> None:
    """Of a model whose prior shapes the noise: what is inverted is (x - mean) / std."""
    system = vocoder("convnext, prior")
    model, sampler = system.model, Sampler(DDIM(), LogSnrGrid(60))
    mel = mel_of(20)[None]
    waveform = torch.randn(1, 1, 20 * 16, generator=torch.Generator().manual_seed(0)) / 8
    batch = Batch(waveform, torch.tensor([320]), mel=mel)
    with torch.inference_mode():
        clean, condition = model.encode(batch)
        denoise = model.denoiser.bind(condition)
        schedule = model.denoiser.schedule
        found = invert(denoise, schedule, clean, sampler.times(schedule), noise_like(clean), 20)
        back = sampler(denoise, schedule, found, lambda step, draw: torch.zeros(()))
    assert float((back - clean).norm() / clean.norm()) < 0.2


@pytest.mark.parametrize("shape", [(1, 3, 40), (2, 1, 7)])
def test_slerp_ends_at_its_ends_and_keeps_the_length(shape: tuple[int, int, int]) -> None:
    first, second = noise_like(torch.zeros(shape), 1), noise_like(torch.zeros(shape), 2)
    torch.testing.assert_close(slerp(first, second, 0.0), first)
    torch.testing.assert_close(slerp(first, second, 1.0), second)
    torch.testing.assert_close(slerp(first, first, 0.3), first)
    lengths = [x.flatten(1).norm(dim=1) for x in (first, second, slerp(first, second, 0.5))]
    torch.testing.assert_close(lengths[2], (lengths[0] + lengths[1]) / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_ends_of_a_morph_between_seeds_are_their_sounds(kind: str) -> None:
    model = free_model(kind)
    sounds = morph(model, SAMPLER, MorphRequest((4, 9), 3, 600, {"digit": "two"}))
    assert len(sounds) == 3
    for seed, sound in ((4, sounds[0]), (9, sounds[-1])):
        batch = Batch(None, torch.tensor([600]), {"digit": ("two",)})
        torch.testing.assert_close(sound, model.synthesize(batch, SAMPLER, seed)[0], rtol=1e-4, atol=1e-5)


def test_morph_between_seeds_takes_guidance_and_other_deterministic_samplers() -> None:
    guided = MorphRequest((1, 2), 2, 300, {"digit": "one"}, Steering(Guidance(2.0)))
    assert morph(free_model(), Sampler(Heun(), UniformGrid(3)), guided)[0].shape == (1, 300)


def test_ends_of_a_morph_between_recordings_are_about_the_recordings(tmp_path: Path) -> None:
    """Exactly so for a denoiser that knows its data; here the network is random and the error that of the steps."""
    model = free_model()
    source = model.synthesize(Batch(None, torch.tensor([500]), {}), Sampler(DDIM(), LogSnrGrid(50)), 1)[0]
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    io.write(paths[0], source, 8000)
    io.write(paths[1], source[:, :300] * 0.5, 8000)
    sounds = morph(model, Sampler(DDIM(), LogSnrGrid(50)), MorphRequest((paths[0], paths[1]), 3))
    assert {tuple(sound.shape) for sound in sounds} == {(1, 500)}
    assert math.isfinite(float(sounds[1].abs().max()))


@pytest.mark.parametrize(
    ("sampler", "request_", "message"),
    [
        (Sampler(Ancestral(), UniformGrid(3)), MorphRequest((1, 2), 3, 100), "draws noise"),
        (Sampler(DDIM(0.5), UniformGrid(3)), MorphRequest((1, 2), 3, 100), "draws noise"),
        (SAMPLER, MorphRequest((1, 2), 3, 0), "at least 1"),
        (SAMPLER, MorphRequest((1, Path("none.wav")), 3), "no such file"),
        (Sampler(Heun(), UniformGrid(3)), MorphRequest((1, Path("a.wav")), 3), "inverted by DDIM"),
        (replace(SAMPLER, constraint=Clip()), MorphRequest((1, Path("a.wav")), 3), "clamping"),
        (SAMPLER, MorphRequest((1, Path("a.wav")), 3, 0, {}, Steering(Guidance(2.0))), "--guidance 1"),
    ],
)
def test_what_cannot_be_morphed_is_refused(sampler: Sampler, request_: MorphRequest, message: str) -> None:
    with pytest.raises(InputError, match=message):
        morph(free_model(), sampler, request_)


def test_ends_are_seeds_or_files(tmp_path: Path) -> None:
    (tmp_path / "7").touch()
    assert end_of("7") == 7
    assert end_of(str(tmp_path / "7")) == tmp_path / "7"
    with pytest.raises(InputError, match="no such file, and no seed"):
        end_of("-3")
    with pytest.raises(InputError, match="at least the 2 ends"):
        MorphRequest((1, 2), 1)


def test_model_of_mels_is_refused() -> None:
    with pytest.raises(InputError, match="--morph: needs a model"):
        morph(tiny_models.random_model("samples and mel"), SAMPLER, MorphRequest((1, 2), 2, 100))


def test_deterministic_samplers_pass() -> None:
    for sampler in (SAMPLER, Sampler(Heun(), UniformGrid(3))):
        check_deterministic(sampler, SCHEDULE)
