"""Is it memorised? How near each generated sound lies to its nearest training clip, beside how near test clips lie.

A model that learned the distribution gives distances like those of test clips, which were never trained on; one that
repeats its training data gives smaller ones (Meehan et al. 2020 test the same two samples of distances). The share of
sounds nearer than the `PERCENTILE`-th percentile of the test clips is then above PERCENTILE %; `p_value` is that of a
one-sided Mann-Whitney test that sounds are nearer than test clips. Features must tell copies from mere likeness:
those of a classifier lie close for all clips of one class, and say less than a spectrum's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu

from audiodiff.evaluation.distributions.matrices import distance_rows, feature_pair

PERCENTILE = 5.0


@dataclass(frozen=True)
class Memorization:
    """Distances to the nearest training clip.

    Attributes:
        distances: [M], of the generated sounds.
        nearest: [M], number of that training clip.
        test_distances: [N], of the test clips.
        near_share: share of generated sounds nearer than the PERCENTILE-th percentile of test_distances.
        p_value: that they are no nearer than test clips.
    """

    distances: np.ndarray
    nearest: np.ndarray
    test_distances: np.ndarray
    near_share: float
    p_value: float

    @property
    def ratio(self) -> float:
        """Median distance over that of test clips; 0 for copies, about 1 for new sounds."""
        return float(np.median(self.distances) / max(np.median(self.test_distances), 1e-12))


def memorization(train: np.ndarray, test: np.ndarray, made: np.ndarray) -> Memorization:
    """Returns how near generated sounds lie to training clips.

    Args:
        train: [L, D].
        test: [N, D], real clips that were not trained on.
        made: [M, D].

    Raises:
        InputError: not such matrices.
    """
    train, made = feature_pair(train, made)
    train, test = feature_pair(train, test)
    distances, nearest = nearest_distances(made, train)
    test_distances, _ = nearest_distances(test, train)
    near = distances < np.percentile(test_distances, PERCENTILE)
    p_value = mannwhitneyu(distances, test_distances, alternative="less").pvalue
    return Memorization(distances, nearest, test_distances, float(near.mean()), float(p_value))


def nearest_distances(
    of: np.ndarray, among: np.ndarray, themselves: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distance [M] of each row of [M, D] to its nearest row of [L, D], and that row's number [M].

    Args:
        of: whose neighbours.
        among: the candidates.
        themselves: both are the same matrix, and no row is its own neighbour.
    """
    distance, number = np.empty(len(of)), np.empty(len(of), dtype=np.int64)
    for rows, distances in distance_rows(of, among):
        if themselves:
            distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
        number[rows] = distances.argmin(1)
        distance[rows] = distances[np.arange(len(distances)), number[rows]]
    return distance, number


def diversity(features: np.ndarray, classes: np.ndarray | None = None) -> float | None:
    """Returns the mean distance between two sounds, of one class where classes [N] are known.

    Averaged over the classes with at least two sounds; None when there is none.
    """
    groups = [features] if classes is None else [features[classes == each] for each in np.unique(classes)]
    means = []
    for group in groups:
        if len(group) > 1:
            total = sum(float(distances.sum()) for _, distances in distance_rows(group, group))
            means.append(total / (len(group) * (len(group) - 1)))
    return float(np.mean(means)) if means else None
