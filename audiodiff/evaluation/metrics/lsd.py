"""Log-spectral distance: RMS over frequency of the difference of log power spectra, averaged over frames.

LSD = mean_f sqrt( mean_k (10 log10 P_ref[f, k] - 10 log10 P_est[f, k])^2 ), in dB (Gray and Markel 1976).
P is the power of Hann frames of 64 ms (nearest power of two) every quarter of that, floored at -100 dB of
full scale.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.signals import matched, power_frames, power_of_two

NAME = "LSD"
UNIT = "dB"
BETTER = "lower"

FRAME_SECONDS = 0.064


def lsd(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the log-spectral distance of two signals in decibels; 0 when they are equal.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: shorter than one frame.
    """
    n_fft = power_of_two(FRAME_SECONDS, sample_rate)
    levels = [10 * np.log10(power_frames(x, n_fft, n_fft // 4)) for x in matched(reference, estimate)]
    return float(np.mean(np.sqrt(np.mean((levels[0] - levels[1]) ** 2, axis=1))))
