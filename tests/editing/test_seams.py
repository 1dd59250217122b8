"""Linear prediction goes on as the signal would, and a seam is no louder than the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiodiff.editing.detection import clipping, noise_deviations
from audiodiff.editing.edit import edit_waveform
from audiodiff.editing.linear_prediction import burg, continued, interpolated
from audiodiff.editing.recording import InMemory, patched
from audiodiff.editing.restore import Restorer
from audiodiff.editing.tasks import Inpaint
from audiodiff.editing.whole import Resampled, changed
from audiodiff.editing.window import bridge
from tests.editing.tiny_edits import QUICK, RATE, sound, tiny_model

N = np.arange(4000)
TONES = np.sin(0.2 * N) + 0.5 * np.sin(0.37 * N) + 1e-3 * np.random.default_rng(0).normal(size=4000)


def test_burg_finds_the_process_that_made_a_signal() -> None:
    noise = np.random.default_rng(1).normal(size=20000)
    signal = np.zeros(20000)
    for n in range(2, 20000):
        signal[n] = 1.3 * signal[n - 1] - 0.8 * signal[n - 2] + noise[n]
    np.testing.assert_allclose(burg(signal, 2), [1, -1.3, 0.8], atol=0.02)
    assert burg(np.zeros(50), 4).tolist() == [1, 0, 0, 0, 0]


def test_linear_prediction_continues_and_fills_tones() -> None:
    assert np.abs(continued(TONES[:2000], 100, 64) - TONES[2000:2100]).max() < 0.05
    assert np.abs(interpolated(TONES[:2000], TONES[2300:], 300, 64) - TONES[2000:2300]).max() < 0.02


def test_a_seam_is_within_the_second_differences_elsewhere() -> None:
    """Of a model that makes noise, which without the fade would jump."""
    waveform = sound(0.6)
    made = edit_waveform(tiny_model(), waveform, RATE, Inpaint(((0.3, 0.35),)), QUICK)[0]
    jumps = made.diff().diff().abs()
    at_seams = max(float(jumps[2397:2401].max()), float(jumps[2797:2801].max()))
    assert at_seams <= float(jumps[2405:2795].max())


@pytest.mark.parametrize(("old", "new"), [(4000, 8000), (44100, 8000), (8000, 11025)])
def test_a_recording_resampled_by_pieces_is_the_whole_resampled(old: int, new: int) -> None:
    from audiodiff.audio import io

    recording = InMemory(sound(1.0, old), old)
    view, whole = Resampled(recording, new), io.resample(recording.waveform, old, new)
    assert view.length == whole.shape[-1]
    pieces = torch.cat(
        [view.read(start, min(start + 1777, view.length)) for start in range(0, view.length, 1777)], 1
    )
    edge = new // 10
    torch.testing.assert_close(pieces[:, edge:-edge], whole[:, edge:-edge], rtol=0, atol=1e-4)


def test_windows_of_a_change_that_adds_one_add_up_to_one_everywhere() -> None:
    recording = InMemory(sound(1.3), RATE)
    to_model = bridge(recording, Restorer(tiny_model(), QUICK))

    def one(waveform: torch.Tensor, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones_like(waveform), torch.ones(1, 1, dtype=torch.bool)

    made = patched(recording, changed(recording, to_model, one), (0, recording.length))
    torch.testing.assert_close(made, recording.waveform + 1)


@pytest.mark.parametrize(("paused", "decibels"), [(1.0, 0.5), (0.5, 2.0)])
def test_the_level_of_noise_is_estimated_from_noise_alone_and_from_pauses(
    paused: float, decibels: float
) -> None:
    """Of fewer pauses the minimum is higher: half a second of sound in each second costs up to two decibels."""
    noise = 0.01 * torch.randn(1, 40000, generator=torch.Generator().manual_seed(2))
    bursts = (torch.arange(40000) % 8000 >= 8000 * paused) * sound(5.0)
    found = noise_deviations(InMemory(noise + bursts, RATE))
    level = 20 * torch.log10(found.square().mean().sqrt() / 0.01)
    assert abs(float(level)) < decibels


def test_the_clipping_level_is_found() -> None:
    found = clipping(InMemory((2 * sound(0.5)).clamp(-0.6, 0.6), RATE))
    assert found.level == pytest.approx(0.6, rel=1e-3)
    assert 0.05 < found.share < 0.9
