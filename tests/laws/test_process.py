"""The closed forms of the forward process against brute force, textbook formulas and autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiodiff.diffusion.process import (
    diffuse,
    epsilon_from_clean,
    posterior,
    score_from_clean,
    transition_variance,
)
from audiodiff.diffusion.schedules import BetaTable, linear

TABLES = st.lists(st.floats(1e-4, 0.3), min_size=2, max_size=20).map(BetaTable)
PAIRS = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).filter(lambda pair: abs(pair[0] - pair[1]) > 1e-3)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@given(TABLES, PAIRS)
@settings(max_examples=60, deadline=None)
def test_posterior_is_the_conditional_of_the_joint_gaussian(
    table: BetaTable, pair: tuple[float, float]
) -> None:
    s, t = map(scalar, sorted(pair))
    clean, x_t = draw(2, 1, 3, 5)
    # x_s = alpha_s clean + sigma_s e and x_t = (alpha_t / alpha_s) x_s + w e': means and covariances given clean.
    scale = table.alpha(t) / table.alpha(s)
    covariance = scale * table.sigma(s) ** 2
    gain = covariance / table.sigma(t) ** 2
    expected = table.alpha(s) * clean + gain * (x_t - table.alpha(t) * clean)
    mean, variance = posterior(table, x_t, clean, t, s)
    torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(variance, table.sigma(s) ** 2 - gain * covariance, rtol=1e-7, atol=1e-12)


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


@given(TABLES, st.floats(0.01, 1))
@settings(max_examples=30, deadline=None)
def test_posterior_at_time_zero_is_the_clean_signal_itself(table: BetaTable, t: float) -> None:
    clean, x_t = draw(2, 1, 2, 3)
    mean, variance = posterior(table, x_t, clean, scalar(t), scalar(0.0))
    torch.testing.assert_close(mean, clean, rtol=1e-12, atol=1e-12)
    assert float(variance) == 0


@given(TABLES, PAIRS, st.floats(0.001, 0.009))
@settings(max_examples=30, deadline=None)
def test_two_transitions_make_one(table: BetaTable, pair: tuple[float, float], earliest: float) -> None:
    r = scalar(earliest)
    s, t = map(scalar, sorted(pair))
    scale = (table.alpha(t) / table.alpha(s)) ** 2
    joined = scale * transition_variance(table, s, r) + transition_variance(table, t, s)
    torch.testing.assert_close(joined, transition_variance(table, t, r), rtol=1e-7, atol=1e-12)


def test_noise_is_recovered_from_the_clean_signal() -> None:
    table, t = linear(1e-4, 0.02, 1000), torch.tensor([1e-3, 0.1, 1.0], dtype=torch.float64)
    clean, noise = draw(2, 3, 2, 5)
    x_t = diffuse(table, clean, noise, t)
    torch.testing.assert_close(epsilon_from_clean(table, x_t, clean, t), noise, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        score_from_clean(table, x_t, clean, t), -noise / table.sigma(t)[:, None, None], rtol=1e-9, atol=1e-9
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
