"""Steps that look ahead within the step: several evaluations each, no memory.

Heun's and the midpoint method integrate the probability flow in the coordinates y = x / alpha, r = sigma / alpha,
where its slope is the noise estimate (Karras et al. 2022, eq. 4); the DPM-Solver++ steps extrapolate the
clean estimate from points inside the step (Lu et al. 2022). A step that reaches r = 0 is of first order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.multistep import noise_move
from audiodiff.diffusion.process import (
    epsilon_from_clean,
    expand,
    noise_ratio,
    time_of_ratio,
    velocity_from_clean,
)
from audiodiff.diffusion.samplers import move
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.errors import InputError


@dataclass(frozen=True)
class Heun:
    """Heun's second-order method in the noise level (Karras et al. 2022, algorithm 1): two evaluations a step."""

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s."""
        clean = denoise(x, t)
        if float(schedule.sigma(s)) == 0:
            return move(schedule, x, clean, t, s), None
        epsilon = epsilon_from_clean(schedule, x, clean, t)
        there = noise_move(schedule, x, epsilon, t, s)
        ahead = epsilon_from_clean(schedule, there, denoise(there, s), s)
        return noise_move(schedule, x, (epsilon + ahead) / 2, t, s), None


@dataclass(frozen=True)
class TimeHeun:
    """Heun's method in t on dx/dt of the schedule itself: for flow matching, and the VP and VE flows in t."""

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s; a step to t = 0 is Euler's."""
        slope = velocity_from_clean(schedule, x, denoise(x, t), t)
        there = x - expand(t - s, x) * slope
        if float(s) == 0:
            return there, None
        ahead = velocity_from_clean(schedule, there, denoise(there, s), s)
        return x - expand((t - s) / 2, x) * (slope + ahead), None


@dataclass(frozen=True)
class DPM2:
    """The midpoint method in the noise level, the middle taken of its logarithm (k-diffusion's dpm_2)."""

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s."""
        clean = denoise(x, t)
        if float(schedule.sigma(s)) == 0:
            return move(schedule, x, clean, t, s), None
        middle = between(schedule, t, s, 0.5)
        there = move(schedule, x, clean, t, middle)
        ahead = epsilon_from_clean(schedule, there, denoise(there, middle), middle)
        return noise_move(schedule, x, ahead, t, s), None


@dataclass(frozen=True)
class DPMSolverSinglestep:
    """DPM-Solver++(2S) and (3S): one or two points inside the step (Lu et al. 2022, algorithm 1, appendix B).

    Attributes:
        fractions: where the points lie in log-SNR, rising, in (0, 1); one for second order, two for third.
    """

    fractions: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        inside = [0.0, *self.fractions, 1.0]
        if len(self.fractions) not in (1, 2) or any(a >= b for a, b in itertools.pairwise(inside)):
            raise InputError(
                f"fractions: got {self.fractions}, expected one or two rising numbers between 0 and 1"
            )

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s."""
        clean = denoise(x, t)
        if float(schedule.sigma(s)) == 0:
            return move(schedule, x, clean, t, s), None
        first = self.fractions[0]
        middle = between(schedule, t, s, first)
        there = move(schedule, x, clean, t, middle)
        slope = (denoise(there, middle) - clean) / first
        if len(self.fractions) == 1:
            return move(schedule, x, clean + slope / 2, t, s), None
        second = self.fractions[1]
        late = between(schedule, t, s, second)
        there = move(schedule, x, clean + second * slope / 2, t, late)
        slope = (denoise(there, late) - clean) / second
        step = math.log(float(noise_ratio(schedule, t) / noise_ratio(schedule, s)))
        share = (math.expm1(-step) / step + 1) / -math.expm1(-step)
        return move(schedule, x, clean + share * slope, t, s), None


def between(schedule: NoiseSchedule, t: Tensor, s: Tensor, fraction: float) -> Tensor:
    """Returns the time a fraction of the way from t to s in log-SNR."""
    ends = noise_ratio(schedule, t).log(), noise_ratio(schedule, s).log()
    return time_of_ratio(schedule, ((1 - fraction) * ends[0] + fraction * ends[1]).exp())
