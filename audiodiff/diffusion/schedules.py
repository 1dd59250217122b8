"""How much signal and how much noise there is at time t.

The forward process is x_t = alpha(t) x_0 + sigma(t) eps with t in [0, 1], 0 clean and 1 noise. What matters of
a schedule is its signal-to-noise ratio, which falls strictly (Kingma et al. 2021); log_snr and its inverse
`time` carry a level from one schedule to another.

A table of N betas (Ho et al. 2020) fixes alpha at t = n/N by alpha(n/N) = sqrt(prod_{i<=n} (1 - beta_i)).
Between the rows BetaTable interpolates alpha linearly, with alpha(0) = 1. That one choice gives DiffWave's
discrete steps, its aligned fractional steps for fast sampling (Kong et al. 2021, appendix B) and WaveGrad's
continuous noise level.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from audiodiff.errors import InputError

EARLIEST = 1e-3  # of schedules without rows: below it a continuous model has seen next to nothing
_ROUNDING = 1e-9  # by how much a computed time may leave [0, 1]


class NoiseSchedule(Protocol):
    """alpha and sigma as functions of t; the signal-to-noise ratio falls strictly."""

    @property
    def earliest(self) -> float:
        """The smallest time above 0 that sampling visits: the first row of a table."""
        ...

    def alpha(self, t: Tensor) -> Tensor:
        """Returns the scale of the signal at t, float64, of t's shape; t outside [0, 1] is refused."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """Returns the standard deviation of the noise at t, float64, of t's shape."""
        ...

    def log_snr(self, t: Tensor) -> Tensor:
        """Returns log(alpha^2 / sigma^2), float64; infinite where there is no noise."""
        ...

    def time(self, log_snr: Tensor) -> Tensor:
        """Returns the t with that log-SNR, clamped to [0, 1]; inverts log_snr."""
        ...


class VariancePreserving(ABC):
    """alpha^2 + sigma^2 = 1, so that alpha alone tells the level; subclasses give scales and time.

    sigma is not left to sqrt(1 - alpha^2), nor time to alpha: near t = 0, where alpha rounds to 1, only sigma
    has digits.
    """

    earliest = EARLIEST

    @abstractmethod
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (alpha, sigma) at t, float64."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """Returns the t with that log-SNR, clamped to [0, 1]; inverts log_snr."""

    def alpha(self, t: Tensor) -> Tensor:
        """Returns the scale of the signal at t."""
        return self.scales(t)[0]

    def sigma(self, t: Tensor) -> Tensor:
        """Returns sqrt(1 - alpha(t)^2)."""
        return self.scales(t)[1]

    def log_snr(self, t: Tensor) -> Tensor:
        """Returns log(alpha(t)^2 / sigma(t)^2)."""
        alpha, sigma = self.scales(t)
        return 2 * (alpha.log() - sigma.log())

    def time_of_alpha(self, alpha: Tensor) -> Tensor:
        """Returns the t with that alpha, clamped to [0, 1]; inverts alpha."""
        return self.time(torch.logit(alpha.double().clamp(0, 1).square()))


class BetaTable(VariancePreserving):
    """Variance-preserving schedule from a table of betas."""

    def __init__(self, betas: Sequence[float]) -> None:
        """Builds the table.

        Args:
            betas: N variances of the forward steps, each in (0, 1); the last one may be 1, where no signal is
                left.

        Raises:
            InputError: the table is empty, a beta lies outside its bounds, or the betas are so small or so
                many that the signal-to-noise ratio does not fall from row to row in float64.
        """
        table = torch.as_tensor(list(betas), dtype=torch.float64)
        inside = table.numel() > 0 and bool(((table > 0) & (table <= 1)).all() & (table[:-1] < 1).all())
        if table.dim() != 1 or not inside:
            raise InputError(
                f"betas: got {list(betas)[:4]}..., expected one or more numbers in (0, 1); the last may be 1"
            )
        self.betas = table
        # Whoever builds a model in inference mode may still differentiate the schedule (process.rates).
        with torch.inference_mode(False):
            logs = torch.cat([table.new_zeros(1), torch.log1p(-table).cumsum(0) / 2])
            self._levels = logs.exp()  # [N + 1]
            self._missing = -torch.expm1(logs)  # 1 - levels, with its digits where the level is near 1
            self.alpha_bars = self._levels[1:].square()
        if not bool((self._levels.diff() < 0).all()):
            raise InputError(
                f"betas: from {float(table.min()):.3g} to {float(table.max()):.3g} in {table.numel()} rows, "
                "too small or too many for the signal to shrink with every row in float64"
            )

    @property
    def steps(self) -> int:
        """Number of rows N."""
        return self.betas.numel()

    @property
    def earliest(self) -> float:  # type: ignore[override]
        """The time of the first row, 1/N."""
        return 1 / self.steps

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns alpha = sqrt(alpha-bar) at t, linear between the rows, and sigma."""
        position = checked_time(t) * self.steps
        # A row belongs to the line below it, where sampling goes next; n/N times N may round to above n.
        row = (position - 1e-10).ceil().clamp(min=1) - 1
        index, fraction = row.long(), position - row
        alpha, missing = (
            rows[index] * (1 - fraction) + rows[index + 1] * fraction
            for rows in (self._levels.to(t.device), self._missing.to(t.device))
        )
        return alpha, (missing * (2 - missing)).sqrt()

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
    """Returns betas evenly spaced from beta_start to beta_end (Ho et al. 2020, section 4)."""
    return power(beta_start, beta_end, steps, exponent=1.0)


def power(beta_start: float, beta_end: float, steps: int, exponent: float) -> BetaTable:
    """Returns betas whose exponent-th roots are evenly spaced (San Roman et al. 2023, Multi-Band Diffusion).

    Raises:
        InputError: fewer than one step, an exponent that is not positive, or a beta outside (0, 1).
    """
    if steps < 1:
        raise InputError(f"schedule steps: got {steps}, expected at least 1")
    if exponent <= 0 or beta_start < 0 or beta_end < 0:
        raise InputError(
            f"schedule: got exponent {exponent} and betas {beta_start} to {beta_end}, all must be > 0"
        )
    ends = beta_start ** (1 / exponent), beta_end ** (1 / exponent)
    return BetaTable((torch.linspace(*ends, steps, dtype=torch.float64) ** exponent).tolist())


def cosine_table(steps: int, offset: float = 0.008, beta_max: float = 0.999) -> BetaTable:
    """Returns the cosine schedule as a table (Nichol and Dhariwal 2021, eq. 17), betas clipped at beta_max."""
    if steps < 1:
        raise InputError(f"schedule steps: got {steps}, expected at least 1")
    rows = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bars = torch.cos((rows + offset) / (1 + offset) * (math.pi / 2)).square()
    return BetaTable((1 - alpha_bars[1:] / alpha_bars[:-1]).clamp(max=beta_max).tolist())


def zero_terminal_snr(table: BetaTable, remaining: float = 0.0) -> BetaTable:
    """Returns the table moved and stretched so that no signal is left at its last row.

    Lin et al. 2024, algorithm 1: sqrt(alpha-bar) keeps its first value and ends at 0. Epsilon prediction
    cannot recover the signal there; choose velocity.

    Args:
        table: two or more rows.
        remaining: sqrt(alpha-bar) that the move leaves at the last row, before the stretch. FreGrad (Nguyen et
            al. 2024, eq. 8) predicts epsilon and leaves 1e-4.

    Raises:
        InputError: a table of one row, or a remaining signal that is negative or not below the first row's.
    """
    alphas = table.alpha_bars.sqrt()
    if table.steps < 2 or not 0 <= remaining < float(alphas[0]):
        raise InputError(
            f"zero_terminal_snr: got {table.steps} row(s) and remaining {remaining}, expected two rows or more and "
            f"0 <= remaining < {float(alphas[0]):.4g}"
        )
    last = alphas[-1] - remaining
    alphas = (alphas - last) * (alphas[0] / (alphas[0] - last))
    squares = torch.cat([alphas.new_ones(1), alphas**2])
    return BetaTable((1 - squares[1:] / squares[:-1]).tolist())


def table_of(schedule: NoiseSchedule, user: str) -> BetaTable:
    """Returns the schedule as the table that it must be.

    Raises:
        InputError: it has no rows; the message names who needs them.
    """
    if not isinstance(schedule, BetaTable):
        raise InputError(
            f"{user}: needs a schedule with rows (a beta table), got {type(schedule).__name__}, which is continuous"
        )
    return schedule


def normalized(alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Returns both over the root of the sum of their squares."""
    length = torch.hypot(alpha, sigma)
    return alpha / length, sigma / length


def checked_time(t: Tensor) -> Tensor:
    """Returns t in float64 and within [0, 1].

    Raises:
        InputError: a time lies outside by more than rounding.
    """
    t = t.double()
    if not bool(((t >= -_ROUNDING) & (t <= 1 + _ROUNDING)).all()):  # also not a number
        raise InputError(
            f"time: got {float(t.min()):.6g} to {float(t.max()):.6g}, expected 0 (clean) to 1 (noise)"
        )
    return t.clamp(0, 1)
