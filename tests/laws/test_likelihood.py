"""Likelihood of Gaussian data under its exact denoiser, where every answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.continuous import Cosine
from audiodiff.diffusion.likelihood import (
    ProbabilityFlow,
    bits_per_position,
    denoising_error,
    variational_bound,
)
from audiodiff.diffusion.process import noise_ratio
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.times import LogSnrGrid
from audiodiff.errors import InputError
from tests.laws.exact import SCHEDULES, draw, flow_map, gaussian, moments, scalar

SHAPES = [(4, 1, 1), (4, 1, 4), (3, 2, 4)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_normal(x: Tensor, mean: float, variance: float) -> Tensor:
    """log N(x; mean, variance) of each item."""
    return -((x - mean) ** 2 / variance + math.log(2 * math.pi * variance)).flatten(1).sum(1) / 2


def models_own(schedule: NoiseSchedule, x: Tensor, mean: float, std: float) -> Tensor:
    """The log-density of the flow that starts from N(0, 1 + r^2) at t = 1 and stops at the earliest level.

    The flow moves y = x / alpha linearly, so both its end and its volume are known.
    """
    low, high = (float(noise_ratio(schedule, scalar(t))) for t in (schedule.earliest, 1.0))
    stretch = ((std**2 + high**2) / (std**2 + low**2)) ** 0.5
    end = mean + stretch * (x - mean)
    return log_normal(end, 0.0, 1 + high**2) + x[0].numel() * math.log(stretch)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("std", [0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["table", "vpsde", "karras"])
def test_log_likelihood_of_a_gaussian_is_exact_to_a_hundredth_of_a_nat(
    kind: str, std: float, shape: tuple[int, ...]
) -> None:
    schedule, mean = SCHEDULES[kind], 0.7
    x = mean + std * draw(*shape)
    found = ProbabilityFlow(200)(gaussian(schedule, mean, std), schedule, x, generator())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, models_own(schedule, x, mean, std), rtol=0, atol=1e-2)


@pytest.mark.parametrize("kind", ["table", "vpsde"])
def test_log_likelihood_is_that_of_the_data(kind: str) -> None:
    """The model's own end is that of the data, up to the signal that its schedule leaves at t = 1."""
    schedule, x = SCHEDULES[kind], 0.1 + 0.8 * draw(5, 1, 4)
    found = ProbabilityFlow()(gaussian(schedule, 0.1, 0.8), schedule, x, generator())
    torch.testing.assert_close(found, log_normal(x, 0.1, 0.64), rtol=0, atol=1e-2)


def test_error_falls_with_second_order_in_the_steps() -> None:
    schedule, x = SCHEDULES["vpsde"], 0.7 + 0.5 * draw(3, 1, 4)

    def error(steps: int) -> float:
        found = ProbabilityFlow(steps)(gaussian(schedule, 0.7, 0.5), schedule, x, generator())
        return float((found - models_own(schedule, x, 0.7, 0.5)).abs().max())

    assert error(50) / error(100) == pytest.approx(4, abs=0.8)


def test_probes_estimate_the_trace_without_bias_where_positions_depend_on_each_other() -> None:
    schedule = SCHEDULES["vpsde"]
    covariance = torch.tensor([[1.0, 0.5], [0.5, 0.6]], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(covariance)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        gains = alpha * values / (alpha**2 * values + sigma**2)
        return x @ (vectors * gains) @ vectors.T

    x = draw(1, 1, 2).expand(400, 1, 2)
    found = ProbabilityFlow(60)(denoise, schedule, x, generator())
    exact = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance).log_prob(
        x[0, 0]
    )
    standard_error = float(found.std()) / 400**0.5
    assert standard_error > 1e-3  # a probe sees the off-diagonal terms
    assert float(found.mean()) == pytest.approx(float(exact), abs=4 * standard_error + 1e-2)
    more = ProbabilityFlow(60, probes=8)(denoise, schedule, x, generator())
    assert float(more.std()) == pytest.approx(float(found.std()) / 8**0.5, rel=0.25)


def test_the_same_seed_gives_the_same_number_and_items_do_not_depend_on_the_batch() -> None:
    schedule, x = SCHEDULES["vpsde"], draw(3, 1, 6)
    denoise = gaussian(schedule)
    first, again = (ProbabilityFlow(20)(denoise, schedule, x, generator(5)) for _ in range(2))
    assert torch.equal(first, again)
    alone = ProbabilityFlow(20)(denoise, schedule, x[:1], generator(5))
    torch.testing.assert_close(alone, first[:1])


def test_likelihood_works_without_gradients_around_it_and_reports_progress() -> None:
    schedule, told = SCHEDULES["vpsde"], []
    with torch.no_grad():
        found = ProbabilityFlow(3)(
            gaussian(schedule), schedule, draw(1, 1, 2), generator(), lambda *done: told.append(done)
        )
    assert not found.requires_grad
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_bits_per_position_of_a_standard_normal_are_its_entropy() -> None:
    x = draw(1, 1, 100000)
    bits = bits_per_position(log_normal(x, 0.0, 1.0), x[0].numel())
    assert float(bits) == pytest.approx(math.log2(2 * math.pi * math.e) / 2, abs=0.02)


# --- The variational bound ---


def bound(kind: str, steps: int, mean: float, std: float, x: Tensor) -> Tensor:
    schedule = SCHEDULES[kind]

    def noise(step: int, number: int) -> Tensor:
        return draw(*x.shape, seed=step)

    grid = LogSnrGrid(steps, ratio_max=150 if kind == "flow" else None)
    return variational_bound(gaussian(schedule, mean, std), schedule, x, grid, noise)


@pytest.mark.parametrize("kind", list(SCHEDULES))
def test_bound_lies_above_minus_log_p_and_is_tight_with_many_steps(kind: str) -> None:
    items, mean, std = 2000, 0.1, 0.8
    x = (mean + std * draw(1, 1, 4)).expand(items, 1, 4)
    exact = -float(log_normal(x[:1], mean, std**2))
    gaps, doubts = [], []
    for steps in (30, 300):
        found = bound(kind, steps, mean, std, x)
        gaps.append(float(found.mean()) - exact)
        doubts.append(4 * float(found.std()) / items**0.5)
    assert gaps[0] > -doubts[0]
    assert gaps[1] > -doubts[1]
    assert gaps[1] < 0.3 * 4 + doubts[1]  # nats per position
    assert gaps[1] == pytest.approx(gaps[0] / 10, abs=0.3 * gaps[0] / 10 + doubts[1])  # of first order


def test_a_worse_denoiser_has_a_larger_bound() -> None:
    schedule, x = SCHEDULES["vpsde"], 0.1 + 0.8 * draw(2000, 1, 4)

    def noise(step: int, number: int) -> Tensor:
        return draw(*x.shape, seed=step)

    right, wrong = (
        variational_bound(gaussian(schedule, mean, 0.8), schedule, x, LogSnrGrid(50), noise).mean()
        for mean in (0.1, 0.9)
    )
    assert float(wrong) > float(right) + 0.5


# --- The denoising error ---


@pytest.mark.parametrize("kind", list(SCHEDULES))
def test_denoising_error_of_a_gaussian(kind: str) -> None:
    schedule, count, std = SCHEDULES[kind], 40000, 0.4
    times = (0.2, 0.6, 0.9)
    x = 0.7 + std * draw(2, 1, count)
    found = denoising_error(
        gaussian(schedule), schedule, x, times, lambda step, number: draw(2, 1, count, seed=step)
    )
    t = torch.tensor(times, dtype=torch.float64)
    expected = (schedule.alpha(t) * std / moments(schedule, t)[1]) ** 2
    assert found.shape == (2, 3)
    torch.testing.assert_close(found, expected.expand(2, 3), rtol=0.05, atol=1e-9)


# --- Mistakes ---


def test_a_schedule_without_an_end_is_refused() -> None:
    with pytest.raises(InputError, match="leaves no signal at t = 1"):
        ProbabilityFlow(5)(gaussian(Cosine()), Cosine(), draw(1, 1, 2), generator())


@pytest.mark.parametrize(("steps", "probes"), [(0, 1), (1, 0)])
def test_no_steps_or_probes_are_refused(steps: int, probes: int) -> None:
    with pytest.raises(InputError, match="expected 1 or more of each"):
        ProbabilityFlow(steps, probes)


def test_the_flow_that_is_integrated_is_the_one_that_samplers_follow() -> None:
    """The stretch in `models_own` is the flow map of the samplers' tests."""
    schedule, x = SCHEDULES["vpsde"], draw(1, 1, 3)
    low, high = scalar(schedule.earliest), scalar(1.0)
    ratios = [float(noise_ratio(schedule, t)) for t in (low, high)]
    stretch = ((0.16 + ratios[1] ** 2) / (0.16 + ratios[0] ** 2)) ** 0.5
    moved = flow_map(schedule, x * schedule.alpha(low), low, high) / schedule.alpha(high)
    torch.testing.assert_close(moved, 0.7 + stretch * (x - 0.7), rtol=1e-9, atol=1e-9)
