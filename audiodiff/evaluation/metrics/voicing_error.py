"""Percent of 5 ms frames that are voiced in one signal and unvoiced in the other.

Voiced is where WORLD's DIO and StoneMask (package pyworld) find a fundamental frequency.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.pitch import f0_pair

NAME = "Voicing error"
UNIT = "%"
BETTER = "lower"


def voicing_error(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the percentage of frames with another voicing; 0 when the signals are equal.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: too short.
    """
    clean, made = f0_pair(reference, estimate, sample_rate)
    return float(100 * np.mean((clean > 0) != (made > 0)))
