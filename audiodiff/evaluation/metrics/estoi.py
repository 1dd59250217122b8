"""Extended short-time objective intelligibility, up to 1, by the package pystoi (Jensen and Taal 2016).

As STOI, but segments are compared as spectrograms, normalised over bands as well: noise that comes and goes counts.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.metrics.stoi import intelligibility

NAME = "ESTOI"
UNIT = ""
BETTER = "higher"


def estoi(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the extended short-time objective intelligibility; 1 when the signals are equal.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: the reference is silent or has less than 0.4 s of speech.
    """
    return intelligibility(reference, estimate, sample_rate, extended=True)
