"""What the metrics share: pairs of equal length, the floor of every level, power spectra, optional packages.

The floor is 1e-10 of full scale (-100 dB), about the noise of rounding to 16 bits (2^-30 / 12 = 8e-11). Below
it nothing is audible, and without it digital silence would weigh more than everything else.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np

from audiodiff.errors import InputError
from audiodiff.evaluation.metrics import NotMeasurable

FLOOR_POWER = 1e-10

# Vocoders end on a whole frame; more than this is another recording or another sample rate.
LENGTH_TOLERANCE = 0.02


def checked(reference: np.ndarray | None, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both signals as float64, of whatever lengths.

    Args:
        reference: [T], the recording.
        estimate: [T'], what was made of it.

    Raises:
        InputError: no reference, or a signal that is not one-dimensional, is empty or holds NaN or infinity.
    """
    if reference is None:
        raise InputError("got no reference; this metric compares an estimate with a recording")
    pair = [np.asarray(signal, dtype=np.float64) for signal in (reference, estimate)]
    for name, signal in zip(("reference", "estimate"), pair, strict=True):
        if signal.ndim != 1 or signal.size == 0:
            raise InputError(
                f"{name}: got shape {signal.shape}, expected [T] with at least one sample (mono)"
            )
        if not np.isfinite(signal).all():
            raise InputError(f"{name}: holds NaN or infinite samples; expected finite numbers")
    return pair[0], pair[1]


def matched(reference: np.ndarray | None, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both signals as float64, cut to the common length.

    Args:
        reference: [T], the recording.
        estimate: [T'], what was made of it.

    Raises:
        InputError: as `checked`, or lengths that differ by 2 % or more.
    """
    pair = checked(reference, estimate)
    shortest, longest = sorted(signal.size for signal in pair)
    if longest - shortest >= LENGTH_TOLERANCE * longest and longest > shortest:
        raise InputError(
            f"estimate has {pair[1].size} samples, reference {pair[0].size}; expected lengths within 2 %: "
            "compare the same recording at the same sample rate"
        )
    return pair[0][:shortest], pair[1][:shortest]


def power_frames(waveform: np.ndarray, n_fft: int, hop_length: int) -> np.ndarray:
    """Returns [F, n_fft//2 + 1], the power of Hann-windowed frames, floored at FLOOR_POWER.

    White noise of variance v has power v in every bin. Frames lie wholly inside the signal.

    Args:
        waveform: [T].
        n_fft: samples of window and transform.
        hop_length: samples between frames.

    Raises:
        NotMeasurable: the signal is shorter than one frame.
    """
    if waveform.size < n_fft:
        raise NotMeasurable("shorter than one analysis frame")
    window = np.hanning(n_fft + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(waveform, n_fft)[::hop_length]
    power = np.abs(np.fft.rfft(frames * window)) ** 2 / np.sum(window**2)
    return np.maximum(power, FLOOR_POWER)


def power_of_two(seconds: float, sample_rate: int) -> int:
    """Returns the power of two nearest to a duration in samples."""
    return int(2 ** round(np.log2(seconds * sample_rate)))


def resampled(waveform: np.ndarray, sample_rate: int, target_rate: int) -> np.ndarray:
    """Returns a signal [T] at another sample rate."""
    if sample_rate == target_rate:
        return waveform
    import soxr

    return np.asarray(soxr.resample(waveform, sample_rate, target_rate, quality="VHQ"))


def optional_package(name: str) -> ModuleType:
    """Returns a module of the `metrics` extra.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise InputError(
            f"package {package} is not installed ({error}); install it with: pip install 'audiodiff[metrics]'"
        ) from error
