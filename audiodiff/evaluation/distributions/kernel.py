"""Kernel distance: unbiased squared maximum mean discrepancy with a cubic kernel (KID; Binkowski et al. 2018, eq. 3-4).

    k(x, y) = (x.y / D + 1)^3
    d = mean_{i != j} k(r_i, r_j) + mean_{i != j} k(g_i, g_j) - 2 mean_{i, j} k(r_i, g_j)

All pairs are used, where Binkowski averages over blocks of 1000; the expectation is the same, the variance less. It is
unbiased: for equal distributions its mean is 0 whatever the sample count, so it may be a little negative.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.distributions.matrices import PIECE, feature_pair

DEGREE = 3


def kernel_distance(real: np.ndarray, made: np.ndarray) -> float:
    """Returns the kernel distance of two sets of features.

    Args:
        real: [N, D], at least two rows.
        made: [M, D], at least two rows.

    Raises:
        InputError: not two such matrices.
    """
    real, made = feature_pair(real, made, least=2)
    within = sum(_mean_of_others(features) for features in (real, made))
    return float(within - 2 * _kernel_sum(real, made) / (len(real) * len(made)))


def _mean_of_others(features: np.ndarray) -> float:
    count = len(features)
    itself = ((np.square(features).sum(1) / features.shape[1] + 1) ** DEGREE).sum()
    return float((_kernel_sum(features, features) - itself) / (count * (count - 1)))


def _kernel_sum(one: np.ndarray, other: np.ndarray) -> float:
    step = max(1, PIECE // len(other))
    parts = (one[start : start + step] for start in range(0, len(one), step))
    return float(sum(((part @ other.T / one.shape[1] + 1) ** DEGREE).sum() for part in parts))
