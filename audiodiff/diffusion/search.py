"""Finds the best N-step grid for a trained model.

A grid is its levels log(sigma / alpha), falling. Coordinate search tries each level of the best grid so far
at points towards its neighbours, keeps what scores lower, and halves the reach when a round changes nothing. It
starts from the best of the given grids, so that it never ends worse than any of them on the score it sees.
Every score is remembered: a search that is started again with what was scored goes on where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass

from audiodiff.errors import InputError

Times = tuple[float, ...]
Score = Callable[[Times], float]
"""Times, falling, without the last 0 -> what to minimise."""


@dataclass(frozen=True)
class CoordinateSearch:
    """Search over the times of a grid.

    Attributes:
        rounds: passes over all times.
        reach: first move, as a share of the way to the neighbour.
        move_first: whether the first time may leave t = 1.
    """

    rounds: int = 3
    reach: float = 0.5
    move_first: bool = True

    def evaluations(self, starts: int, steps: int) -> int:
        """Returns the largest number of scores that a search takes."""
        return starts + self.rounds * 2 * steps

    def __call__(
        self,
        starts: Sequence[Times],
        score: Score,
        known: MutableMapping[Times, float],
        to_level: Callable[[float], float],
        to_time: Callable[[float], float],
    ) -> tuple[Times, float]:
        """Returns the best times and their score.

        Args:
            starts: grids of equal length to start from; the best of them is improved.
            score: what to minimise; asked at most once for each grid.
            known: scores so far, which grows; keep it to go on later.
            to_level: time -> log(sigma / alpha).
            to_time: its inverse.

        Raises:
            InputError: no grid to start from, or grids of different lengths.
        """
        if not starts or len({len(times) for times in starts}) != 1:
            raise InputError(
                f"search: got {len(starts)} grids to start from, expected one or more of equal length"
            )

        def scored(times: Times) -> float:
            key = tuple(round(time, 9) for time in times)
            if key not in known:
                known[key] = score(key)
            return math.inf if math.isnan(known[key]) else known[key]

        best = min(starts, key=scored)
        reach = self.reach
        for _ in range(self.rounds):
            before = best
            for index in range(0 if self.move_first else 1, len(best)):
                for candidate in neighbours(best, index, reach, to_level, to_time):
                    if scored(candidate) < scored(best):
                        best = candidate
            reach = reach if best != before else reach / 2
        return tuple(round(time, 9) for time in best), scored(best)


def neighbours(
    times: Times,
    index: int,
    reach: float,
    to_level: Callable[[float], float],
    to_time: Callable[[float], float],
) -> list[Times]:
    """Returns the grids in which one time moved a share of the way to its neighbours in log(sigma / alpha)."""
    levels = [to_level(time) for time in times]
    above = to_level(1.0) if index == 0 else levels[index - 1]
    # Beyond the last level lies t = 0, infinitely far; as far again as the levels are apart on average, since the
    # level before may have come so near that the last would stick to it.
    finite = [level for level in levels if math.isfinite(level)]
    apart = (finite[0] - finite[-1]) / (len(finite) - 1) if len(finite) > 1 else 1.0
    below = levels[index + 1] if index + 1 < len(levels) else levels[index] - apart
    found = []
    for other in (above, below):
        time = to_time(levels[index] + reach * (other - levels[index]))
        moved = (*times[:index], time, *times[index + 1 :])
        if all(a > b for a, b in zip(moved, (*moved[1:], 0.0), strict=True)) and moved[0] <= 1:
            found.append(moved)
    return found
