"""The one sampling loop and its steps.

A Step is a pure function (denoise, schedule, x, t, s, memory, noise) -> (x at s, memory) for one move from
time t to s < t. `memory` is None or what a multistep method keeps from the step before. Sampler walks a
grid with a step; constraints (clipping, known regions) act on x after every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from audiodiff.diffusion.constraints import Constraint
from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.process import epsilon_from_clean, expand, posterior
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.times import Grid
from audiodiff.errors import InputError

NoiseSource = Callable[[int], Tensor]
"""Step number (0 is the start) -> standard normal noise of x's shape."""


class Step(Protocol):
    """One move of x from time t to time s < t."""

    def __call__(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:
        """Returns (x at s [B, C, F], memory for the next step); t and s are float64 scalars."""
        ...


@dataclass(frozen=True)
class Ancestral:
    """Draws from q(x_s | x_t, clean estimate): Ho et al. 2020, algorithm 2, with the posterior variance."""

    def __call__(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:
        """Returns a draw at s; no noise is drawn for the last step, whose variance is 0."""
        mean, variance = posterior(schedule, x, denoise(x, t), t, s)
        if float(variance) > 0:
            mean = mean + expand(variance.sqrt(), x) * noise()
        return mean, None


@dataclass(frozen=True)
class DDIM:
    """Song et al. 2021 (DDIM), eq. 12.

    Attributes:
        eta: 0 follows the probability flow without noise, 1 is the ancestral step.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise InputError(
                f"eta: got {self.eta}, expected a number from 0 (deterministic) to 1 (ancestral)"
            )

    def __call__(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:
        """Returns x at s."""
        clean = denoise(x, t)
        epsilon = epsilon_from_clean(schedule, x, clean, t)
        variance = self.eta**2 * posterior(schedule, x, clean, t, s)[1]
        direction = (schedule.sigma(s) ** 2 - variance).clamp(min=0).sqrt()
        x = expand(schedule.alpha(s), x) * clean + expand(direction, x) * epsilon
        if float(variance) > 0:
            x = x + expand(variance.sqrt(), x) * noise()
        return x, None


@dataclass(frozen=True)
class Sampler:
    """Walks a grid from noise to signal with one kind of step.

    Attributes:
        step: the move between two times.
        grid: the times.
    """

    step: Step
    grid: Grid

    def __call__(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        x: Tensor,
        noise: NoiseSource,
        constraint: Constraint | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Returns the signal [B, C, F].

        Args:
            denoise: (x, t) -> clean estimate.
            schedule: the schedule that denoise was trained with.
            x: [B, C, F] starting noise, sampled at the first time of the grid.
            noise: gives the noise of step i (from 1) when the step asks for it.
            constraint: applied to x after every step with the time reached.
            on_step: told (steps done, steps in all), for progress bars.
        """
        times = self.grid(schedule)
        memory = None
        for number in range(1, len(times)):
            t, s = times[number - 1], times[number]
            x, memory = self.step(denoise, schedule, x, t, s, memory, partial(noise, number))
            if constraint is not None:
                x = constraint(x, s)
            if on_step is not None:
                on_step(number, len(times) - 1)
        return x
