"""Fidelity and coverage apart: is what is made real, and is what is real made? By balls around nearest neighbours.

B_k(x) is the ball around x that reaches to its k-th neighbour within its own set.

    precision = share of generated g in some B_k(r)        recall  = share of real r in some B_k(g)
    density   = 1/(kM) sum over g, r of [g in B_k(r)]      coverage = share of real r with some g in B_k(r)

Precision and recall: Kynkaanniemi et al. 2019, eq. 1-2, k = 3. Density and coverage: Naeem et al. 2020, eq. 3-4, k = 5;
one outlier among the real sounds, with its wide ball, makes precision high but leaves density alone. Density of a
distribution against itself is 1 and may exceed it; expected coverage is 1 - (N-1)...(N-k) / ((M+N-1)...(M+N-k)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiodiff.evaluation.distributions.matrices import distance_rows, feature_matrix, feature_pair


@dataclass(frozen=True)
class Manifolds:
    """How two sets of features overlap.

    Attributes:
        precision: from 0 to 1.
        recall: from 0 to 1.
        density: from 0, 1 for equal distributions.
        coverage: from 0 to 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifolds(
    real: np.ndarray, made: np.ndarray, neighbours: int = 3, density_neighbours: int = 5
) -> Manifolds:
    """Returns precision, recall, density and coverage.

    Args:
        real: [N, D], more rows than neighbours.
        made: [M, D], more rows than neighbours.
        neighbours: k of precision and recall.
        density_neighbours: k of density and coverage.

    Raises:
        InputError: not two such matrices.
    """
    real, made = feature_pair(real, made, least=max(neighbours, density_neighbours) + 1)
    radius, wide = radii(real, neighbours), radii(real, density_neighbours)
    own = radii(made, neighbours)
    inside, within = np.empty(len(made), bool), np.empty(len(made))
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, distances in distance_rows(made, real):
        inside[rows] = (distances <= radius).any(1)
        within[rows] = (distances <= wide).sum(1)
        recalled |= (distances <= own[rows, None]).any(0)
        covered |= (distances <= wide).any(0)
    density = within.sum() / (density_neighbours * len(made))
    return Manifolds(float(inside.mean()), float(recalled.mean()), float(density), float(covered.mean()))


def radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    """Returns the distance [N] of each row of [N, D] to its k-th nearest other row.

    Raises:
        InputError: not more rows than neighbours.
    """
    features = feature_matrix(features, "neighbouring", least=neighbours + 1)
    reach = np.empty(len(features))
    for rows, distances in distance_rows(features, features):
        # Number 0 is the row itself.
        reach[rows] = np.partition(distances, neighbours, axis=1)[:, neighbours]
    return reach
