"""Mel-cepstral distortion in decibels, without time alignment, by the package mel-cepstral-distance.

MCD = mean_f (10 / ln 10) sqrt(2 sum_{d=1}^{15} (c_d - c'_d)^2), c the mel cepstrum of the log amplitude
(Kubichek 1993, eq. 1): the RMS difference in dB of the two log spectra, smoothed to 15 cepstra, level aside.

Analysis: Hann frames of 32 ms every 8 ms, 20 triangular mel bands (HTK mel) from 0 to half the sample rate,
cosine transform, coefficients 1 to 15. The package gives the norm of unscaled coefficients of log10 energy,
which is the formula above divided by 10 sqrt(2) / 20. Spectra are floored at -100 dB of full scale, since
digital silence would have a cepstrum of rounding errors. Values of other packages (pymcd, SPTK, WORLD
envelopes) differ by factors of two: compare only values of one definition.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.signals import FLOOR_POWER, matched, optional_package

NAME = "MCD"
UNIT = "dB"
BETTER = "lower"

FRAME_SECONDS = 0.032
HOP_SECONDS = 0.008
BANDS = 20
# The package's rows begin at coefficient 1 (there is no 0, the level); its own default of 1 leaves out the tilt.
FIRST_ROW, END_ROW = 0, 15


def mcd(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the mel-cepstral distortion of two signals in decibels; 0 when they are equal.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: shorter than one frame.
    """
    computation = optional_package("mel_cepstral_distance.computation")
    cepstra = [mel_cepstra(waveform, sample_rate) for waveform in matched(reference, estimate)]
    distances = computation.get_MCD_k(*cepstra, FIRST_ROW, END_ROW)
    return float(10 * np.sqrt(2) / BANDS * computation.get_average_MCD(distances))


def mel_cepstra(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the coefficients [BANDS, F] from 1 on of a signal [T], in the package's own scale.

    Raises:
        NotMeasurable: shorter than one frame.
    """
    computation = optional_package("mel_cepstral_distance.computation")
    window = int(FRAME_SECONDS * sample_rate)
    hop = int(HOP_SECONDS * sample_rate)
    if waveform.size <= window:
        raise NotMeasurable("shorter than one analysis frame")
    floor = np.sqrt(FLOOR_POWER * np.sum(np.hanning(window) ** 2))
    filters = computation.get_w_n_m(sample_rate, window, BANDS, 0, sample_rate / 2)
    magnitude = np.abs(computation.get_X_km(waveform, window, window, hop, "hanning"))
    bands = computation.get_X_kn(np.maximum(magnitude, floor), filters)
    return np.asarray(computation.get_MC_X_ik(bands, BANDS))
