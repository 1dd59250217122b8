"""Narrowband PESQ (ITU-T P.862, P.862.1) at 8 kHz: predicted opinion score, 1.02 to 4.55, by package pesq.

Made for telephone speech; it is the score of 8 kHz material, and says nothing about the band above 4 kHz of
other material, which is resampled to 8 kHz. Long signals are scored in pieces, see pesq_wb.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.pesq import pesq_score

NAME = "PESQ-NB"
UNIT = "MOS"
BETTER = "higher"


def pesq_nb(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the narrowband PESQ score.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: a signal without utterances, or too short for PESQ.
    """
    return pesq_score(reference, estimate, sample_rate, 8000, "nb")
