"""How likely a signal is under the model: by the probability flow, by the variational bound, by denoising error.

The flow maps x_0 to noise by an ODE, so its log-density is that of the noise plus the integral of the
divergence of the field (Song et al. 2021, section 4.3). It is integrated by Heun's method over log r, r = sigma /
alpha, in z = x_t / sqrt(alpha^2 + sigma^2), which stands still for data of unit variance; the divergence is estimated
with Rademacher probes (Hutchinson 1990), the same for the same seed. Densities are of x, in the Representation's
units; for a tight frame they are densities of redundant coefficients. Where items of a batch differ in length, a
mask [B, 1, F] with 1 at their own positions leaves the padding out of every sum.
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
        latest: time at which x_t is taken to be Gaussian noise; below 1 where no signal is left at t = 1.
    """

    steps: int = 100
    probes: int = 1
    earliest: float | None = None
    latest: float = 1.0

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
            InputError: a schedule that leaves no signal at the latest time, where log(sigma / alpha) has no end.
        """
        draws = torch.randint(0, 2, (self.probes, *x.shape), generator=generator, device=x.device)
        return self.along(denoise, schedule, x, (2 * draws - 1).to(x.dtype), None, on_step)

    def along(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, probes: Tensor, mask: Tensor | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Returns log p(x) in nats [B], float64, with given probes.

        Args:
            denoise: (x, t) -> clean, differentiable.
            schedule: its schedule.
            x: [B, C, F], clean.
            probes: [probes, B, C, F], of 1 and -1.
            mask: [B, 1, F], 1 at the positions that count; None for all.
            on_step: told (steps done, steps in all).

        Raises:
            InputError: a schedule that leaves no signal at the latest time, where log(sigma / alpha) has no end.
        """
        first = schedule.earliest if self.earliest is None else self.earliest
        ends = noise_ratio(schedule, torch.tensor([first, self.latest], dtype=torch.float64)).log()
        if not bool(ends.isfinite().all()):
            raise InputError(
                f"likelihood: this schedule leaves no signal at t = {self.latest:g}; the flow has no finite end there"
            )
        levels = torch.linspace(float(ends[0]), float(ends[1]), self.steps + 1, dtype=torch.float64)
        if mask is not None:
            probes = probes * mask
        spread = math.sqrt(1 + math.exp(2 * float(ends[0])))
        z, total = x / spread, torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
        for number, (low, high) in enumerate(itertools.pairwise(levels), start=1):
            step = float(high - low)
            slope, divergence = _field(denoise, schedule, z, low, probes)
            ahead, later = _field(denoise, schedule, z + step * slope, high, probes)
            z = z + step * (slope + ahead) / 2
            total = total + step * (divergence + later) / 2
            if on_step is not None:
                on_step(number, self.steps)
        gaussian = -(z.double().square() + math.log(2 * math.pi)) / 2 - math.log(spread)
        return _sum(gaussian, mask) + total


def _field(
    denoise: Denoise, schedule: NoiseSchedule, z: Tensor, level: Tensor, probes: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns dz/dl [B, C, F] and its divergence [B] at l = log r."""
    t = time_of_ratio(schedule, level.exp())
    length = (1 + (2 * level).exp()).sqrt()
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        clean = denoise(expand(schedule.alpha(t) * length, z) * z, t)
        slope = (z / expand(length, z) - clean) / expand(length, z)
        divergences = []
        for number, probe in enumerate(probes):
            keep = number + 1 < len(probes)
            (product,) = torch.autograd.grad(slope, z, probe, retain_graph=keep)
            divergences.append((product * probe).double().flatten(1).sum(1))
    return slope.detach(), torch.stack(divergences).mean(0)


def bits_per_position(log_likelihood: Tensor, positions: int | Tensor) -> Tensor:
    """Returns minus the log-likelihood in nats [B] as bits per number of x, of which there are so many."""
    return -log_likelihood / (positions * math.log(2))


def variational_bound(
    denoise: Denoise, schedule: NoiseSchedule, x: Tensor, grid: Grid, noise: NoiseSource,
    mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Returns an upper bound on minus log p(x) in nats [B] (Ho et al. 2020, eq. 5; Kingma et al. 2021, eq. 12).

    Prior, one KL term a step with the posterior variance, and the reconstruction of x from the last level as a
    Gaussian of that level's own spread sigma / alpha.

    Args:
        denoise: (x, t) -> clean.
        schedule: its schedule.
        x: [B, C, F], clean.
        grid: the steps of the bound; more steps, tighter.
        noise: gives the noise of step i, draw 0.
        mask: [B, 1, F], 1 at the positions that count; None for all.
    """
    times = grid(schedule)
    start = times[:1]
    whole = starting_std(schedule, start) ** 2
    signal, variance = schedule.alpha(start) ** 2 / whole, schedule.sigma(start) ** 2 / whole
    prior = (expand(signal, x) * x.square() + expand(variance - 1 - variance.log(), x)) / 2
    total = _sum(prior, mask)
    counted = _sum(torch.ones_like(x), mask)
    for number, (t, s) in enumerate(itertools.pairwise(times), start=1):
        x_t = diffuse(schedule, x, noise(number, 0), t)
        error = _sum((x - denoise(x_t, t)).double().square(), mask)
        if float(schedule.sigma(s)) > 0:
            total = total + error * float(_snr(schedule, s) - _snr(schedule, t)) / 2
        else:
            spread = float(noise_ratio(schedule, t)) ** 2
            total = total + error / (2 * spread) + math.log(2 * math.pi * spread) * counted / 2
    return total


def denoising_error(
    denoise: Denoise, schedule: NoiseSchedule, x: Tensor, times: Sequence[float], noise: NoiseSource,
    mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Returns the mean squared error of the noise estimate at each time [B, len(times)], float64.

    Args:
        denoise: (x, t) -> clean.
        schedule: its schedule.
        x: [B, C, F], clean.
        times: each in (0, 1].
        noise: gives the noise of time i, from 1, draw 0.
        mask: [B, 1, F], 1 at the positions that count; None for all.
    """
    errors = []
    counted = _sum(torch.ones_like(x), mask)
    for number, time in enumerate(times, start=1):
        t, drawn = torch.tensor(time, dtype=torch.float64), noise(number, 0)
        x_t = diffuse(schedule, x, drawn, t)
        found = epsilon_from_clean(schedule, x_t, denoise(x_t, t), t)
        errors.append(_sum((found - drawn).double().square(), mask) / counted)
    return torch.stack(errors, dim=1)


def _snr(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    return schedule.log_snr(t).exp()


def _sum(values: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the sum [B] over the counted positions of values [B, C, F], float64."""
    counted = values.double() if mask is None else torch.where(mask.bool(), values.double(), 0.0)
    return counted.flatten(1).sum(1)
