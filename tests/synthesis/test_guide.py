"""Guides: the estimate takes on the guide's energies; strength 0 changes nothing; stereo, short guides, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.synthesis.guide import MelGuide, distance, mel_guide
from tests.synthesis.free_models import KINDS, free_model

HALF = torch.tensor(0.5, dtype=torch.float64)


def guide(folder: Path, kind: str, strength: float, samples: int = 4000) -> MelGuide:
    envelope = torch.linspace(0.02, 0.5, samples) ** 2
    noise = torch.randn(1, samples, generator=torch.Generator().manual_seed(1))
    io.write(folder / "guide.wav", noise * envelope, 8000)
    made = mel_guide(free_model(kind), folder / "guide.wav", strength)
    assert isinstance(made, MelGuide)
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
        distances.append(distance(model, waveform, projection))
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
    with pytest.raises(InputError, match="no such file"):
        mel_guide(free_model(), tmp_path / "none.wav", 1.0)
