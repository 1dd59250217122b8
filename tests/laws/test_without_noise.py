"""On Gaussian data the posterior of a signal in noise is known, and so is what an estimate of it can be worth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.process import expand
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.without_noise import without_noise
from tests.laws.exact import SCHEDULES, draw

FRAMES = 4000
STRENGTHS = torch.tensor([1.0, 0.3, 0.05, 1.0, 1.0], dtype=torch.float64)[:, None]  # of the clean channels
RATIOS = torch.tensor([0.5, 0.5, 0.5, 0.05, 3.0], dtype=torch.float64)[:, None]  # of their noise
CLEAN = STRENGTHS * draw(1, 5, FRAMES, seed=1)


def independent(schedule: NoiseSchedule) -> Denoise:
    """The posterior mean of independent channels of these strengths."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = expand(schedule.alpha(t), x), expand(schedule.sigma(t), x)
        return alpha * STRENGTHS**2 / (alpha**2 * STRENGTHS**2 + sigma**2) * x

    return denoise


def noise(step: int, number: int) -> Tensor:
    return draw(1, 5, FRAMES, seed=100 + step)


@pytest.mark.parametrize("name", ["vpsde", "karras", "flow"])
@pytest.mark.parametrize("level", [0.1, 1.0, 5.0])
def test_where_all_channels_have_one_level_it_is_the_posterior_mean(name: str, level: float) -> None:
    schedule = SCHEDULES[name]
    noisy = CLEAN + level * draw(1, 5, FRAMES, seed=2)
    found = without_noise(
        independent(schedule), schedule, noisy, torch.full((5, 1), level).double(), [level], noise
    )
    exact = STRENGTHS**2 / (STRENGTHS**2 + level**2) * noisy
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("steps", [6, 10, 20, 100])
def test_every_channel_comes_near_the_least_error_that_its_own_noise_allows(steps: int) -> None:
    """A draw of the posterior has twice the least error; nothing may be worse, nor better."""
    schedule = SCHEDULES["vpsde"]
    noisy = CLEAN + RATIOS * draw(1, 5, FRAMES, seed=2)
    levels = np.geomspace(3.0, 0.05, steps).tolist()
    found = without_noise(independent(schedule), schedule, noisy, RATIOS, levels, noise)
    error = (found - CLEAN).square().mean(2)[0]
    least = (STRENGTHS**2 * RATIOS**2 / (STRENGTHS**2 + RATIOS**2))[:, 0]
    assert (error > 0.9 * least).all()
    assert (error < 2.1 * least).all()


def test_with_many_levels_every_channel_ends_where_its_probability_flow_does() -> None:
    """The flow scales a Gaussian channel of variance v from v + n^2 to v."""
    schedule = SCHEDULES["vpsde"]
    noisy = CLEAN + RATIOS * draw(1, 5, FRAMES, seed=2)
    levels = np.geomspace(3.0, 0.001, 1000).tolist()
    found = without_noise(independent(schedule), schedule, noisy, RATIOS, levels, noise)
    exact = noisy * STRENGTHS / (STRENGTHS**2 + RATIOS**2).sqrt()
    torch.testing.assert_close(found, exact, rtol=0.01, atol=1e-3)


def test_a_channel_without_noise_stays_and_no_levels_are_a_mistake() -> None:
    schedule = SCHEDULES["vpsde"]
    ratios = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.5], dtype=torch.float64)[:, None]
    noisy = CLEAN + ratios * draw(1, 5, FRAMES, seed=2)
    levels = np.geomspace(0.5, 0.01, 8).tolist()
    found = without_noise(independent(schedule), schedule, noisy, ratios, levels, noise)
    assert float((found - CLEAN)[0, 0].square().mean()) < 1.1 * 0.01**2
    with pytest.raises(ValueError, match="no levels"):
        without_noise(independent(schedule), schedule, noisy, ratios, [], noise)
