"""Declipping without a model: what is sparse comes back, what was not clipped stays, whatever the length."""

from __future__ import annotations

import numpy as np
import pytest

from audiodiff.editing.sparse_declipping import sparsest

RATE, FRAME = 8000, 512


def partials(count: int, seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    """A sum of sines that are no bins of any frame, peak 1."""
    generator = np.random.default_rng(seed)
    times = np.arange(round(seconds * RATE)) / RATE
    sines = [
        np.sin(2 * np.pi * frequency * times + phase)
        for frequency, phase in zip(
            generator.uniform(100, 2000, count), generator.uniform(0, 6, count), strict=True
        )
    ]
    total = np.sum(sines, axis=0)
    return np.asarray(total / np.abs(total).max())


def clipped_at(waveform: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    return waveform.clip(-level, level), np.abs(waveform) >= level


def distortion_db(truth: np.ndarray, made: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(truth**2) / np.sum((made - truth) ** 2)))


@pytest.mark.parametrize(
    ("count", "level", "gain_db"), [(1, 0.5, 20), (3, 0.5, 40), (3, 0.3, 40), (6, 0.5, 35)]
)
def test_sounds_of_few_partials_are_restored(count: int, level: float, gain_db: float) -> None:
    truth = partials(count)
    clipped, flags = clipped_at(truth, level)
    made = sparsest(clipped, flags, FRAME)
    inside = slice(FRAME, -FRAME)  # at its ends a sound is no sum of few lines
    gained = distortion_db(truth[inside], made[inside]) - distortion_db(truth[inside], clipped[inside])
    assert gained > gain_db


@pytest.mark.parametrize("length", [1, 3, 127, 512, 513, 4001])
def test_samples_that_were_not_clipped_stay_and_the_others_go_outwards(length: int) -> None:
    waveform = np.random.default_rng(length).standard_normal(length)
    clipped, flags = clipped_at(waveform, 0.8)
    made = sparsest(clipped, flags, FRAME)
    assert made.shape == (length,)
    assert np.array_equal(made[~flags], clipped[~flags])
    assert (made[flags] * np.sign(clipped[flags]) >= 0.8).all()


def test_without_clipped_samples_nothing_changes_and_a_far_one_is_left_alone() -> None:
    waveform = partials(2)
    assert np.array_equal(sparsest(waveform, np.zeros(waveform.size, dtype=bool), FRAME), waveform)
    clipped, flags = clipped_at(waveform, 0.5)
    flags[RATE // 2 :] = False
    made = sparsest(clipped, flags, FRAME)
    alone = sparsest(clipped[: RATE // 2 + 2 * FRAME], flags[: RATE // 2 + 2 * FRAME], FRAME)
    np.testing.assert_allclose(made[: RATE // 2], alone[: RATE // 2], rtol=0, atol=1e-12)
