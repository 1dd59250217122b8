"""Laws of every schedule, exact values of the published ones, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiodiff.diffusion.continuous import VPSDE, Cosine, Flow, Karras, LogSnrShift, Sigmoid
from audiodiff.diffusion.schedules import (
    BetaTable,
    NoiseSchedule,
    VariancePreserving,
    checked_time,
    cosine_table,
    linear,
    power,
    table_of,
    zero_terminal_snr,
)
from audiodiff.errors import InputError
from tests.laws.schedule_examples import (
    BASE,
    DRAWN,
    EVERY,
    FAMILIES,
    FIXED,
    LARGE,
    MAKERS,
    has_no_noise_at_zero,
    leaves_no_signal,
    preserves_variance,
    scalar,
)

TABLES = st.lists(st.floats(1e-5, 0.5), min_size=1, max_size=40).map(BetaTable)
TIMES = torch.linspace(0, 1, 301, dtype=torch.float64)[1:]
NEAR_THE_ENDS = torch.tensor([0, 1e-12, 1e-8, 1e-6, 1 - 1e-6, 1 - 1e-8, 1 - 1e-12, 1], dtype=torch.float64)

every_schedule = pytest.mark.parametrize("family", FAMILIES)
Family = st.SearchStrategy[NoiseSchedule]


def rows(table: BetaTable) -> Tensor:
    return torch.arange(table.steps + 1, dtype=torch.float64) / table.steps


def test_every_schedule_of_the_library_has_examples() -> None:
    assert set(MAKERS) == set(FIXED) == set(DRAWN)


@every_schedule
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_signal_to_noise_ratio_falls_strictly(family: Family, data: st.DataObject) -> None:
    schedule = data.draw(family)
    assert bool((schedule.log_snr(TIMES).diff() < 0).all())
    assert bool((schedule.log_snr(NEAR_THE_ENDS[1:-1]).diff() < 0).all())


@every_schedule
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_log_snr_is_that_of_alpha_and_sigma_and_infinite_where_one_of_them_is_zero(
    family: Family, data: st.DataObject
) -> None:
    schedule = data.draw(family)
    expected = 2 * (schedule.alpha(TIMES[:-1]) / schedule.sigma(TIMES[:-1])).log()
    torch.testing.assert_close(schedule.log_snr(TIMES[:-1]), expected, rtol=1e-12, atol=1e-12)
    start, end = schedule.log_snr(torch.tensor([0.0, 1.0])).tolist()
    assert (start == math.inf) == has_no_noise_at_zero(schedule)
    assert (end == -math.inf) == leaves_no_signal(schedule)
    assert float(schedule.alpha(torch.zeros(()))) == 1.0


@every_schedule
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_time_inverts_log_snr_also_at_the_ends(family: Family, data: st.DataObject) -> None:
    schedule = data.draw(family)
    times = torch.cat([TIMES, NEAR_THE_ENDS])
    if isinstance(schedule, BetaTable):
        times = torch.cat([times, rows(schedule)])
    torch.testing.assert_close(schedule.time(schedule.log_snr(times)), times, rtol=0, atol=1e-9)
    ends = schedule.time(torch.tensor([math.inf, 1e9, -1e9, -math.inf], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 0.0, 1.0, 1.0]).double(), rtol=0, atol=2e-15)
    if isinstance(schedule, BetaTable):
        assert ends.tolist() == [0.0, 0.0, 1.0, 1.0]


@every_schedule
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_time_of_alpha_inverts_alpha(family: Family, data: st.DataObject) -> None:
    schedule = data.draw(family)
    if isinstance(schedule, VariancePreserving):
        times = torch.cat([TIMES, torch.tensor([0.0, 1.0])])
        # alpha rounds to 1e-16; over a slope of 1e-5 that is 1e-11 of t.
        torch.testing.assert_close(schedule.time_of_alpha(schedule.alpha(times)), times, rtol=0, atol=1e-9)
        ends = schedule.time_of_alpha(torch.tensor([1.0, 1 + 1e-7, 0.0]))
        torch.testing.assert_close(ends, torch.tensor([0.0, 0.0, 1.0]).double(), rtol=0, atol=2e-15)


@every_schedule
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_variance_is_preserved_by_the_schedules_that_say_so(family: Family, data: st.DataObject) -> None:
    schedule = data.draw(family)
    if preserves_variance(schedule):
        times = torch.cat([TIMES, NEAR_THE_ENDS])
        total = schedule.alpha(times) ** 2 + schedule.sigma(times) ** 2
        torch.testing.assert_close(total, torch.ones_like(times), rtol=0, atol=1e-15)


@every_schedule
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_what_vanishes_at_an_end_keeps_its_digits_on_the_way(family: Family, data: st.DataObject) -> None:
    schedule = data.draw(family)
    distance = 2.0 ** -torch.arange(36, 41, dtype=torch.float64)  # 1 - distance is exact
    vanishing = []
    if has_no_noise_at_zero(schedule):
        vanishing.append(schedule.sigma(distance))
    if leaves_no_signal(schedule):
        vanishing.append(schedule.alpha(1 - distance))
    for value in vanishing:
        # c u^p (1 + a u): every halving of u divides by the same number, but for a u, below 1e4 * 2^-36.
        halvings = value[:-1] / value[1:]
        torch.testing.assert_close(halvings[1:], halvings[:-1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("schedule", EVERY)
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 4), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_float64_and_of_the_shape_of_t(
    schedule: NoiseSchedule, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    t = torch.full(shape, 0.3, dtype=dtype)
    values = [schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t), schedule.time(schedule.log_snr(t))]
    values.append(schedule.time(schedule.log_snr(t).float()))
    if isinstance(schedule, VariancePreserving):
        values.append(schedule.time_of_alpha(t))
    assert all(value.shape == t.shape and value.dtype == torch.float64 for value in values)


@pytest.mark.parametrize("schedule", EVERY)
@pytest.mark.parametrize("time", [-1e-6, 1 + 1e-6, 200.0, math.nan, -math.inf])
def test_time_outside_zero_to_one_is_refused(schedule: NoiseSchedule, time: float) -> None:
    for function in (schedule.alpha, schedule.sigma, schedule.log_snr):
        with pytest.raises(InputError, match=r"time: got .* expected 0 \(clean\) to 1 \(noise\)"):
            function(torch.tensor([0.5, time], dtype=torch.float64))


def test_time_outside_by_rounding_is_the_end_itself() -> None:
    t = torch.tensor([-1e-12, 1 + 1e-12], dtype=torch.float64)
    assert checked_time(t).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("schedule", EVERY)
def test_earliest_time_is_above_zero_and_holds_little_noise(schedule: NoiseSchedule) -> None:
    earliest = scalar(schedule.earliest)
    assert 0 < schedule.earliest <= 1
    if isinstance(schedule, BetaTable):
        assert schedule.earliest * schedule.steps == 1
    elif isinstance(schedule, Karras):
        # Nothing below the least noise of Karras et al. 2022, where a grid would spend its steps for nothing.
        assert float(schedule.sigma(earliest)) == pytest.approx(0.002, rel=1e-12)
    elif not isinstance(schedule, LogSnrShift) and has_no_noise_at_zero(schedule):
        assert schedule.earliest == 1e-3


def test_shifted_schedule_keeps_the_earliest_time_of_its_own() -> None:
    assert LogSnrShift(BASE, 1.0).earliest == 1 / 50


# Tables.


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
        assert float(table.alpha_bars[n - 1]) == pytest.approx(product, rel=1e-13)
        alpha = table.alpha(torch.tensor(n / table.steps, dtype=torch.float64))
        assert float(alpha) ** 2 == pytest.approx(product, rel=1e-11)


@given(TABLES, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_alpha_is_linear_between_the_rows(table: BetaTable, fraction: float) -> None:
    levels = torch.cat([torch.ones(1, dtype=torch.float64), table.alpha_bars.sqrt()])
    between = (torch.arange(table.steps, dtype=torch.float64) + fraction) / table.steps
    expected = levels[:-1] + fraction * (levels[1:] - levels[:-1])
    torch.testing.assert_close(table.alpha(between), expected, rtol=1e-11, atol=1e-14)


def test_sigma_of_the_first_row_is_the_root_of_its_beta_to_the_last_digit() -> None:
    table = linear(1e-6, 0.01, 1000)
    assert float(table.sigma(scalar(1e-3))) == pytest.approx(1e-3, rel=1e-15)


@pytest.mark.parametrize(("steps", "beta_end", "left"), [
    (20, 0.05, 0.6006), (40, 0.05, 0.3608), (50, 0.05, 0.2797), (200, 0.02, 0.1322)
])  # fmt: skip
def test_tables_of_diffwave_leave_the_signal_they_are_known_for(
    steps: int, beta_end: float, left: float
) -> None:
    alpha = linear(1e-4, beta_end, steps).alpha(scalar(1.0))
    assert float(alpha) ** 2 == pytest.approx(left, abs=5.1e-5)


def test_linear_schedule_is_evenly_spaced_and_keeps_its_ends() -> None:
    betas = linear(1e-4, 0.02, 1000).betas
    assert (float(betas[0]), float(betas[-1])) == pytest.approx((1e-4, 0.02), rel=1e-15)
    torch.testing.assert_close(betas.diff(), torch.full_like(betas[1:], (0.02 - 1e-4) / 999))
    assert linear(0.1, 0.2, 1).steps == 1


@pytest.mark.parametrize("exponent", [0.5, 1.0, 7.5])
def test_power_schedule_is_evenly_spaced_in_the_root_of_beta(exponent: float) -> None:
    betas = power(1e-5, 0.029, 1000, exponent).betas
    assert (float(betas[0]), float(betas[-1])) == pytest.approx((1e-5, 0.029), rel=1e-13)
    for index in (1, 250, 500, 998):
        root = 1e-5 ** (1 / exponent) * (999 - index) / 999 + 0.029 ** (1 / exponent) * index / 999
        assert float(betas[index]) == pytest.approx(root**exponent, rel=1e-12)


def test_cosine_table_has_the_betas_of_nichol_and_dhariwal() -> None:
    betas = cosine_table(1000).betas
    for n in (1, 2, 500, 998):
        ends = [math.cos((m / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for m in (n - 1, n)]
        assert float(betas[n - 1]) == pytest.approx(1 - ends[1] / ends[0], rel=1e-9)
    assert float(betas[-1]) == 0.999
    assert bool((betas[:-1] < 0.999).all())


def test_zero_terminal_table_keeps_its_first_row_and_spaces_the_others_as_before() -> None:
    before, after = BASE.alpha_bars.sqrt(), zero_terminal_snr(BASE).alpha_bars.sqrt()
    assert float(after[0]) == pytest.approx(float(before[0]), rel=1e-15)
    assert float(after[-1]) == 0
    assert float(zero_terminal_snr(BASE).betas[-1]) == 1
    torch.testing.assert_close(after.diff() / after.diff().sum(), before.diff() / before.diff().sum())


def test_zero_terminal_table_of_fregrad_leaves_a_little_signal_and_has_its_published_betas() -> None:
    # anchors of its params.py, which subtracts sqrt(alpha-bar_T) - 1e-4 where Lin et al. subtract sqrt(alpha-bar_T).
    table = zero_terminal_snr(BASE, remaining=1e-4)
    first_and_last = [*table.betas[:3].tolist(), *table.betas[-3:].tolist()]
    assert first_and_last == pytest.approx([1e-4, 2.37e-3, 4.53e-3, 0.556, 0.749, 0.99995], rel=2e-3)
    before = BASE.alpha_bars.sqrt()
    left = 1e-4 * before[0] / (before[0] - before[-1] + 1e-4)
    assert float(table.alpha(scalar(1.0))) == pytest.approx(float(left), rel=1e-9)
    assert float(table.betas[-1]) == pytest.approx(0.99995, abs=5e-6)


def test_schedule_built_in_inference_mode_can_be_differentiated() -> None:
    with torch.inference_mode():
        table = linear(1e-4, 0.05, 50)
    t = scalar(0.33).requires_grad_()
    (slope,) = torch.autograd.grad(table.alpha(t), t)
    assert float(slope) < 0


# Formulas.


@pytest.mark.parametrize("offset", [0.0, 0.008])
def test_cosine_schedule_has_the_alpha_bar_of_nichol_and_dhariwal(offset: float) -> None:
    schedule = Cosine(offset)
    for t in (0.0, 1e-3, 0.25, 0.5, 0.9):
        angles = [(time + offset) / (1 + offset) * math.pi / 2 for time in (t, 0.0)]
        expected = math.cos(angles[0]) ** 2 / math.cos(angles[1]) ** 2
        assert float(schedule.alpha(scalar(t))) ** 2 == pytest.approx(expected, rel=1e-13)
    assert float(schedule.alpha(scalar(1.0))) == 0
    assert float(Cosine().sigma(scalar(2.0**-40))) == pytest.approx(math.pi / 2 * 2.0**-40, rel=1e-15)


def test_sigmoid_schedule_follows_algorithm_1_of_chen() -> None:
    for start, end, temperature in ((-3.0, 3.0, 1.0), (0.0, 3.0, 0.7)):
        schedule = Sigmoid(start, end, temperature)
        for t in (0.0, 0.1, 0.5, 0.9, 1.0):
            low, middle, high = (
                1 / (1 + math.exp(-p / temperature)) for p in (start, start + t * (end - start), end)
            )
            expected = (high - middle) / (high - low)
            assert float(schedule.alpha(scalar(t))) ** 2 == pytest.approx(expected, rel=1e-13, abs=1e-16)


def test_vpsde_has_the_cumulative_noise_of_grad_tts() -> None:
    schedule = VPSDE(0.05, 20.0)
    for t in (0.0, 1e-3, 0.4, 1.0):
        cumulative = 0.05 * t + 0.5 * (20.0 - 0.05) * t**2
        assert float(schedule.alpha(scalar(t))) == pytest.approx(math.exp(-cumulative / 2), rel=1e-14)
        assert float(schedule.sigma(scalar(t))) ** 2 == pytest.approx(-math.expm1(-cumulative), rel=1e-14)
    assert float(schedule.log_snr(scalar(1.0))) == pytest.approx(-10.025, abs=1e-4)


def test_karras_schedule_at_even_times_is_equation_5_with_sigma_min_zero() -> None:
    schedule, times = Karras(80.0, 7.0), torch.linspace(1, 0, 10, dtype=torch.float64)
    for index, sigma in enumerate(schedule.sigma(times).tolist()):
        assert sigma == pytest.approx((80 ** (1 / 7) * (1 - index / 9)) ** 7, rel=1e-12, abs=1e-12)
    assert schedule.alpha(times).tolist() == [1.0] * 10


@pytest.mark.parametrize("sigma_min", [0.0, 1e-4])
def test_flow_is_the_straight_path_with_time_reversed(sigma_min: float) -> None:
    schedule, t = Flow(sigma_min), TIMES
    torch.testing.assert_close(schedule.alpha(t), 1 - t, rtol=0, atol=0)
    # Lipman et al. 2023, eq. 22, at their time 1 - t: sigma = 1 - (1 - sigma_min) (1 - t).
    torch.testing.assert_close(schedule.sigma(t), 1 - (1 - sigma_min) * (1 - t), rtol=0, atol=1e-15)


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0])
def test_shifted_flow_is_equation_23_of_esser_and_moves_the_log_snr(shift: float) -> None:
    t = TIMES[:-1]
    moved = shift * t / (1 + (shift - 1) * t)
    torch.testing.assert_close(Flow(shift=shift).sigma(t), moved, rtol=1e-15, atol=0)
    torch.testing.assert_close(Flow(shift=shift).alpha(t), 1 - moved, rtol=0, atol=1e-15)
    difference = Flow(shift=shift).log_snr(t) - Flow().log_snr(t)
    torch.testing.assert_close(difference, torch.full_like(t, -2 * math.log(shift)), rtol=0, atol=1e-13)


@given(
    st.sampled_from([Cosine(), Cosine(0.008), VPSDE(), Sigmoid(), BASE, zero_terminal_snr(BASE)]),
    st.floats(-8, 8),
)
@settings(max_examples=40, deadline=None)
def test_shift_moves_the_log_snr_exactly(schedule: VariancePreserving, shift: float) -> None:
    moved = LogSnrShift(schedule, shift)
    assert torch.equal(moved.log_snr(TIMES), schedule.log_snr(TIMES) + shift)
    of_the_scales = 2 * (moved.alpha(TIMES[:-1]) / moved.sigma(TIMES[:-1])).log()
    torch.testing.assert_close(of_the_scales, schedule.log_snr(TIMES[:-1]) + shift, rtol=1e-12, atol=1e-12)


# What is refused.


@pytest.mark.parametrize(
    "betas",
    [
        [], [0.0], [-0.1], [1.1], [0.1, float("nan")], [float("inf")],
        [1.0, 0.1],  # only the last may be 1
        [1e-20],  # 1 - beta rounds to 1: no noise at all
        [0.999] * 2000,  # alpha underflows to 0 long before the end
    ],
)  # fmt: skip
def test_betas_without_a_falling_signal_to_noise_ratio_are_refused(betas: list[float]) -> None:
    with pytest.raises(InputError, match="betas: "):
        BetaTable(betas)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear(1e-4, 0.02, 0), "schedule steps: got 0, expected at least 1"),
        (lambda: linear(0.0, 0.02, 10), r"betas: got \[0.0, .* expected one or more numbers in \(0, 1\)"),
        (lambda: linear(1e-4, 1.1, 10), "expected one or more numbers"),
        (lambda: linear(-1e-4, 0.02, 10), "all must be > 0"),
        (lambda: power(1e-4, 0.02, 10, 0.0), "exponent 0.0"),
        (lambda: power(1e-4, 0.02, 10, math.nan), "betas: got"),
        (lambda: cosine_table(0), "schedule steps: got 0, expected at least 1"),
        (lambda: zero_terminal_snr(BetaTable([0.1])), "expected two rows or more"),
        (lambda: zero_terminal_snr(BASE, remaining=1.0), "remaining 1.0, expected"),
        (lambda: zero_terminal_snr(BASE, remaining=-1e-3), "remaining -0.001, expected"),
        (lambda: Cosine(-0.1), "cosine offset: got -0.1, expected 0 or more"),
        (lambda: Sigmoid(3.0, -3.0), "expected start < end"),
        (lambda: Sigmoid(temperature=0.0), "a temperature above 0"),
        (lambda: VPSDE(20.0, 0.05), "expected 0 <= beta_min < beta_max"),
        (lambda: Karras(0.0), "sigma_max, rho: got 0.0, 7.0, expected both above 0"),
        (lambda: Karras(80.0, -1.0), "expected both above 0"),
        (lambda: Flow(1.0), r"sigma_min in \[0, 1\)"),
        (lambda: Flow(shift=0.0), "a shift above 0"),
    ],
)
def test_impossible_parameters_are_refused(make: Callable[[], NoiseSchedule], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_part_that_needs_rows_names_itself_when_there_are_none() -> None:
    assert table_of(LARGE, "leading grid") is LARGE
    with pytest.raises(InputError, match=r"leading grid: needs a schedule with rows .* got Cosine"):
        table_of(Cosine(), "leading grid")
