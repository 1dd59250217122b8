"""Mean absolute difference of log-mels, in decibels, which is what most vocoders are trained on.

80 bands of the Slaney scale from 0 Hz to half the sample rate, power spectrum of Hann frames of about 46 ms every
quarter of that, floored at -100 dB of full scale. Alone it says little: Griffin-Lim, which inverts a mel and nothing
else, leads every table of it (a mel tells nothing of phases).
"""

from __future__ import annotations

import functools

import numpy as np

from audiodiff.evaluation.signals import matched, power_frames, power_of_two

NAME = "Mel L1"
UNIT = "dB"
BETTER = "lower"

WINDOW_SECONDS = 0.046
BANDS = 80


def mel_l1(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the mean absolute difference of two log-mels in decibels; 0 when the signals are equal.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: shorter than one frame.
    """
    n_fft = power_of_two(WINDOW_SECONDS, sample_rate)
    bands = _bands(sample_rate, n_fft)
    clean, made = (
        10 * np.log10(power_frames(signal, n_fft, n_fft // 4) @ bands)
        for signal in matched(reference, estimate)
    )
    return float(np.mean(np.abs(clean - made)))


@functools.cache
def _bands(sample_rate: int, n_fft: int) -> np.ndarray:
    """Returns [n_fft//2 + 1, bands], each band a mean of bins; bands without a bin of their own are left out."""
    import librosa

    rows = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=BANDS, fmax=sample_rate / 2, norm=None)
    sums = rows.sum(1)
    return np.asarray((rows[sums > 0] / sums[sums > 0, None]).T, dtype=np.float64)
