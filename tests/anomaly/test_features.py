"""Features that a detector looks at: exact answers, the same from pieces as from the whole, and what reversal does."""

from __future__ import annotations

import numpy as np
import pytest

from audiodiff.anomaly.features import REACH, Neighbours, Profile, fine_features, frame_features


def in_pieces(frames: np.ndarray, cuts: list[int]) -> list[np.ndarray]:
    return np.split(frames, cuts)


def profile(frames: np.ndarray, cuts: list[int] | None = None) -> dict[str, np.ndarray]:
    found = Profile()
    for piece in in_pieces(frames, cuts or []):
        found.add(piece)
    return dict(zip(("mean", "largest", "trend", "rises", "falls"), np.split(found.vector(), 5), strict=True))


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9, 40])
def test_neighbours_are_the_frames_around_and_the_outermost_at_the_ends(count: int) -> None:
    frames = np.random.default_rng(count).normal(size=(count, 3))
    for cuts in ([], list(range(1, count)), sorted({count // 3, count // 2} - {0})):
        found, rows = Neighbours(), []
        for piece in in_pieces(frames, cuts):
            rows.append(found.add(piece))
        rows.append(found.finish())
        together = np.concatenate(rows).reshape(count, 3, 2 * REACH + 1)
        for place, row in enumerate(together):
            around = np.clip(np.arange(place - REACH, place + REACH + 1), 0, count - 1)
            np.testing.assert_array_equal(row.T, frames[around])


def test_profile_of_pieces_is_that_of_the_whole() -> None:
    frames = np.random.default_rng(0).normal(size=(50, 4))
    for cuts in ([1, 2, 30], [49], list(range(1, 50))):
        whole, parts = profile(frames), profile(frames, cuts)
        for name in whole:
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-10, atol=1e-12)


def test_profile_is_what_it_says() -> None:
    frames = np.random.default_rng(0).normal(size=(50, 4))
    found, steps = profile(frames), np.diff(frames, axis=0)
    np.testing.assert_allclose(found["mean"], frames.mean(0))
    np.testing.assert_allclose(found["largest"], frames.max(0))
    np.testing.assert_allclose(found["trend"], np.linspace(-1, 1, 50) @ frames / 50, atol=1e-12)
    for name, sign in (("rises", 1), ("falls", -1)):
        rms = np.sqrt(np.mean(np.maximum(sign * steps, 0) ** 2, axis=0))
        np.testing.assert_allclose(np.exp(found[name]) - 0.01, rms, atol=1e-12)


def test_what_is_played_backwards_falls_where_it_rose_and_is_otherwise_the_same() -> None:
    frames = np.random.default_rng(0).normal(size=(30, 4)).cumsum(0)
    forwards, backwards = profile(frames), profile(frames[::-1])
    np.testing.assert_allclose(backwards["rises"], forwards["falls"])
    np.testing.assert_allclose(backwards["falls"], forwards["rises"])
    np.testing.assert_allclose(backwards["trend"], -forwards["trend"], atol=1e-12)
    for name in ("mean", "largest"):
        np.testing.assert_allclose(backwards[name], forwards[name])


def test_profile_of_one_frame_has_no_steps_and_no_trend() -> None:
    found = profile(np.ones((1, 3)))
    np.testing.assert_allclose(found["trend"], 0)
    np.testing.assert_allclose(np.exp(found["rises"]), 0.01)
    assert all(np.isfinite(each).all() for each in found.values())


def test_features_are_logarithms_of_errors_and_power() -> None:
    generator = np.random.default_rng(0)
    errors, power = generator.random(size=(7, 2, 9)) + 0.1, generator.random(size=(24, 9)) + 0.1
    fine, coarse = fine_features(errors, power), frame_features(errors, power)
    assert fine.shape == (9, 7 * 2 + 24)
    assert coarse.shape == (9, 7 + 8)
    np.testing.assert_allclose(fine[:, 2 * 3 + 1], np.log(errors[3, 1]))
    np.testing.assert_allclose(fine[:, 14 + 5], np.log(power[5] + 1e-4))
    np.testing.assert_allclose(coarse[:, 3], np.log(errors[3].mean(0)))
    np.testing.assert_allclose(coarse[:, 7], np.log(power[:3].mean(0) + 1e-4))
    silent = fine_features(np.zeros((2, 1, 3)), np.zeros((1, 3)))  # a model of samples has one band
    assert np.isfinite(silent).all()
