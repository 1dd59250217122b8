"""The levels of the waveform U-Net and the two published designs of them.

A design says how levels are made and how the noise label enters. ConcatenatedSkips is Dance Diffusion's
DiffusionAttnUnet1D: cubic resampling, coarser level and skip side by side, the label as constant channels
beside x. GatedSkips is audio-diffusion-pytorch's UNetV0 (Schneider et al. 2023, "Moûsai", section 3; arXiv
2301.11757): learned resampling, the coarser level added through a gate, the label modulating every block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from audiodiff.errors import InputError
from audiodiff.networks.unet1d_layers import (
    Concatenation,
    CubicDown,
    CubicUp,
    Extent,
    GatedSum,
    Modulation,
    NearestUp,
    OutputBlock,
    PostNormBlock,
    PreNormBlock,
    SelfAttention,
    Span,
    StridedDown,
)

Extents = tuple[Extent | None, Extent | None]
"""Valid positions of a finer level and of the coarser one, None where all are valid."""


@dataclass(frozen=True)
class Levels:
    """The time scales from the finest, the rate of x, to the coarsest; one entry each.

    Attributes:
        widths: channels.
        factors: positions of the level before that become one, 1 or more; for the first, samples of x.
        blocks: residual blocks on the way down, and as many on the way up.
        attention: whether self-attention follows every block.
    """

    widths: Sequence[int]
    factors: Sequence[int]
    blocks: Sequence[int]
    attention: Sequence[bool]


class Design(Protocol):
    """How levels are made and how the noise label enters."""

    @property
    def label_features(self) -> int:
        """Fourier features of the noise label."""
        ...

    def embedding(self) -> nn.Module | None:
        """Returns what maps the label's features to the embedding of every block; None: they join x."""
        ...

    def level(self, levels: Levels, k: int, in_channels: int, out_channels: int) -> Level:
        """Returns level k of a network from in_channels to out_channels."""
        ...


@dataclass(frozen=True)
class ConcatenatedSkips:
    """Dance Diffusion's design: the first level works on x itself, its factor must be 1.

    A skip connection puts the finer level's state beside the coarser one's output. The Fourier features of
    the label are channels of the input, constant in time.

    Attributes:
        kernel_size: taps of the convolutions, odd.
        label_features: Fourier features of the noise label.
        head_width: channels of one attention head; a narrower level has one head.
        skip_scale: factor of what passes through the skip connections.
        weight_scale: factor of all fresh weights, for an output of small variance.
    """

    kernel_size: int = 5
    label_features: int = 16
    head_width: int = 32
    skip_scale: float = 1.0
    weight_scale: float = 0.5

    def embedding(self) -> nn.Module | None:
        """Returns None: the features join x."""
        return None

    def level(self, levels: Levels, k: int, in_channels: int, out_channels: int) -> Level:
        """Returns level k; its last block makes the channels that the finer level takes up.

        Raises:
            InputError: the first level's factor is not 1, or a width is no multiple of its heads.
        """
        if levels.factors[0] != 1:
            raise InputError(f"factors: got {levels.factors[0]} for the first level, expected 1")
        width, count, factor = levels.widths[k], levels.blocks[k], levels.factors[k]
        finer = in_channels + self.label_features if k == 0 else levels.widths[k - 1]
        joined = width if k == len(levels.widths) - 1 else 2 * width
        before = _chain(finer, width, width, count)
        after = _chain(joined, width, out_channels if k == 0 else finer, count)
        output = [self._output_unit(width, *after.pop())] if k == 0 else []
        level = Level(
            [self._unit(width, start, end, levels.attention[k]) for start, end in before],
            [self._unit(width, start, end, levels.attention[k]) for start, end in after] + output,
            None if k == 0 else CubicDown(factor),
            None if k == 0 else CubicUp(factor),
            None if k == 0 else Concatenation(self.skip_scale),
        )
        with torch.no_grad():
            for parameter in level.parameters():
                parameter.mul_(self.weight_scale)
        return level

    def _unit(self, width: int, start: int, end: int, attention: bool) -> Unit:
        heads = max(1, end // self.head_width)
        if attention and end % heads:
            raise InputError(
                f"widths: got {end} for a level with attention, expected a multiple of its {heads} heads"
            )
        return Unit(
            PostNormBlock(start, width, end, self.kernel_size),
            attention=SelfAttention(end, heads, end // heads) if attention else None,
        )

    def _output_unit(self, width: int, start: int, end: int) -> Unit:
        return Unit(OutputBlock(start, width, end, self.kernel_size))


@dataclass(frozen=True)
class GatedSkips:
    """audio-diffusion-pytorch's design: every level, the first too, resamples by learned filters.

    A skip connection adds the coarser level's output, gated by the noise label, to the finer one's state.
    The published network differs in three details: its attention has no biases, and layer norms for queries
    and for keys and values where this has one group norm; the label itself stands among its features; and
    the last two layers of the label's embedding share their weights.

    Attributes:
        kernel_size: taps of the convolutions, odd.
        groups: groups of the blocks' norms, a divisor of every width.
        heads: attention heads.
        head_width: channels of one head, whatever the level's width.
        label_features: Fourier features of the noise label.
        embedding_width: features that modulate the blocks.
    """

    kernel_size: int = 3
    groups: int = 8
    heads: int = 8
    head_width: int = 64
    label_features: int = 256
    embedding_width: int = 1024

    def embedding(self) -> nn.Module | None:
        """Returns the layers from the label's features to the embedding of every block."""
        width = self.embedding_width
        layers: list[nn.Module] = []
        for features in (self.label_features, width, width):
            layers += [nn.Linear(features, width), nn.GELU()]
        return nn.Sequential(*layers)

    def level(self, levels: Levels, k: int, in_channels: int, out_channels: int) -> Level:
        """Returns level k; its resamplers change the channels, its blocks keep them.

        Raises:
            InputError: the groups do not divide the level's width.
        """
        width, factor = levels.widths[k], levels.factors[k]
        in_width = in_channels if k == 0 else levels.widths[k - 1]
        out_width = out_channels if k == 0 else in_width
        return Level(
            [self._unit(width, levels.attention[k]) for _ in range(levels.blocks[k])],
            [self._unit(width, levels.attention[k]) for _ in range(levels.blocks[k])],
            StridedDown(in_width, width, factor),
            NearestUp(width, out_width, factor),
            GatedSum(in_width, out_width, self.embedding_width),
        )

    def _unit(self, width: int, attention: bool) -> Unit:
        return Unit(
            PreNormBlock(width, self.groups, self.kernel_size),
            Modulation(width, self.embedding_width),
            SelfAttention(width, self.heads, self.head_width) if attention else None,
        )


class Unit(nn.Module):
    """A residual block, then what the noise label makes of it, then self-attention."""

    def __init__(
        self,
        block: OutputBlock | PreNormBlock,
        modulation: Modulation | None = None,
        attention: SelfAttention | None = None,
    ) -> None:
        super().__init__()
        self.checkpointing = False
        self.block = block
        self.modulation = modulation
        self.attention = attention

    def forward(self, x: Tensor, embedding: Tensor | None, extent: Extent | None) -> Tensor:
        """Returns [B, W', F] for x [B, W, F]."""
        if self.checkpointing and self.training:
            result: Tensor = checkpoint(self._run, x, embedding, extent, use_reentrant=False)
            return result
        return self._run(x, embedding, extent)

    def _run(self, x: Tensor, embedding: Tensor | None, extent: Extent | None) -> Tensor:
        x = self.block(x, extent)
        if self.modulation is not None:
            x = self.modulation(x, embedding)
        return x if self.attention is None else self.attention(x, extent)


class Level(nn.Module):
    """One time scale: resamples, runs its blocks on both sides of the coarser level, and joins the skip."""

    def __init__(
        self,
        before: Sequence[Unit],
        after: Sequence[Unit],
        down: CubicDown | StridedDown | None,
        up: CubicUp | NearestUp | None,
        merge: Concatenation | GatedSum | None,
    ) -> None:
        """Joins the parts.

        Args:
            before: blocks on the way down.
            after: blocks on the way up.
            down: from the finer level's rate to this one, None for the same rate.
            up: back again.
            merge: joins what comes up with what went down; None for a level that ends the network.
        """
        super().__init__()
        self.before = nn.ModuleList(before)
        self.after = nn.ModuleList(after)
        self.down = down
        self.up = up
        self.merge = merge

    def descend(self, x: Tensor, embedding: Tensor | None, bias: Tensor | None, extents: Extents) -> Tensor:
        """Returns what the coarser level takes, [B, W, F / factor].

        Args:
            x: [B, finer W, F], what the finer level has come to.
            embedding: [B, E] of the noise label, None where it is among the channels.
            bias: [B, W, F / factor] or [B, W, 1], added after the first block; None for nothing.
            extents: of the finer level and of this one.
        """
        fine, coarse = extents
        hidden = x if self.down is None else self.down(x, fine)
        for n, unit in enumerate(self.before):
            hidden = unit(hidden, embedding, coarse)
            if n == 0 and bias is not None:
                hidden = hidden + bias
        return hidden

    def ascend(self, x: Tensor, embedding: Tensor | None, skip: Tensor, extents: Extents) -> Tensor:
        """Returns what the finer level takes up, F positions.

        Args:
            x: F / factor positions, from the coarser level or from this one's `descend`.
            embedding: as in `descend`.
            skip: [B, finer W, F], what was given to `descend`.
            extents: of the finer level and of this one.
        """
        fine, coarse = extents
        for unit in self.after:
            x = unit(x, embedding, coarse)
        x = x if self.up is None else self.up(x, coarse, fine)
        return x if self.merge is None else self.merge(skip, x, embedding)

    def units(self) -> Iterator[Unit]:
        """Yields its blocks."""
        for unit in chain(self.before, self.after):
            assert isinstance(unit, Unit)
            yield unit

    def span_up(self, span: Span) -> Span:
        """Returns which positions of what comes up the positions `span` of the result depend on."""
        return _widen(span if self.up is None else self.up.span(span), self.after)

    def span_down(self, span: Span) -> Span:
        """Returns which positions of the finer level the positions `span` of what goes down depend on."""
        span = _widen(span, self.before)
        return span if self.down is None else self.down.span(span)


def _widen(span: Span, units: nn.ModuleList) -> Span:
    reach = sum(unit.block.reach for unit in units if isinstance(unit, Unit))
    return span[0] - reach, span[1] + reach


def _chain(first: int, width: int, last: int, count: int) -> list[tuple[int, int]]:
    """Returns input and output channels of `count` blocks in a row, from `first` over `width` to `last`."""
    between = [width] * (count - 1)
    return list(zip([first, *between], [*between, last], strict=True))
