"""Steps that put noise around another step: what they equal, and that they add the noise they should."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.constraints import KnownRegion
from audiodiff.diffusion.continuous import Cosine
from audiodiff.diffusion.multistep import UniPC
from audiodiff.diffusion.process import diffuse
from audiodiff.diffusion.renoising import AddedNoise, Churn, Resampled
from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler, Step
from audiodiff.diffusion.singlestep import DPM2, Heun
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from tests.laws.exact import SAMPLERS, SCHEDULES, Noise, draw, gaussian, log_times, no_noise, scalar, walk

SHAPE = (2, 1, 6)
every_schedule = pytest.mark.parametrize("kind", list(SCHEDULES))


def result(step: Step, kind: str, noise: Any = None) -> Tensor:
    schedule = SCHEDULES[kind]
    times = torch.cat([log_times(schedule, 6, 20, 0.05), torch.zeros(1)])
    return walk(
        step, gaussian(schedule), schedule, times, draw(*SHAPE), Noise(SHAPE) if noise is None else noise
    )


@every_schedule
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_noise_added_to_ddim_is_ddim_with_eta(kind: str, eta: float) -> None:
    torch.testing.assert_close(
        result(AddedNoise(DDIM(), eta), kind), result(DDIM(eta), kind), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("step", [DPM2(), Heun(), UniPC()], ids=repr)
def test_no_added_noise_is_the_step_itself(step: Step) -> None:
    assert torch.equal(result(AddedNoise(step, 0.0), "vpsde", no_noise), result(step, "vpsde", no_noise))


@every_schedule
@pytest.mark.parametrize("step", [DDIM(), Heun()], ids=repr)
def test_churn_of_nothing_is_the_step_itself(step: Step, kind: str) -> None:
    plain = result(step, kind, no_noise)
    assert torch.equal(result(Churn(step, 0.0), kind, no_noise), plain)
    assert torch.equal(result(Churn(step, 0.3, ratio_min=1e3), kind, no_noise), plain)
    assert torch.equal(result(Churn(step, 0.3, ratio_max=1e-3), kind, no_noise), plain)


@every_schedule
def test_churn_raises_the_noise_level_by_gamma_and_keeps_the_signal(kind: str) -> None:
    schedule, seen = SCHEDULES[kind], []

    def watching(
        denoise: Any, schedule: Any, x: Tensor, t: Tensor, s: Tensor, memory: Any, noise: Any
    ) -> Any:
        seen.append((x, t))
        return x, None

    t, clean, first, second = scalar(0.5), *draw(3, *SHAPE)
    x = diffuse(schedule, clean, first, t)
    Churn(watching, 0.25)(gaussian(schedule), schedule, x, t, scalar(0.3), None, lambda: second)
    reached, u = seen[0]
    ratio, higher = (float(schedule.sigma(v) / schedule.alpha(v)) for v in (t, u))
    assert higher == pytest.approx(1.25 * ratio, rel=1e-6)
    both = (ratio * first + (higher**2 - ratio**2) ** 0.5 * second) / higher
    torch.testing.assert_close(reached, diffuse(schedule, clean, both, u), rtol=1e-6, atol=1e-6)


def test_churn_never_rises_above_the_noisiest_level() -> None:
    for schedule in (*SCHEDULES.values(), Cosine()):
        x = Sampler(Churn(DDIM()), UniformGrid(4))(gaussian(schedule), schedule, draw(*SHAPE), Noise(SHAPE))
        assert bool(x.isfinite().all())


def known_region(kind: str) -> KnownRegion:
    draws = itertools.count()
    mask = torch.tensor([1.0, 1, 0, 0, 0, 1])[None, None]
    return KnownRegion(
        SCHEDULES[kind], draw(*SHAPE, seed=5), mask, lambda: draw(*SHAPE, seed=70 + next(draws))
    )


@every_schedule
@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpmpp_2m", "unipc"])
def test_resampling_once_is_the_step_and_its_constraint(name: str, kind: str) -> None:
    schedule, step = SCHEDULES[kind], SAMPLERS[name].step
    start, noise = draw(*SHAPE), Noise(SHAPE)
    grid = lambda schedule: torch.cat([log_times(schedule, 6, 20, 0.05), torch.zeros(1)])  # noqa: E731
    found = Sampler(Resampled(step, known_region(kind), 1), grid)(gaussian(schedule), schedule, start, noise)
    expected = Sampler(step, grid, constraint=known_region(kind))(gaussian(schedule), schedule, start, noise)
    assert torch.equal(found, expected)


@every_schedule
def test_resampling_makes_the_step_as_often_as_told_each_time_with_new_noise(kind: str) -> None:
    schedule, noise, asked = SCHEDULES[kind], Noise(SHAPE), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        asked.append(x)
        return gaussian(schedule)(x, t)

    step = Resampled(Ancestral(), lambda x, s: x, 4)
    walk(step, denoise, schedule, log_times(schedule, 2, 5, 0.5), draw(*SHAPE), noise)
    assert len(asked) == 8
    assert noise.asked == [(step, number) for step in (1, 2) for number in range(7)]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(asked, 2))


def test_resampling_keeps_the_distribution_of_a_gaussian() -> None:
    """Going back from s to t by the forward process keeps moments, so repeats change only the sampler's own error."""
    schedule, count = SCHEDULES["vpsde"], 40000
    times = log_times(schedule, 30, 8, 0.5)
    first, last = (
        ((schedule.alpha(t) * 0.7), (schedule.alpha(t) ** 2 * 0.16 + schedule.sigma(t) ** 2).sqrt())
        for t in (times[0], times[-1])
    )
    start = first[0] + first[1] * draw(1, 1, count, seed=3)
    x = walk(
        Resampled(Ancestral("small"), lambda x, s: x, 3), gaussian(schedule), schedule, times, start,
        Noise((1, 1, count)),
    )  # fmt: skip
    assert float(x.mean()) == pytest.approx(float(last[0]), abs=0.02)
    assert float(x.std()) == pytest.approx(float(last[1]), rel=0.03)


@pytest.mark.parametrize(
    "step",
    [AddedNoise(UniPC()), Churn(UniPC()), Resampled(UniPC(), lambda x, s: x)],
    ids=lambda s: type(s).__name__,
)
def test_wrapping_does_not_hide_that_a_multistep_method_needs_steps(step: Step) -> None:
    schedule = SCHEDULES["table"]
    with pytest.raises(InputError, match=r"grid: 1 step\(s\)"):
        Sampler(step, UniformGrid(1))(gaussian(schedule), schedule, draw(*SHAPE), Noise(SHAPE))


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_impossible_settings_are_refused(eta: float) -> None:
    with pytest.raises(InputError, match="eta: got"):
        AddedNoise(DDIM(), eta)
    with pytest.raises(InputError, match="repeats: got 0"):
        Resampled(DDIM(), lambda x, s: x, 0)
    with pytest.raises(InputError, match="gamma: got"):
        Churn(DDIM(), -eta if eta > 0 else eta)
