"""Rules of multistep methods integrate what they claim exactly; special cases equal the first-order steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from audiodiff.diffusion import multistep
from audiodiff.diffusion.continuous import Cosine
from audiodiff.diffusion.multistep import PLMS, CleanMultistep, NoiseMultistep, Rule, UniPC
from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler, Step
from audiodiff.diffusion.singlestep import DPM2, Heun
from audiodiff.diffusion.times import LogSnrGrid, UniformGrid
from audiodiff.errors import InputError
from tests.laws.exact import SAMPLERS, SCHEDULES, Noise, draw, gaussian, no_noise

RATIOS, TARGET = (2.0, 3.1, 4.4, 7.0), 1.3
RULES = {
    name: getattr(multistep, name)
    for name in (
        *("lms", "deis", "adams_bashforth", "dpm_midpoint"),
        *("dpmpp_midpoint", "dpmpp_heun", "dpmpp_third", "dpmpp_exact"),
    )
}
SCHEDULE = SCHEDULES["table"]
MULTISTEP = [name for name, sampler in SAMPLERS.items() if getattr(sampler.step, "least_steps", 1) > 1]


def mean_over(function: Callable[[np.ndarray], np.ndarray], start: float, end: float) -> float:
    """The mean of a function from start to end, by Gauss-Legendre quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    return float((function((end - start) / 2 * nodes + (end + start) / 2) * weights).sum() / 2)


@pytest.mark.parametrize("target", [TARGET, 0.0])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("name", list(RULES))
def test_weights_add_up_to_one(name: str, count: int, target: float) -> None:
    assert sum(RULES[name](RATIOS[:count], target)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("rule", [multistep.lms, multistep.deis, multistep.dpmpp_exact])
def test_polynomials_through_the_estimates_are_integrated_exactly(rule: Rule, count: int) -> None:
    ratios = RATIOS[:count]
    variable: Callable[[Any], Any] = (lambda r: r) if rule is multistep.lms else np.log
    over = -1 if rule is multistep.dpmpp_exact else 1  # r, or 1 / r
    for power in range(count):

        def polynomial(q: Any, power: int = power) -> Any:
            return variable(q**over) ** power

        expected = mean_over(polynomial, ratios[0] ** over, TARGET**over)
        found = sum(w * polynomial(r**over) for w, r in zip(rule(ratios, TARGET), ratios, strict=True))
        assert found == pytest.approx(expected, rel=1e-10)


def test_two_exact_estimates_are_the_heun_variant_and_one_is_the_first_order() -> None:
    for rule in (multistep.dpmpp_exact, multistep.dpmpp_heun):
        np.testing.assert_allclose(
            rule(RATIOS[:2], TARGET), multistep.dpmpp_heun(RATIOS[:2], TARGET), rtol=1e-12
        )
        assert rule(RATIOS[:1], TARGET) == pytest.approx([1.0])
        assert list(rule(RATIOS[:2], 0.0)) == [1.0]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_linear_multistep_on_an_even_grid_is_adams_bashforth(count: int) -> None:
    even = [2.0 + 0.1 * i for i in range(count)]
    np.testing.assert_allclose(multistep.lms(even, 1.9), multistep.adams_bashforth(even, 1.9), rtol=1e-9)


@pytest.mark.parametrize("name", ["dpmpp_midpoint", "dpmpp_heun", "dpmpp_third", "dpmpp_exact"])
def test_an_estimate_from_where_no_signal_was_left_has_no_weight(name: str) -> None:
    weights = RULES[name]((2.0, 3.1, math.inf), TARGET)
    assert sum(weights) == pytest.approx(1)
    assert list(weights[2:]) in ([], [0.0])


def result(step: Step, noise: Callable[[int, int], Tensor] = no_noise) -> Tensor:
    return Sampler(step, LogSnrGrid(7))(gaussian(SCHEDULE), SCHEDULE, draw(2, 1, 5), noise)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_dpm_solver_of_first_order_is_ddim_and_its_sde_ancestral(eta: float) -> None:
    found = result(CleanMultistep(multistep.dpmpp_midpoint, 1, eta), Noise((2, 1, 5)))
    torch.testing.assert_close(found, result(DDIM(eta), Noise((2, 1, 5))), rtol=1e-12, atol=1e-12)
    if eta == 1:
        torch.testing.assert_close(found, result(Ancestral(), Noise((2, 1, 5))), rtol=1e-9, atol=1e-9)


def test_linear_multistep_of_first_order_is_ddim() -> None:
    for rule in (multistep.lms, multistep.deis, multistep.dpm_midpoint):
        torch.testing.assert_close(result(NoiseMultistep(rule, 1)), result(DDIM()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("bh", [1, 2])
def test_unipc_ends_with_the_clean_estimate_where_no_noise_is_left(bh: int, order: int) -> None:
    last: list[Tensor] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        last.append(gaussian(SCHEDULE)(x, t))
        return last[-1]

    for steps in (2, 3, 8):
        x = Sampler(UniPC(order, bh), LogSnrGrid(steps))(denoise, SCHEDULE, draw(2, 1, 5), no_noise)
        torch.testing.assert_close(x, last[-1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MULTISTEP)
def test_one_evaluation_a_step(name: str) -> None:
    asked: list[float] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t))
        return gaussian(SCHEDULE)(x, t)

    times = LogSnrGrid(6)(SCHEDULE)
    Sampler(SAMPLERS[name].step, LogSnrGrid(6))(denoise, SCHEDULE, draw(1, 1, 2), Noise((1, 1, 2)))
    if name == "plms":
        assert asked.pop(1) == float(times[1])  # the first step is made twice
    if name == "pndm":
        assert len(asked) == 3 * 4 + 3
    else:
        assert asked == times[:-1].tolist()


@pytest.mark.parametrize("name", MULTISTEP)
def test_a_multistep_method_on_one_step_is_refused(name: str) -> None:
    with pytest.raises(
        InputError, match=r"grid: 1 step\(s\) for .* needs 2 or more; choose ddim, or more steps"
    ):
        Sampler(SAMPLERS[name].step, UniformGrid(1))(gaussian(SCHEDULE), SCHEDULE, draw(1, 1, 2), no_noise)


@pytest.mark.parametrize(
    "step", [NoiseMultistep(multistep.lms), PLMS(), Heun(), DPM2()], ids=lambda step: type(step).__name__
)
def test_following_the_noise_from_where_no_signal_is_left_is_refused(step: Step) -> None:
    schedule = Cosine()
    with pytest.raises(InputError, match="leaves no signal at t = 1"):
        Sampler(step, UniformGrid(4))(gaussian(schedule), schedule, draw(1, 1, 2), no_noise)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UniPC(0), "order: got 0"),
        (lambda: UniPC(2, 3), "bh: got 3, choose 1 or 2"),
        (lambda: NoiseMultistep(multistep.lms, 5), "order: got 5"),
        (lambda: CleanMultistep(multistep.dpmpp_heun, 0), "order: got 0"),
        (lambda: CleanMultistep(multistep.dpmpp_heun, 2, 1.5), "eta: got 1.5"),
    ],
)
def test_impossible_settings_are_refused(build: Callable[[], Step], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
