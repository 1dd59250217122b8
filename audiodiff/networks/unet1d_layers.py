"""Layers of the waveform U-Net: each sees only the valid positions of a padded batch.

An Extent says how many positions of each item are valid at a layer's rate. Padding is zeroed before every
convolution, left out of the statistics of group norm and of the keys of attention, and cubic resampling
reflects at the item's own end. So an item gives the same numbers alone and padded. The cubic kernel is that
of Keys 1981, eq. 15 ("Cubic convolution interpolation"), stretched by the factor. Residual blocks and
attention: after norm as in Dance Diffusion, before norm as in audio-diffusion-pytorch (both Zach Evans' and
Flavio Schneider's waveform U-Nets follow Ho et al. 2020, appendix B, in one dimension).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiodiff.errors import InputError

Span = tuple[int, int]
"""First and last position that something depends on."""


@dataclass(frozen=True)
class Extent:
    """Which positions of a padded batch are valid at one rate.

    Attributes:
        lengths: [B] int64, valid positions of each item, 1 or more.
        mask: [B, 1, F], 1 at valid positions and 0 beyond.
    """

    lengths: Tensor
    mask: Tensor

    @classmethod
    def of(cls, lengths: Tensor, positions: int) -> Extent:
        """Returns the extent of items of these lengths padded to F positions."""
        mask = torch.arange(positions, device=lengths.device) < lengths[:, None]
        return cls(lengths, mask[:, None].float())

    def coarser(self, factor: int) -> Extent:
        """Returns the extent after downsampling: a rest shorter than the factor counts as one position."""
        return Extent.of((self.lengths + factor - 1) // factor, self.mask.shape[-1] // factor)


def silence(x: Tensor, extent: Extent | None) -> Tensor:
    """Returns x [B, C, F] with zeros beyond the valid positions; None when all are valid."""
    return x if extent is None else x * extent.mask.to(x.dtype)


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm (Wu and He 2018) whose mean and variance are taken over the valid positions."""

    def forward(self, x: Tensor, extent: Extent | None = None) -> Tensor:
        """Returns [B, C, F]; what stands beyond the valid positions means nothing."""
        if extent is None:
            return super().forward(x)
        grouped = x.float().unflatten(1, (self.num_groups, -1))  # [B, G, C / G, F]
        mask = extent.mask[:, None]  # [B, 1, 1, F]
        count = (extent.lengths * grouped.shape[2])[:, None, None, None]
        mean = (grouped * mask).sum((2, 3), keepdim=True) / count
        centred = grouped - mean
        variance = (centred.square() * mask).sum((2, 3), keepdim=True) / count
        normed = (centred * torch.rsqrt(variance + self.eps)).flatten(1, 2)
        return (normed * self.weight[:, None] + self.bias[:, None]).to(x.dtype)


class OutputBlock(nn.Module):
    """x + conv(GELU(norm(conv(x)))): a residual block whose output can take any value."""

    def __init__(self, in_width: int, width: int, out_width: int, kernel_size: int) -> None:
        super().__init__()
        padding = _padding(kernel_size)
        self.first = nn.Conv1d(in_width, width, kernel_size, padding=padding)
        self.norm = MaskedGroupNorm(1, width)
        self.second = nn.Conv1d(width, out_width, kernel_size, padding=padding)
        self.skip = None if in_width == out_width else nn.Conv1d(in_width, out_width, 1, bias=False)
        self.reach = 2 * padding

    def forward(self, x: Tensor, extent: Extent | None) -> Tensor:
        """Returns [B, out_width, F] for x [B, in_width, F]."""
        return self.branch(x, extent) + (x if self.skip is None else self.skip(x))

    def branch(self, x: Tensor, extent: Extent | None) -> Tensor:
        """Returns what is added to x, [B, out_width, F]."""
        hidden = functional.gelu(self.norm(self.first(silence(x, extent)), extent))
        return self.second(silence(hidden, extent))


class PostNormBlock(OutputBlock):
    """x + GELU(norm(conv(GELU(norm(conv(x)))))): Dance Diffusion's block, one group for all channels."""

    def __init__(self, in_width: int, width: int, out_width: int, kernel_size: int) -> None:
        super().__init__(in_width, width, out_width, kernel_size)
        self.last_norm = MaskedGroupNorm(1, out_width)

    def branch(self, x: Tensor, extent: Extent | None) -> Tensor:
        """Returns what is added to x, [B, out_width, F]."""
        return functional.gelu(self.last_norm(super().branch(x, extent), extent))


class PreNormBlock(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))): audio-diffusion-pytorch's block, at one width."""

    def __init__(self, width: int, groups: int, kernel_size: int) -> None:
        super().__init__()
        if width % groups:
            raise InputError(f"groups: got {groups} for a level of {width} channels, expected a divisor")
        padding = _padding(kernel_size)
        self.first_norm = MaskedGroupNorm(groups, width)
        self.first = nn.Conv1d(width, width, kernel_size, padding=padding)
        self.second_norm = MaskedGroupNorm(groups, width)
        self.second = nn.Conv1d(width, width, kernel_size, padding=padding)
        self.reach = 2 * padding

    def forward(self, x: Tensor, extent: Extent | None) -> Tensor:
        """Returns [B, width, F]."""
        hidden = self.first(silence(functional.silu(self.first_norm(x, extent)), extent))
        return x + self.second(silence(functional.silu(self.second_norm(hidden, extent)), extent))


class Modulation(nn.Module):
    """Layer norm of each position, scaled and shifted by the noise label (Peebles and Xie 2023, adaLN)."""

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(embedding_width, 2 * width)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Returns [B, W, F] for x [B, W, F] and embedding [B, E]."""
        scale, shift = self.project(functional.silu(embedding))[..., None].chunk(2, dim=1)
        normed = functional.layer_norm(x.transpose(1, 2), x.shape[1:2], eps=1e-6).transpose(1, 2)
        return normed * (1 + scale) + shift


class SelfAttention(nn.Module):
    """x + attention among all positions of norm(x) (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = MaskedGroupNorm(1, width)
        self.project = nn.Conv1d(width, 3 * heads * head_width, 1)  # queries, keys, values
        self.output = nn.Conv1d(heads * head_width, width, 1)

    def forward(self, x: Tensor, extent: Extent | None) -> Tensor:
        """Returns [B, W, F]; positions beyond an item's own are not attended to."""
        projected = self.project(self.norm(x, extent))
        query, key, value = projected.unflatten(1, (3, self.heads, -1)).transpose(-1, -2).unbind(1)
        valid = None if extent is None else extent.mask[:, None].bool()  # [B, 1, 1, F]
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=valid)
        return x + self.output(attended.transpose(-1, -2).flatten(1, 2))


class CubicDown(nn.Module):
    """Low-pass filters and keeps every factor-th position; no weights."""

    kernel: Tensor

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("kernel", cubic_kernel(factor), persistent=False)
        self.pad = (self.kernel.shape[-1] - factor) // 2

    def forward(self, x: Tensor, extent: Extent | None) -> Tensor:
        """Returns [B, W, F / factor] for x [B, W, F] and the extent of x."""
        weight = self.kernel.to(x.dtype).expand(x.shape[1], 1, -1)
        padded = reflect(x, self.pad, extent)
        return functional.conv1d(padded, weight, stride=self.factor, groups=x.shape[1])

    def span(self, span: Span) -> Span:
        """Returns which positions of the input positions `span` of the output depend on."""
        first = span[0] * self.factor - self.pad
        return first, span[1] * self.factor - self.pad + self.kernel.shape[-1] - 1


class CubicUp(nn.Module):
    """Cubic interpolation between positions; no weights."""

    kernel: Tensor

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("kernel", cubic_kernel(factor) * factor, persistent=False)
        self.crop = (3 * factor + self.kernel.shape[-1]) // 2

    def forward(self, x: Tensor, coarse: Extent | None, fine: Extent | None) -> Tensor:
        """Returns [B, W, F * factor] for x [B, W, F], its extent and that of the result."""
        weight = self.kernel.to(x.dtype).expand(x.shape[1], 1, -1)
        return functional.conv_transpose1d(
            reflect(x, 2, coarse), weight, stride=self.factor, padding=self.crop, groups=x.shape[1]
        )

    def span(self, span: Span) -> Span:
        """Returns which positions of the input positions `span` of the output depend on."""
        last_tap = self.kernel.shape[-1] - 1
        first = -((last_tap - span[0] - self.crop) // self.factor)
        return first - 2, (span[1] + self.crop) // self.factor - 2


class StridedDown(nn.Module):
    """One learned filter of `factor` taps for each block of `factor` positions."""

    def __init__(self, in_width: int, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv1d(in_width, width, factor, stride=factor)

    def forward(self, x: Tensor, extent: Extent | None) -> Tensor:
        """Returns [B, width, F / factor] for x [B, in_width, F] and the extent of x."""
        return self.conv(silence(x, extent))

    def span(self, span: Span) -> Span:
        """Returns which positions of the input positions `span` of the output depend on."""
        return span[0] * self.factor, span[1] * self.factor + self.factor - 1


class NearestUp(nn.Module):
    """Repeats every position `factor` times, then a learned convolution of three taps."""

    def __init__(self, width: int, out_width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv1d(width, out_width, 3, padding=1)

    def forward(self, x: Tensor, coarse: Extent | None, fine: Extent | None) -> Tensor:
        """Returns [B, out_width, F * factor] for x [B, width, F], its extent and that of the result."""
        return self.conv(silence(x.repeat_interleave(self.factor, dim=-1), fine))

    def span(self, span: Span) -> Span:
        """Returns which positions of the input positions `span` of the output depend on."""
        return (span[0] - 1) // self.factor, (span[1] + 1) // self.factor


class Concatenation(nn.Module):
    """Skip connection: the coarser level's output beside the finer one's scaled hidden state."""

    def __init__(self, skip_scale: float) -> None:
        super().__init__()
        self.skip_scale = skip_scale

    def forward(self, skip: Tensor, inner: Tensor, embedding: Tensor | None) -> Tensor:
        """Returns [B, W + W', F] for skip [B, W', F] and inner [B, W, F]."""
        return torch.cat([inner, skip * self.skip_scale], dim=1)


class GatedSum(nn.Module):
    """Skip connection: skip + gate * inner, where the gate of each channel follows the noise label."""

    def __init__(self, in_width: int, out_width: int, embedding_width: int) -> None:
        super().__init__()
        self.adapt = None if in_width == out_width else nn.Conv1d(in_width, out_width, 1)
        self.gate = nn.Linear(embedding_width, out_width)

    def forward(self, skip: Tensor, inner: Tensor, embedding: Tensor) -> Tensor:
        """Returns [B, out_width, F] for skip [B, in_width, F] and inner [B, out_width, F]."""
        skip = skip if self.adapt is None else self.adapt(skip)
        return skip + self.gate(functional.silu(embedding))[..., None] * inner


class FourierFeatures(nn.Module):
    """Cosines and sines of a noise label of order one at learned frequencies (Tancik et al. 2020, eq. 4)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        if features < 2 or features % 2:
            raise InputError(f"label_features: got {features}, expected an even number of 2 or more")
        self.weight = nn.Parameter(torch.randn(features // 2, 1))

    def forward(self, noise_label: Tensor) -> Tensor:
        """Returns [B, features], cosines first, for noise_label [B]."""
        phases = 2 * math.pi * noise_label[:, None].to(self.weight.dtype) * self.weight.T
        return torch.cat([phases.cos(), phases.sin()], dim=1)


def _padding(kernel_size: int) -> int:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise InputError(f"kernel_size: got {kernel_size}, expected an odd number")
    return kernel_size // 2


def cubic_kernel(factor: int) -> Tensor:
    """Returns the taps of Keys' cubic kernel (a = -1/2) stretched by the factor, of sum 1, [taps].

    The taps stand at the positions of the finer rate within two positions of the coarser one: 4 factor of
    them where the factor is even, one less where it is odd.
    """
    taps = 4 * factor - factor % 2
    distance = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2).abs() / factor
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return (torch.where(distance < 1, near, far) / factor).float()


def reflect(x: Tensor, pad: int, extent: Extent | None) -> Tensor:
    """Returns x [B, W, F] continued by `pad` positions on both sides, mirrored at its ends.

    The mirrors stand at the first and last valid position of each item; where `pad` is longer than the
    item, the image is mirrored again.
    """
    positions = x.shape[-1]
    if extent is None and positions > pad:
        return functional.pad(x, (pad, pad), mode="reflect")
    last = (
        torch.full((1, 1), positions - 1, device=x.device) if extent is None else extent.lengths[:, None] - 1
    )
    index = torch.arange(-pad, positions + pad, device=x.device).abs()
    period = (2 * last).clamp(min=1)
    index = index % period
    index = torch.minimum(index, period - index)
    return x.gather(2, index[:, None].expand(x.shape[0], x.shape[1], -1))
