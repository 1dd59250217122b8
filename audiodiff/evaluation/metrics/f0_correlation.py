"""Correlation of the fundamental frequency over frames voiced in both signals: whether a melody moves alike (Pearson).

Pearson's r of log F0, every 5 ms, F0 by WORLD's DIO and StoneMask (package pyworld), no time alignment. Unlike the
error in cents it does not count a voice that is higher throughout.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.pitch import f0_pair

NAME = "F0 correlation"
UNIT = ""
BETTER = "higher"

FEWEST_FRAMES = 10  # 50 ms; a correlation of less is chance
SMALLEST_CENTS = 5.0  # deviation of a tone that has no melody; less is not heard as a change of pitch


def f0_correlation(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the correlation of two melodies, from -1 to 1; 1 when the signals are equal.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: too few frames voiced in both signals, one steady tone, or too short.
    """
    clean, made = f0_pair(reference, estimate, sample_rate)
    voiced = (clean > 0) & (made > 0)
    if voiced.sum() < FEWEST_FRAMES:
        raise NotMeasurable(f"less than {FEWEST_FRAMES} frames are voiced in both signals")
    cents = [1200 * np.log2(each[voiced]) for each in (clean, made)]
    if min(each.std() for each in cents) < SMALLEST_CENTS:
        raise NotMeasurable("the pitch of one signal does not move")
    return float(np.corrcoef(*cents)[0, 1])
