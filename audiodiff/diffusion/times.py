"""Choosing t: densities to train with and grids to sample on.

A density draws one t per training item. A grid is a callable schedule -> times [steps + 1], float64,
strictly falling, that ends at 0; Sampler checks it. The published fast schedules are named here with the
betas their authors printed; on another model's table each level is aligned to the time with the same alpha
(Kong et al. 2021, appendix B), so that the network sees the fractional step that belongs to it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from audiodiff.diffusion.process import noise_ratio, time_of_ratio
from audiodiff.diffusion.schedules import BetaTable, NoiseSchedule, VariancePreserving, table_of
from audiodiff.errors import InputError

_FIBONACCI = (
    *(1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377),
    *(610, 987, 1597, 2584, 4181, 6765, 10946, 17711, 28657, 46368, 75025, 121393),
)

FAST_SCHEDULES: dict[str, tuple[float, ...]] = {
    # Kong et al. 2021, appendix B: six steps for the table of 50 and of 200 rows.
    "diffwave-base-6": (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5),
    "diffwave-large-6": (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.7),
    # Lee et al. 2022 (PriorGrad), released code.
    "priorgrad-4": (1e-3, 1e-2, 0.05, 0.2),
    "priorgrad-12": (1e-4, 5e-4, 8e-4, 1e-3, 5e-3, 8e-3, 0.01, 0.05, 0.08, 0.1, 0.2, 0.5),
    "priorgrad-acoustic-6": (1e-3, 1e-2, 0.05, 0.1, 0.5, 0.8),
    # Nguyen et al. 2024 (FreGrad), released code, for its zero-terminal-SNR table of 50 rows.
    "fregrad-2": (0.04, 0.95),
    "fregrad-3": (1e-4, 0.1, 0.95),
    "fregrad-6": (1e-4, 0.0215, 0.045, 0.08, 0.2, 0.5),
    # Found with WaveGrad's grid search (Chen et al. 2021, section 4) for its table of 1000 rows:
    # ivanvovk/WaveGrad, released schedules.
    "wavegrad-6": (1e-6, 1.89287293e-5, 1.19432123e-4, 1.0047548e-3, 1.10942535e-2, 0.06),
    "wavegrad-7": (1e-6, 5e-6, 1.89287293e-5, 1e-4, 1e-3, 1.11e-2, 0.06),
    "wavegrad-12": (  # not sorted, as released
        *(1e-6, 6.93039146e-6, 5.33670254e-6, 3.69853951e-5, 1.70882166e-4, 3.94760107e-4),
        *(1.36792019e-3, 2.80895317e-3, 3.24452389e-3, 0.0149905467, 8.65752436e-3, 0.06),
    ),
    "wavegrad-25": tuple(1e-6 * number for number in _FIBONACCI),
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
    """Times evenly spaced from 1 to 0, "trailing" in Lin et al. 2024, table 2.

    Attributes:
        steps: number of denoiser evaluations of a first-order step.
    """

    steps: int

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns 1, 1 - 1/steps, ..., 0."""
        _check_steps(self.steps)
        return torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)


@dataclass(frozen=True)
class LinspaceGrid:
    """Times evenly spaced from 1 to the earliest time of the schedule, then 0: both ends of a table.

    Attributes:
        steps: number of denoiser evaluations.
    """

    steps: int

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns the times; a single step goes from 1 to 0."""
        _check_steps(self.steps)
        return _closed(
            torch.linspace(1, schedule.earliest, max(self.steps, 2), dtype=torch.float64), self.steps
        )


@dataclass(frozen=True)
class LeadingGrid:
    """Every k-th row of the table counted from its first, then 0; it does not start at t = 1.

    The rows of Song et al. 2021 (DDIM) and of much published code. Off the terminal distribution from the
    first step, it is here to repeat what was published that way.

    Attributes:
        steps: number of denoiser evaluations; the stride is rows / steps, rounded down.
    """

    steps: int

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns the times.

        Raises:
            InputError: the schedule has no rows, or fewer than steps.
        """
        _check_steps(self.steps)
        rows = table_of(schedule, "leading grid").steps
        if self.steps > rows:
            raise InputError(
                f"leading grid: {self.steps} steps of a table with {rows} rows; choose at most {rows}"
            )
        first = torch.arange(self.steps - 1, -1, -1, dtype=torch.float64) * (rows // self.steps) + 1
        return _closed(first / rows, self.steps)


@dataclass(frozen=True)
class LogSnrGrid:
    """Times evenly spaced in log-SNR from the noisiest level to the cleanest, then 0: "exponential" in the noise.

    Few steps spend themselves where the signal forms (Lu et al. 2022, DPM-Solver, section 3.3).

    Attributes:
        steps: number of denoiser evaluations.
        ratio_min: sigma / alpha before the last step; None for that of the schedule's earliest time.
        ratio_max: sigma / alpha at the start; None for that of t = 1.
    """

    steps: int
    ratio_min: float | None = None
    ratio_max: float | None = None

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns the times, and 0.

        Raises:
            InputError: bounds that are not rising, or no signal left at t = 1 and no ratio_max.
        """
        _check_steps(self.steps)
        low, high = _bounds(schedule, self.ratio_min, self.ratio_max)
        # One step has no second end to space towards.
        logs = torch.linspace(high.log(), low.log(), max(self.steps, 2), dtype=torch.float64)
        return _from_ratios(schedule, logs.exp(), self.steps, self.ratio_max)


@dataclass(frozen=True)
class KarrasGrid:
    """sigma / alpha evenly spaced in its rho-th root, then 0 (Karras et al. 2022, eq. 5).

    Attributes:
        steps: number of denoiser evaluations of a first-order step.
        rho: 7 in the paper; larger spends more steps on little noise.
        ratio_min: sigma / alpha before the last step; None for that of the schedule's earliest time.
        ratio_max: sigma / alpha at the start; None for that of t = 1.
    """

    steps: int
    rho: float = 7.0
    ratio_min: float | None = None
    ratio_max: float | None = None

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns the times, and 0.

        Raises:
            InputError: bounds that are not rising, rho not above 0, or no signal left at t = 1 and no ratio_max.
        """
        _check_steps(self.steps)
        if not self.rho > 0:
            raise InputError(f"rho: got {self.rho}, expected a number above 0")
        low, high = (bound ** (1 / self.rho) for bound in _bounds(schedule, self.ratio_min, self.ratio_max))
        roots = torch.linspace(float(high), float(low), max(self.steps, 2), dtype=torch.float64)
        return _from_ratios(schedule, roots**self.rho, self.steps, self.ratio_max)


@dataclass(frozen=True)
class TableGrid:
    """Every row of the table: t = 1, (N - 1)/N, ..., 1/N, 0."""

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns N + 1 times."""
        rows = table_of(schedule, "table grid").steps
        return torch.arange(rows, -1, -1, dtype=torch.float64) / rows


@dataclass(frozen=True)
class TimesGrid:
    """Times that somebody chose, for example by a search.

    Attributes:
        times: strictly falling, in [0, 1]; a last time of 0 is added if it is missing.
    """

    times: tuple[float, ...]

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns the times."""
        times = torch.tensor(self.times, dtype=torch.float64)
        return times if len(self.times) and self.times[-1] == 0 else torch.cat([times, times.new_zeros(1)])


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
            InputError: the schedule is not variance preserving, or two levels or more are noisier than its
                noisiest.
        """
        if not isinstance(schedule, VariancePreserving):
            raise InputError(
                "a published beta schedule can only be aligned to a model with a variance-preserving schedule, "
                f"got {type(schedule).__name__}; choose a uniform, log-snr or karras grid"
            )
        alphas = BetaTable(self.betas).alpha_bars.sqrt().flip(0)
        last = schedule.alpha(torch.ones((), dtype=torch.float64))
        outside = int((alphas < last * (1 - 1e-9)).sum())
        if outside > 1:
            raise InputError(
                f"fast schedule: {outside} of its {len(self.betas)} levels are noisier than this model's "
                "noisiest level; choose one made for its schedule"
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


def _closed(times: Tensor, steps: int) -> Tensor:
    return torch.cat([times[:steps], times.new_zeros(1)])


def _bounds(schedule: NoiseSchedule, low: float | None, high: float | None) -> tuple[Tensor, Tensor]:
    """Returns the smallest and largest sigma / alpha of a grid."""
    ratios = noise_ratio(schedule, torch.tensor([schedule.earliest, 1.0], dtype=torch.float64))
    if high is None and not bool(ratios[1].isfinite()):
        raise InputError(
            "this schedule leaves no signal at t = 1, where sigma / alpha is infinite; give the grid a ratio_max, "
            "or choose a uniform grid"
        )
    for index, given in ((0, low), (1, high)):
        if given is not None:
            ratios[index] = given
    if not 0 < float(ratios[0]) < float(ratios[1]) < float("inf"):
        raise InputError(
            f"grid: got ratio_min {float(ratios[0]):.4g} and ratio_max {float(ratios[1]):.4g}, expected "
            "0 < ratio_min < ratio_max, both finite"
        )
    return ratios[0], ratios[1]


def _from_ratios(schedule: NoiseSchedule, ratios: Tensor, steps: int, ratio_max: float | None) -> Tensor:
    times = time_of_ratio(schedule, ratios)
    if ratio_max is None:
        times[0] = 1.0  # to the last digit
    times = _closed(times, steps)
    if not bool((times.diff() < 0).all()):
        least, most = noise_ratio(schedule, torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        raise InputError(
            f"grid: got sigma / alpha from {float(ratios[0]):.4g} to {float(ratios[-1]):.4g}, expected levels within "
            f"those of the schedule, {least:.4g} to {most:.4g}"
        )
    return times


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
        steps = table_of(schedule, "density UniformSteps").steps
        rows = torch.randint(1, steps + 1, (size,), generator=generator, device=generator.device)
        return rows.double() / steps


@dataclass(frozen=True)
class UniformTime:
    """t uniform in (0, 1]; on a beta table this is WaveGrad's continuous noise level.

    Chen et al. 2021, section 2.2: a row is drawn, then sqrt(alpha-bar) uniformly between its two levels.
    """

    def __call__(self, size: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        """Returns t [size], continuous."""
        return 1 - torch.rand(size, generator=generator, device=generator.device, dtype=torch.float64)


@dataclass(frozen=True)
class GridTimes:
    """t uniform over the times of a sampling grid, 0 left out: what a distilled student will be asked.

    Attributes:
        grid: the grid.
    """

    grid: Grid

    def __call__(self, size: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        """Returns t [size]."""
        times = self.grid(schedule)[:-1].to(generator.device)
        return times[torch.randint(len(times), (size,), generator=generator, device=generator.device)]


@dataclass(frozen=True)
class LogNormalRatio:
    """log(sigma / alpha) normal (Karras et al. 2022, table 1); draws beyond the schedule's ends are moved to them.

    Attributes:
        mean: of the logarithm.
        std: of the logarithm.
    """

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, size: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        """Returns t [size] in (0, 1]."""
        normal = torch.randn(size, generator=generator, device=generator.device, dtype=torch.float64)
        times = schedule.time(-2 * (self.mean + self.std * normal))
        return times.clamp(min=schedule.earliest * 1e-3)


@dataclass(frozen=True)
class StratifiedTime:
    """t uniform in (0, 1], one draw from each of `size` equal parts: the same density, less variance.

    Kingma et al. 2021, appendix I.1. Drawn for the whole batch of all processes, it is stratified over them.
    """

    def __call__(self, size: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        """Returns t [size], continuous."""
        device = generator.device
        offset = torch.rand(1, generator=generator, device=device, dtype=torch.float64)
        parts = torch.randperm(size, generator=generator, device=device).double() / size
        return 1 - (parts + offset) % 1.0
