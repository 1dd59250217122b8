"""Keyed noise is a function of (seed, item, step, position) alone, and is normal and uncorrelated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audiodiff.diffusion.noise import KeyedNoise, keyed_normal
from audiodiff.errors import InputError

CPU = torch.device("cpu")
COUNT = 2**16
LIMIT = 5 / COUNT**0.5  # five deviations of a mean of COUNT independent numbers of variance 1


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 2**40))
@settings(max_examples=100, deadline=None)
def test_a_part_equals_the_same_part_of_the_whole(start: int, count: int, step: int) -> None:
    whole = keyed_normal((7, 3), step, 0, 500)
    assert np.array_equal(keyed_normal((7, 3), step, start, count), whole[start : start + count])


def test_far_positions_are_reached_without_the_near_ones() -> None:
    far = 2**40
    joined = np.concatenate([keyed_normal((1, 1), 0, far, 5), keyed_normal((1, 1), 0, far + 5, 9)])
    assert np.array_equal(joined, keyed_normal((1, 1), 0, far, 14))


@pytest.mark.parametrize("channels", [1, 2, 7])
def test_noise_is_the_same_in_any_batch_length_and_chunk(channels: int) -> None:
    items = [4, 0, 2**63]
    whole = KeyedNoise(11, items)(2, (3, channels, 40), CPU)
    assert whole.dtype == torch.float32
    assert whole.shape == (3, channels, 40)
    for place, item in enumerate(items):
        assert torch.equal(KeyedNoise(11, [item])(2, (1, channels, 40), CPU)[0], whole[place])
    assert torch.equal(KeyedNoise(11, items[::-1])(2, (3, channels, 40), CPU), whole.flip(0))
    assert torch.equal(KeyedNoise(11, items)(2, (3, channels, 13), CPU), whole[..., :13])
    for frame in (0, 1, 13, 39):
        chunk = KeyedNoise(11, items, frame)(2, (3, channels, 40 - frame), CPU)
        assert torch.equal(chunk, whole[..., frame:])


STREAMS = [
    keyed_normal((seed, item), step, 0, COUNT)
    for seed, item, step in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**63, 5, 1000))
]


def test_other_seed_item_or_step_gives_uncorrelated_noise() -> None:
    for one, other in itertools.combinations(STREAMS, 2):
        assert abs(np.mean(one * other)) < LIMIT
        assert abs(np.mean(one**2 * other**2) - 1) < LIMIT * 8**0.5  # nor do their sizes agree


def test_no_stream_is_another_one_shifted() -> None:
    for one, other in itertools.combinations(STREAMS, 2):
        assert np.intersect1d(one, other).size == 0


def test_seed_and_item_are_not_interchangeable() -> None:
    assert not np.array_equal(keyed_normal((3, 8), 0, 0, 16), keyed_normal((8, 3), 0, 0, 16))


@pytest.mark.parametrize("stream", STREAMS, ids=range(len(STREAMS)))
def test_noise_is_standard_normal(stream: np.ndarray) -> None:
    # Deviations of the sample moments of COUNT normal numbers: 1, sqrt 2, sqrt 15, sqrt 96 over sqrt COUNT.
    for power, moment, deviation in ((1, 0, 1), (2, 1, 2**0.5), (3, 0, 15**0.5), (4, 3, 96**0.5)):
        assert abs(np.mean(stream**power) - moment) < LIMIT * deviation
    assert stats.kstest(stream, "norm").pvalue > 1e-3
    assert np.abs(stream).max() > 3.8


@pytest.mark.parametrize("stream", STREAMS, ids=range(len(STREAMS)))
def test_neighbouring_positions_are_uncorrelated(stream: np.ndarray) -> None:
    # Neighbours 0 and 1 share one Box-Muller pair, 0..7 one block of the generator.
    for lag in range(1, 17):
        assert abs(np.mean(stream[lag:] * stream[:-lag])) < LIMIT * 1.01
        assert abs(np.mean(stream[lag:] ** 2 * stream[:-lag] ** 2) - 1) < LIMIT * 8**0.5 * 1.01


def test_a_batch_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="noise for 2 items asked of a source for 1"):
        KeyedNoise(0, [0])(0, (2, 1, 4), CPU)


@pytest.mark.parametrize(("seed", "item"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**64)])
def test_keys_that_do_not_fit_in_64_bits_are_refused(seed: int, item: int) -> None:
    with pytest.raises(InputError, match="expected a whole number from 0"):
        KeyedNoise(seed, [item])
