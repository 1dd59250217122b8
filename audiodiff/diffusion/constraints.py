"""What must hold of x after every sampling step: (x, s) -> x."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Constraint = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Clip:
    """Clamps x after each step, as the published sampler of lmnt's DiffWave does.

    Attributes:
        low: smallest value kept.
        high: largest value kept.
    """

    low: float = -1.0
    high: float = 1.0

    def __call__(self, x: Tensor, s: Tensor) -> Tensor:
        """Returns x [B, C, F] clamped to [low, high]."""
        return x.clamp(self.low, self.high)
