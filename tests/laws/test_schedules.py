"""Laws of every table of betas, and the exact values at its rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiodiff.diffusion.schedules import BetaTable, linear
from audiodiff.errors import InputError

TABLES = st.lists(st.floats(1e-5, 0.5), min_size=1, max_size=40).map(BetaTable)
TIMES = torch.linspace(0, 1, 301, dtype=torch.float64)[1:]


def rows(table: BetaTable) -> torch.Tensor:
    return torch.arange(table.steps + 1, dtype=torch.float64) / table.steps


@given(TABLES)
@settings(max_examples=60, deadline=None)
def test_signal_to_noise_ratio_falls_strictly(table: BetaTable) -> None:
    assert bool((table.log_snr(TIMES).diff() < 0).all())
    assert float(table.log_snr(torch.zeros(1))) == float("inf")


@given(TABLES)
@settings(max_examples=60, deadline=None)
def test_variance_is_preserved(table: BetaTable) -> None:
    alpha, sigma = table.alpha(TIMES), table.sigma(TIMES)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(TIMES), rtol=0, atol=1e-15)
    assert float(table.alpha(torch.zeros(()))) == 1.0
    assert float(table.sigma(torch.zeros(()))) == 0.0


@given(TABLES)
@settings(max_examples=60, deadline=None)
def test_time_inverts_log_snr(table: BetaTable) -> None:
    times = torch.cat([TIMES, rows(table)[1:], torch.tensor([1e-6], dtype=torch.float64)])
    torch.testing.assert_close(table.time(table.log_snr(times)), times, rtol=0, atol=1e-9)
    ends = table.time(torch.tensor([torch.inf, 1e9, -1e9, -torch.inf], dtype=torch.float64))
    assert ends.tolist() == [0.0, 0.0, 1.0, 1.0]


@given(TABLES)
@settings(max_examples=60, deadline=None)
def test_time_of_alpha_is_exact_at_the_rows(table: BetaTable) -> None:
    levels = torch.cat([torch.ones(1, dtype=torch.float64), table.alpha_bars.sqrt()])
    assert torch.equal(table.time_of_alpha(levels), rows(table))


@given(TABLES)
@settings(max_examples=60, deadline=None)
def test_alpha_squared_at_the_rows_is_the_product_of_one_minus_beta(table: BetaTable) -> None:
    product = 1.0
    for n, beta in enumerate(table.betas.tolist(), start=1):
        product *= 1 - beta
        alpha = table.alpha(torch.tensor(n / table.steps, dtype=torch.float64))
        assert float(alpha) ** 2 == pytest.approx(product, rel=1e-11)


@given(TABLES, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_alpha_is_linear_between_the_rows(table: BetaTable, fraction: float) -> None:
    levels = torch.cat([torch.ones(1, dtype=torch.float64), table.alpha_bars.sqrt()])
    between = (torch.arange(table.steps, dtype=torch.float64) + fraction) / table.steps
    expected = levels[:-1] + fraction * (levels[1:] - levels[:-1])
    torch.testing.assert_close(table.alpha(between), expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 4)])
def test_values_are_float64_and_of_the_shape_of_t(shape: tuple[int, ...]) -> None:
    table, t = linear(1e-4, 0.02, 10), torch.full(shape, 0.3)
    values = table.alpha(t), table.sigma(t), table.log_snr(t), table.time(table.log_snr(t))
    assert all(value.shape == t.shape and value.dtype == torch.float64 for value in values)


def test_linear_schedule_is_evenly_spaced_and_keeps_its_ends() -> None:
    betas = linear(1e-4, 0.02, 1000).betas
    assert (float(betas[0]), float(betas[-1])) == pytest.approx((1e-4, 0.02), rel=1e-15)
    torch.testing.assert_close(betas.diff(), torch.full_like(betas[1:], (0.02 - 1e-4) / 999))
    assert linear(0.1, 0.2, 1).steps == 1


@pytest.mark.parametrize(
    "betas",
    [
        [], [0.0], [1.0], [-0.1], [0.1, float("nan")], [float("inf")],
        [1e-20],  # 1 - beta rounds to 1: no noise at all
        [0.999] * 2000,  # alpha underflows to 0 long before the end
    ],
)  # fmt: skip
def test_betas_without_a_falling_signal_to_noise_ratio_are_refused(betas: list[float]) -> None:
    with pytest.raises(InputError, match="betas: "):
        BetaTable(betas)


@pytest.mark.parametrize(("start", "end", "steps"), [(1e-4, 0.02, 0), (0.0, 0.02, 10), (1e-4, 1.0, 10)])
def test_linear_schedule_of_no_steps_or_impossible_betas_is_refused(
    start: float, end: float, steps: int
) -> None:
    with pytest.raises(InputError, match="expected"):
        linear(start, end, steps)
