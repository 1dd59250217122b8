"""Steps that put noise around another step: ancestral variants, churn, and resampling for known regions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiodiff.diffusion.constraints import Constraint
from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.process import expand, noise_ratio, time_of_ratio, transition_variance
from audiodiff.diffusion.samplers import Step, check_eta
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.errors import InputError


@dataclass(frozen=True)
class AddedNoise:
    """Moves a deterministic step below s and comes back with new noise: k-diffusion's "ancestral" variants.

    Attributes:
        step: a deterministic step.
        eta: how much noise; 1 is the amount of the ancestral step.
    """

    step: Step
    eta: float = 1.0

    @property
    def least_steps(self) -> int:
        """Those of the step within."""
        return getattr(self.step, "least_steps", 1)

    def __post_init__(self) -> None:
        check_eta(self.eta)

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s."""
        ratio_t, ratio_s = noise_ratio(schedule, t), noise_ratio(schedule, s)
        if float(ratio_s) == 0 or self.eta == 0:
            return self.step(denoise, schedule, x, t, s, memory, noise)
        up = torch.minimum(ratio_s, self.eta * ratio_s * (1 - (ratio_s / ratio_t) ** 2).sqrt())
        down = (ratio_s**2 - up**2).clamp(min=0).sqrt()
        u = time_of_ratio(schedule, down)
        x, memory = self.step(denoise, schedule, x, t, u, memory, noise)
        alpha = schedule.alpha(s)
        return expand(alpha / schedule.alpha(u), x) * x + expand(alpha * up, x) * noise(), memory


@dataclass(frozen=True)
class Churn:
    """Adds noise before a step and starts it from the higher level (Karras et al. 2022, algorithm 2).

    Attributes:
        step: a deterministic step without memory, such as DDIM (Euler) or Heun.
        gamma: relative rise of the noise level, S_churn / steps in the paper, at most sqrt(2) - 1.
        ratio_min: noise level sigma / alpha below which nothing is added (S_tmin).
        ratio_max: noise level above which nothing is added (S_tmax).
        noise_std: of the added noise (S_noise), slightly above 1 against lost detail.
    """

    step: Step
    gamma: float = 2**0.5 - 1
    ratio_min: float = 0.0
    ratio_max: float = float("inf")
    noise_std: float = 1.0

    @property
    def least_steps(self) -> int:
        """Those of the step within."""
        return getattr(self.step, "least_steps", 1)

    def __post_init__(self) -> None:
        if not self.gamma >= 0:
            raise InputError(f"gamma: got {self.gamma}, expected 0 (no churn) or more")

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s; a level beyond that of t = 1 is not reached."""
        ratio = noise_ratio(schedule, t)
        gamma = min(self.gamma, 2**0.5 - 1)
        if gamma > 0 and self.ratio_min <= float(ratio) <= self.ratio_max and math.isfinite(ratio):
            u = time_of_ratio(schedule, ratio * (1 + gamma))
            added = transition_variance(schedule, u, t).sqrt() * self.noise_std
            x = expand(schedule.alpha(u) / schedule.alpha(t), x) * x + expand(added, x) * noise()
            t = u
        return self.step(denoise, schedule, x, t, s, memory, noise)


@dataclass(frozen=True)
class Resampled:
    """Repeats each step from freshly noised x, so that known and unknown parts agree (Lugmayr et al. 2022, RePaint).

    Attributes:
        step: any step.
        constraint: applied to x at s before it is noised again.
        repeats: how often each step is made, 1 or more.
    """

    step: Step
    constraint: Constraint
    repeats: int = 10

    @property
    def least_steps(self) -> int:
        """Those of the step within."""
        return getattr(self.step, "least_steps", 1)

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise InputError(f"repeats: got {self.repeats}, expected 1 or more")

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s after the last repeat."""
        back = schedule.alpha(t) / schedule.alpha(s)
        spread = transition_variance(schedule, t, s).sqrt()
        reached, after = self.step(denoise, schedule, x, t, s, memory, noise)
        for _ in range(self.repeats - 1):
            known = self.constraint(reached, s)
            x = expand(back, x) * known + expand(spread, x) * noise()
            reached, after = self.step(denoise, schedule, x, t, s, memory, noise)
        return self.constraint(reached, s), after
