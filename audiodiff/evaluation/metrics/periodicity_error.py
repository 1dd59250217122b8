"""RMSE of periodicity, which tells how voiced each moment is, from 0 (noise) to 1 (exactly periodic).

Periodicity of a frame is the largest normalised autocorrelation at a lag of 71 to 800 Hz, in frames of four periods of
the lowest tone every 5 ms (the measure of Morrison et al. 2022, "CARGAN", section 4.2, there by a neural pitch
tracker). A voice that buzzes or whispers where the recording does not has an error, though its pitch and spectrum may
be right.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.signals import FLOOR_POWER, matched

NAME = "Periodicity RMSE"
UNIT = ""
BETTER = "lower"

LOWEST_HZ, HIGHEST_HZ = 71.0, 800.0
HOP_SECONDS = 0.005


def periodicity_error(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the root mean square difference of two periodicities; 0 when the signals are equal.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: shorter than one frame.
    """
    clean, made = (periodicity(signal, sample_rate) for signal in matched(reference, estimate))
    return float(np.sqrt(np.mean((clean - made) ** 2)))


def periodicity(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the periodicity [F] of a signal [T], every 5 ms; 0 in silence.

    The autocorrelation at lag l is divided by the energies of the two parts that it compares (Talkin 1995, "RAPT",
    eq. 2), so that the length of the frame does not count.

    Raises:
        NotMeasurable: shorter than one frame.
    """
    length = round(4 * sample_rate / LOWEST_HZ)
    shortest, longest = round(sample_rate / HIGHEST_HZ), round(sample_rate / LOWEST_HZ)
    if waveform.size < length:
        raise NotMeasurable("shorter than one frame of periodicity")
    hop = round(HOP_SECONDS * sample_rate)
    frames = np.lib.stride_tricks.sliding_window_view(waveform, length)[::hop]
    frames = frames - frames.mean(1, keepdims=True)
    size = fft.next_fast_len(2 * length, real=True)
    products = fft.irfft(np.abs(fft.rfft(frames, size)) ** 2, size)[:, shortest : longest + 1]
    energy = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), axis=1)
    lags = np.arange(shortest, longest + 1)
    heads, tails = energy[:, length - lags], energy[:, -1:] - energy[:, lags]
    floor = FLOOR_POWER * (length - lags)
    return np.asarray((products / np.sqrt((heads + floor) * (tails + floor))).max(1).clip(0, 1))
