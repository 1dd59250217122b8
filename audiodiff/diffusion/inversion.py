"""From a signal back to the noise that a deterministic sampler makes it of, and between two such noises.

DDIM moves x_t to x_s = (alpha_s / alpha_t) x_t + (sigma_s - alpha_s sigma_t / alpha_t) eps(x_t, t) (Song et al. 2021,
eq. 13). Turned round, with k = sigma_t - alpha_t sigma_s / alpha_s,

    x_t = (alpha_t / alpha_s) x_s + k eps(x_t, t),

which has x_t on both sides: one evaluation at the guess eps(x_s, t) is the usual inversion (Dhariwal and Nichol 2021,
appendix F), more of them solve it as a fixed point (Pan et al. 2023, eq. 9). The step to s = 0 keeps nothing of the
noise, so that its inverse is free to choose one: the signal is noised as in training. A signal without that noise is
nothing that the denoiser ever saw, and silence would be taken for a noise of no length. In between two noises lie those
of the great circle (Shoemake 1985), which keep the length that normal noise has.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.process import diffuse, epsilon_from_clean, expand
from audiodiff.diffusion.samplers import Sampler
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.errors import InputError


def invert(
    denoise: Denoise,
    schedule: NoiseSchedule,
    clean: Tensor,
    times: Tensor,
    noise: Tensor,
    iterations: int = 1,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Returns x [B, C, F] at times[0] from which DDIM on these times comes to the clean signal.

    Args:
        denoise: (x, t) -> clean estimate, unguided: guidance drives the inversion off.
        schedule: the schedule of the denoiser.
        clean: [B, C, F], whitened where the model has a prior.
        times: [steps + 1], strictly falling to 0, see `Sampler.times`; how far the way back misses the signal follows
            from the level of the last one above 0.
        noise: [B, C, F], standard normal, that is put in at that level.
        iterations: evaluations of each step.
        on_step: told (steps done, steps in all).

    Raises:
        InputError: fewer than one iteration.
    """
    if iterations < 1:
        raise InputError(f"inversion: got {iterations} iterations, expected 1 or more")
    steps = len(times) - 1
    x = diffuse(schedule, clean, noise, times[-2])
    for number in range(steps - 1, 0, -1):
        t, s = times[number - 1], times[number]
        ratio = schedule.alpha(t) / schedule.alpha(s)
        share = schedule.sigma(t) - ratio * schedule.sigma(s)
        moved = expand(ratio, x) * x
        guess = x
        for _ in range(iterations):
            epsilon = epsilon_from_clean(schedule, guess, denoise(guess, t), t)
            guess = moved + expand(share, x) * epsilon
        x = guess
        if on_step is not None:
            on_step(steps - number, steps - 1)
    return x


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Returns [B, C, F] on the great circle from first (share 0) to second (share 1), item by item.

    The length goes over evenly from that of the one to that of the other; opposite or parallel items are mixed
    in a straight line.
    """
    flat = [x.flatten(1).double() for x in (first, second)]
    lengths = [x.norm(dim=1, keepdim=True).clamp(min=1e-12) for x in flat]
    one, other = (x / length for x, length in zip(flat, lengths, strict=True))
    angle = torch.acos((one * other).sum(1, keepdim=True).clamp(-1, 1))
    sine = angle.sin()
    straight = sine.abs() < 1e-6
    safe = torch.where(straight, 1.0, sine)
    weights = [torch.where(straight, part, (part * angle).sin() / safe) for part in (1 - share, share)]
    length = (1 - share) * lengths[0] + share * lengths[1]
    return (length * (weights[0] * one + weights[1] * other)).view_as(first).to(first.dtype)


def check_deterministic(sampler: Sampler, schedule: NoiseSchedule) -> None:
    """Refuses a sampler that draws noise on its way.

    Raises:
        InputError: it does.
    """
    draws: list[int] = []

    def noise(step: int, draw: int) -> Tensor:
        draws.append(step)
        return torch.zeros(1, 1, 1)

    sampler(lambda x, t: 0 * x, schedule, torch.zeros(1, 1, 1), noise)
    if draws:
        raise InputError(
            f"--morph: {type(sampler.step).__name__} draws noise on its way, so that no sound belongs to a noise; "
            "choose --sampler ddim --eta 0, dpmpp_2m, heun or unipc"
        )
