"""Keyed noise is a function of (seed, item, step, position) alone, and is normal and uncorrelated."""

from __future__ import annotations

import itertools
import math

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


@pytest.mark.parametrize("draw", [0, 1, 7])
def test_every_draw_of_a_step_is_the_same_in_any_batch_length_and_chunk(draw: int) -> None:
    whole = KeyedNoise(11, [4, 0])(2, (2, 3, 40), CPU, draw)
    assert torch.equal(KeyedNoise(11, [0])(2, (1, 3, 40), CPU, draw)[0], whole[1])
    assert torch.equal(KeyedNoise(11, [4, 0])(2, (2, 3, 13), CPU, draw), whole[..., :13])
    assert torch.equal(KeyedNoise(11, [4, 0], frame=13)(2, (2, 3, 27), CPU, draw), whole[..., 13:])


def philox(seed: int, item: int, step: int, draw: int, count: int) -> np.ndarray:
    """Box-Muller on the words of numpy's own Philox generator, pair by pair."""
    generator = np.random.Philox(
        key=np.array([seed, item], dtype=np.uint64), counter=np.array([0, step, draw, 0], dtype=np.uint64)
    )
    numbers: list[float] = []
    for word in generator.random_raw((count + 1) // 2).tolist():
        radius = math.sqrt(-2 * math.log(((word >> 32) + 0.5) / 2**32))
        angle = 2 * math.pi * (word & 0xFFFFFFFF) / 2**32
        numbers += [radius * math.cos(angle), radius * math.sin(angle)]
    return np.array(numbers[:count])


@given(*(st.integers(0, 2**64 - 1) for _ in range(2)), st.integers(0, 2**40), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_noise_is_box_muller_of_numpys_philox(seed: int, item: int, step: int, draw: int) -> None:
    expected = philox(seed, item, step, draw, 23)
    np.testing.assert_allclose(
        keyed_normal((seed, item), step, 0, 23, draw), expected, rtol=1e-13, atol=1e-15
    )


# The first five numbers of (seed, item, step, draw), from numpy's Philox with the counter (0, step, draw, 0).
GOLDEN = {
    (0, 0, 0, 0): (2.9162032225485, 0.64688525828607, -1.2855403357896, -1.0902982498362, -1.3901572516003),
    (7, 3, 0, 0): (-1.1940816616728, -0.18236712580439, -0.21900814446091, 0.77303863471809, 2.1017300270931),
    (7, 3, 1, 0): (0.79225205443872, -0.77770464405898, 0.32176262475658, 0.57813221655819, 1.594729215486),
    (7, 3, 1, 1): (-0.69646190589468, -1.642073926341, -0.37096928932233, -0.37723130052789, -0.60838253145016),
    (2**63, 12345, 50, 2): (-0.37163267927344, -0.53867532195891, 1.4290530923018, -0.882988515401, -0.40949149545532),
}  # fmt: skip


@pytest.mark.parametrize("key", GOLDEN)
def test_noise_is_what_it_has_always_been(key: tuple[int, int, int, int]) -> None:
    seed, item, step, draw = key
    found = keyed_normal((seed, item), step, 0, 5, draw)
    np.testing.assert_allclose(found, GOLDEN[key], rtol=1e-12, atol=0)
    if draw == 0:
        assert np.array_equal(keyed_normal((seed, item), step, 0, 5), found)
        default = KeyedNoise(seed, [item])(step, (1, 1, 5), CPU)
        np.testing.assert_allclose(default.flatten(), GOLDEN[key], rtol=1e-7, atol=0)


STREAMS = [
    keyed_normal((seed, item), step, 0, COUNT, draw)
    for seed, item, step, draw in (
        (0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 1, 1), (2**63, 5, 1000, 2)
    )
]  # fmt: skip


def test_other_seed_item_step_or_draw_gives_uncorrelated_noise() -> None:
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
