"""A small convolutional autoencoder of audio: waveform [B, C, T] <-> latents [B, D, F], a frame every hop.

Strided convolutions with dilated residual units between them, mirrored by transposed ones (Zeghidour et al. 2022,
SoundStream, section III), with the activation x + sin(a x)^2 / a (Ziyin et al. 2020, eq. 3, "snake"), which suits
periodic signals (Kumar et al. 2023, DAC). The encoder gives a Gaussian posterior of each latent (Kingma and Welling
2014), whose mean is the latent; training draws from it, so that the decoder bears the errors of a denoiser. All layers
are convolutions: any length goes in, and how far a frame looks follows from the layers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiodiff.errors import InputError

_OUTER_TAPS, _LATENT_TAPS = 7, 3  # of the convolutions at the waveform and at the latents
_LOG_STD = (-8.0, 2.0)  # limits of the posterior's deviation


@dataclass(frozen=True)
class Levels:
    """Widths and strides, counted from the waveform.

    Attributes:
        widths: channels of each level, one more than there are strides: the last one is that of the latents.
        units: residual units of each level but the last.
        strides: from each level to the next.
    """

    widths: Sequence[int]
    units: Sequence[int]
    strides: Sequence[int]

    def __post_init__(self) -> None:
        counts = (len(self.widths) - 1, len(self.units), len(self.strides))
        if min(counts) < 1 or len(set(counts)) > 1 or min(self.units) < 0:
            raise InputError(
                f"autoencoder: got {len(self.widths)} widths, {counts[1]} units and {counts[2]} strides; expected one "
                "width more than strides, and for each stride a number of units, 0 or more"
            )
        if min(*self.widths, *self.strides) < 1:
            raise InputError(
                f"autoencoder: got widths {list(self.widths)} and strides {list(self.strides)}, expected positive "
                "numbers"
            )


class ConvolutionalAutoencoder(nn.Module):
    """Frames of `features` latents, each as long as the product of the strides."""

    def __init__(
        self,
        sample_rate: int,
        channels: int,
        features: int,
        levels: Levels,
        dilations: Sequence[int] = (1, 3, 9),
        kernel_size: int = 7,
    ) -> None:
        """Builds encoder and decoder.

        Args:
            sample_rate: of the audio, Hz.
            channels: of the audio.
            features: latents D of a frame.
            levels: widths, units and strides.
            dilations: of the residual units of a level, in turn.
            kernel_size: taps of a residual unit, odd.

        Raises:
            InputError: an even kernel, or no features.
        """
        super().__init__()
        if features < 1 or kernel_size % 2 == 0:
            raise InputError(
                f"autoencoder: got {features} features and kernel_size {kernel_size}, expected 1 or more and an odd one"
            )
        self.sample_rate, self.channels, self.features = sample_rate, channels, features
        self.hop_length = math.prod(levels.strides)
        widths = levels.widths
        encoder: list[nn.Module] = [SameConvolution(channels, widths[0], _OUTER_TAPS)]
        # As the encoder from the waveform up, and turned round below.
        decoder: list[nn.Module] = [SameConvolution(widths[0], channels, _OUTER_TAPS), Snake(widths[0])]
        for (width, above), units, stride in zip(
            itertools.pairwise(widths), levels.units, levels.strides, strict=True
        ):
            rates = [dilations[number % len(dilations)] for number in range(units)]
            encoder += [ResidualUnit(width, kernel_size, rate) for rate in rates]
            encoder += [Snake(width), Downsample(width, above, stride)]
            decoder += [ResidualUnit(width, kernel_size, rate) for rate in reversed(rates)]
            decoder += [Upsample(above, width, stride), Snake(above)]
        encoder += [Snake(widths[-1]), SameConvolution(widths[-1], 2 * features, _LATENT_TAPS)]
        decoder += [SameConvolution(features, widths[-1], _LATENT_TAPS)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*reversed(decoder))
        self.margin = max(_encoder_margin(self.encoder, self.hop_length), _decoder_margin(self.decoder))

    def encode(self, waveform: Tensor) -> Tensor:
        """Returns the latents [B, D, F], F = ceil(T / hop_length), of waveform [B, C, T]."""
        return self.posterior(waveform)[0]

    def posterior(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation [B, D, F] of the latents of waveform [B, C, T]."""
        padded = functional.pad(waveform, (0, -waveform.shape[-1] % self.hop_length))
        mean, log_std = self.encoder(padded).chunk(2, dim=1)
        return mean, log_std.clamp(*_LOG_STD).exp()

    def decode(self, latents: Tensor) -> Tensor:
        """Returns the waveform [B, C, F * hop_length] of latents [B, D, F]."""
        waveform: Tensor = self.decoder(latents)
        return waveform


class Snake(nn.Module):
    """x + sin(a x)^2 / a, with one a for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.ones(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, width, F]."""
        return x + (self.frequency * x).sin().square() / (self.frequency + 1e-9)


class SameConvolution(nn.Conv1d):
    """A convolution whose output is as long as its input."""

    def __init__(self, in_width: int, out_width: int, taps: int, dilation: int = 1) -> None:
        super().__init__(in_width, out_width, taps, padding=dilation * (taps // 2), dilation=dilation)


class ResidualUnit(nn.Module):
    """x + conv1(snake(conv(snake(x)))), the first one dilated."""

    def __init__(self, width: int, taps: int, dilation: int) -> None:
        super().__init__()
        spread = SameConvolution(width, width, taps, dilation)
        self.layers = nn.Sequential(Snake(width), spread, Snake(width), nn.Conv1d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, width, F]."""
        return x + self.layers(x)


class Downsample(nn.Conv1d):
    """A convolution over twice the stride, centred on the samples of its frame: F * stride -> F."""

    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__(in_width, out_width, 2 * stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, out_width, F / stride]."""
        stride = self.stride[0]
        return super().forward(functional.pad(x, (stride // 2, stride - stride // 2)))


class Upsample(nn.ConvTranspose1d):
    """The transposed convolution of Downsample: F -> F * stride."""

    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__(in_width, out_width, 2 * stride, stride=stride)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Returns [B, out_width, F * stride]."""
        stride = self.stride[0]
        return super().forward(x, output_size)[..., stride // 2 : stride // 2 + x.shape[-1] * stride]


def _layers(part: nn.Module) -> Iterator[nn.Module]:
    """Yields the layers that look at other positions, in order; branches that rejoin are within one of them."""
    return (layer for layer in part.modules() if isinstance(layer, SameConvolution | Downsample | Upsample))


def _encoder_margin(encoder: nn.Module, hop_length: int) -> int:
    """Returns by how many frames at most the samples that a frame depends on reach beyond its own."""
    first, last = 0, 0
    for layer in reversed(list(_layers(encoder))):
        if isinstance(layer, Downsample):
            stride = layer.stride[0]
            first, last = first * stride - stride // 2, last * stride - stride // 2 + 2 * stride - 1
        else:
            first, last = first - _reach(layer), last + _reach(layer)
    return -(-max(-first, last - (hop_length - 1)) // hop_length)


def _decoder_margin(decoder: nn.Module) -> int:
    """Returns how many frames away from its own frame a sample can depend on."""
    layers = list(_layers(decoder))
    hop_length = math.prod(layer.stride[0] for layer in layers if isinstance(layer, Upsample))
    first, last = 0, hop_length - 1  # the samples of frame 0
    for layer in reversed(layers):
        if isinstance(layer, Upsample):
            stride = layer.stride[0]
            # Position m takes i with 0 <= m + stride // 2 - i stride < 2 stride.
            first = -(-(first + stride // 2 - 2 * stride + 1) // stride)
            last = (last + stride // 2) // stride
        else:
            first, last = first - _reach(layer), last + _reach(layer)
    return max(-first, last)


def _reach(layer: nn.Module) -> int:
    assert isinstance(layer, nn.Conv1d)
    return layer.dilation[0] * (layer.kernel_size[0] // 2)
