"""Wideband PESQ (ITU-T P.862.2) at 16 kHz: predicted mean opinion score, 1.04 to 4.64, by the package pesq.

Material of a higher rate is resampled to 16 kHz; material below 16 kHz has no wideband score. PESQ was made
for recordings of 8 to 30 s and its reference code overruns its tables beyond 50 utterances, so a longer
signal is scored in equal pieces of at most 10.5 s and averaged.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.pesq import pesq_score

NAME = "PESQ-WB"
UNIT = "MOS"
BETTER = "higher"


def pesq_wb(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the wideband PESQ score.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: a rate below 16 kHz, a signal without utterances, or too short for PESQ.
    """
    if sample_rate < 16000:
        raise NotMeasurable("wideband PESQ needs material of at least 16 kHz")
    return pesq_score(reference, estimate, sample_rate, 16000, "wb")
