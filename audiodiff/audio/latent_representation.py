"""Diffusing the latents of a frozen autoencoder, each feature less its mean and over its deviation.

    x = (encoder(waveform) - mean) / std        waveform = decoder(x std + mean)

A second of 44.1 kHz stereo is a few thousand numbers instead of 88,200, so that a network sees minutes at once (Rombach
et al. 2022; for music Schneider et al. 2023, Mousai; Evans et al. 2024, Stable Audio). What the autoencoder loses is
lost: decoding is not the inverse of encoding. Its weights are saved with the model and never trained with it. Long
audio passes in chunks that overlap by what a frame depends on, so that the result is that of the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from audiodiff.errors import InputError


@runtime_checkable
class Autoencoder(Protocol):
    """What turns a waveform into latents and back; an nn.Module.

    Attributes:
        sample_rate: of the audio, Hz.
        channels: of the audio.
        hop_length: samples of a frame.
        features: latents D of a frame.
        margin: frames around a frame that its latents, or its samples, depend on; None where that is all of them.
    """

    sample_rate: int
    channels: int
    hop_length: int
    features: int
    margin: int | None

    def encode(self, waveform: Tensor) -> Tensor:
        """Returns the latents [B, D, ceil(T / hop_length)] of waveform [B, C, T]."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Returns the waveform [B, C, F * hop_length] of latents [B, D, F]."""
        ...


class LatentRepresentation(nn.Module):
    """The latents of a frozen autoencoder, normalised per feature with statistics of the training audio."""

    exact = False
    mean: Tensor
    std: Tensor

    def __init__(
        self, autoencoder: nn.Module, sample_rate: int, channels: int, chunk_seconds: float = 10.0
    ) -> None:
        """Freezes the autoencoder; its latents stay as they are until statistics are set.

        Args:
            autoencoder: an Autoencoder.
            sample_rate: of the audio, Hz.
            channels: of the audio.
            chunk_seconds: of audio that passes through the autoencoder at a time; memory grows with it.

        Raises:
            InputError: something that is no Autoencoder, or one of other audio; chunks of no length.
        """
        super().__init__()
        if not isinstance(autoencoder, Autoencoder):
            raise InputError(
                f"autoencoder: a {type(autoencoder).__name__} has not all of encode, decode, sample_rate, channels, "
                "hop_length, features and margin"
            )
        theirs = (autoencoder.sample_rate, autoencoder.channels)
        if theirs != (sample_rate, channels):
            raise InputError(
                f"autoencoder of {theirs[0]} Hz and {theirs[1]} channel(s) for audio of {sample_rate} Hz and "
                f"{channels}; choose data to match it"
            )
        if not chunk_seconds > 0:
            raise InputError(f"chunk_seconds: got {chunk_seconds}, expected more than 0")
        self.sample_rate, self.channels = sample_rate, channels
        self.hop_length = autoencoder.hop_length
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.chunk_frames = max(1, round(chunk_seconds * sample_rate / self.hop_length))
        self.register_buffer("mean", torch.zeros(autoencoder.features))
        self.register_buffer("std", torch.ones(autoencoder.features))

    def train(self, mode: bool = True) -> LatentRepresentation:
        """Leaves the autoencoder in evaluation mode, whatever the model around it does."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def encode(self, waveform: Tensor) -> Tensor:
        """Returns x [B, D, F] of waveform [B, C, T]; beyond its end the encoder sees zeros.

        So an item that is padded in a batch gives the frames that it gives alone, if the autoencoder has a margin.

        Raises:
            InputError: another number of channels.
        """
        if waveform.shape[1] != self.channels:
            raise InputError(
                f"waveform of {waveform.shape[1]} channel(s), the autoencoder takes {self.channels}"
            )
        frames, hop = self.shape(waveform.shape[-1])[1], self.hop_length
        extended = (frames + (self._autoencoder.margin or 0)) * hop
        waveform = nn.functional.pad(waveform, (0, extended - waveform.shape[-1]))

        def part(first: int, last: int) -> Tensor:
            return self._autoencoder.encode(waveform[..., first * hop : last * hop])

        with torch.autocast(waveform.device.type, enabled=False):
            latents = self._in_chunks(part, frames, extended // hop, 1)
        return (latents - self.mean[:, None]) / self.std[:, None]

    def decode(self, x: Tensor, length: int) -> Tensor:
        """Returns the waveform [B, C, length] that x [B, D, F] stands for."""
        latents = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        latents, frames = latents * self.std[:, None] + self.mean[:, None], x.shape[-1]

        def part(first: int, last: int) -> Tensor:
            return self._autoencoder.decode(latents[..., first:last])

        with torch.autocast(x.device.type, enabled=False):
            return self._in_chunks(part, frames, frames, self.hop_length)[..., :length]

    def shape(self, length: int) -> tuple[int, int]:
        """Returns (features, frames) of so many samples: whole frames, the last one filled with zeros."""
        return self.std.shape[0], -(-length // self.hop_length)

    def variances(self, x: Tensor) -> Tensor:
        """Returns the mean square of unscaled x [D, F], that is of the latents less their mean, as [D]."""
        return x.square().mean(-1)

    @property
    def _autoencoder(self) -> Autoencoder:
        assert isinstance(self.autoencoder, Autoencoder)
        return self.autoencoder

    def _in_chunks(
        self, part: Callable[[int, int], Tensor], frames: int, available: int, scale: int
    ) -> Tensor:
        """Returns what `part` gives for all frames, without showing it more than a chunk and its margins.

        Args:
            part: (first, last) frame shown -> their result [..., (last - first) * scale].
            frames: that are wanted.
            available: that there are to be shown.
            scale: positions of the result in a frame.
        """
        margin, chunk = self._autoencoder.margin, self.chunk_frames
        if margin is None or available <= chunk + 2 * margin:
            return part(0, available)[..., : frames * scale]
        pieces = []
        for start in range(0, frames, chunk):
            end = min(start + chunk, frames)
            first, last = max(start - margin, 0), min(end + margin, available)
            pieces.append(part(first, last)[..., (start - first) * scale : (end - first) * scale])
        return torch.cat(pieces, dim=-1)
