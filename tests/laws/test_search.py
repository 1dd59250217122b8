"""The search for a grid finds what is known to be best, never loses and never asks twice."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from audiodiff.diffusion.search import CoordinateSearch, Times, neighbours
from audiodiff.errors import InputError

BEST: Times = (1.0, 0.5, 0.12, 0.02)
START: Times = (1.0, 0.75, 0.5, 0.25)


def convex(times: Times) -> float:
    """Smallest at BEST, convex in the levels."""
    return sum((math.log(a) - math.log(b)) ** 2 for a, b in zip(times, BEST, strict=True))


class Score:
    """A score that counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Times] = []

    def __call__(self, times: Times) -> float:
        self.asked.append(times)
        assert all(a > b for a, b in pairwise((*times, 0.0)))
        assert times[0] <= 1
        return convex(times)


def search(
    rounds: int, score: Score, known: dict[Times, float], *starts: Times, **settings: bool
) -> tuple[Times, float]:
    return CoordinateSearch(rounds, **settings)(starts or (START,), score, known, math.log, math.exp)


def test_it_finds_the_minimum_of_a_convex_score() -> None:
    found, value = search(60, Score(), {})
    assert found == pytest.approx(BEST, rel=0.02)
    assert value == convex(found)
    assert value < 1e-3


def test_it_is_never_worse_than_any_start_and_starts_from_the_best() -> None:
    starts = (START, (1.0, 0.6, 0.2, 0.1), (0.9, 0.5, 0.13, 0.02))
    for rounds in (0, 1, 4):
        score = Score()
        found, value = search(rounds, score, {}, *starts)
        assert value <= min(convex(times) for times in starts)
        assert list(score.asked[:3]) == list(starts)
        if rounds == 0:
            assert found == starts[2]


def test_it_is_deterministic_and_no_grid_is_asked_twice() -> None:
    first, second = Score(), Score()
    assert search(8, first, {}) == search(8, second, {})
    assert first.asked == second.asked
    assert len(first.asked) == len(set(first.asked)) <= CoordinateSearch(8).evaluations(1, 4)


@pytest.mark.parametrize("done", [1, 5, 17])
def test_it_goes_on_from_what_is_known_without_asking_again(done: int) -> None:
    whole, known = Score(), {}
    expected = search(6, whole, known)
    assert list(known) == whole.asked
    rest = Score()
    begun = {times: known[times] for times in whole.asked[:done]}
    assert search(6, rest, begun) == expected
    assert rest.asked == whole.asked[done:]
    nothing = Score()
    assert search(6, nothing, known) == expected
    assert nothing.asked == []


def test_the_first_time_stays_where_it_is_told_to() -> None:
    score = Score()
    search(6, score, {}, move_first=False)
    assert {times[0] for times in score.asked} == {1.0}
    free = Score()
    search(6, free, {})
    assert len({times[0] for times in free.asked}) > 1


def test_a_score_that_is_not_a_number_loses() -> None:
    def broken(times: Times) -> float:
        return math.nan if times[1] > 0.7 else convex(times)

    other = (1.0, 0.6, 0.2, 0.1)
    found, value = CoordinateSearch(4)((START, other), broken, {}, math.log, math.exp)
    assert value <= convex(other)
    assert found[1] <= 0.7


def test_neighbours_lie_a_share_of_the_way_and_stay_in_order() -> None:
    for index in range(4):
        for grid in neighbours(START, index, 0.5, math.log, math.exp):
            assert all(a > b for a, b in pairwise((*grid, 0.0)))
            assert [i for i in range(4) if grid[i] != START[i]] in ([index], [])
    up, down = neighbours(START, 1, 0.5, math.log, math.exp)
    assert up[1] == pytest.approx((0.75 * 1.0) ** 0.5)
    assert down[1] == pytest.approx((0.75 * 0.5) ** 0.5)


def test_levels_that_are_infinite_are_left_alone() -> None:
    def level(time: float) -> float:
        return math.log(time / (1 - time)) if time < 1 else math.inf

    def back(value: float) -> float:
        return 1 / (1 + math.exp(-value)) if value < 700 else 1.0

    found, value = CoordinateSearch(10)((START,), convex, {}, level, back)
    assert found[0] == 1.0
    assert value < convex(START)


def test_nothing_to_start_from_or_unequal_grids_are_refused() -> None:
    for starts in ((), (START, (1.0, 0.5))):
        with pytest.raises(InputError, match="expected one or more of equal length"):
            CoordinateSearch()(starts, convex, {}, math.log, math.exp)
