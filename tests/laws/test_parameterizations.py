"""Laws of every parameterization on every schedule, and the constants and targets that the papers print."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiodiff.diffusion import parameterizations
from audiodiff.diffusion.continuous import VPSDE, Cosine, Flow, Karras
from audiodiff.diffusion.parameterizations import (
    Parameterization,
    edm,
    epsilon,
    flow,
    score,
    target,
    velocity,
)
from audiodiff.diffusion.process import diffuse, expand
from audiodiff.diffusion.schedules import NoiseSchedule, linear
from audiodiff.errors import InputError
from tests.laws.schedule_examples import EVERY, EXAMPLES, FAMILIES, leaves_no_signal

SCHEDULE = linear(1e-4, 0.02, 200)
ALL = {
    name: function
    for name, function in inspect.getmembers(parameterizations, inspect.isfunction)
    if function.__annotations__["return"] == "Coefficients"
}
VARIANTS: dict[str, Parameterization] = {**ALL, "edm-half": partial(edm, data_std=0.5)}
T = torch.tensor([1e-9, 1e-3, 0.25, 0.5, 1.0], dtype=torch.float64)
DIVIDE_BY_ALPHA = ("epsilon", "score")

every_parameterization = pytest.mark.parametrize("name", VARIANTS)


def draw(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, len(T), 3, 50, generator=generator, dtype=torch.float64)
    return clean.to(dtype), noise.to(dtype)


def levels(schedule: NoiseSchedule, t: Tensor = T) -> tuple[Tensor, Tensor]:
    return schedule.alpha(t), schedule.sigma(t)


def test_the_six_predictions_of_the_field_are_there() -> None:
    assert set(ALL) == {"epsilon", "clean", "velocity", "score", "flow", "edm"}


@every_parameterization
@pytest.mark.parametrize("schedule", EVERY)
def test_clean_estimate_is_exact_when_the_network_meets_its_target(
    schedule: NoiseSchedule, name: str
) -> None:
    clean, noise = draw()
    alpha, sigma = levels(schedule)
    if name in DIVIDE_BY_ALPHA and leaves_no_signal(schedule):
        with pytest.raises(InputError, match=f"{name} prediction divides by alpha"):
            VARIANTS[name](alpha, sigma)
        return
    coefficients = VARIANTS[name](alpha, sigma)
    x_t = diffuse(schedule, clean, noise, T)
    prediction = target(coefficients, alpha, sigma, clean, noise)
    _, c_skip, c_out = coefficients
    found = expand(c_skip, x_t) * x_t + expand(c_out, x_t) * prediction
    torch.testing.assert_close(found, clean, rtol=1e-9, atol=1e-9)


@every_parameterization
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_coefficients_are_finite_float64_wherever_there_is_signal(
    family: st.SearchStrategy[NoiseSchedule], name: str, data: st.DataObject
) -> None:
    t = T[:-1] if name in DIVIDE_BY_ALPHA else T
    coefficients = VARIANTS[name](*levels(data.draw(family), t))
    assert all(c.shape == t.shape and c.dtype == torch.float64 for c in coefficients)
    assert all(bool(c.isfinite().all()) for c in coefficients)


@every_parameterization
def test_target_is_what_solves_the_definition_of_the_clean_estimate(name: str) -> None:
    clean, noise = draw()
    alpha, sigma = levels(SCHEDULE)
    _, c_skip, c_out = VARIANTS[name](alpha, sigma)
    x_t = diffuse(SCHEDULE, clean, noise, T)
    plain = (clean - expand(c_skip, x_t) * x_t) / expand(c_out, x_t)
    exact = target(VARIANTS[name](alpha, sigma), alpha, sigma, clean, noise)
    torch.testing.assert_close(exact[1:], plain[1:], rtol=1e-8, atol=1e-8)


def test_epsilon_target_is_the_noise_to_the_last_float32_digit_also_at_tiny_sigma() -> None:
    clean, noise = draw(torch.float32)
    alpha, sigma = levels(SCHEDULE)
    assert float(sigma[0]) < 1e-5
    found = target(epsilon(alpha, sigma), alpha, sigma, clean, noise)
    # 1/alpha * alpha may differ from 1 by half a unit of float64; over sigma 5e-6 that is 4e-11 of the signal.
    torch.testing.assert_close(found, noise, rtol=6e-8, atol=1e-10)


# What the papers say the network predicts.


@pytest.mark.parametrize("schedule", [one for one in EXAMPLES.values() if not leaves_no_signal(one)])
def test_epsilon_predicts_the_noise_and_score_minus_noise_over_sigma(schedule: NoiseSchedule) -> None:
    clean, noise = draw()
    t = T[1:]
    alpha, sigma = levels(schedule, t)
    found = target(epsilon(alpha, sigma), alpha, sigma, clean[1:], noise[1:])
    torch.testing.assert_close(
        found * expand(sigma, found), noise[1:] * expand(sigma, found), rtol=1e-9, atol=1e-9
    )
    found = target(score(alpha, sigma), alpha, sigma, clean[1:], noise[1:])
    power = expand(sigma**2, found)
    torch.testing.assert_close(found * power, -noise[1:] * expand(sigma, found), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", EVERY)
def test_clean_predicts_the_clean_signal(schedule: NoiseSchedule) -> None:
    clean, noise = draw()
    alpha, sigma = levels(schedule)
    found = target(parameterizations.clean(alpha, sigma), alpha, sigma, clean, noise)
    torch.testing.assert_close(found, clean, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("schedule", EVERY)
def test_velocity_is_alpha_noise_minus_sigma_clean_and_flow_noise_minus_clean(
    schedule: NoiseSchedule,
) -> None:
    clean, noise = draw()[0][1:], draw()[1][1:]
    alpha, sigma = levels(schedule, T[1:])
    found = target(velocity(alpha, sigma), alpha, sigma, clean, noise)
    expected = expand(alpha, clean) * noise - expand(sigma, clean) * clean
    # 1 - c_skip alpha is sigma^2 over the power, of which rounding leaves 1e-16; it is divided by sigma.
    rounding = 1e-14 / expand(sigma, clean).clamp(max=1)
    assert bool(((found - expected).abs() <= 1e-12 * expected.abs() + rounding).all())
    found = target(flow(alpha, sigma), alpha, sigma, clean, noise)
    assert bool(((found - (noise - clean)).abs() <= 1e-12 + rounding).all())


def test_flow_is_the_speed_along_the_straight_path() -> None:
    clean, noise = draw()
    ends = [diffuse(Flow(), clean, noise, torch.tensor(time)) for time in (0.5, 0.75)]
    alpha, sigma = levels(Flow(), torch.full((len(T),), 0.6))
    found = target(flow(alpha, sigma), alpha, sigma, clean, noise)
    torch.testing.assert_close((ends[1] - ends[0]) / 0.25, found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("data_std", [0.5, 1.0])
def test_edm_has_the_constants_of_table_1_of_karras(data_std: float) -> None:
    alpha, sigma = levels(Karras(80.0, 7.0), torch.tensor([0.1, 0.3, 0.9, 1.0]))
    c_in, c_skip, c_out = edm(alpha, sigma, data_std=data_std)
    power = sigma**2 + data_std**2
    torch.testing.assert_close(c_in, 1 / power.sqrt(), rtol=1e-14, atol=0)
    torch.testing.assert_close(c_skip, data_std**2 / power, rtol=1e-14, atol=0)
    torch.testing.assert_close(c_out, sigma * data_std / power.sqrt(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("data_std", [0.3, 1.0])
@pytest.mark.parametrize("schedule", [Cosine(), VPSDE(), Karras(), Flow(), SCHEDULE])
def test_input_and_target_of_edm_have_unit_variance(schedule: NoiseSchedule, data_std: float) -> None:
    alpha, sigma = levels(schedule, T[1:])
    c_in, c_skip, c_out = edm(alpha, sigma, data_std=data_std)
    variance = c_in**2 * ((alpha * data_std) ** 2 + sigma**2)
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0, atol=1e-14)
    seen = sigma > 1e-6  # below, (1 - c_skip alpha) / c_out is a quotient of rounding errors
    variance = (((1 - c_skip * alpha) * data_std) ** 2 + (c_skip * sigma) ** 2) / c_out**2
    torch.testing.assert_close(variance[seen], torch.ones_like(variance)[seen], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", DIVIDE_BY_ALPHA)
def test_prediction_that_says_nothing_of_the_signal_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} prediction .* choose velocity, clean, flow or edm"):
        ALL[name](torch.tensor([0.5, 0.0]), torch.tensor([0.8, 1.0]))


def test_every_prediction_that_is_not_refused_without_signal_is_named_as_a_choice() -> None:
    with pytest.raises(InputError) as caught:
        epsilon(torch.zeros(1), torch.ones(1))
    choices = str(caught.value).partition("choose ")[2]
    for name in set(ALL) - set(DIVIDE_BY_ALPHA):
        assert name in choices
        ALL[name](torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
