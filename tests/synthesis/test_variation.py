"""Variations: the two ends of the strength, files of every rate, length and channel count, blocks, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch

from audiodiff.audio import io
from audiodiff.diffusion.continuous import Cosine, Flow, Karras
from audiodiff.diffusion.schedules import linear
from audiodiff.errors import InputError
from audiodiff.synthesis.forms import Place, generate_variations
from audiodiff.synthesis.generation import Request
from audiodiff.synthesis.recordings import Recording
from audiodiff.synthesis.variation import VariationRequest, starting_time, vary
from audiodiff.types import Batch
from tests import tiny_models
from tests.synthesis.free_models import KINDS, LOCAL, SAMPLER, free_model


def recording(folder: Path, samples: int, rate: int = 8000, channels: int = 1) -> Path:
    noise = torch.randn(channels, samples, generator=torch.Generator().manual_seed(samples)) / 8
    path = folder / f"{samples}_{rate}_{channels}.wav"
    io.write(path, noise, rate)
    return path


def varied(kind: str, path: Path, strength: float, block: float = 5.0, **options: object) -> torch.Tensor:
    model = free_model(kind)
    opened = Recording(path, model.sample_rate, model.representation.channels)
    request = VariationRequest(strength, seed=3, block_seconds=block, **options)  # type: ignore[arg-type]
    return torch.cat(list(vary(model, SAMPLER, opened, request)), dim=-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [1, 15, 2000])
def test_strength_zero_gives_the_recording_back(kind: str, samples: int, tmp_path: Path) -> None:
    path = recording(tmp_path, samples, channels=free_model(kind).representation.channels)
    torch.testing.assert_close(varied(kind, path, 0.0, 0.01), io.read(path)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", LOCAL)
def test_strength_one_ignores_the_recording(kind: str, tmp_path: Path) -> None:
    path = recording(tmp_path, 2000, channels=free_model(kind).representation.channels)
    expected = free_model(kind).synthesize(Batch(None, torch.tensor([2000]), {}), SAMPLER, 3)[0]
    torch.testing.assert_close(varied(kind, path, 1.0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_change_nothing(kind: str, tmp_path: Path) -> None:
    path = recording(tmp_path, 3001, channels=free_model(kind).representation.channels)
    torch.testing.assert_close(varied(kind, path, 0.3, 0.01), varied(kind, path, 0.3), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", [linear(1e-4, 0.02, 1000), Cosine(), Flow(), Karras()])
def test_strength_is_the_share_of_noise_under_any_schedule(schedule: linear | Flow) -> None:
    for strength in (0.1, 0.4, 0.8):
        t = torch.tensor(starting_time(schedule, strength), dtype=torch.float64)
        ratio = float(schedule.sigma(t) / schedule.alpha(t))
        assert ratio == pytest.approx(strength / (1 - strength), rel=1e-5)
    assert starting_time(schedule, 1.0) == 1.0


def test_strength_is_the_time_of_the_flow() -> None:
    assert starting_time(Flow(), 0.4) == pytest.approx(0.4)


def test_less_strength_stays_nearer(tmp_path: Path) -> None:
    path = recording(tmp_path, 2000)
    original = io.read(path)[0]
    distances = [float((varied("convnext", path, s) - original).norm()) for s in (0.0, 0.02, 0.1, 0.4)]
    assert distances == sorted(distances)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 2), (11025, 1), (44100, 2), (6000, 3)])
@pytest.mark.parametrize("kind", ["convnext", "convnext, stereo"])
def test_file_comes_back_at_its_own_rate_channels_and_length(
    kind: str, rate: int, channels: int, tmp_path: Path
) -> None:
    path, place = recording(tmp_path, 4001, rate, channels), Place(tmp_path, tmp_path / "out", "test")
    if kind == "convnext, stereo" and channels == 3:
        with pytest.raises(InputError, match="mix the file down"):
            generate_variations(free_model(kind), Request([{}]), place, path, 0.2)
        return
    (sample,), changes = generate_variations(free_model(kind), Request([{}]), place, path, 0.2)
    info = soundfile.info(place.out / sample.file)
    assert (info.samplerate, info.channels, info.frames) == (rate, channels, 4001)
    assert (rate != 8000) == any("resampled" in change for change in changes)


def test_stereo_through_a_mono_model_at_strength_zero_is_itself(tmp_path: Path) -> None:
    path, place = recording(tmp_path, 999, channels=2), Place(tmp_path, tmp_path / "out", "test")
    (sample,), _ = generate_variations(free_model(), Request([{}]), place, path, 0.0)
    assert (soundfile.read(place.out / sample.file)[0] == soundfile.read(path)[0]).all()


def test_variations_differ_and_seeds_repeat(tmp_path: Path) -> None:
    path = recording(tmp_path, 800)
    first, again, other = (varied("convnext", path, 0.3, item=item) for item in (0, 0, 1))
    assert torch.equal(first, again)
    assert float((first - other).abs().max()) > 1e-3


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_outside_is_refused(strength: float) -> None:
    with pytest.raises(InputError, match="--strength"):
        VariationRequest(strength)


def test_missing_file_and_model_of_mels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Recording(tmp_path / "none.wav", 8000, 1)
    opened = Recording(recording(tmp_path, 100), 8000, 1)
    with pytest.raises(InputError, match="--variation-of: needs a model"):
        next(vary(tiny_models.random_model("samples and mel"), SAMPLER, opened, VariationRequest(0.5)))
