"""Moves a waveform to one whose mel is the mel that was asked for, keeping its phases and fine structure.

A sampled waveform has the mel it was conditioned on only about. Alternate two projections: scale every bin of
the STFT by what its bands lack, and return to the STFT of a real signal (Griffin and Lim 1984, eq. 6). It is the
correction of Liu et al. 2024 (GLA-Grad, arXiv 2402.15516), applied to the finished waveform, with the bands'
ratios in place of a pseudo-inverse, so that what the model made between the bands stays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiodiff.audio.griffin_lim import analyse, padding, synthesize
from audiodiff.audio.mel import LogMel
from audiodiff.errors import InputError

_GAINS = (0.05, 20.0)  # of one iteration: silence is not blown up at once


def match_mel(waveform: Tensor, mel: Tensor, log_mel: LogMel, iterations: int) -> Tensor:
    """Returns waveform [T] moved towards the mel.

    Args:
        waveform: [T] of one item.
        mel: [n_mels, F], F as log_mel gives for T samples, or more, which are not heard.
        log_mel: the definition of the mel.
        iterations: pairs of projections; 0 returns the waveform.

    Raises:
        InputError: negative iterations, or a mel with less frames than the waveform.
    """
    if iterations < 0:
        raise InputError(f"mel iterations: got {iterations}, expected 0 or more")
    length = waveform.shape[-1]
    frames = log_mel.frames(length)
    if mel.shape[-1] < frames:
        raise InputError(f"mel: got {mel.shape[-1]} frames for {length} samples, expected {frames}")
    if iterations == 0 or frames == 0:
        return waveform
    before = padding(log_mel)
    after = (frames - 1) * log_mel.hop_length + log_mel.n_fft - before - length
    signal = torch.nn.functional.pad(waveform, (before, max(after, 0)))
    wanted = log_mel.magnitude(mel[:, :frames])
    bank = log_mel.filterbank.to(waveform)
    covered = bank.sum(0)[:, None]
    scale = log_mel.window.norm() if log_mel.window_normalized else 1.0
    for _ in range(iterations):
        spectrum = analyse(log_mel, signal)[:, :frames]
        energy = spectrum.real.square() + spectrum.imag.square()  # a third of the time of abs
        linear = energy.sqrt() / scale if log_mel.power == 1 else energy / scale**2
        bands = bank @ linear
        gains = (wanted / bands.clamp_min(1e-10)).clamp(*_GAINS) ** (1 / log_mel.power)
        per_bin = torch.where(covered > 1e-8, bank.T @ gains / covered.clamp_min(1e-8), 1.0)
        signal = synthesize(log_mel, spectrum * per_bin)
    matched = signal[before : before + length]
    return torch.nn.functional.pad(matched, (0, length - matched.shape[-1]))
