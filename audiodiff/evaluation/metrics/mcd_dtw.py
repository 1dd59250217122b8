"""Mel-cepstral distortion in decibels along the best alignment of the two signals in time (dynamic time warping).

The frames and cepstra are those of MCD. The alignment is exact and symmetric: steps of one frame in one signal count
their distance once, of one frame in both twice, and the sum is divided by the frames of both signals (Sakoe & Chiba
1978, eq. 20), so that it does not depend on which of several best alignments is taken. Averages over the frames of
the alignment alone, as other packages give, are somewhat lower: compare only values of one definition.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.metrics.mcd import BANDS, END_ROW, FIRST_ROW, mel_cepstra
from audiodiff.evaluation.signals import checked

NAME = "MCD-DTW"
UNIT = "dB"
BETTER = "lower"

STEPS = np.array([[1, 1], [0, 1], [1, 0]])
STEP_WEIGHTS = np.array([2.0, 1.0, 1.0])


def mcd_dtw(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the mel-cepstral distortion in decibels of two signals that need not be equally long or fast.

    0 when they are equal; the same when they change places.

    Args:
        reference: [T].
        estimate: [T'].
        sample_rate: Hz, of both.

    Raises:
        InputError: no reference, or a signal that is not one-dimensional, is empty or not finite.
        NotMeasurable: shorter than one frame.
    """
    pair = [
        mel_cepstra(waveform, sample_rate)[FIRST_ROW:END_ROW].T for waveform in checked(reference, estimate)
    ]
    return 10 * np.sqrt(2) / BANDS * warped_distance(*pair)


def warped_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the Euclidean distance per frame along the best alignment.

    Args:
        first: [F, D].
        second: [F', D].
    """
    from librosa.sequence import dtw
    from scipy.spatial.distance import cdist

    distances = cdist(first, second)
    # The first pair counts twice as every pair that both signals step to.
    sums = dtw(C=distances, step_sizes_sigma=STEPS, weights_mul=STEP_WEIGHTS, backtrack=False)
    return float(sums[-1, -1] + distances[0, 0]) / sum(distances.shape)
