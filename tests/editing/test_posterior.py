"""On Gaussian data the posterior given an observation is known, and so is how near each method comes to it.

x ~ N(0, C) of 12 correlated numbers, C_ij = 0.9^|i - j|; E[x | x_t] = alpha C (alpha^2 C + sigma^2)^-1 x_t. Given the
outer eight, the four in the middle are Gaussian with mean K y and covariance C_uu - K C_ku, K = C_uk C_kk^-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.constraints import projected
from audiodiff.diffusion.continuous import Karras
from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.posterior import gradient_guided, moment_matched
from audiodiff.diffusion.renoising import Resampled
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.times import LogSnrGrid
from audiodiff.editing.observation import AtLeast, Known, Lifted, LowBand, replaced
from audiodiff.errors import InputError
from tests.laws.exact import SCHEDULES, draw, scalar

SIZE, COUNT = 12, 2000
PLACES = torch.arange(SIZE)
COVARIANCE = 0.9 ** (PLACES[:, None] - PLACES[None]).abs().double()
KNOWN = ((PLACES < 4) | (PLACES >= 8)).double()
TRUTH = draw(1, 1, SIZE, seed=7) @ torch.linalg.cholesky(COVARIANCE).T
OUTER, INNER = KNOWN.bool(), ~KNOWN.bool()
GAIN = COVARIANCE[INNER][:, OUTER] @ torch.linalg.inv(COVARIANCE[OUTER][:, OUTER])
MEAN = TRUTH[0, 0, OUTER] @ GAIN.T
SPREAD = COVARIANCE[INNER][:, INNER] - GAIN @ COVARIANCE[OUTER][:, INNER]


class Samples:
    """The identity as a representation, in double precision."""

    sample_rate, hop_length, channels, exact = 8000, 1, 1, True
    std = torch.ones(1)

    def encode(self, waveform: Tensor) -> Tensor:
        return waveform

    def decode(self, x: Tensor, length: int) -> Tensor:
        return x

    def shape(self, length: int) -> tuple[int, int]:
        return 1, length

    def variances(self, x: Tensor) -> Tensor:
        return x.square().mean().reshape(1)


def correlated(schedule: NoiseSchedule) -> Denoise:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        gain = alpha * COVARIANCE @ torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * torch.eye(SIZE))
        return x @ gain.T

    return denoise


def sampled(method: str, schedule: NoiseSchedule, eta: float, steps: int = 60) -> Tensor:
    """COUNT draws of the middle numbers [COUNT, 4]."""
    observed = TRUTH.expand(COUNT, -1, -1)
    lifted = Lifted(Known(observed, KNOWN), Samples())
    draws = iter(range(10**6))
    denoise, step = correlated(schedule), DDIM(eta)
    if method == "moments":
        denoise = projected(moment_matched(denoise, schedule, lifted, 8), lifted)
    if method == "gradient":
        denoise = gradient_guided(denoise, schedule, lifted, 0.4)
    if method == "projection":
        denoise = projected(denoise, lifted)
    if method == "replacement":
        again = replaced(lifted, schedule, lambda: draw(COUNT, 1, SIZE, seed=5000 + next(draws)))
        step = Resampled(step, again, 8)
    sampler = Sampler(step, LogSnrGrid(steps, 0.01, 60.0))
    x = sampler.start(schedule, draw(COUNT, 1, SIZE, seed=1))
    noise = lambda number, again: draw(COUNT, 1, SIZE, seed=10 + 100 * number + again)  # noqa: E731
    return sampler(denoise, schedule, x, noise)[:, 0, INNER]


def misfit(found: Tensor) -> tuple[float, float]:
    """How far mean and deviations lie from the exact ones: in exact deviations, and as the largest relative error."""
    exact = SPREAD.diagonal().sqrt()
    return float(((found.mean(0) - MEAN) / exact).abs().max()), float((found.std(0) / exact - 1).abs().max())


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["vpsde", "karras"])
def test_matched_moments_draw_from_the_exact_posterior(kind: str, eta: float) -> None:
    mean, deviation = misfit(sampled("moments", SCHEDULES[kind], eta))
    assert mean < 0.09  # the mean of 2000 draws lies within 4 / sqrt(2000) = 0.09 of its own
    assert deviation < 0.1


# With 4000 draws: projection 0.61 and 0.29, replacement 0.16 and 0.02, gradient 0.28 and 0.03.
BOUNDS = {"replacement": (0.25, 0.1), "projection": (0.8, 0.4), "gradient": (0.4, 0.1)}


@pytest.mark.parametrize("method", list(BOUNDS))
def test_the_other_methods_come_as_near_as_is_stated(method: str) -> None:
    mean, deviation = misfit(sampled(method, Karras(), 1.0))
    assert mean < BOUNDS[method][0]
    assert deviation < BOUNDS[method][1]


def test_one_evaluation_of_matched_moments_is_the_exact_conditional_mean() -> None:
    """E[x_0 | x_t, y] by Gaussian conditioning on both."""
    schedule, t, x = SCHEDULES["vpsde"], scalar(0.5), draw(3, 1, SIZE, seed=3)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    observed = TRUTH.expand(3, -1, -1)
    found = moment_matched(
        correlated(schedule), schedule, Lifted(Known(observed, KNOWN, std=0.3), Samples()), 12
    )(x, t)
    both = torch.cat([alpha * torch.eye(SIZE), torch.diag(KNOWN)[OUTER]])  # [20, 12], of what is seen
    noise = torch.diag(torch.cat([sigma**2 * torch.ones(SIZE), 0.09 * torch.ones(8)]).double())
    seen = torch.cat([x, observed[..., OUTER]], -1)
    gain = COVARIANCE @ both.T @ torch.linalg.inv(both @ COVARIANCE @ both.T + noise)
    torch.testing.assert_close(found, seen @ gain.T, rtol=1e-6, atol=1e-6)


def test_more_iterations_come_nearer_to_the_observation() -> None:
    schedule, t, x = SCHEDULES["vpsde"], scalar(0.5), draw(3, 1, SIZE, seed=3)
    lifted = Lifted(Known(TRUTH.expand(3, -1, -1), KNOWN), Samples())
    errors = [
        float(
            lifted.difference(moment_matched(correlated(schedule), schedule, lifted, n)(x, t)).square().sum()
        )
        for n in (1, 2, 4, 8)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-12


@dataclass(frozen=True)
class InNoise:
    """x in white noise of deviation std."""

    observed: Tensor
    std: float

    def difference(self, x: Tensor) -> Tensor:
        return self.observed - x

    def tangent(self, x: Tensor, change: Tensor) -> Tensor:
        return change


def test_an_observation_in_noise_is_weighed_as_wiener_would() -> None:
    """Of x + n with white n the posterior mean is C (C + s^2)^-1 y; the draws' mean is that."""
    schedule, level = Karras(), 0.5
    noisy = TRUTH + level * draw(1, 1, SIZE, seed=9)
    observation = InNoise(noisy.expand(COUNT, -1, -1), level)
    denoise = moment_matched(correlated(schedule), schedule, observation, 12)
    sampler = Sampler(DDIM(), LogSnrGrid(60, 0.01, 60.0))
    x = sampler(denoise, schedule, sampler.start(schedule, draw(COUNT, 1, SIZE)), lambda i, j: draw(1))
    exact = noisy[0, 0] @ torch.linalg.inv(COVARIANCE + level**2 * torch.eye(SIZE)) @ COVARIANCE
    spread = COVARIANCE - COVARIANCE @ torch.linalg.inv(COVARIANCE + level**2 * torch.eye(SIZE)) @ COVARIANCE
    assert float(((x.mean(0)[0] - exact) / spread.diagonal().sqrt()).abs().max()) < 0.09
    torch.testing.assert_close(x[:, 0].std(0), spread.diagonal().sqrt(), rtol=0.1, atol=0)


def test_observations_as_projections_are_met_and_idempotent() -> None:
    waveform, observed = draw(2, 1, 64), draw(2, 1, 64, seed=1)
    band = (torch.arange(33) < 12).double()
    clipped = observed.abs() >= 0.8
    for observation in (
        Known(observed, (torch.arange(64) % 3 > 0).double()),
        LowBand(observed, band),
        AtLeast(observed.clamp(-0.8, 0.8), clipped.double()),
    ):
        lifted = Lifted(observation, Samples())
        once = lifted(waveform, scalar(0.5))
        torch.testing.assert_close(lifted(once, scalar(0.5)), once)
        torch.testing.assert_close(lifted.difference(once), torch.zeros_like(once))
        assert not torch.equal(once, waveform)


def test_what_makes_no_sense_is_refused() -> None:
    lifted = Lifted(Known(TRUTH, KNOWN), Samples())
    with pytest.raises(InputError, match="iterations"):
        moment_matched(correlated(Karras()), Karras(), lifted, 0)
    with pytest.raises(InputError, match="scale"):
        gradient_guided(correlated(Karras()), Karras(), lifted, 0.0)
