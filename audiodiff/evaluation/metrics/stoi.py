"""Short-time objective intelligibility, up to 1, by the package pystoi (Taal et al. 2011).

Mean correlation of third-octave envelopes over segments of 384 ms, at 10 kHz, in frames where the reference
is within 40 dB of its loudest. Signals with less than 30 such frames have no score.
"""

from __future__ import annotations

import warnings

import numpy as np

from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.signals import FLOOR_POWER, matched, optional_package

NAME = "STOI"
UNIT = ""
BETTER = "higher"


def stoi(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the short-time objective intelligibility; 1 when the signals are equal.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: the reference is silent or has less than 0.4 s of speech.
    """
    return intelligibility(reference, estimate, sample_rate, extended=False)


def intelligibility(
    reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int, extended: bool
) -> float:
    """Returns STOI, or ESTOI where extended; see `stoi`."""
    pystoi = optional_package("pystoi")
    clean, degraded = matched(reference, estimate)
    if np.mean(clean**2) < FLOOR_POWER:
        raise NotMeasurable("STOI: the reference is silent")
    if clean.size < 0.4 * sample_rate:  # pystoi fails without a word on less than one frame
        raise NotMeasurable("too short for STOI (0.4 s of speech)")
    with warnings.catch_warnings():
        # pystoi warns and returns 1e-5, which would look like a score.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(clean, degraded, sample_rate, extended))
        except RuntimeWarning:
            raise NotMeasurable("too short for STOI (0.4 s of speech)") from None
