"""A denoiser on more positions than it is given at once: windows that overlap, and a circle that is cut open.

Every window of the signal is denoised by itself, and where windows overlap the clean estimates are blended by weights
that fall to their ends (Bar-Tal et al. 2023, "MultiDiffusion", eq. 5). As this happens at every evaluation, the windows
agree on one signal and no join is made afterwards. On a circle the last position is followed by the first; a network
that looks at the whole signal goes round it in such windows, one of bounded reach sees it cut open, with enough of the
other end on either side that the cut is out of its reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise, VarianceDenoise
from audiodiff.diffusion.guidance import GuidedDenoise
from audiodiff.errors import InputError

Evaluate = Callable[[Tensor], Tensor]


class Layout(Protocol):
    """How a function of a few positions is spread over many."""

    def __call__(self, evaluate: Evaluate, x: Tensor) -> Tensor:
        """Returns [B, C', F] for x [B, C, F], made of calls of evaluate: [B, C, n] -> [B, C', n]."""
        ...


def spread(denoise: Denoise, layout: Layout) -> Denoise:
    """Returns the denoiser of all positions; it stays guided and keeps a learned variance."""
    if isinstance(denoise, GuidedDenoise):
        return replace(
            denoise, conditional=spread(denoise.conditional, layout), other=spread(denoise.other, layout)
        )
    if isinstance(denoise, VarianceDenoise):
        return _SpreadVariance(denoise, layout)
    return lambda x, t: layout(lambda part: denoise(part, t), x)


@dataclass(frozen=True)
class _SpreadVariance:
    denoise: VarianceDenoise
    layout: Layout

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.with_variance(x, t)[0]

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        both = self.layout(lambda part: torch.cat(self.denoise.with_variance(part, t), dim=1), x)
        clean, share = both.chunk(2, dim=1)
        return clean, share


@dataclass(frozen=True)
class Overlapping:
    """Windows that begin at whole strides from position 0 of the whole signal, whichever part of it is shown.

    Windows that lie only partly in what is shown are left out, but for the last one before the end, which is shorter.
    Positions that no window covers come out as zeros.

    Attributes:
        length: positions of a window.
        stride: positions from one window to the next, at most length.
        start: position of the whole signal with which x begins, a multiple of the stride.
        end: whether x ends where the whole signal ends.
    """

    length: int
    stride: int
    start: int = 0
    end: bool = True

    def __post_init__(self) -> None:
        _check_windows(self.length, self.stride)
        if self.start % self.stride:
            raise ValueError(f"start {self.start} is no multiple of the stride {self.stride}")

    def __call__(self, evaluate: Evaluate, x: Tensor) -> Tensor:
        """Returns [B, C', F]."""
        weights = _weights(self.length, x)
        total: Tensor | None = None
        shares = x.new_zeros(x.shape[-1])
        for first, last in self._windows(x.shape[-1]):
            made, weight = evaluate(x[..., first:last]), weights[: last - first]
            if total is None:
                total = made.new_zeros(*made.shape[:-1], x.shape[-1])
            total[..., first:last] += weight * made
            shares[first:last] += weight
        if total is None:
            raise ValueError(f"{x.shape[-1]} positions hold no window of {self.length}")
        return total / torch.where(shares > 0, shares, 1.0)

    def _windows(self, positions: int) -> list[tuple[int, int]]:
        """Returns (first, one after the last) position of each window in x."""
        overlap = self.length - self.stride
        firsts = range(0, max(positions - overlap, 1), self.stride)
        windows = [(first, min(first + self.length, positions)) for first in firsts]
        return [w for w in windows if self.end or w[1] - w[0] == self.length]


@dataclass(frozen=True)
class Circle:
    """The whole circle at once, with positions of the other end on both sides.

    Attributes:
        before: positions that the network sees before one.
        after: positions that it sees after one.
        grain: what the network's windows have to start at multiples of; divides the circle.
    """

    before: int
    after: int
    grain: int = 1

    def __call__(self, evaluate: Evaluate, x: Tensor) -> Tensor:
        """Returns [B, C', F]."""
        before = -(-self.before // self.grain) * self.grain
        return evaluate(around(x, before, self.after))[..., before : before + x.shape[-1]]


@dataclass(frozen=True)
class CircleWindows:
    """Overlapping windows around the circle; each join is treated like every other, so that the circle has no seam.

    Attributes:
        length: positions of a window; on a shorter circle it is the circle, cut open at several places.
        stride: positions from one window to the next, or fewer where they would not go evenly round.
    """

    length: int
    stride: int

    def __post_init__(self) -> None:
        _check_windows(self.length, self.stride)

    def __call__(self, evaluate: Evaluate, x: Tensor) -> Tensor:
        """Returns [B, C', F]."""
        positions = x.shape[-1]
        length = min(self.length, positions)
        count = max(2, -(-positions // min(self.stride, length)))
        weights, total = _weights(length, x), None
        shares = x.new_zeros(positions)
        for number in range(count):
            first = number * positions // count
            places = torch.arange(first, first + length, device=x.device) % positions
            made = weights * evaluate(x[..., places])
            if total is None:
                total = made.new_zeros(*made.shape[:-1], positions)
            total.index_add_(-1, places, made)
            shares.index_add_(0, places, weights)
        assert total is not None
        return total / shares


def around(x: Tensor, before: int, after: int) -> Tensor:
    """Returns x [..., F] as a circle cut open: `before` positions of its end, x, and `after` of its start."""
    places = torch.arange(-before, x.shape[-1] + after, device=x.device) % x.shape[-1]
    return x[..., places]


def _weights(length: int, x: Tensor) -> Tensor:
    """Returns sin^2 over a window, above 0 everywhere."""
    phase = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    return torch.sin(math.pi * phase).square().to(device=x.device, dtype=x.dtype)


def _check_windows(length: int, stride: int) -> None:
    if not 1 <= stride <= length:
        raise InputError(f"windows: got a stride of {stride} for windows of {length} positions")
