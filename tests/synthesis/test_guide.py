"""Guides: the estimate takes on the guide's energies or chroma; strength 0 changes nothing; short guides, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.synthesis.guide import Guide, chroma_guide, distance, mel_guide
from tests.synthesis.free_models import KINDS, free_model

HALF = torch.tensor(0.5, dtype=torch.float64)


def guide(folder: Path, kind: str, strength: float, samples: int = 4000) -> Guide:
    envelope = torch.linspace(0.02, 0.5, samples) ** 2
    noise = torch.randn(1, samples, generator=torch.Generator().manual_seed(1))
    io.write(folder / "guide.wav", noise * envelope, 8000)
    made = mel_guide(free_model(kind), folder / "guide.wav", strength)
    assert isinstance(made, Guide)
    return made


def estimate(kind: str, samples: int = 4000) -> torch.Tensor:
    model = free_model(kind)
    noise = torch.randn(2, model.representation.channels, samples, generator=torch.Generator().manual_seed(2))
    return model.representation.encode(noise / 8)


@pytest.mark.parametrize("kind", KINDS)
def test_estimate_takes_on_the_energies_of_the_guide(kind: str, tmp_path: Path) -> None:
    model, x = free_model(kind), estimate(kind)
    distances = []
    for strength in (0.0, 0.5, 1.0):
        projection = guide(tmp_path, kind, strength)
        waveform = model.representation.decode(projection(x, HALF), 4000)[0]
        distances.append(distance(waveform, projection))
    assert distances[2] < 0.25 * distances[0]
    assert distances[2] < distances[1] < distances[0]


@pytest.mark.parametrize("kind", KINDS)
def test_strength_zero_changes_nothing(kind: str, tmp_path: Path) -> None:
    x = estimate(kind)
    torch.testing.assert_close(guide(tmp_path, kind, 0.0)(x, HALF), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 100])
def test_short_guides_and_short_sounds_are_taken(samples: int, tmp_path: Path) -> None:
    for kind in ("convnext", "wavenet"):
        assert guide(tmp_path, kind, 1.0, samples)(estimate(kind), HALF).isfinite().all()
        assert guide(tmp_path, kind, 1.0)(estimate(kind, samples), HALF).isfinite().all()


def test_what_lies_beyond_the_guide_is_left_alone(tmp_path: Path) -> None:
    x = estimate("wavenet")
    guided = guide(tmp_path, "wavenet", 1.0, 1000)(x, HALF)
    torch.testing.assert_close(guided[..., 2500:], x[..., 2500:], rtol=0, atol=1e-4)
    assert float((guided - x)[..., :1000].abs().max()) > 0.1


def test_strength_outside_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--guide-strength"):
        mel_guide(free_model(), tmp_path / "none.wav", 1.5)
    with pytest.raises(InputError, match="--guide-chroma"):
        chroma_guide(free_model(), tmp_path / "none.wav", -0.1)
    with pytest.raises(InputError, match="no such file"):
        mel_guide(free_model(), tmp_path / "none.wav", 1.0)


def tones(folder: Path, kind: str, strength: float) -> Guide:
    """A guide by two notes, A4 for the first half and the E above it."""
    n = torch.arange(6000) / 8000
    note = torch.where(n < 0.375, (2 * torch.pi * 440 * n).sin(), (2 * torch.pi * 659.26 * n).sin())
    io.write(folder / "tones.wav", note[None] / 2, 8000)
    made = chroma_guide(free_model(kind), folder / "tones.wav", strength)
    assert isinstance(made, Guide)
    return made


def power(waveform: torch.Tensor, hertz: float) -> float:
    """Power within half a semitone of a frequency, as a share of all."""
    spectrum = torch.fft.rfft(waveform * torch.hann_window(waveform.shape[-1])).abs().square()
    at = torch.fft.rfftfreq(waveform.shape[-1], 1 / 8000)
    return float(spectrum[(at > hertz / 1.03) & (at < hertz * 1.03)].sum() / spectrum.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_chroma_guide_moves_noise_to_the_pitch_classes_of_the_moment(kind: str, tmp_path: Path) -> None:
    model, x = free_model(kind), estimate(kind, 6000)
    projection = tones(tmp_path, kind, 1.0)
    half = distance(model.representation.decode(tones(tmp_path, kind, 0.5)(x, HALF), 6000)[0], projection)
    distances = [distance(model.representation.decode(x, 6000)[0], projection)]
    for _ in range(4):  # evaluations
        x = projection(x, HALF)
        made = model.representation.decode(x, 6000)[0]
        distances.append(distance(made, projection))
    assert sorted(distances, reverse=True) == distances
    assert distances[1] < half < distances[0]
    assert distances[4] < 0.3 * distances[0]
    first, second = made.mean(0)[:2600], made.mean(0)[-2600:]
    # Every octave of the pitch class, and none of the other note's.
    for octave in (0.5, 1, 2):
        assert power(first, 440 * octave) > 10 * power(second, 440 * octave)
        assert power(second, 659.26 * octave) > 10 * power(first, 659.26 * octave)


def test_chroma_guide_with_strength_zero_changes_nothing_and_no_loudness(tmp_path: Path) -> None:
    x = estimate("wavenet", 6000)
    torch.testing.assert_close(tones(tmp_path, "wavenet", 0.0)(x, HALF), x, rtol=0, atol=1e-4)
    quiet = chroma_guide(free_model("wavenet"), write_quiet(tmp_path), 1.0)
    loud = tones(tmp_path, "wavenet", 1.0)
    torch.testing.assert_close(quiet(x, HALF), loud(x, HALF), rtol=0, atol=0.02)


def write_quiet(folder: Path) -> Path:
    io.write(folder / "quiet.wav", io.read(folder / "tones.wav")[0] / 4, 8000)
    return folder / "quiet.wav"
