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
            interval, p = _interval(gaps, seed), signed_rank(gaps)
            found.append(Difference(measure, first, second, len(common), float(gaps.mean()), interval, p))
    raised = holm([each.p for each in found])
    return [replace(each, p=p) for each, p in zip(found, raised, strict=True)]


def _interval(gaps: np.ndarray, seed: int) -> tuple[float, float]:
    picks = np.random.default_rng(seed).integers(len(gaps), size=(RESAMPLES, len(gaps)))
    low, high = np.percentile(gaps[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def signed_rank(gaps: np.ndarray) -> float | None:
    """Returns the two-sided p-value of Wilcoxon's signed-rank test of differences [N], None for too few."""
    from scipy.stats import wilcoxon

    if len(gaps) < FEWEST_FILES:
        return None
    if not gaps.any():
        return 1.0
    return float(wilcoxon(gaps).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns Holm's p-values: the k-th smallest of m times m - k + 1, never falling; None stays."""
    tested = sorted((p, number) for number, p in enumerate(p_values) if p is not None)
    raised, highest = list(p_values), 0.0
    for rank, (p, number) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        raised[number] = highest
    return raised
