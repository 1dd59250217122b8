"""MCD along the best alignment: laws on real recordings, and exact answers against every alignment tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.metrics.mcd import mcd
from audiodiff.evaluation.metrics.mcd_dtw import mcd_dtw, warped_distance


def clip(data_dir: Path, name: str) -> np.ndarray:
    return io.read(data_dir / "fsdd" / "recordings" / f"{name}.flac")[0][0].double().numpy()


def longer(waveform: np.ndarray, factor: float) -> np.ndarray:
    """The same spectra at another tempo, by a phase vocoder."""
    from librosa.effects import time_stretch

    return time_stretch(waveform, rate=1 / factor, n_fft=256, hop_length=64)


def every_alignment(first: np.ndarray, second: np.ndarray) -> float:
    """The smallest weighted sum over all monotone paths, by trying each."""

    def rest(i: int, j: int) -> float:
        if (i, j) == (len(first) - 1, len(second) - 1):
            return 0.0
        steps = [(1, 1, 2), (1, 0, 1), (0, 1, 1)]
        return min(
            weight * np.linalg.norm(first[i + di] - second[j + dj]) + rest(i + di, j + dj)
            for di, dj, weight in steps
            if i + di < len(first) and j + dj < len(second)
        )

    return (2 * np.linalg.norm(first[0] - second[0]) + rest(0, 0)) / (len(first) + len(second))


@pytest.mark.parametrize("seed", range(5))
def test_the_alignment_is_the_best_of_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.normal(size=(5, 3)), generator.normal(size=(6, 3))
    assert warped_distance(first, second) == pytest.approx(every_alignment(first, second), rel=1e-12)


def test_frames_held_longer_cost_nothing() -> None:
    frames = np.random.default_rng(0).normal(size=(7, 4))
    assert warped_distance(frames, frames.repeat(3, axis=0)) == 0


def test_equal_recordings_have_no_distortion(data_dir: Path) -> None:
    waveform = clip(data_dir, "7_theo_1")
    assert mcd_dtw(waveform, waveform, 8000) == 0


def test_it_is_the_same_when_the_signals_change_places(data_dir: Path) -> None:
    first, second = clip(data_dir, "7_theo_1"), clip(data_dir, "3_lucas_1")
    assert mcd_dtw(first, second, 8000) == pytest.approx(mcd_dtw(second, first, 8000), rel=1e-12)


@pytest.mark.parametrize("factor", [0.75, 1.4])
def test_a_slower_copy_is_far_nearer_than_other_words(factor: float, data_dir: Path) -> None:
    said = np.concatenate([clip(data_dir, f"{digit}_theo_1") for digit in (3, 1, 4)])
    other = np.concatenate([clip(data_dir, f"{digit}_theo_1") for digit in (7, 2, 6)])
    assert mcd_dtw(said, longer(said, factor), 8000) < mcd_dtw(said, other, 8000) / 2


def test_it_is_never_more_than_without_alignment(data_dir: Path) -> None:
    first, second = clip(data_dir, "7_theo_1"), clip(data_dir, "7_theo_2")
    length = min(first.size, second.size)
    assert mcd_dtw(first[:length], second[:length], 8000) <= mcd(first[:length], second[:length], 8000)


def test_of_one_frame_it_is_mcd(data_dir: Path) -> None:
    first, second = clip(data_dir, "7_theo_1")[1000:1260], clip(data_dir, "3_lucas_1")[1000:1260]
    assert mcd_dtw(first, second, 8000) == pytest.approx(mcd(first, second, 8000), rel=1e-12)


def test_what_cannot_be_compared_is_refused() -> None:
    signal = np.random.default_rng(0).normal(size=4000)
    with pytest.raises(InputError, match="no reference"):
        mcd_dtw(None, signal, 8000)
    with pytest.raises(InputError, match="estimate"):
        mcd_dtw(signal, signal[None], 8000)
    with pytest.raises(InputError, match="finite"):
        mcd_dtw(signal, np.append(signal, np.nan), 8000)
    with pytest.raises(NotMeasurable):
        mcd_dtw(signal, signal[:100], 8000)
