"""Loudness of one sound, whatever its length: the level of its loudest 50 ms.

    loudness = 10 log10( max over n of mean over 50 ms from sample n, and over channels, of x^2 )   dB of full scale

A full-scale square wave has 0 dB, a full-scale sine -3 dB. Silence before or after a sound does not change it, nor does
how long it rings, so that a snare and a cymbal struck as hard can be compared; a level over the whole clip could not.
No ear is modelled: the bands are not weighted (ITU-R BS.1770 does, over blocks of 400 ms, longer than most drums).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from audiodiff.errors import InputError

WINDOW_SECONDS = 0.05
LOWEST_DB = -100.0
"""What silence has: below the smallest step of 16 bits."""


def loudness_db(waveform: Tensor, sample_rate: int) -> float:
    """Returns the level of the loudest 50 ms, dB of full scale, LOWEST_DB or more.

    Args:
        waveform: [C, T] or [T]; one shorter than 50 ms counts as followed by silence.
        sample_rate: Hz.

    Raises:
        InputError: no samples, or samples that are not finite.
    """
    if waveform.numel() == 0 or not bool(waveform.isfinite().all()):
        raise InputError(f"loudness: waveform of shape {tuple(waveform.shape)}; expected finite samples")
    power = waveform.double().square()
    power = power.mean(0) if power.dim() == 2 else power
    window = max(1, round(WINDOW_SECONDS * sample_rate))
    sums = torch.nn.functional.pad(power.cumsum(0), (1, 0))
    loudest = (sums[window:] - sums[:-window]).max() if len(sums) > window else sums[-1]
    return max(LOWEST_DB, 10 * math.log10(max(float(loudest) / window, 1e-30)))
