"""Waveforms that are known, for tests of what changes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

RATE = 8000


def key(*numbers: int) -> np.random.Generator:
    """Chance that the numbers alone decide."""
    return np.random.default_rng(numbers)


def random_waveform(length: int, channels: int = 1) -> Tensor:
    """[channels, length], Gaussian, of deviation 0.1."""
    return 0.1 * torch.randn(channels, length, generator=torch.Generator().manual_seed(length))


def sine(frequency: float, length: int = RATE) -> Tensor:
    """[1, length], of amplitude 0.5."""
    return (
        0.5
        * torch.sin(2 * torch.pi * frequency / RATE * torch.arange(length, dtype=torch.float64)).float()[None]
    )


def peak_frequency(waveform: Tensor) -> float:
    """Hz, of the strongest partial of [1, T]."""
    spectrum = torch.fft.rfft(waveform[0] * torch.hann_window(waveform.shape[-1]), 1 << 18).abs()
    return float(spectrum.argmax()) * RATE / (1 << 18)
