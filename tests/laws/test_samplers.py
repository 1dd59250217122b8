"""Samplers against the exact answers for Gaussian data, whose denoiser is known in closed form.

For x_0 ~ N(m, d^2) the marginal at t is N(alpha m, v) with v = alpha^2 d^2 + sigma^2, the expected clean
signal is m + d^2 alpha / v (x - alpha m), and the probability flow keeps (x - alpha m) / sqrt(v) constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.constraints import Clip
from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.process import diffuse, epsilon_from_clean, posterior
from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler, Step
from audiodiff.diffusion.schedules import NoiseSchedule, linear
from audiodiff.diffusion.times import Grid, LogSnrGrid, TableGrid, UniformGrid, published_grid
from audiodiff.errors import InputError

SCHEDULE = linear(1e-4, 0.02, 1000)
STEPS = [Ancestral(), DDIM(), DDIM(0.5), DDIM(1.0)]
MEAN, DEVIATION = 0.7, 0.4


def gaussian(mean: float = MEAN, deviation: float = DEVIATION) -> Denoise:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        gain = deviation**2 * alpha / (alpha**2 * deviation**2 + sigma**2)
        return mean + gain * (x - alpha * mean)

    return denoise


def no_noise(step: int) -> Tensor:
    raise AssertionError(f"noise of step {step} was drawn")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class Noise:
    """A noise source that keeps what it was asked for; step i always gives the same numbers."""

    shape: tuple[int, ...]
    asked: list[int] = field(default_factory=list)

    def __call__(self, step: int) -> Tensor:
        self.asked.append(step)
        return draw(*self.shape, seed=step)


def error_of_ddim(steps: int, grid: Callable[[int], Grid]) -> float:
    x = draw(4, 2, 8)
    alpha, sigma = SCHEDULE.alpha(torch.ones(())), SCHEDULE.sigma(torch.ones(()))
    spread = (alpha**2 * DEVIATION**2 + sigma**2).sqrt()
    exact = MEAN + DEVIATION * (x - alpha * MEAN) / spread
    return float((Sampler(DDIM(), grid(steps))(gaussian(), SCHEDULE, x, no_noise) - exact).abs().max())


@pytest.mark.parametrize("grid", [UniformGrid, LogSnrGrid])
def test_ddim_converges_to_the_probability_flow_with_first_order(grid: Callable[[int], Grid]) -> None:
    errors = [error_of_ddim(steps, grid) for steps in (100, 200, 400)]
    for coarse, fine in pairwise(errors):
        assert 1.8 < coarse / fine < 2.2
    assert errors[-1] < 0.02


def ancestral_moments(steps: int) -> tuple[float, float]:
    """Exact mean and variance of the ancestral sampler's output for x_T ~ N(0, 1).

    The sampler is affine here: item 0 runs without any noise, item 1 with x_T = 1, item n + 1 with unit noise
    at step n alone; the differences to item 0 are the gains of the independent noises.
    """
    items = steps + 1
    x = torch.zeros(items, 1, 1, dtype=torch.float64)
    x[1] = 1

    def noise(step: int) -> Tensor:
        unit = torch.zeros_like(x)
        unit[step + 1] = 1
        return unit

    out = Sampler(Ancestral(), UniformGrid(steps))(gaussian(), SCHEDULE, x, noise).flatten()
    return float(out[0]), float((out[1:] - out[0]).square().sum())


def test_many_ancestral_steps_give_the_mean_and_variance_of_the_data() -> None:
    moments = [ancestral_moments(steps) for steps in (200, 400, 800)]
    for mean, _ in moments:
        # x_T has mean 0 where the process has alpha_T m: the prior's mismatch, no error of the sampler.
        assert mean == pytest.approx(MEAN, abs=1e-2)
    errors = [abs(variance - DEVIATION**2) for _, variance in moments]
    for coarse, fine in pairwise(errors):
        assert 1.7 < coarse / fine < 2.2  # first order, like the missing spread of x_0 within a step
    assert errors[2] < 0.03 * DEVIATION**2


@pytest.mark.parametrize("grid", [UniformGrid(7), LogSnrGrid(9), published_grid("fastdiff-4")])
def test_ddim_with_eta_one_equals_ancestral(grid: Grid) -> None:
    x, shape = draw(3, 2, 8), (3, 2, 8)
    ancestral = Sampler(Ancestral(), grid)(gaussian(), SCHEDULE, x, Noise(shape))
    ddim = Sampler(DDIM(1.0), grid)(gaussian(), SCHEDULE, x, Noise(shape))
    torch.testing.assert_close(ddim, ancestral, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_step_keeps_the_noise_level_and_adds_eta_times_the_posterior_deviation(eta: float) -> None:
    t, s = (torch.tensor(value, dtype=torch.float64) for value in (0.6, 0.35))
    clean, noise, fresh = draw(3, 1, 1, 4)
    x = diffuse(SCHEDULE, clean, noise, t)
    quiet, _ = DDIM(eta)(lambda x, t: clean, SCHEDULE, x, t, s, None, lambda: torch.zeros_like(x))
    moved, _ = DDIM(eta)(lambda x, t: clean, SCHEDULE, x, t, s, None, lambda: fresh)
    deviation = eta * posterior(SCHEDULE, x, clean, t, s)[1].sqrt()
    torch.testing.assert_close(moved - quiet, deviation * fresh, rtol=1e-9, atol=1e-9)
    kept = epsilon_from_clean(SCHEDULE, quiet, clean, s) / noise
    torch.testing.assert_close(
        (kept * SCHEDULE.sigma(s)) ** 2 + deviation**2, SCHEDULE.sigma(s).square().expand_as(x)
    )


@pytest.mark.parametrize("step", STEPS, ids=repr)
@pytest.mark.parametrize("grid", [UniformGrid(1), UniformGrid(5), LogSnrGrid(6), TableGrid()], ids=repr)
def test_a_denoiser_that_knows_the_signal_leads_to_it(step: Step, grid: Grid) -> None:
    clean = draw(2, 3, 4, seed=9)
    schedule = linear(1e-4, 0.02, 100)
    x = Sampler(step, grid)(lambda x, t: clean, schedule, draw(2, 3, 4), Noise((2, 3, 4)))
    torch.testing.assert_close(x, clean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("step", "draws"), [(Ancestral(), True), (DDIM(), False), (DDIM(0.1), True)])
def test_noise_is_asked_once_per_step_but_the_last_and_never_without_variance(
    step: Step, draws: bool
) -> None:
    noise = Noise((1, 1, 4))
    Sampler(step, UniformGrid(6))(gaussian(), SCHEDULE, draw(1, 1, 4), noise)
    assert noise.asked == ([1, 2, 3, 4, 5] if draws else [])


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_progress_counts_every_denoiser_evaluation(step: Step) -> None:
    told: list[tuple[int, int]] = []
    evaluated: list[float] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        evaluated.append(float(t))
        return gaussian()(x, t)

    Sampler(step, UniformGrid(4))(
        denoise, SCHEDULE, draw(1, 1, 4), Noise((1, 1, 4)), on_step=lambda *done: told.append(done)
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert evaluated == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_constraint_acts_after_every_step_at_the_time_reached_and_its_result_goes_on(step: Step) -> None:
    reached: list[float] = []
    entered: list[float] = []
    clip = Clip(-0.5, 0.25)

    def constraint(x: Tensor, s: Tensor) -> Tensor:
        reached.append(float(s))
        return clip(x, s)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        entered.append(float(x.abs().max()))
        return gaussian(mean=3.0)(x, t)

    start = draw(2, 1, 50) * 3
    x = Sampler(step, UniformGrid(5))(denoise, SCHEDULE, start, Noise((2, 1, 50)), constraint)
    assert reached == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])
    assert float(x.min()) >= -0.5
    assert float(x.max()) == 0.25  # the data lie above, so the bound is met
    assert entered[0] == float(start.abs().max())
    assert max(entered[1:]) <= 0.5


def test_what_a_step_remembers_reaches_the_next_step() -> None:
    class Counting:
        def __call__(
            self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor,
            memory: Any, noise: Callable[[], Tensor],
        ) -> tuple[Tensor, Any]:  # fmt: skip
            handed.append(memory)
            return noise(), len(handed)

    handed: list[Any] = []
    noise = Noise((1, 1, 2))
    x = Sampler(Counting(), UniformGrid(3))(gaussian(), SCHEDULE, draw(1, 1, 2), noise)
    assert handed == [None, 1, 2]
    assert noise.asked == [1, 2, 3]
    assert torch.equal(x, draw(1, 1, 2, seed=3))


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_state_stays_float32_and_the_start_is_not_changed(step: Step) -> None:
    start = draw(2, 2, 4).float()
    kept = start.clone()
    clean = torch.zeros(2, 2, 4)
    x = Sampler(step, UniformGrid(3))(lambda x, t: clean, SCHEDULE, start, lambda n: draw(2, 2, 4).float())
    assert x.dtype == torch.float32
    assert torch.equal(start, kept)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_eta_outside_zero_to_one_is_refused(eta: float) -> None:
    with pytest.raises(InputError, match="eta: got"):
        DDIM(eta)


@pytest.mark.parametrize("value", [-2.0, -1.0, 0.25, 1.0, 1.5])
def test_clip_keeps_what_is_inside_and_bounds_the_rest(value: float) -> None:
    assert float(Clip()(torch.tensor(value), torch.zeros(()))) == max(-1.0, min(1.0, value))
