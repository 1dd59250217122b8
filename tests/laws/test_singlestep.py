"""Steps that look ahead: where they look, and the textbook methods that they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.continuous import Karras
from audiodiff.diffusion.process import noise_ratio
from audiodiff.diffusion.samplers import DDIM, Step
from audiodiff.diffusion.singlestep import DPM2, DPMSolverSinglestep, Heun, TimeHeun, between
from audiodiff.errors import InputError
from tests.laws.exact import SCHEDULES, draw, gaussian, no_noise, scalar

STEPS: dict[str, tuple[Step, list[float]]] = {  # and the shares of the way in log-SNR at which they evaluate
    "heun": (Heun(), [0, 1]),
    "dpm_2": (DPM2(), [0, 0.5]),
    "dpmpp_2s": (DPMSolverSinglestep(), [0, 0.5]),
    "dpmpp_2s, early": (DPMSolverSinglestep((0.3,)), [0, 0.3]),
    "dpmpp_3s": (DPMSolverSinglestep((1 / 3, 2 / 3)), [0, 1 / 3, 2 / 3]),
}
every_schedule = pytest.mark.parametrize("kind", list(SCHEDULES))


def moved(step: Step, kind: str, t: float, s: float) -> tuple[Tensor, list[Tensor]]:
    schedule, asked = SCHEDULES[kind], []

    def denoise(x: Tensor, time: Tensor) -> Tensor:
        asked.append(time)
        return gaussian(schedule)(x, time)

    x, memory = step(denoise, schedule, draw(2, 1, 5), scalar(t), scalar(s), None, no_noise)
    assert memory is None
    return x, asked


@every_schedule
@pytest.mark.parametrize("name", list(STEPS))
def test_evaluations_lie_where_the_method_has_them(name: str, kind: str) -> None:
    step, shares = STEPS[name]
    _, asked = moved(step, kind, 0.7, 0.4)
    schedule = SCHEDULES[kind]
    logs = [float(noise_ratio(schedule, time).log()) for time in (scalar(0.7), scalar(0.4), *asked)]
    assert [(logs[0] - log) / (logs[0] - logs[1]) for log in logs[2:]] == pytest.approx(shares, abs=1e-6)


@every_schedule
@pytest.mark.parametrize("name", list(STEPS))
def test_the_step_to_the_signal_is_ddim_and_costs_one_evaluation(name: str, kind: str) -> None:
    found, asked = moved(STEPS[name][0], kind, 0.1, 0.0)
    assert [float(time) for time in asked] == [0.1]
    assert torch.equal(found, moved(DDIM(), kind, 0.1, 0.0)[0])


def test_heun_is_the_textbook_method_on_the_noise_level() -> None:
    schedule, x, t, s = Karras(3.0, rho=1.0), draw(2, 1, 5), scalar(0.8), scalar(0.6)

    def slope(x: Tensor, t: Tensor) -> Tensor:
        return (x - gaussian(schedule)(x, t)) / schedule.sigma(t)

    span = schedule.sigma(s) - schedule.sigma(t)
    first = slope(x, t)
    second = slope(x + span * first, s)
    for step in (Heun(), TimeHeun()):  # here t is the noise level, up to its unit
        found, _ = step(gaussian(schedule), schedule, x, t, s, None, no_noise)
        torch.testing.assert_close(found, x + span * (first + second) / 2, rtol=1e-12, atol=1e-12)


def test_midpoint_is_the_textbook_method_with_the_geometric_middle() -> None:
    schedule, x, t, s = Karras(3.0, rho=1.0), draw(2, 1, 5), scalar(0.8), scalar(0.6)
    middle = (t * s).sqrt()

    def slope(x: Tensor, t: Tensor) -> Tensor:
        return (x - gaussian(schedule)(x, t)) / schedule.sigma(t)

    there = x + 3 * (middle - t) * slope(x, t)
    found, _ = DPM2()(gaussian(schedule), schedule, x, t, s, None, no_noise)
    torch.testing.assert_close(found, x + 3 * (s - t) * slope(there, middle), rtol=1e-12, atol=1e-12)


@every_schedule
def test_between_runs_from_one_end_to_the_other_in_log_snr(kind: str) -> None:
    schedule, t, s = SCHEDULES[kind], scalar(0.9), scalar(0.2)
    ends = schedule.log_snr(t), schedule.log_snr(s)
    for fraction in (0.0, 0.25, 1.0):
        found = schedule.log_snr(between(schedule, t, s, fraction))
        torch.testing.assert_close(found, (1 - fraction) * ends[0] + fraction * ends[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("fractions", [(), (0.0,), (1.0,), (0.6, 0.3), (0.2, 0.4, 0.6)])
def test_fractions_that_do_not_rise_within_the_step_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="fractions: got"):
        DPMSolverSinglestep(fractions)
