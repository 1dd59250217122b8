"""From a statistic of a recording to how rarely a normal recording is as extreme.

Between the quantiles of held-out normal recordings the tail probability is the empirical one, (1 + those beyond) / (n
+ 1), joined by straight lines; beyond the outermost tenth it falls exponentially with that tenth's mean excess (peaks
over a threshold, of the Gumbel domain; Coles 2001, chapter 4), so that two extreme recordings are still ordered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from audiodiff.errors import InputError

_TAIL = 0.1  # share of the normals beyond which the exponential takes over
LEAST = 10


@dataclass(frozen=True)
class Tails:
    """The distribution of a statistic over normal recordings.

    Attributes:
        values: [n], rising.
    """

    values: np.ndarray

    def __post_init__(self) -> None:
        if len(self.values) < LEAST:
            raise InputError(f"tails: got {len(self.values)} normal recordings, expected at least {LEAST}")

    def surprise(self, statistic: np.ndarray) -> np.ndarray:
        """Returns minus log10 of the tail probability [N] of statistics [N]."""
        values, count = self.values, len(self.values)
        beyond = max(2, round(_TAIL * count))
        threshold = values[count - beyond]
        excess = max(float(values[count - beyond :].mean() - threshold), 1e-9 * (1 + abs(threshold)))
        ranks = (count - np.arange(count)) / (count + 1)
        inside = -np.log10(np.interp(statistic, values, ranks))
        at_threshold = -math.log10(ranks[count - beyond])
        outside = at_threshold + (statistic - threshold) / excess / math.log(10)
        return np.where(statistic > threshold, outside, inside)
