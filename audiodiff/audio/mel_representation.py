"""Diffusing a mel spectrogram: x is the log-mel, each band less its mean and over its deviation.

    x = (log_mel(waveform) - mean) / std        waveform = Griffin-Lim(x std + mean)

What is lost is the phase and what the bands cannot tell, so decoding is an estimate: the phases are found by the
fast Griffin-Lim algorithm, always from the same start. A vocoder that takes the same mel definition does better.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiodiff.audio.griffin_lim import GriffinLim
from audiodiff.audio.mel import LogMel
from audiodiff.errors import InputError


class MelRepresentation(nn.Module):
    """The log-mel of mono audio, normalised per band with statistics of the training audio."""

    exact = False
    channels = 1
    mean: Tensor
    std: Tensor

    def __init__(self, log_mel: LogMel, sample_rate: int, iterations: int = 60) -> None:
        """Takes the one mel definition; the mel stays as it is until statistics are set.

        Args:
            log_mel: the mel of the recipe.
            sample_rate: of the audio, hertz.
            iterations: of Griffin-Lim.

        Raises:
            InputError: the mel is defined at another sample rate, or iterations is negative.
        """
        super().__init__()
        if log_mel.sample_rate != sample_rate:
            raise InputError(
                f"mel of {log_mel.sample_rate} Hz for audio of {sample_rate} Hz; choose features and data to match"
            )
        self.sample_rate = sample_rate
        self.hop_length = log_mel.hop_length
        self.log_mel = log_mel
        self.griffin_lim = GriffinLim(log_mel, iterations)
        self.register_buffer("mean", torch.zeros(log_mel.n_mels))
        self.register_buffer("std", torch.ones(log_mel.n_mels))

    def encode(self, waveform: Tensor) -> Tensor:
        """Returns x [B, n_mels, F] of waveform [B, 1, T].

        The mel looks half a window beyond each frame: the last frames of an item that is padded in a batch see the
        zeros of its padding, where alone they see what the mel definition continues it with.

        Raises:
            InputError: the waveform is not mono or has no samples.
        """
        length = waveform.shape[-1]
        if 0 < length < self.hop_length and self.log_mel.frames(length) == 0:
            waveform = nn.functional.pad(waveform, (0, self.hop_length - length))
        return (self.log_mel(waveform) - self.mean[:, None]) / self.std[:, None]

    def decode(self, x: Tensor, length: int) -> Tensor:
        """Returns an estimate of the waveform [B, 1, length] of x [B, n_mels, F]; NaN where x is not finite."""
        mel = self.mel(x)
        finite = x.isfinite().flatten(1).all(1)[:, None]
        waveforms = [self.griffin_lim.item(item, length) for item in mel.nan_to_num()]
        return torch.where(finite, torch.stack(waveforms), torch.nan)[:, None]

    def mel(self, x: Tensor) -> Tensor:
        """Returns the log-mel [B, n_mels, F] that x stands for, between silence and full scale."""
        return self._possible(x.float() * self.std[:, None] + self.mean[:, None])

    def shape(self, length: int) -> tuple[int, int]:
        """Returns (n_mels, frames); audio shorter than a hop has one frame."""
        return self.log_mel.n_mels, max(self.log_mel.frames(length), 1)

    def variances(self, x: Tensor) -> Tensor:
        """Returns the mean square of unscaled x [D, F], that is of the mel less its mean, per band, as [D]."""
        return x.square().mean(-1)

    def _possible(self, mel: Tensor) -> Tensor:
        """Returns the mel with each band between silence and full scale, which a model can overshoot."""
        log_mel = self.log_mel
        loudest = log_mel.window.sum()
        if log_mel.window_normalized:
            loudest = loudest / log_mel.window.norm()
        bands = log_mel.filterbank.sum(1) * loudest**log_mel.power
        low, high = (log_mel.from_magnitude(level)[:, None] for level in (torch.zeros_like(bands), bands))
        return torch.minimum(torch.maximum(mel, low), high)
