"""Whether two systems differ: their scores on the same files, compared pair by pair.

A mean difference with the 95 % percentile interval of a bootstrap over files (Efron 1979), and the Wilcoxon signed-rank
test (Wilcoxon 1945), which asks only that differences are symmetric about their middle. Where many pairs are tested
p-values are raised by Holm's method (Holm 1979), so that one in twenty comparisons does not win by chance.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

RESAMPLES = 2000
FEWEST_FILES = 6  # of less, no signed-rank test can reach 5 %


@dataclass(frozen=True)
class Difference:
    """Two systems by one measure.

    Attributes:
        measure: its key.
        first: a system.
        second: another one.
        files: that both have a value of.
        mean: first minus second.
        interval: 95 % bootstrap interval of the mean.
        p: of the signed-rank test, after Holm's correction where several were made; None for too few files.
    """

    measure: str
    first: str
    second: str
    files: int
    mean: float
    interval: tuple[float, float]
    p: float | None


def differences(
    values: Mapping[str, Mapping[str, Mapping[str, float]]], measures: Sequence[str], seed: int
) -> list[Difference]:
    """Returns every pair of systems by every measure that both have on at least two common files.

    Args:
        values: system -> measure -> file -> value.
        measures: keys.
        seed: of the bootstrap.
    """
    found = []
    for measure in measures:
        for first, second in itertools.combinations(values, 2):
            one, other = values[first].get(measure, {}), values[second].get(measure, {})
            common = [file for file in one if file in other]
            if len(common) < 2:
                continue
            gaps = np.array([one[file] - other[file] for file in common])
            found.append(
                Difference(
                    measure, first, second, len(common), float(gaps.mean()), _interval(gaps, seed), _p(gaps)
                )
            )
    return _corrected(found)


def _interval(gaps: np.ndarray, seed: int) -> tuple[float, float]:
    picks = np.random.default_rng(seed).integers(len(gaps), size=(RESAMPLES, len(gaps)))
    low, high = np.percentile(gaps[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _p(gaps: np.ndarray) -> float | None:
    from scipy.stats import wilcoxon

    if len(gaps) < FEWEST_FILES:
        return None
    if not gaps.any():
        return 1.0
    return float(wilcoxon(gaps).pvalue)


def _corrected(found: Sequence[Difference]) -> list[Difference]:
    """Returns the differences with Holm's p-values: the k-th smallest of m times m - k + 1, never falling."""
    tested = sorted((each.p, number) for number, each in enumerate(found) if each.p is not None)
    result, highest = list(found), 0.0
    for rank, (p, number) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        result[number] = replace(found[number], p=highest)
    return result
