"""The one sampling loop and the first-order steps.

A Step is a pure function (denoise, schedule, x, t, s, memory, noise) -> (x at s, memory) for one move from
time t to time s < t. `memory` is None or what a multistep method keeps from the step before. Sampler walks a
grid with a step; constraints (clipping, known regions) act on x after every step.

One formula moves x to s once the clean signal is known (`move`: Song et al. 2021, DDIM, eq. 12). At eta = 0 it
is the exact solution for a constant clean estimate, so it is also Euler's method of Karras et al. 2022 and
DPM-Solver++ of first order; at eta = 1 it is the ancestral step, which is also k-diffusion's Euler ancestral.
Higher orders (`multistep`, `singlestep`) make the same move with a better estimate; `renoising` wraps a step in
noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from audiodiff.diffusion.constraints import Constraint, Projection, chain, projected
from audiodiff.diffusion.denoiser import Denoise, VarianceDenoise
from audiodiff.diffusion.guidance import GuidedDenoise
from audiodiff.diffusion.process import (
    epsilon_from_clean,
    expand,
    posterior,
    posterior_variance,
    rates,
    starting_std,
    transition_variance,
    velocity_from_clean,
)
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.times import Grid
from audiodiff.errors import InputError

NoiseSource = Callable[[int, int], Tensor]
"""(step number from 1, draw within the step from 0) -> standard normal noise of x's shape."""


class Step(Protocol):
    """One move of x from time t to time s < t.

    A step that needs several of them (a multistep method) has an attribute `least_steps`.
    """

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
        """Returns (x at s [B, C, F], memory for the next step).

        Args:
            denoise: (x, t) -> clean estimate.
            schedule: the schedule that denoise was trained with.
            x: [B, C, F] at t.
            t: float64 scalar.
            s: float64 scalar, below t.
            memory: what the step before returned; None at first.
            noise: gives standard normal noise of x's shape, new at every call.
        """
        ...


def move(
    schedule: NoiseSchedule,
    x: Tensor,
    clean: Tensor,
    t: Tensor,
    s: Tensor,
    variance: Tensor | None = None,
    noise: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Returns x at s when the clean signal is `clean`: DDIM's eq. 12.

    Args:
        schedule: the noise schedule.
        x: [B, C, F] at t.
        clean: [B, C, F].
        t: float64 scalar, or [B] where no new noise comes in.
        s: of t's shape, below t.
        variance: of the new noise, at most sigma(s)^2; None for none.
        noise: gives the new noise.
    """
    epsilon = epsilon_from_clean(schedule, x, clean, t)
    if variance is None or noise is None or float(variance) <= 0:
        return expand(schedule.alpha(s), x) * clean + expand(schedule.sigma(s), x) * epsilon
    direction = (schedule.sigma(s) ** 2 - variance).clamp(min=0).sqrt()
    x = expand(schedule.alpha(s), x) * clean + expand(direction, x) * epsilon
    return x + expand(variance.sqrt(), x) * noise()


@dataclass(frozen=True)
class Ancestral:
    """Draws from q(x_s | x_t, clean estimate): Ho et al. 2020, algorithm 2.

    Attributes:
        variance: of the draw: "small", the posterior's; "large", that of q(x_t | x_s); "learned", between the
            two as the network says (Nichol and Dhariwal 2021, eq. 15).
    """

    variance: str = "small"

    def __post_init__(self) -> None:
        if self.variance not in ("small", "large", "learned"):
            raise InputError(f"variance: got {self.variance!r}, choose small, large or learned")

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns a draw at s; the last step, whose posterior variance is 0, returns its mean."""
        if self.variance == "learned":
            if not isinstance(denoise, VarianceDenoise):
                raise InputError("variance: this model has not learned one; choose small or large")
            clean, share = denoise.with_variance(x, t)
        else:
            clean = denoise(x, t)
        mean, small = posterior(schedule, x, clean, t, s)
        if float(small) <= 0:
            return mean, None
        large = transition_variance(schedule, t, s)
        if self.variance == "learned":
            return mean + (interpolated_log_variance(share, small, large) / 2).exp() * noise(), None
        return mean + expand((small if self.variance == "small" else large).sqrt(), x) * noise(), None


def interpolated_log_variance(share: Tensor, small: Tensor, large: Tensor) -> Tensor:
    """Returns v log(large) + (1 - v) log(small), Nichol and Dhariwal 2021, eq. 15.

    Args:
        share: v [B, C, F].
        small: posterior variance, scalar or [B].
        large: transition variance, scalar or [B].
    """
    return share * expand(large.log(), share) + (1 - share) * expand(small.log(), share)


@dataclass(frozen=True)
class DDIM:
    """Song et al. 2021 (DDIM), eq. 12.

    Attributes:
        eta: 0 follows the probability flow without noise, 1 is the ancestral step.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        check_eta(self.eta)

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s."""
        return move(schedule, x, denoise(x, t), t, s, new_variance(schedule, t, s, self.eta), noise), None


def new_variance(schedule: NoiseSchedule, t: Tensor, s: Tensor, eta: float) -> Tensor | None:
    """Returns eta^2 times the posterior variance (DDIM, eq. 16), None for eta = 0."""
    if eta == 0:
        return None
    return eta**2 * posterior_variance(schedule, t, s)


def check_eta(eta: float) -> None:
    """Refuses an eta outside [0, 1]."""
    if not 0 <= eta <= 1:
        raise InputError(f"eta: got {eta}, expected a number from 0 (deterministic) to 1 (ancestral)")


@dataclass(frozen=True)
class CFGPlusPlus:
    """DDIM that takes the signal from the guided and the noise from the unconditional estimate.

    Chung et al. 2025 (CFG++), algorithm 2. Its guidance scale lies in [0, 1): a step from noise level r_t to r_s =
    sigma / alpha with scale w is DDIM's with the classifier-free scale w / (1 - r_s / r_t).
    """

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s.

        Raises:
            InputError: no guidance, or a scale above 1.
        """
        if not isinstance(denoise, GuidedDenoise):
            raise InputError(
                "cfg++: needs guidance; give a guidance scale from 0 to below 1, for example 0.6"
            )
        if denoise.scale > 1:
            raise InputError(
                f"cfg++: got guidance scale {denoise.scale}, expected one from 0 to below 1, for example 0.6"
            )
        guided, unconditional = denoise.both(x, t)
        epsilon = epsilon_from_clean(schedule, x, unconditional, t)
        return expand(schedule.alpha(s), x) * guided + expand(schedule.sigma(s), x) * epsilon, None


@dataclass(frozen=True)
class Consistency:
    """Jumps to the clean estimate and adds new noise for s (Song et al. 2023, Consistency Models, algorithm 1)."""

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s."""
        clean = expand(schedule.alpha(s), x) * denoise(x, t)
        sigma = schedule.sigma(s)
        return (clean if float(sigma) == 0 else clean + expand(sigma, x) * noise()), None


@dataclass(frozen=True)
class GradTTSEuler:
    """Euler's method in t with the rates in the middle of the step (Popov et al. 2021, eqs. 8 and 9; their code).

    Attributes:
        stochastic: whether it follows the reverse-time SDE instead of the probability flow.
    """

    stochastic: bool = False

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s."""
        middle, span = (t + s) / 2, t - s
        clean = denoise(x, middle)
        flow = velocity_from_clean(schedule, x, clean, middle)
        if not self.stochastic:
            return x - expand(span, x) * flow, None
        # The reverse SDE adds half the squared diffusion of score drift, g^2 = sigma^2 d(-log_snr)/dt, and g dW.
        squared = diffusion_rate(schedule, middle)
        score = -epsilon_from_clean(schedule, x, clean, middle) / expand(schedule.sigma(middle), x)
        drift = flow - expand(squared / 2, x) * score
        return x - expand(span, x) * drift + expand((squared * span).sqrt(), x) * noise(), None


def diffusion_rate(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Returns g(t)^2 of dx = f x dt + g dW, which is beta(t) for a variance-preserving SDE (Kingma et al. 2021)."""
    alpha_rate, sigma_rate = rates(schedule, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return 2 * sigma * (sigma_rate - sigma * alpha_rate / alpha)


class NotFiniteError(FloatingPointError):
    """The network gave numbers that are not finite.

    Attributes:
        places: which items of the batch, counted from 0.
    """

    def __init__(self, x: Tensor, step: int, steps: int) -> None:
        """Says at which step, and keeps which items of x [B, C, F] are concerned."""
        self.places = [i for i, item in enumerate(x) if not bool(item.isfinite().all())]
        super().__init__(
            f"sampling step {step} of {steps}: the network gave numbers that are not finite; check the model, or "
            "choose another sampler"
        )


@dataclass(frozen=True)
class Sampler:
    """Walks a grid from noise to signal with one kind of step.

    Attributes:
        step: the move between two times.
        grid: the times.
        constraint: applied to x after every step; None for none.
        projection: applied to every clean estimate; None for none.
        temperature: divides the noise that sampling starts from, and no other, as the code of Grad-TTS does.
    """

    step: Step
    grid: Grid
    constraint: Constraint | None = None
    projection: Projection | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise InputError(f"temperature: got {self.temperature}, expected a number above 0 such as 1.5")

    def times(self, schedule: NoiseSchedule) -> Tensor:
        """Returns the grid's times on a schedule [steps + 1].

        Raises:
            InputError: times that do not fall strictly or leave [0, 1], or too few steps for this kind of step.
        """
        times = self.grid(schedule)
        if times.dim() != 1 or len(times) < 2:
            raise InputError(f"grid: got {times.numel()} time(s), expected two or more")
        if not bool((times.diff() < 0).all()) or not bool(((times >= 0) & (times <= 1)).all()):
            shown = ", ".join(f"{time:.4g}" for time in times.tolist()[:8])
            raise InputError(
                f"grid: got times {shown}..., expected numbers that fall strictly from at most 1 to 0"
            )
        least = getattr(self.step, "least_steps", 1)
        if len(times) - 1 < least:
            raise InputError(
                f"grid: {len(times) - 1} step(s) for {type(self.step).__name__}, which needs {least} or more; "
                "choose ddim, or more steps"
            )
        return times

    def start(self, schedule: NoiseSchedule, noise: Tensor) -> Tensor:
        """Returns x at the first time of the grid, from standard normal noise [B, C, F]."""
        return expand(starting_std(schedule, self.times(schedule)[0]) / self.temperature, noise) * noise

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
            x: [B, C, F] at the first time of the grid, see `start`.
            noise: gives the noise of step i (from 1), draw j (from 0), when the step asks for it.
            constraint: applied to x after every step, after the sampler's own, with the time reached.
            on_step: told (steps done, steps in all), for progress bars.

        Raises:
            InputError: see `times`.
            NotFiniteError: x stopped being finite; the message names the step.
        """
        times, memory = self.times(schedule), None
        bounded = replace(self, constraint=chain(*filter(None, (self.constraint, constraint))))
        for number in range(1, len(times)):
            x, memory = bounded.advance(denoise, schedule, times, number, x, memory, noise)
            if on_step is not None:
                on_step(number, len(times) - 1)
        return x

    def advance(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        times: Tensor,
        number: int,
        x: Tensor,
        memory: Any,
        noise: NoiseSource,
    ) -> tuple[Tensor, Any]:
        """Returns x [B, C, F] after one step, and what the next one wants to remember.

        Args:
            denoise: (x, t) -> clean estimate.
            schedule: the schedule that denoise was trained with.
            times: of the grid, see `times`.
            number: of the step, from 1.
            x: [B, C, F] before it.
            memory: what the step before returned; None at first.
            noise: as in a call.

        Raises:
            NotFiniteError: x stopped being finite.
        """
        if self.projection is not None:
            denoise = projected(denoise, self.projection)
        t, s = times[number - 1], times[number]
        x, memory = self.step(denoise, schedule, x, t, s, memory, _Draws(noise, number))
        if self.constraint is not None:
            x = self.constraint(x, s)
        if not bool(x.isfinite().all()):
            raise NotFiniteError(x, number, len(times) - 1)
        return x, memory


@dataclass
class _Draws:
    """The noise of one step: every call is the next draw."""

    source: NoiseSource
    step: int
    draws: itertools.count[int] = field(default_factory=itertools.count)

    def __call__(self) -> Tensor:
        return self.source(self.step, next(self.draws))
