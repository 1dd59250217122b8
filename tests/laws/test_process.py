"""The closed forms of the forward process against brute force, textbook formulas and autograd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiodiff.diffusion.continuous import VPSDE, Flow, Karras, Sigmoid
from audiodiff.diffusion.process import (
    describe_end,
    diffuse,
    epsilon_from_clean,
    noise_ratio,
    off_distribution,
    posterior,
    posterior_variance,
    rates,
    score_from_clean,
    starting_std,
    time_of_ratio,
    transition_variance,
    velocity_from_clean,
)
from audiodiff.diffusion.schedules import BetaTable, NoiseSchedule, linear, zero_terminal_snr
from tests.laws.schedule_examples import (
    BASE,
    EVERY,
    FAMILIES,
    LARGE,
    has_no_noise_at_zero,
    leaves_no_signal,
    preserves_variance,
    scalar,
)

TABLES = st.lists(st.floats(1e-4, 0.3), min_size=2, max_size=20).map(BetaTable)
PAIRS = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).filter(lambda pair: abs(pair[0] - pair[1]) > 1e-3)
Family = st.SearchStrategy[NoiseSchedule]

every_schedule = pytest.mark.parametrize("family", FAMILIES)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# The posterior.


@every_schedule
@given(data=st.data(), pair=PAIRS)
@settings(max_examples=10, deadline=None)
def test_posterior_is_the_conditional_of_the_joint_gaussian(
    family: Family, data: st.DataObject, pair: tuple[float, float]
) -> None:
    schedule = data.draw(family)
    s, t = map(scalar, sorted(pair))
    clean, noise = draw(2, 1, 3, 5)
    x_t = diffuse(schedule, clean, noise, t)
    # x_s = alpha_s clean + sigma_s e and x_t = (alpha_t / alpha_s) x_s + w e': means and covariances given clean.
    scale = schedule.alpha(t) / schedule.alpha(s)
    covariance = scale * schedule.sigma(s) ** 2
    gain = covariance / schedule.sigma(t) ** 2
    expected = schedule.alpha(s) * clean + gain * (x_t - schedule.alpha(t) * clean)
    mean, variance = posterior(schedule, x_t, clean, t, s)
    torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-9)
    expected_variance = schedule.sigma(s) ** 2 - gain * covariance
    torch.testing.assert_close(
        variance, expected_variance, rtol=1e-7, atol=1e-12 * max(1, float(schedule.sigma(s)) ** 2)
    )
    assert torch.equal(variance, posterior_variance(schedule, t, s))


@given(TABLES)
@settings(max_examples=30, deadline=None)
def test_posterior_between_rows_is_the_textbook_formula_in_betas(table: BetaTable) -> None:
    clean, x_t = draw(2, 1, 2, 3)
    bars = [1.0, *table.alpha_bars.tolist()]
    for n, beta in enumerate(table.betas.tolist(), start=1):
        t, s = scalar(n / table.steps), scalar((n - 1) / table.steps)
        mean, variance = posterior(table, x_t, clean, t, s)
        # Ho et al. 2020, eq. 7.
        weight_clean = bars[n - 1] ** 0.5 * beta / (1 - bars[n])
        weight_x = (1 - beta) ** 0.5 * (1 - bars[n - 1]) / (1 - bars[n])
        torch.testing.assert_close(mean, weight_clean * clean + weight_x * x_t, rtol=1e-7, atol=1e-9)
        assert float(variance) == pytest.approx((1 - bars[n - 1]) / (1 - bars[n]) * beta, rel=1e-6, abs=1e-15)
        assert float(transition_variance(table, t, s)) == pytest.approx(beta, rel=1e-6)


@every_schedule
@given(data=st.data(), t=st.floats(0.01, 1))
@settings(max_examples=10, deadline=None)
def test_posterior_at_time_zero_is_the_clean_signal_itself(
    family: Family, data: st.DataObject, t: float
) -> None:
    schedule = data.draw(family)
    if has_no_noise_at_zero(schedule):
        clean, noise = draw(2, 1, 2, 3)
        x_t = diffuse(schedule, clean, noise, scalar(t))
        mean, variance = posterior(schedule, x_t, clean, scalar(t), scalar(0.0))
        torch.testing.assert_close(mean, clean, rtol=1e-12, atol=1e-12)
        assert float(variance) == 0


@every_schedule
@given(data=st.data(), pair=PAIRS, earliest=st.floats(0.001, 0.009))
@settings(max_examples=10, deadline=None)
def test_two_transitions_make_one(
    family: Family, data: st.DataObject, pair: tuple[float, float], earliest: float
) -> None:
    schedule, r = data.draw(family), scalar(earliest)
    s, t = map(scalar, sorted(pair))
    scale = (schedule.alpha(t) / schedule.alpha(s)) ** 2
    joined = scale * transition_variance(schedule, s, r) + transition_variance(schedule, t, s)
    torch.testing.assert_close(
        joined,
        transition_variance(schedule, t, r),
        rtol=1e-7,
        atol=1e-12 * max(1, float(schedule.sigma(t)) ** 2),
    )


# Noise, signal, score.


@pytest.mark.parametrize("schedule", EVERY)
def test_noise_and_score_are_recovered_from_the_clean_signal(schedule: NoiseSchedule) -> None:
    t = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    clean, noise = draw(2, 3, 2, 5)
    sigma = schedule.sigma(t)[:, None, None]
    x_t = diffuse(schedule, clean, noise, t)
    # The difference x_t - alpha clean has the digits of x_t.
    allowed = 1e-14 * float(x_t.abs().max() / sigma.min())
    torch.testing.assert_close(
        epsilon_from_clean(schedule, x_t, clean, t), noise, rtol=0, atol=1e-13 + allowed
    )
    torch.testing.assert_close(
        score_from_clean(schedule, x_t, clean, t) * sigma, -noise, rtol=0, atol=1e-13 + allowed
    )


def test_diffused_signal_has_mean_alpha_clean_and_variance_sigma_squared() -> None:
    table, t = linear(1e-4, 0.02, 100), scalar(0.4)
    clean, noise = torch.full((1, 1, 40_000), 3.0, dtype=torch.float64), draw(1, 1, 40_000)
    x_t = diffuse(table, clean, noise, t)
    assert float(x_t.mean()) == pytest.approx(3 * float(table.alpha(t)), abs=5 / 200 * float(table.sigma(t)))
    assert float(x_t.var()) == pytest.approx(float(table.sigma(t)) ** 2, rel=5 * 2**0.5 / 200)
    torch.testing.assert_close(diffuse(table, clean, noise, scalar(0.0)), clean, rtol=0, atol=0)


def test_score_from_the_expected_clean_signal_is_the_gradient_of_log_density() -> None:
    table, t = linear(1e-4, 0.02, 1000), torch.tensor([0.01, 0.3, 1.0], dtype=torch.float64)
    mean, std = 0.7, 0.4
    alpha, sigma = (value[:, None, None] for value in (table.alpha(t), table.sigma(t)))
    x_t = draw(3, 2, 4).requires_grad_()
    variance = alpha**2 * std**2 + sigma**2
    log_density = torch.distributions.Normal(alpha * mean, variance.sqrt()).log_prob(x_t).sum()
    (gradient,) = torch.autograd.grad(log_density, x_t)
    expected_clean = mean + std**2 * alpha / variance * (x_t - alpha * mean)
    torch.testing.assert_close(
        score_from_clean(table, x_t, expected_clean, t), gradient, rtol=1e-9, atol=1e-9
    )


def test_one_time_for_all_items_equals_that_time_for_each() -> None:
    table, (clean, noise) = linear(1e-4, 0.02, 1000), draw(2, 3, 2, 5)
    each = diffuse(table, clean, noise, torch.full((3,), 0.37))
    torch.testing.assert_close(diffuse(table, clean, noise, torch.tensor(0.37)), each, rtol=0, atol=0)


# Ratios.


@every_schedule
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_time_of_ratio_inverts_noise_ratio(family: Family, data: st.DataObject) -> None:
    schedule = data.draw(family)
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    ratios = noise_ratio(schedule, t)
    torch.testing.assert_close(ratios[1:-1], schedule.sigma(t[1:-1]) / schedule.alpha(t[1:-1]))
    torch.testing.assert_close(ratios[1:-1].log(), -schedule.log_snr(t[1:-1]) / 2, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(time_of_ratio(schedule, ratios), t, rtol=0, atol=1e-9)
    assert float(ratios[0]) == float(schedule.sigma(scalar(0.0)))
    assert math.isinf(float(ratios[-1])) == leaves_no_signal(schedule)


# Rates and the probability flow.


def between_rows(schedule: NoiseSchedule) -> Tensor:
    """Times at which the schedule has a slope: a table has none at its rows."""
    if isinstance(schedule, BetaTable):
        t = (torch.arange(schedule.steps, dtype=torch.float64) + 0.37) / schedule.steps
        return t[t > 0.01][:: max(1, schedule.steps // 20)]
    return torch.linspace(0.03, 0.97, 20, dtype=torch.float64)


@every_schedule
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_rates_are_the_slopes_of_alpha_and_sigma_also_in_inference_mode(
    family: Family, data: st.DataObject
) -> None:
    schedule = data.draw(family)
    t, small = between_rows(schedule), 1e-6
    found = rates(schedule, t)
    for rate, function in zip(found, (schedule.alpha, schedule.sigma), strict=True):
        slope = (function(t + small) - function(t - small)) / (2 * small)
        scale = max(1.0, float(function(t).abs().max()))
        # A difference of numbers of that scale over 2e-6 has ten digits less than they have.
        torch.testing.assert_close(rate, slope, rtol=1e-6, atol=1e-8 * scale)
        assert rate.dtype == torch.float64
        assert not rate.requires_grad
    with torch.inference_mode():
        again = rates(schedule, t.clone())
    for rate, other in zip(found, again, strict=True):
        assert torch.equal(rate, other)


@pytest.mark.parametrize("schedule", EVERY)
def test_rates_at_the_noisiest_time_are_those_on_the_way_there(schedule: NoiseSchedule) -> None:
    if isinstance(getattr(schedule, "schedule", schedule), Sigmoid):  # itself or moved
        pytest.skip("alpha of the sigmoid schedule falls like a root of 1 - t: its slope there is infinite")
    small = 1e-7 if isinstance(schedule, BetaTable) else 1e-6
    t = torch.tensor([1.0, 1 - small], dtype=torch.float64)
    for rate, function in zip(rates(schedule, t[:1]), (schedule.alpha, schedule.sigma), strict=True):
        ends = function(t)
        assert float(rate) == pytest.approx(float(ends[0] - ends[1]) / small, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("table", [BASE, LARGE, linear(1e-4, 0.05, 49), BetaTable([0.1, 0.4, 1e-5, 0.2])])
def test_a_row_has_the_slope_of_the_line_below_it_where_sampling_goes_next(table: BetaTable) -> None:
    levels = torch.cat([torch.ones(1, dtype=torch.float64), table.alpha_bars.sqrt()])
    rows = torch.arange(1, table.steps + 1, dtype=torch.float64) / table.steps
    torch.testing.assert_close(rates(table, rows)[0], levels.diff() * table.steps, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_rates_have_the_shape_of_t(shape: tuple[int, ...]) -> None:
    for schedule in (BASE, VPSDE(), Karras(), Flow()):
        assert all(rate.shape == shape for rate in rates(schedule, torch.full(shape, 0.3)))


@pytest.mark.parametrize("schedule", EVERY)
def test_velocity_is_the_speed_of_x_with_clean_and_noise_held(schedule: NoiseSchedule) -> None:
    clean, noise = draw(2, 3, 2, 5)
    t, small = between_rows(schedule)[-3:].expand(3), 1e-6
    ahead, behind = (diffuse(schedule, clean, noise, t + step) for step in (small, -small))
    found = velocity_from_clean(schedule, diffuse(schedule, clean, noise, t), clean, t)
    scale = max(1.0, float(ahead.abs().max()))
    torch.testing.assert_close(found, (ahead - behind) / (2 * small), rtol=1e-6, atol=1e-7 * scale)


def test_velocity_of_the_straight_path_is_noise_minus_clean_at_any_time() -> None:
    clean, noise = draw(2, 3, 2, 5)
    t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    found = velocity_from_clean(Flow(), diffuse(Flow(), clean, noise, t), clean, t)
    torch.testing.assert_close(found, noise - clean, rtol=1e-12, atol=1e-12)


# Where sampling starts.


@pytest.mark.parametrize("schedule", EVERY)
def test_sampling_starts_with_the_deviation_of_diffused_unit_data(schedule: NoiseSchedule) -> None:
    found = starting_std(schedule, scalar(1.0))
    if preserves_variance(schedule):
        assert float(found) == pytest.approx(1, abs=1e-15)
    elif isinstance(schedule, Karras):
        assert float(found) == pytest.approx(math.sqrt(1 + schedule.sigma_max**2), rel=1e-15)
    else:
        assert float(found) == pytest.approx(1, abs=1e-15)  # every straight path ends at pure noise
    clean, noise = draw(2, 1, 1, 50_000)
    x_1 = diffuse(schedule, clean, noise, scalar(1.0))
    assert float(x_1.std()) == pytest.approx(float(found), rel=5 / (2 * 50_000) ** 0.5)


def test_end_of_a_schedule_is_described_in_decibels_with_what_is_left() -> None:
    # alpha-bar 0.2797 of DiffWave BASE: 10 log10(0.2797 / 0.7203).
    assert (
        "BetaTable, 50 rows; at t = 1 the signal-to-noise ratio is -4.1 dB (alpha^2 = 0.2797)"
        in describe_end(BASE)
    )
    assert "-inf dB (alpha^2 = 0)" in describe_end(zero_terminal_snr(BASE))
    assert "VPSDE, continuous; at t = 1 the signal-to-noise ratio is -43.5 dB" in describe_end(VPSDE())
    assert "Karras, continuous; at t = 1 the signal-to-noise ratio is -38.1 dB" in describe_end(Karras())


def test_start_off_the_distribution_is_warned_of_with_its_share_of_signal() -> None:
    assert "holds 28.0% signal by power" in str(off_distribution(BASE))
    assert "holds 13.2% signal by power" in str(off_distribution(LARGE))
    assert "holds 20.0% signal by power" in str(off_distribution(Karras(sigma_max=2.0)))
    for schedule in (
        zero_terminal_snr(BASE),
        zero_terminal_snr(BASE, 1e-4),
        VPSDE(),
        Karras(),
        Flow(),
        Sigmoid(),
    ):
        assert off_distribution(schedule) is None
