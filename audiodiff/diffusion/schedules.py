"""How much signal and how much noise there is at time t.

The forward process is x_t = alpha(t) x_0 + sigma(t) eps with t in [0, 1], 0 clean and 1 noise, and is
variance preserving: alpha^2 + sigma^2 = 1. A table of N betas (Ho et al. 2020) fixes it at t = n/N by
alpha(n/N) = sqrt(prod_{i<=n} (1 - beta_i)). Between the rows BetaTable interpolates alpha linearly, with
alpha(0) = 1. That one choice gives DiffWave's discrete steps, its aligned fractional steps for fast
sampling (Kong et al. 2021, appendix B) and WaveGrad's continuous noise level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from audiodiff.errors import InputError


class NoiseSchedule(Protocol):
    """alpha and sigma as functions of t; the signal-to-noise ratio falls strictly."""

    @property
    def steps(self) -> int:
        """Number of rows N of the table that the schedule was trained with."""
        ...

    def alpha(self, t: Tensor) -> Tensor:
        """Returns the scale of the signal at t, float64, of t's shape."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """Returns the standard deviation of the noise at t, float64, of t's shape."""
        ...

    def log_snr(self, t: Tensor) -> Tensor:
        """Returns log(alpha^2 / sigma^2), float64; infinite at t = 0."""
        ...

    def time(self, log_snr: Tensor) -> Tensor:
        """Returns the t with that log-SNR; inverts log_snr."""
        ...


class BetaTable:
    """Variance-preserving schedule from a table of betas."""

    def __init__(self, betas: Sequence[float]) -> None:
        """Builds the table.

        Args:
            betas: N variances of the forward steps, each in (0, 1).

        Raises:
            InputError: the table is empty, a beta lies outside (0, 1), or the betas are so small or so many
                that the signal-to-noise ratio does not fall from row to row in float64.
        """
        table = torch.as_tensor(list(betas), dtype=torch.float64)
        if table.dim() != 1 or table.numel() == 0 or not bool(((table > 0) & (table < 1)).all()):
            raise InputError(f"betas: got {list(betas)[:4]}..., expected one or more numbers in (0, 1)")
        self.betas = table
        self.alpha_bars = torch.cumprod(1 - table, dim=0)
        self._levels = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bars.sqrt()])  # [N + 1]
        if not bool((self._levels.diff() < 0).all()):
            raise InputError(
                f"betas: from {float(table.min()):.3g} to {float(table.max()):.3g} in {table.numel()} rows, "
                "too small or too many for the signal to shrink with every row in float64"
            )

    @property
    def steps(self) -> int:
        """Number of rows N."""
        return self.betas.numel()

    def alpha(self, t: Tensor) -> Tensor:
        """Returns sqrt(alpha-bar) at t, linear between the rows.

        Args:
            t: any shape, in [0, 1].
        """
        position = t.double().clamp(0, 1) * self.steps
        row = position.floor().clamp(max=self.steps - 1)
        fraction = position - row
        levels = self._levels.to(t.device)
        index = row.long()
        return levels[index] * (1 - fraction) + levels[index + 1] * fraction

    def sigma(self, t: Tensor) -> Tensor:
        """Returns sqrt(1 - alpha(t)^2)."""
        alpha = self.alpha(t)
        return ((1 - alpha) * (1 + alpha)).sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        """Returns log(alpha(t)^2 / sigma(t)^2)."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def time(self, log_snr: Tensor) -> Tensor:
        """Returns the t with that log-SNR, clamped to [0, 1]."""
        return self.time_of_alpha(torch.sigmoid(log_snr.double()).sqrt())

    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        """Returns the t with that alpha, clamped to [0, 1]; inverts alpha.

        At a level between rows n and n + 1 this is DiffWave's aligned fractional step (t N - 1 in its
        count from zero).
        """
        levels = self._levels.to(alpha.device)
        alpha = alpha.double().clamp(levels[-1], levels[0])
        below = torch.searchsorted(-levels, -alpha).clamp(1, self.steps)  # first row with level <= alpha
        upper, lower = levels[below - 1], levels[below]
        return (below - 1 + (upper - alpha) / (upper - lower)) / self.steps


def linear(beta_start: float, beta_end: float, steps: int) -> BetaTable:
    """Returns betas evenly spaced from beta_start to beta_end (Ho et al. 2020, section 4).

    Raises:
        InputError: fewer than one step, or a beta outside (0, 1).
    """
    if steps < 1:
        raise InputError(f"schedule steps: got {steps}, expected at least 1")
    return BetaTable(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64).tolist())
