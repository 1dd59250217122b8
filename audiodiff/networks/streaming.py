"""What a network must say or remember to run on a signal piece by piece.

A network of bounded reach says how many positions on either side of a window are needed for its inside to come out as
in the whole signal (`Margins`). A causal network needs none: each of its convolutions continues where it stopped, with
the last columns that it saw in place of the zeros that pad the start (`Past`), so that nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from audiodiff.types import Condition


@dataclass(frozen=True)
class Margins:
    """How a network's output at one position depends on x and on the local condition around it.

    Attributes:
        before: positions before it, into the first frame of the condition that matters.
        after: positions after it, into the last frame of the condition that matters; windows have whole frames.
        grain: a window has to start at a multiple of so many positions.
    """

    before: int
    after: int
    grain: int = 1


class Past:
    """The last columns that each convolution of one evaluation saw, in the order in which they ran."""

    def __init__(self) -> None:
        self._columns: list[Tensor] = []
        self._next = 0

    def rewind(self) -> None:
        """Makes the first convolution the next one again: a new piece begins."""
        self._next = 0

    def extend(self, x: Tensor, reach: int) -> Tensor:
        """Returns x [..., F] with the `reach` columns before it, zeros at the start, and remembers its last ones."""
        if self._next == len(self._columns):
            self._columns.append(x.new_zeros(*x.shape[:-1], reach))
        extended = torch.cat([self._columns[self._next], x], dim=-1)
        # A copy, since a view would keep the whole piece.
        self._columns[self._next] = extended[..., extended.shape[-1] - reach :].clone()
        self._next += 1
        return extended


class Memory:
    """What a causal network remembers between two pieces: one Past for its condition and one for each evaluation."""

    def __init__(self) -> None:
        self._pasts: list[Past] = []
        self._next = 0

    def rewind(self) -> None:
        """Makes the first Past the next one again: a new piece begins."""
        self._next = 0

    def past(self) -> Past:
        """Returns the next Past, rewound."""
        if self._next == len(self._pasts):
            self._pasts.append(Past())
        past = self._pasts[self._next]
        self._next += 1
        past.rewind()
        return past


@runtime_checkable
class Windowed(Protocol):
    """A network of bounded reach."""

    def margins(self) -> Margins:
        """Returns what a window has to show around the positions that are wanted."""
        ...


@runtime_checkable
class Causal(Protocol):
    """A network that may look back only, as its `causal` says."""

    @property
    def causal(self) -> bool:
        """Whether this one looks back only."""
        ...

    def resume(self, condition: Condition, memory: Memory) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns (x, noise_label) -> prediction for the piece that follows the one the memory is of."""
        ...


def look_back(x: Tensor, reach: int, past: Past | None) -> Tensor:
    """Returns x [..., F] with `reach` columns before it: zeros, or those of the past."""
    return functional.pad(x, (reach, 0)) if past is None else past.extend(x, reach)
