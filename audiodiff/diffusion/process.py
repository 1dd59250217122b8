"""The forward process and what follows from it in closed form.

With x_t = alpha_t x_0 + sigma_t eps, the clean signal x_0, the noise eps and the score
grad log p(x_t) = -eps / sigma_t determine one another, and q(x_s | x_t, x_0) for s < t is the Gaussian of
Ho et al. 2020, eq. 7, here for any two times (Kingma et al. 2021, eq. 34).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from audiodiff.diffusion.schedules import BetaTable, NoiseSchedule

MOST_SIGNAL_LEFT = 0.01
"""Share of the power at t = 1 above which starting from pure noise is called off-distribution."""


def expand(value: Tensor, x: Tensor) -> Tensor:
    """Returns a float64 scalar or [B] as a tensor that broadcasts against x [B, ...], in x's type."""
    return value.to(device=x.device, dtype=x.dtype).view(-1, *[1] * (x.dim() - 1))


def diffuse(schedule: NoiseSchedule, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Returns x_t = alpha(t) clean + sigma(t) noise (Ho et al. 2020, eq. 4).

    Args:
        schedule: the noise schedule.
        clean: [B, C, F].
        noise: [B, C, F], standard normal.
        t: [B] or a scalar, in [0, 1].
    """
    return expand(schedule.alpha(t), clean) * clean + expand(schedule.sigma(t), clean) * noise


def epsilon_from_clean(schedule: NoiseSchedule, x_t: Tensor, clean: Tensor, t: Tensor) -> Tensor:
    """Returns the noise that x_t holds if `clean` is the signal; t > 0."""
    return (x_t - expand(schedule.alpha(t), x_t) * clean) / expand(schedule.sigma(t), x_t)


def score_from_clean(schedule: NoiseSchedule, x_t: Tensor, clean: Tensor, t: Tensor) -> Tensor:
    """Returns grad log p(x_t) from the expected clean signal (Tweedie's formula); t > 0."""
    sigma = schedule.sigma(t)
    return (expand(schedule.alpha(t), x_t) * clean - x_t) / expand(sigma * sigma, x_t)


def noise_ratio(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Returns sigma(t) / alpha(t), the noise level of Karras et al. 2022: that of x_t / alpha(t); float64."""
    return schedule.sigma(t) / schedule.alpha(t)


def time_of_ratio(schedule: NoiseSchedule, ratio: Tensor) -> Tensor:
    """Returns the t whose noise_ratio is `ratio`, clamped to [0, 1]."""
    return schedule.time(-2 * ratio.double().log())


def rates(schedule: NoiseSchedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """Returns d alpha / dt and d sigma / dt at t > 0, float64, of t's shape."""
    # Synthesis runs in inference mode, where nothing can be differentiated.
    with torch.inference_mode(False), torch.enable_grad():
        t = t.detach().double().clone().requires_grad_()
        rate = [torch.autograd.grad(f(t).sum() + 0 * t.sum(), t)[0] for f in (schedule.alpha, schedule.sigma)]
    return rate[0], rate[1]


def velocity_from_clean(schedule: NoiseSchedule, x_t: Tensor, clean: Tensor, t: Tensor) -> Tensor:
    """Returns dx/dt of the probability flow, alpha'(t) clean + sigma'(t) eps; t > 0.

    Args:
        schedule: the noise schedule.
        x_t: [B, C, F].
        clean: [B, C, F], the expected clean signal.
        t: scalar or [B].
    """
    alpha_rate, sigma_rate = rates(schedule, t)
    noise = epsilon_from_clean(schedule, x_t, clean, t)
    return expand(alpha_rate, x_t) * clean + expand(sigma_rate, x_t) * noise


def posterior(
    schedule: NoiseSchedule, x_t: Tensor, clean: Tensor, t: Tensor, s: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns mean [B, C, F] and variance (float64, of t's shape) of q(x_s | x_t, clean), 0 <= s < t.

    Ho et al. 2020, eqs. 6 and 7; at s = 0 the mean is `clean` and the variance 0.
    """
    sigma_t, sigma_s = schedule.sigma(t), schedule.sigma(s)
    ratio = schedule.alpha(t) / schedule.alpha(s)
    transition = transition_variance(schedule, t, s)
    weight_x = ratio * sigma_s**2 / sigma_t**2
    weight_clean = schedule.alpha(s) * transition / sigma_t**2
    mean = expand(weight_x, x_t) * x_t + expand(weight_clean, x_t) * clean
    return mean, posterior_variance(schedule, t, s)


def posterior_variance(schedule: NoiseSchedule, t: Tensor, s: Tensor) -> Tensor:
    """Returns the variance of q(x_s | x_t, clean), float64, of t's shape; 0 at s = 0 (Ho et al. 2020, eq. 7)."""
    return transition_variance(schedule, t, s) * schedule.sigma(s) ** 2 / schedule.sigma(t) ** 2


def starting_std(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Returns the standard deviation of x_t for clean signals of unit variance, with which sampling starts.

    1 for every variance-preserving schedule, as published samplers have it also where the table keeps signal.
    """
    return (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2).sqrt()


def transition_variance(schedule: NoiseSchedule, t: Tensor, s: Tensor) -> Tensor:
    """Returns the variance of q(x_t | x_s), which is beta_t for neighbouring rows of a table."""
    ratio = schedule.alpha(t) / schedule.alpha(s)
    return torch.clamp(schedule.sigma(t) ** 2 - ratio**2 * schedule.sigma(s) ** 2, min=0)


def describe_end(schedule: NoiseSchedule) -> str:
    """Returns the schedule's kind and how much signal is left at t = 1."""
    end = torch.ones((), dtype=torch.float64)
    decibels = 10 / math.log(10) * float(schedule.log_snr(end))
    rows = f"{schedule.steps} rows" if isinstance(schedule, BetaTable) else "continuous"
    return (
        f"{type(schedule).__name__}, {rows}; at t = 1 the signal-to-noise ratio is {decibels:.1f} dB "
        f"(alpha^2 = {float(schedule.alpha(end)) ** 2:.4g})"
    )


def off_distribution(schedule: NoiseSchedule) -> str | None:
    """Returns a warning when so much signal is left at t = 1 that pure noise is not what the network saw there."""
    end = torch.ones((), dtype=torch.float64)
    share = float(1 / (1 + noise_ratio(schedule, end) ** 2))
    if share < MOST_SIGNAL_LEFT:
        return None
    return (
        f"at t = 1 the network was trained on x that holds {share:.1%} signal by power, but synthesis starts from "
        "pure noise, which it never saw; a schedule that ends lower (zero_terminal_snr) would not have this gap"
    )
