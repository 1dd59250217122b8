"""Choosing t: densities to train with and grids to sample on.

A density draws one t per training item. A grid is a callable schedule -> times [steps + 1], float64,
strictly falling, that ends at 0. The published fast schedules are named here with the betas their authors
printed; on another model's table each level is aligned to the time with the same alpha (Kong et al. 2021,
appendix B), so that the network sees the fractional step that belongs to it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from audiodiff.diffusion.schedules import BetaTable, NoiseSchedule
from audiodiff.errors import InputError

FAST_SCHEDULES: dict[str, tuple[float, ...]] = {
    # Kong et al. 2021, appendix B: six steps for the table of 50 and of 200 rows.
    "diffwave-base-6": (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5),
    "diffwave-large-6": (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.7),
    # Lee et al. 2022 (PriorGrad), released code.
    "priorgrad-12": (1e-4, 5e-4, 8e-4, 1e-3, 5e-3, 8e-3, 0.01, 0.05, 0.08, 0.1, 0.2, 0.5),
    # Huang et al. 2022 (FastDiff), released code, for its table of 1000 rows.
    "fastdiff-3": (9e-5, 9e-3, 0.6),
    "fastdiff-4": (3.2176e-4, 2.5743e-3, 2.5376e-2, 0.70414),
    "fastdiff-6": (1.7838e-6, 2.7984e-5, 4.3231e-4, 6.6343e-3, 9.3570e-2, 0.6),
    "fastdiff-8": (6.689e-7, 1.0034e-5, 1.5497e-4, 2.3872e-3, 3.5598e-2, 0.36812, 0.47354, 0.5),
    # Lam et al. 2022 (BDDM), found for DiffWave on a table of 200 rows.
    "bddm-lj-7": (1.3559e-4, 1.0096e-3, 8.7784e-3, 0.13596, 0.27756, 0.28931, 0.30),
    "bddm-lj-12": (
        *(1.2412e-4, 9.1087e-4, 7.4849e-3, 0.093312, 0.14349, 0.15208),
        *(0.15971, 0.16683, 0.17371, 0.18045, 0.18714, 0.19382),
    ),
    "bddm-vctk-8": (3.5447e-4, 7.2208e-4, 1.4719e-3, 3.0041e-3, 6.1449e-3, 1.2615e-2, 2.6042e-2, 0.57675),
}


class Grid(Protocol):
    """The times at which a sampler evaluates the denoiser."""

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns times [steps + 1], float64, strictly falling, the last one 0."""
        ...


@dataclass(frozen=True)
class UniformGrid:
    """Times evenly spaced from 1 to 0.

    Attributes:
        steps: number of denoiser evaluations.
    """

    steps: int

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns 1, 1 - 1/steps, ..., 0."""
        _check_steps(self.steps)
        return torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)


@dataclass(frozen=True)
class LogSnrGrid:
    """Times evenly spaced in log-SNR between t = 1 and the first row of the table, then 0.

    Few steps spend themselves where the signal forms (Lu et al. 2022, DPM-Solver, section 3.3).

    Attributes:
        steps: number of denoiser evaluations.
    """

    steps: int

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns the times, from 1 to 1/N in log-SNR and then 0."""
        _check_steps(self.steps)
        ends = schedule.log_snr(torch.tensor([1.0, 1.0 / schedule.steps], dtype=torch.float64))
        # One step has no second end to space towards.
        levels = torch.linspace(float(ends[0]), float(ends[1]), max(self.steps, 2), dtype=torch.float64)
        times = schedule.time(levels)[: self.steps]
        times[0] = 1.0
        return torch.cat([times, times.new_zeros(1)])


@dataclass(frozen=True)
class TableGrid:
    """Every row of the table: t = 1, (N - 1)/N, ..., 1/N, 0."""

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns N + 1 times."""
        return torch.arange(schedule.steps, -1, -1, dtype=torch.float64) / schedule.steps


@dataclass(frozen=True)
class BetaGrid:
    """A table of a few betas, aligned to the model's own schedule by equal alpha.

    Attributes:
        betas: the short table, first row next to the clean signal.
    """

    betas: tuple[float, ...]

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns the aligned times and 0.

        A level noisier than the model's last row is set to t = 1 with a warning, as FastDiff and BDDM do.

        Raises:
            InputError: the schedule is no table, or two levels or more are noisier than its last row.
        """
        if not isinstance(schedule, BetaTable):
            raise InputError(
                "a published beta schedule can only be aligned to a model trained on a beta table"
            )
        alphas = BetaTable(self.betas).alpha_bars.sqrt().flip(0)
        outside = int((alphas < schedule.alpha_bars[-1].sqrt() * (1 - 1e-9)).sum())
        if outside > 1:
            raise InputError(
                f"fast schedule: {outside} of its {len(self.betas)} levels are noisier than the last row of "
                f"the model's table of {schedule.steps}; choose one made for this table"
            )
        if outside:
            warnings.warn("the noisiest level of the fast schedule is set to t = 1", stacklevel=2)
        times = schedule.time_of_alpha(alphas)
        return torch.cat([times, times.new_zeros(1)])


def published_grid(name: str) -> BetaGrid:
    """Returns the named fast schedule of FAST_SCHEDULES.

    Raises:
        InputError: unknown name; the message lists the choices.
    """
    if name not in FAST_SCHEDULES:
        raise InputError(f"fast schedule {name!r} is unknown; choose one of {', '.join(FAST_SCHEDULES)}")
    return BetaGrid(FAST_SCHEDULES[name])


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise InputError(f"sampling steps: got {steps}, expected at least 1")


class TimeDensity(Protocol):
    """How training chooses t."""

    def __call__(self, size: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        """Returns t [size], float64, in (0, 1]."""
        ...


@dataclass(frozen=True)
class UniformSteps:
    """t = n/N with n uniform in 1..N: the discrete steps of Ho et al. 2020, algorithm 1."""

    def __call__(self, size: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        """Returns t [size] on rows of the table."""
        rows = torch.randint(1, schedule.steps + 1, (size,), generator=generator, device=generator.device)
        return rows.double() / schedule.steps


@dataclass(frozen=True)
class StratifiedTime:
    """t uniform in (0, 1], one draw from each of `size` equal parts: the same density, less variance.

    Kingma et al. 2021, appendix I.1.
    """

    def __call__(self, size: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        """Returns t [size], continuous."""
        device = generator.device
        offset = torch.rand(1, generator=generator, device=device, dtype=torch.float64)
        parts = torch.randperm(size, generator=generator, device=device).double() / size
        return 1 - (parts + offset) % 1.0
