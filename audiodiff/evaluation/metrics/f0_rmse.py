"""RMSE in cents of the fundamental frequency, over frames voiced in both signals.

1200 log2(f_est / f_ref), every 5 ms, F0 by WORLD's DIO and StoneMask (package pyworld), no time alignment.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.pitch import f0_pair

NAME = "F0 RMSE"
UNIT = "cents"
BETTER = "lower"


def f0_rmse(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the F0 error in cents; 0 when the signals are equal.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: no frame is voiced in both signals, or too short.
    """
    clean, made = f0_pair(reference, estimate, sample_rate)
    voiced = (clean > 0) & (made > 0)
    if not voiced.any():
        raise NotMeasurable("no frame is voiced in both signals")
    cents = 1200 * np.log2(made[voiced] / clean[voiced])
    return float(np.sqrt(np.mean(cents**2)))
