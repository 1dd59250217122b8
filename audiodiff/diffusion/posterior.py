"""Sampling given an observation y = A x + n: what it says about the clean signal, through the network's gradient.

With p(y | x_t) known, E[x_0 | x_t, y] = E[x_0 | x_t] + sigma^2 / alpha grad log p(y | x_t) (Tweedie's formula), so a
posterior is a Denoise like any other. Two of them are here: `moment_matched` takes p(x_0 | x_t) for a Gaussian whose
covariance is the denoiser's own, V = sigma^2 / alpha J with its Jacobian J, which is exact for Gaussian data (Rozet
et al. 2024, MMPS, eqs. 14 to 16), and solves (A V A^T + std^2) v = y - A E[x_0 | x_t] by conjugate gradients, one
backward pass an iteration. `gradient_guided` walks down |y - A E[x_0 | x_t]|^2 by a step of fixed relative size
(Chung et al. 2023, DPS, algorithm 1; the size of Moliner et al. 2023, CQT-Diff, eq. 13).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.process import expand, noise_ratio
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.errors import InputError


class Observation(Protocol):
    """What was observed of x, linear or linear piece by piece."""

    @property
    def std(self) -> float:
        """Standard deviation of the observation's noise, in units of y."""
        ...

    def difference(self, x: Tensor) -> Tensor:
        """Returns y - A x, differentiable; [B, ...] of any shape, zero where nothing was observed."""
        ...

    def tangent(self, x: Tensor, change: Tensor) -> Tensor:
        """Returns A change, with the A that holds at x; both [B, C, F]."""
        ...


def moment_matched(
    denoise: Denoise, schedule: NoiseSchedule, observation: Observation, iterations: int = 3
) -> Denoise:
    """Returns the Denoise of the posterior given an observation, by matched moments.

    Args:
        denoise: of the prior, differentiable in x.
        schedule: that of denoise.
        observation: of the clean signal.
        iterations: of the conjugate gradients, 1 or more; each is one backward pass.
    """
    if iterations < 1:
        raise InputError(f"iterations: got {iterations}, expected 1 or more")

    def posterior(x: Tensor, t: Tensor) -> Tensor:
        variance = expand(schedule.sigma(t) ** 2 / schedule.alpha(t), x)
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            clean = denoise(x, t)
            difference = observation.difference(clean)

            def spread(weights: Tensor) -> Tensor:  # V A^T weights, since V is symmetric
                (pulled,) = torch.autograd.grad(difference, x, -weights, retain_graph=True)
                return variance * pulled

            clean = clean.detach()
            shift = _conjugate_gradients(
                spread,
                lambda change: observation.tangent(clean, change),
                observation.std**2,
                difference.detach(),
                iterations,
            )
        return clean + shift

    return posterior


def _conjugate_gradients(
    spread: Callable[[Tensor], Tensor],
    observe: Callable[[Tensor], Tensor],
    noise_variance: float,
    target: Tensor,
    iterations: int,
) -> Tensor:
    """Returns V A^T v, where (A V A^T + noise_variance) v = target after so many iterations from v = 0."""
    residual, direction = target, target
    power = _dot(residual, residual)
    shift: Tensor | None = None
    for _ in range(iterations):
        moved = spread(direction)
        image = observe(moved) + noise_variance * direction
        curvature = _dot(direction, image)
        # A learned Jacobian is not quite symmetric: an item that meets a direction of no curvature stays where it is.
        usable = (curvature > 0) & (power > 0)
        length = torch.where(usable, power / torch.where(usable, curvature, 1), 0)
        step = _fit(length, moved) * moved
        shift = step if shift is None else shift + step
        residual = residual - _fit(length, residual) * image
        before, power = power, torch.where(usable, _dot(residual, residual), 0)
        ratio = torch.where(usable, power / torch.where(usable, before, 1), 0)
        direction = residual + _fit(ratio, residual) * direction
    assert shift is not None
    return shift


def gradient_guided(
    denoise: Denoise, schedule: NoiseSchedule, observation: Observation, scale: float = 0.25
) -> Denoise:
    """Returns a Denoise whose estimate moves down the gradient of half the squared difference from an observation.

    Args:
        denoise: of the prior, differentiable in x.
        schedule: that of denoise.
        observation: of the clean signal; its noise is not asked for.
        scale: root mean square of the move in units of sigma / alpha.
    """
    if not scale > 0:
        raise InputError(f"guidance by gradient: got a scale of {scale}, expected a number above 0")

    def posterior(x: Tensor, t: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            clean = denoise(x, t)
            loss = observation.difference(clean).square().sum() / 2
            (gradient,) = torch.autograd.grad(loss, x)
        size = gradient.flatten(1).square().mean(1).sqrt().clamp(min=1e-20)
        return clean.detach() - expand(noise_ratio(schedule, t), x) * scale * gradient / _fit(size, gradient)

    return posterior


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).flatten(1).sum(1)


def _fit(value: Tensor, x: Tensor) -> Tensor:
    return value.view(-1, *[1] * (x.dim() - 1))
