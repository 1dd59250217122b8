"""A sampler written out as sums gives the numbers of the sampler."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.constraints import Clip
from audiodiff.diffusion.plan import plan
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from tests.laws.exact import SAMPLERS, SCHEDULES

SCHEDULE = SCHEDULES["table"]
# What these ask of the denoiser, a clean estimate alone does not answer.
ASKING_MORE = {"ancestral_learned": "variance", "cfgpp": "guidance"}


def few_steps(sampler: Sampler) -> Sampler:
    """The sampler on few steps, where its own grid has a thousand."""
    return replace(sampler, grid=UniformGrid(6)) if len(sampler.times(SCHEDULE)) > 50 else sampler


def curved(x: Tensor, t: Tensor) -> Tensor:
    """A denoiser that no straight line fits."""
    return torch.sin(2 * x + 1) * (1 - t) + 0.3 * x**2 / (1 + x**2)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ASKING_MORE])
def test_the_sums_of_every_sampler_recipe_are_the_sampler(name: str) -> None:
    sampler = few_steps(SAMPLERS[name])
    if sampler.constraint is not None or sampler.projection is not None:
        with pytest.raises(InputError, match="has a"):
            plan(sampler, SCHEDULE)
        return
    found = plan(sampler, SCHEDULE)
    generator = torch.Generator().manual_seed(1)
    noises = torch.randn(len(found.draws), 2, 3, 5, generator=generator, dtype=torch.float64)
    source = dict(zip(found.draws, noises, strict=True))
    direct = sampler(
        curved, SCHEDULE, sampler.start(SCHEDULE, source[(0, 0)]), lambda step, draw: source[(step, draw)]
    )
    estimates: list[Tensor] = []
    for row, time in enumerate(found.times):
        t = torch.tensor(time, dtype=torch.float64)
        estimates.append(curved(found.combine(row, noises, estimates), t))
    summed = found.combine(found.evaluations, noises, estimates)
    torch.testing.assert_close(summed, direct, rtol=1e-9, atol=1e-9)


def test_a_plan_asks_the_network_only_for_what_came_before() -> None:
    for name in ("dpmpp_2m", "heun", "ancestral"):
        found = plan(few_steps(SAMPLERS[name]), SCHEDULE)
        estimates = torch.tensor(found.estimates)
        assert estimates.shape == (found.evaluations + 1, found.evaluations)
        assert not estimates[:-1].triu().any()


def test_what_is_not_linear_is_refused() -> None:
    with pytest.raises(InputError, match="constraint"):
        plan(Sampler(DDIM(), UniformGrid(4), constraint=Clip(-1.0, 1.0)), SCHEDULE)
    for name, word in ASKING_MORE.items():
        with pytest.raises(InputError, match=word):
            plan(few_steps(SAMPLERS[name]), SCHEDULE)
