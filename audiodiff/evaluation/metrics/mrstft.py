"""Multi-resolution STFT distance by the package auraloss, with the three resolutions of Parallel WaveGAN.

Mean over windows of 240, 600 and 1200 samples of spectral convergence ||R - E|| / ||R|| plus the L1 distance
of natural log magnitudes (Yamamoto et al. 2020, eq. 4-6); magnitudes are floored at 1e-4. The windows are in
samples, as published, so values of different sample rates do not compare.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.signals import FLOOR_POWER, matched, optional_package

NAME = "MR-STFT"
UNIT = ""
BETTER = "lower"

LONGEST_FFT = 2048


def mrstft(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the multi-resolution STFT distance; 0 when the signals are equal.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both; not used by the published definition.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: the reference is silent, or too short for the longest window.
    """
    import torch

    loss = optional_package("auraloss.freq").MultiResolutionSTFTLoss()
    clean, made = matched(reference, estimate)
    if np.mean(clean**2) < FLOOR_POWER:
        raise NotMeasurable("MR-STFT: the reference is silent")
    if clean.size <= LONGEST_FFT // 2:
        raise NotMeasurable("too short for the longest window of MR-STFT")
    tensors = [torch.as_tensor(x, dtype=torch.float32)[None, None] for x in (made, clean)]
    return float(loss(*tensors))
