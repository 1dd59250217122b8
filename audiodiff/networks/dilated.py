"""The dilated convolution of a WaveNet layer: what it sees beyond the ends, and whether it runs on sub-bands.

ZeroPadded sees silence beyond both ends, as DiffWave does. Reflected sees the signal turned round at its ends,
as SpeechBrain's DiffWave does. LookingBack sees nothing that comes later. FrequencyAware convolves the two half-rate
bands of an orthonormal Haar transform, y = W^T conv(W x), which reaches twice as far at half the positions (FreGrad,
Nguyen et al. 2024, section 3.2).
A module of any kind is called with x [B, C, F] and the mask of its valid positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiodiff.networks.streaming import Past, look_back

KERNEL_SIZE = 3


class DilatedConvolution(Protocol):
    """The contract of a kind of dilated convolution."""

    width: ClassVar[int]  # positions of x that one tap of the kernel covers

    def __call__(self, channels: int, out_channels: int, dilation: int) -> nn.Module:
        """Returns a layer (x [B, channels, F], mask [B, 1, F] or None) -> [B, out_channels, F]."""
        ...


@dataclass(frozen=True)
class ZeroPadded:
    """Positions beyond the ends count as 0."""

    width: ClassVar[int] = 1

    def __call__(self, channels: int, out_channels: int, dilation: int) -> nn.Module:
        """Returns the layer."""
        return _ZeroPaddedConv1d(channels, out_channels, dilation)


@dataclass(frozen=True)
class Reflected:
    """Positions beyond the ends are the signal, turned round as often as needed; the end itself is not repeated."""

    width: ClassVar[int] = 1

    def __call__(self, channels: int, out_channels: int, dilation: int) -> nn.Module:
        """Returns the layer."""
        return _ReflectedConv1d(channels, out_channels, dilation)


@dataclass(frozen=True)
class LookingBack:
    """Causal: a position sees itself and two before it; positions before the start count as 0."""

    width: ClassVar[int] = 1

    def __call__(self, channels: int, out_channels: int, dilation: int) -> nn.Module:
        """Returns the layer, which also takes the Past of a signal that comes in pieces."""
        return _CausalConv1d(channels, out_channels, dilation)


def zero_padded(causal: bool) -> DilatedConvolution:
    """Returns ZeroPadded, or what is left of it when no layer may look ahead."""
    return LookingBack() if causal else ZeroPadded()


@dataclass(frozen=True)
class FrequencyAware:
    """The convolution runs on the two bands of a Haar transform, which see each other."""

    width: ClassVar[int] = 2

    def __call__(self, channels: int, out_channels: int, dilation: int) -> nn.Module:
        """Returns the layer."""
        return _SubbandConv1d(channels, out_channels, dilation)


class _DilatedConv1d(nn.Conv1d):
    """A convolution of kernel size 3 that leaves the padding to its subclasses."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(in_channels, out_channels, KERNEL_SIZE, dilation=dilation)
        nn.init.kaiming_normal_(self.weight)

    @property
    def reach(self) -> int:
        """How many positions the kernel extends to either side."""
        return self.dilation[0] * (KERNEL_SIZE - 1) // 2

    def convolve(self, x: Tensor, padding: int) -> Tensor:
        """Returns the convolution of x [B, C, F] with `padding` zeros at both ends."""
        return functional.conv1d(x, self.weight, self.bias, padding=padding, dilation=self.dilation)


class _ZeroPaddedConv1d(_DilatedConv1d):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.convolve(x if mask is None else x * mask, self.reach)


class _CausalConv1d(_DilatedConv1d):
    def forward(self, x: Tensor, mask: Tensor | None = None, past: Past | None = None) -> Tensor:
        return self.convolve(look_back(x if mask is None else x * mask, 2 * self.reach, past), 0)


class _ReflectedConv1d(_DilatedConv1d):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None and self.reach < x.shape[-1]:
            return self.convolve(functional.pad(x, (self.reach, self.reach), mode="reflect"), 0)
        positions = torch.arange(-self.reach, x.shape[-1] + self.reach, device=x.device)
        # Counted in whole numbers: a mask of half precision has no exact sum.
        lengths = x.new_full((1, 1), x.shape[-1]).long() if mask is None else mask[:, 0].bool().sum(1, True)
        period = (2 * (lengths - 1)).clamp(min=1)
        turned = positions.remainder(period)
        index = torch.minimum(turned, period - turned)[:, None].expand(*x.shape[:2], -1)
        return self.convolve(x.gather(2, index), 0)


class _SubbandConv1d(_DilatedConv1d):
    def __init__(self, channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(2 * channels, 2 * out_channels, dilation)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        length = x.shape[-1]
        x = functional.pad(x if mask is None else x * mask, (0, length % 2))
        even, odd = x[..., ::2], x[..., 1::2]
        low, high = self.convolve(torch.cat([even + odd, even - odd], 1) / math.sqrt(2.0), self.reach).chunk(
            2, 1
        )
        pairs = torch.stack([low + high, low - high], -1) / math.sqrt(2.0)  # [B, C, F/2, 2]
        return pairs.flatten(-2)[..., :length]
