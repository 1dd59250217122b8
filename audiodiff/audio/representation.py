"""Waveform <-> what is diffused.

A Representation turns a waveform [B, C, T] into x [B, D, F] of about unit variance and back. It alone knows
the sample rate, the hop and the scale of x. Waveform diffuses the samples themselves. ComplexSTFT diffuses
the coefficients of a tight-frame short-time Fourier transform: the windowed real DFT, orthonormal per
frame, whose squared windows add up to one at the hop. Analysis keeps energy, synthesis is its adjoint, and
white noise on the coefficients is white noise on the waveform.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from audiodiff.errors import InputError


class Representation(Protocol):
    """The contract between the waveform and the diffused x.

    Attributes:
        sample_rate: Hz.
        hop_length: samples between positions of x.
        channels: of the audio.
        exact: whether decoding gives back the waveform that was encoded, sample for sample but for rounding. Only then
            does what holds of samples (a mask, a clipping level) hold of what a model makes.
        std: deviation of each feature, by which x is divided.
    """

    exact: bool
    sample_rate: int
    hop_length: int
    channels: int
    std: Tensor

    def encode(self, waveform: Tensor) -> Tensor:
        """Returns x [B, D, F] of waveform [B, C, T]; any T."""
        ...

    def decode(self, x: Tensor, length: int) -> Tensor:
        """Returns the waveform [B, C, length] of x [B, D, F]."""
        ...

    def shape(self, length: int) -> tuple[int, int]:
        """Returns (D, F) of x for a waveform of that many samples."""
        ...

    def variances(self, x: Tensor) -> Tensor:
        """Returns the mean square of unscaled x [D, F], in the shape of std."""
        ...


class Waveform(nn.Module):
    """The samples themselves, divided by one standard deviation."""

    exact = True
    hop_length = 1
    std: Tensor

    def __init__(self, sample_rate: int, channels: int = 1) -> None:
        """Makes an identity until statistics are set.

        Args:
            sample_rate: hertz.
            channels: audio channels.
        """
        super().__init__()
        self.sample_rate = sample_rate
        self.channels = channels
        self.register_buffer("std", torch.ones(1))

    def encode(self, waveform: Tensor) -> Tensor:
        """Returns waveform [B, C, T] over std."""
        return waveform / self.std

    def decode(self, x: Tensor, length: int) -> Tensor:
        """Returns the first `length` samples of x [B, C, F] times std."""
        return x[..., :length] * self.std

    def shape(self, length: int) -> tuple[int, int]:
        """Returns (channels, length)."""
        return self.channels, length

    def variances(self, x: Tensor) -> Tensor:
        """Returns the mean square of unscaled x [D, F], one number for all channels, as [1]."""
        return x.square().mean().reshape(1)


class ComplexSTFT(nn.Module):
    """Real and imaginary parts of a tight-frame STFT, each bin divided by its standard deviation.

    Frame f is centred on sample (f - n_fft / (2 hop) + 1) hop; with n_fft = 2 hop that is f hop, the frames of a
    centred mel. Each frame holds n_fft real numbers: re of bin 0 and of the Nyquist bin, re and im of the
    others (times sqrt 2, which makes the real DFT orthonormal).
    """

    exact = True
    std: Tensor
    window: Tensor

    def __init__(self, sample_rate: int, n_fft: int, hop_length: int, channels: int = 1) -> None:
        """Builds the window.

        Args:
            sample_rate: hertz.
            n_fft: window and FFT length, an even multiple of hop_length.
            hop_length: samples between frames.
            channels: audio channels; x holds channels * n_fft features.

        Raises:
            InputError: n_fft is no even multiple of hop_length.
        """
        super().__init__()
        if hop_length < 1 or n_fft < 2 * hop_length or n_fft % (2 * hop_length):
            raise InputError(
                f"n_fft: got {n_fft} with hop_length {hop_length}, expected an even multiple of the hop "
                "(2, 4, ... times), so that the squared windows add up to one"
            )
        self.sample_rate = sample_rate
        self.channels = channels
        self.n_fft = n_fft
        self.hop_length = hop_length
        overlap = n_fft // hop_length
        # The squared sine window (Hann) at overlap R adds up to R / 2.
        phase = (torch.arange(n_fft, dtype=torch.float64) + 0.5) / n_fft
        window = torch.sin(torch.pi * phase) * (2 / overlap) ** 0.5
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("std", torch.ones(channels * n_fft))

    def encode(self, waveform: Tensor) -> Tensor:
        """Returns x [B, C * n_fft, F] of waveform [B, C, T]."""
        batch, channels, length = waveform.shape
        frames = self.shape(length)[1]
        before = self.n_fft - self.hop_length
        after = (frames - 1) * self.hop_length + self.n_fft - before - length
        padded = nn.functional.pad(waveform, (before, after))
        pieces = padded.unfold(-1, self.n_fft, self.hop_length) * self.window  # [B, C, F, n_fft]
        spectrum = torch.fft.rfft(pieces, norm="ortho")
        x = torch.cat([spectrum.real, spectrum.imag[..., 1:-1]], dim=-1) * self._weights(waveform.device)
        return x.permute(0, 1, 3, 2).reshape(batch, channels * self.n_fft, frames) / self.std[:, None]

    def decode(self, x: Tensor, length: int) -> Tensor:
        """Returns the waveform [B, C, length] by overlap-add, the adjoint of encode at std = 1."""
        batch, _, frames = x.shape
        x = (x * self.std[:, None]).view(batch, self.channels, self.n_fft, frames).permute(0, 1, 3, 2)
        x = x / self._weights(x.device)
        bins = self.n_fft // 2 + 1
        imaginary = nn.functional.pad(x[..., bins:], (1, 1))
        pieces = (
            torch.fft.irfft(torch.complex(x[..., :bins], imaginary), n=self.n_fft, norm="ortho") * self.window
        )
        total = (frames - 1) * self.hop_length + self.n_fft
        columns = pieces.reshape(batch * self.channels, frames, self.n_fft).transpose(1, 2)
        summed = nn.functional.fold(columns, (1, total), (1, self.n_fft), stride=(1, self.hop_length))
        before = self.n_fft - self.hop_length
        return summed.view(batch, self.channels, total)[..., before : before + length]

    def shape(self, length: int) -> tuple[int, int]:
        """Returns (channels * n_fft, frames): every sample is covered by n_fft / hop_length frames."""
        frames = -(-length // self.hop_length) + self.n_fft // self.hop_length - 1
        return self.channels * self.n_fft, frames

    def variances(self, x: Tensor) -> Tensor:
        """Returns the mean square of unscaled x [D, F] per bin, shared by its re and im, as [D]."""
        power = x.square().mean(-1).view(self.channels, self.n_fft)
        bins = self.n_fft // 2 + 1
        inner = (power[:, 1 : bins - 1] + power[:, bins:]) / 2
        return torch.cat([power[:, :1], inner, power[:, bins - 1 : bins], inner], dim=1).reshape(-1)

    def _weights(self, device: torch.device) -> Tensor:
        weights = torch.full((self.n_fft,), 2.0**0.5, device=device)
        weights[0] = weights[self.n_fft // 2] = 1.0
        return weights
