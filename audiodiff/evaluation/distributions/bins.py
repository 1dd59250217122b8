"""NDB: in how many bins generated sounds fall significantly more or less often (Richardson and Weiss 2018, section 3).

The bins are the cells of k-means on the real features. For each, the two shares are compared by a two-sided test of two
proportions: z = (p_r - p_g) / sqrt(p (1 - p) (1/N + 1/M)), p the pooled share. Of equal distributions a share of
`SIGNIFICANCE` differs by chance, so NDB/K near 0.05 is perfect and 0 is luck, or too few samples for the test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2, vq
from scipy.stats import norm

from audiodiff.errors import InputError
from audiodiff.evaluation.distributions.matrices import feature_pair

SIGNIFICANCE = 0.05
ITERATIONS = 100


@dataclass(frozen=True)
class BinTest:
    """Shares of two sets by bin.

    Attributes:
        real: [K], share of the real sounds.
        made: [K], share of the generated.
        different: [K], whether they differ significantly.
    """

    real: np.ndarray
    made: np.ndarray
    different: np.ndarray

    @property
    def share(self) -> float:
        """NDB/K: the share of bins that differ."""
        return float(self.different.mean())


def bin_test(real: np.ndarray, made: np.ndarray, bins: int, seed: int) -> BinTest:
    """Returns which bins of the real features the generated ones fill otherwise.

    Args:
        real: [N, D], in which the bins are found.
        made: [M, D].
        bins: how many, K.
        seed: of k-means.

    Raises:
        InputError: not two such matrices, or fewer real rows than bins.
    """
    real, made = feature_pair(real, made)
    if not 1 <= bins <= len(real):
        raise InputError(
            f"{bins} bins for {len(real)} real sounds; expected from 1 to as many bins as sounds"
        )
    centres, _ = kmeans2(real, bins, iter=ITERATIONS, minit="++", seed=np.random.default_rng(seed))
    real_share, made_share = (_shares(features, centres) for features in (real, made))
    return BinTest(real_share, made_share, proportions_differ(real_share, made_share, len(real), len(made)))


def _shares(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.bincount(vq(features, centres)[0], minlength=len(centres)) / len(features)


def proportions_differ(one: np.ndarray, other: np.ndarray, count: int, other_count: int) -> np.ndarray:
    """Returns whether shares [K] of two sets with so many members differ at the level SIGNIFICANCE."""
    pooled = (one * count + other * other_count) / (count + other_count)
    error = np.sqrt(pooled * (1 - pooled) * (1 / count + 1 / other_count))
    apart = np.abs(one - other)
    # A bin that is empty in both, or holds everything in both, does not differ.
    z = np.divide(apart, error, out=np.zeros_like(apart), where=error > 0)
    return 2 * norm.sf(z) < SIGNIFICANCE
