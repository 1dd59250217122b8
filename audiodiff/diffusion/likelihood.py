"""How likely a signal is under the model: by the probability flow, by the variational bound, by denoising error.

The flow maps x_0 to noise by an ODE, so its log-density is that of the noise plus the integral of the
divergence of the field (Song et al. 2021, section 4.3). It is integrated in y = x / alpha over log(sigma / alpha),
where the field is sigma / alpha times the noise estimate, by Heun's method; the divergence is estimated with
Rademacher probes (Hutchinson 1990), the same for the same seed. Densities are of x, in the Representation's
units; for a tight frame they are densities of redundant coefficients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.process import (
    diffuse,
    epsilon_from_clean,
    expand,
    noise_ratio,
    starting_std,
    time_of_ratio,
)
from audiodiff.diffusion.samplers import NoiseSource
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.times import Grid
from audiodiff.errors import InputError


@dataclass(frozen=True)
class ProbabilityFlow:
    """Log-density by the probability-flow ODE.

    Attributes:
        steps: of Heun's method, two evaluations and two derivatives each.
        probes: Rademacher vectors per item.
        earliest: time at which x_0 is taken to be x_t; None for the schedule's earliest.
    """

    steps: int = 100
    probes: int = 1
    earliest: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.probes < 1:
            raise InputError(
                f"likelihood: got {self.steps} steps and {self.probes} probes, expected 1 or more of each"
            )

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, generator: torch.Generator,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Returns log p(x) in nats [B], float64.

        Args:
            denoise: (x, t) -> clean, differentiable.
            schedule: its schedule.
            x: [B, C, F], clean.
            generator: of the probes.
            on_step: told (steps done, steps in all).

        Raises:
            InputError: a schedule that leaves no signal at t = 1, where log(sigma / alpha) has no end.
        """
        first = schedule.earliest if self.earliest is None else self.earliest
        ends = noise_ratio(schedule, torch.tensor([first, 1.0], dtype=torch.float64)).log()
        if not bool(ends.isfinite().all()):
            raise InputError(
                "likelihood: this schedule leaves no signal at t = 1; the flow has no finite end there"
            )
        levels = torch.linspace(float(ends[0]), float(ends[1]), self.steps + 1, dtype=torch.float64)
        draws = torch.randint(0, 2, (self.probes, *x.shape), generator=generator, device=x.device)
        probes = (2 * draws - 1).to(x.dtype)
        y, total = x, torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
        for number, (low, high) in enumerate(itertools.pairwise(levels), start=1):
            step = float(high - low)
            slope, divergence = _field(denoise, schedule, y, low, probes)
            ahead, later = _field(denoise, schedule, y + step * slope, high, probes)
            y = y + step * (slope + ahead) / 2
            total = total + step * (divergence + later) / 2
            if on_step is not None:
                on_step(number, self.steps)
        # At t = 1, y = x_1 / alpha of unit-variance data.
        variance = 1 + math.exp(2 * float(ends[1]))
        gaussian = -(y.double().square() / variance + math.log(2 * math.pi * variance)) / 2
        return gaussian.flatten(1).sum(1) + total


def _field(
    denoise: Denoise, schedule: NoiseSchedule, y: Tensor, level: Tensor, probes: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns dy/dl [B, C, F] and its divergence [B] at l = log(sigma / alpha)."""
    ratio = level.exp()
    t = time_of_ratio(schedule, ratio)
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        alpha = expand(schedule.alpha(t), y)
        slope = y - denoise(alpha * y, t)  # r times the noise estimate
        divergences = []
        for number, probe in enumerate(probes):
            keep = number + 1 < len(probes)
            (product,) = torch.autograd.grad(slope, y, probe, retain_graph=keep)
            divergences.append((product * probe).double().flatten(1).sum(1))
    return slope.detach(), torch.stack(divergences).mean(0)


def bits_per_position(log_likelihood: Tensor, positions: int) -> Tensor:
    """Returns minus the log-likelihood in nats [B] as bits per number of x; lower is likelier."""
    return -log_likelihood / (positions * math.log(2))


def variational_bound(
    denoise: Denoise, schedule: NoiseSchedule, x: Tensor, grid: Grid, noise: NoiseSource
) -> Tensor:
    """Returns an upper bound on minus log p(x) in nats [B] (Ho et al. 2020, eq. 5; Kingma et al. 2021, eq. 12).

    Prior, one KL term a step with the posterior variance, and the reconstruction of x from the last level as a
    Gaussian of that level's own spread sigma / alpha.

    Args:
        denoise: (x, t) -> clean.
        schedule: its schedule.
        x: [B, C, F], clean.
        grid: the steps of the bound; more steps, tighter.
        noise: gives the noise of step i, draw 0.
    """
    times = grid(schedule)
    start = times[:1]
    whole = starting_std(schedule, start) ** 2
    signal, variance = schedule.alpha(start) ** 2 / whole, schedule.sigma(start) ** 2 / whole
    prior = (expand(signal, x) * x.square() + expand(variance - 1 - variance.log(), x)) / 2
    total = prior.double().flatten(1).sum(1)
    for number, (t, s) in enumerate(itertools.pairwise(times), start=1):
        x_t = diffuse(schedule, x, noise(number, 0), t)
        error = (x - denoise(x_t, t)).double().square().flatten(1).sum(1)
        if float(schedule.sigma(s)) > 0:
            total = total + error * float(_snr(schedule, s) - _snr(schedule, t)) / 2
        else:
            spread = float(noise_ratio(schedule, t)) ** 2
            total = total + error / (2 * spread) + math.log(2 * math.pi * spread) * x[0].numel() / 2
    return total


def denoising_error(
    denoise: Denoise, schedule: NoiseSchedule, x: Tensor, times: Sequence[float], noise: NoiseSource
) -> Tensor:
    """Returns the mean squared error of the noise estimate at each time [B, len(times)], float64.

    Args:
        denoise: (x, t) -> clean.
        schedule: its schedule.
        x: [B, C, F], clean.
        times: each in (0, 1].
        noise: gives the noise of time i, from 1, draw 0.
    """
    errors = []
    for number, time in enumerate(times, start=1):
        t, drawn = torch.tensor(time, dtype=torch.float64), noise(number, 0)
        x_t = diffuse(schedule, x, drawn, t)
        found = epsilon_from_clean(schedule, x_t, denoise(x_t, t), t)
        errors.append((found - drawn).double().square().flatten(1).mean(1))
    return torch.stack(errors, dim=1)


def _snr(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    return schedule.log_snr(t).exp()
