"""Data whose denoiser is known in closed form, and the walks of samplers on it.

For x_0 ~ N(m, d^2) the marginal at t is N(alpha m, v) with v = alpha^2 d^2 + sigma^2, the expected clean
signal is m + d^2 alpha / v (x - alpha m), and the probability flow keeps (x - alpha m) / sqrt(v) constant.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from audiodiff.diffusion import parameterizations
from audiodiff.diffusion.continuous import VPSDE, Flow, Karras
from audiodiff.diffusion.denoiser import Denoise, Denoiser, Time, VarianceDenoiser
from audiodiff.diffusion.guidance import Guidance, guided
from audiodiff.diffusion.process import time_of_ratio
from audiodiff.diffusion.samplers import CFGPlusPlus, Sampler, Step
from audiodiff.diffusion.schedules import NoiseSchedule, linear
from audiodiff.instantiation import instantiate
from audiodiff.recipes_folder import recipes_folder
from audiodiff.types import Condition

F64 = {"dtype": torch.float64}
MEAN, DEVIATION = 0.7, 0.4
SCHEDULES: dict[str, NoiseSchedule] = {
    "table": linear(1e-4, 0.02, 1000), "vpsde": VPSDE(), "karras": Karras(), "flow": Flow()
}  # fmt: skip
SAMPLERS: dict[str, Sampler] = {
    path.stem: instantiate(yaml.safe_load(path.read_text()))
    for path in sorted((recipes_folder() / "sampler").glob("*.yaml"))
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def moments(
    schedule: NoiseSchedule, t: Tensor, mean: float = MEAN, std: float = DEVIATION
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of x_t."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha * mean, (alpha**2 * std**2 + sigma**2).sqrt()


def gaussian(schedule: NoiseSchedule, mean: float = MEAN, std: float = DEVIATION) -> Denoise:
    """The expected clean signal of N(mean, std^2)."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha = schedule.alpha(t)
        center, spread = moments(schedule, t, mean, std)
        shape = (-1, *[1] * (x.dim() - 1))
        gain = (std**2 * alpha / spread**2).to(x.dtype).view(shape)
        return mean + gain * (x - center.to(x.dtype).view(shape))

    return denoise


def flow_map(
    schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, mean: float = MEAN, std: float = DEVIATION
) -> Tensor:
    """Where the probability flow takes x from t to s; t and s scalars or [B]."""
    shape = (-1, *[1] * (x.dim() - 1))
    (at_t, from_spread), (at_s, to_spread) = moments(schedule, t, mean, std), moments(schedule, s, mean, std)
    return at_s.view(shape) + (to_spread / from_spread).view(shape) * (x - at_t.view(shape))


class Predicting(nn.Module):
    """A network that predicts, in any parameterization, what makes the denoiser be `denoise`; its label is t."""

    def __init__(
        self, denoise: Denoise, schedule: NoiseSchedule, parameterization: Any, *others: Denoise
    ) -> None:
        super().__init__()
        self.denoise, self.others = denoise, others
        self.schedule, self.parameterization = schedule, parameterization

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        t = noise_label.double()
        coefficients = self.parameterization(self.schedule.alpha(t), self.schedule.sigma(t))
        c_in, c_skip, c_out = (c.to(x.dtype).view(-1, 1, 1) for c in coefficients)
        prediction = (self.denoise(x / c_in, t) - c_skip * x / c_in) / c_out
        return torch.cat([prediction, *(other(x / c_in, t) for other in self.others)], dim=1)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, noise_label: self(x, noise_label, condition)


def denoiser_of(
    denoise: Denoise, schedule: NoiseSchedule, parameterization: Any = parameterizations.velocity
) -> Denoiser:
    """A Denoiser whose clean estimate is `denoise`."""
    return Denoiser(Predicting(denoise, schedule, parameterization), schedule, parameterization, Time())


def with_share(denoise: Denoise, schedule: NoiseSchedule, share: Denoise) -> VarianceDenoiser:
    """A denoiser with learned variance whose share of the transition's log-variance is `share`."""
    kind = parameterizations.velocity
    network = Predicting(denoise, schedule, kind, lambda x, t: 2 * share(x, t) - 1)
    return VarianceDenoiser(network, schedule, kind, Time())


def suited(name: str, denoise: Denoise, schedule: NoiseSchedule) -> Denoise:
    """The same denoise as the recipe's step wants it: told twice for CFG++, with a variance for a learned one."""
    step = SAMPLERS[name].step
    if isinstance(step, CFGPlusPlus):
        return guided(denoise, denoise, Guidance(0.6))
    if getattr(step, "variance", None) == "learned":
        return with_share(denoise, schedule, lambda x, t: torch.full_like(x, 0.3)).bind(Condition())
    return denoise


def no_noise(*asked: int) -> Tensor:
    raise AssertionError(f"noise {asked} was drawn")


@dataclass
class Noise:
    """A noise source that keeps what it was asked for; step i always gives the same numbers."""

    shape: tuple[int, ...]
    asked: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, step: int, number: int) -> Tensor:
        self.asked.append((step, number))
        return draw(*self.shape, seed=1000 * number + step)


def draws_noise(name: str) -> bool:
    """Whether a recipe's step asks for noise."""
    schedule, noise = SCHEDULES["table"], Noise((1, 1, 2))
    times = log_times(schedule, 3, 10, 0.1)
    walk(
        SAMPLERS[name].step, suited(name, gaussian(schedule), schedule), schedule, times, draw(1, 1, 2), noise
    )
    return bool(noise.asked)


def log_times(schedule: NoiseSchedule, steps: int, high: float, low: float) -> Tensor:
    """steps + 1 times evenly spaced in log-SNR between two noise levels sigma / alpha."""
    return time_of_ratio(schedule, torch.linspace(math.log(high), math.log(low), steps + 1, **F64).exp())


def walk(
    step: Step, denoise: Denoise, schedule: NoiseSchedule, times: Tensor, x: Tensor,
    noise: Callable[[int, int], Tensor] = no_noise, exact: Callable[[Tensor], Tensor] | None = None, given: int = 0,
) -> Tensor:  # fmt: skip
    """x at the last of the times; the first `given` times start from what `exact` says x is there."""
    memory = None
    for number, (t, s) in enumerate(itertools.pairwise(times), start=1):
        if exact is not None and number <= given + 1:
            x = exact(t)
        draws = itertools.count()
        x, memory = step(denoise, schedule, x, t, s, memory, lambda n=number, d=draws: noise(n, next(d)))
    return x


DRAWS_NOISE = {name: draws_noise(name) for name in SAMPLERS}
DETERMINISTIC = [name for name, draws in DRAWS_NOISE.items() if not draws]
STOCHASTIC = [name for name, draws in DRAWS_NOISE.items() if draws]
