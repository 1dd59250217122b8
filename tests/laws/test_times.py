"""Grids fall from noise to signal; published schedules land on the steps that their papers' tables give."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiodiff.diffusion.denoiser import StepIndex
from audiodiff.diffusion.schedules import BetaTable, NoiseSchedule, linear
from audiodiff.diffusion.times import (
    FAST_SCHEDULES,
    BetaGrid,
    Grid,
    LogSnrGrid,
    StratifiedTime,
    TableGrid,
    TimeDensity,
    UniformGrid,
    UniformSteps,
    published_grid,
)
from audiodiff.errors import InputError

BASE, LARGE = linear(1e-4, 0.05, 50), linear(1e-4, 0.02, 200)
FASTDIFF = linear(1e-6, 0.01, 1000)
TABLE_OF = {
    "diffwave-base": BASE,
    "diffwave-large": LARGE,
    "priorgrad": BASE,
    "fastdiff": FASTDIFF,
    "bddm": LARGE,
}
# Steps counted from 0 on the model's own table, computed by hand from the published betas (Kong et al. 2021,
# appendix B: t + (sqrt(abar_t) - sqrt(abar_s)) / (sqrt(abar_t) - sqrt(abar_t+1))), first row next to the signal.
ALIGNED = {
    "diffwave-base-6": (0, 0.8941, 4.0867, 10.4518, 22.9925, 42.9186),
    "diffwave-large-6": (0, 3.2007, 13.4303, 33.8203, 73.9825, 170.6051),
    "priorgrad-12": (0, 0.447, 1.085, 1.553, 3.214, 4.912, 6.464, 11.655, 17.087, 22.151, 30.219, 47.185),
    "fastdiff-3": (3.63, 42.1, 429.1),
    "fastdiff-4": (7.41, 23.47, 74.99, 498.05),
    "fastdiff-6": (0.071, 1.845, 9.017, 37.11, 144.5, 450.9),
    "fastdiff-8": (0, 0.881, 5.156, 22.00, 87.44, 314.6, 476.2, 603.9),
    "bddm-lj-7": (0.178, 3.29, 12.6, 54.3, 96.4, 126.5, 151.7),
}


def table_of(name: str) -> BetaTable:
    return TABLE_OF[name.rsplit("-", 1)[0].removesuffix("-lj").removesuffix("-vctk")]


def assert_falls_to_zero(times: torch.Tensor, steps: int) -> None:
    assert times.dtype == torch.float64
    assert times.shape == (steps + 1,)
    assert 0 < float(times[0]) <= 1
    assert float(times[-1]) == 0
    assert bool((times.diff() < 0).all())


@given(st.integers(1, 300), st.lists(st.floats(1e-5, 0.3), min_size=2, max_size=30).map(BetaTable))
@settings(max_examples=40, deadline=None)
def test_grids_fall_strictly_from_one_to_zero(steps: int, schedule: NoiseSchedule) -> None:
    grids: list[tuple[Grid, int]] = [
        (UniformGrid(steps), steps), (LogSnrGrid(steps), steps), (TableGrid(), schedule.steps)
    ]  # fmt: skip
    for grid, expected in grids:
        times = grid(schedule)
        assert_falls_to_zero(times, expected)
        assert float(times[0]) == 1


def test_table_grid_is_every_row_of_the_table() -> None:
    torch.testing.assert_close(StepIndex()(BASE, TableGrid()(BASE)[:-1]).flip(0), torch.arange(50.0).double())


@pytest.mark.parametrize("steps", [2, 3, 12])
def test_log_snr_grid_is_even_in_log_snr_down_to_the_first_row(steps: int) -> None:
    times = LogSnrGrid(steps)(LARGE)
    levels = LARGE.log_snr(times[:-1])
    torch.testing.assert_close(levels.diff(), (levels[-1] - levels[0]).expand(steps - 1) / (steps - 1))
    assert float(times[-2]) == pytest.approx(1 / LARGE.steps, abs=1e-12)


@pytest.mark.parametrize("name", FAST_SCHEDULES)
def test_published_schedule_keeps_its_own_levels_on_its_table(name: str) -> None:
    schedule = table_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        times = published_grid(name)(schedule)
    assert_falls_to_zero(times, len(FAST_SCHEDULES[name]))
    product = torch.cumprod(1 - torch.tensor(FAST_SCHEDULES[name], dtype=torch.float64), 0)
    torch.testing.assert_close(schedule.alpha(times[:-1]).flip(0), product.sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ALIGNED)
def test_published_schedule_meets_the_aligned_steps_of_its_table(name: str) -> None:
    schedule = table_of(name)
    steps = StepIndex()(schedule, published_grid(name)(schedule)[:-1]).flip(0)
    for found, printed in zip(steps.tolist(), ALIGNED[name], strict=True):
        digits = len(f"{printed}".partition(".")[2])
        assert found == pytest.approx(printed, abs=0.51 * 10**-digits if printed else 1e-9)


def test_a_level_noisier_than_the_table_becomes_its_last_row_with_a_warning() -> None:
    short = BetaTable([1e-4] * 20)
    with pytest.warns(UserWarning, match="set to t = 1"):
        times = BetaGrid((1e-4, 1e-3, 0.5))(short)
    assert_falls_to_zero(times, 3)
    assert float(times[0]) == 1


def test_two_levels_noisier_than_the_table_are_refused() -> None:
    with pytest.raises(InputError, match=r"2 of its 6 levels are noisier than the last row of .* 10"):
        published_grid("diffwave-base-6")(BetaTable([1e-2] * 10))


def test_published_schedule_needs_a_table() -> None:
    class Other:
        steps = 10

    with pytest.raises(InputError, match="beta table"):
        published_grid("diffwave-base-6")(Other())  # type: ignore[arg-type]


def test_unknown_published_schedule_lists_the_choices() -> None:
    with pytest.raises(InputError, match="diffwave-base-6, diffwave-large-6"):
        published_grid("diffwave-7")


@pytest.mark.parametrize("grid", [UniformGrid, LogSnrGrid])
@pytest.mark.parametrize("steps", [0, -3])
def test_grid_without_steps_is_refused(grid: type[UniformGrid], steps: int) -> None:
    with pytest.raises(InputError, match=f"got {steps}, expected at least 1"):
        grid(steps)(BASE)


@pytest.mark.parametrize("density", [UniformSteps(), StratifiedTime()])
def test_training_times_lie_in_zero_to_one_and_depend_on_the_generator_alone(density: TimeDensity) -> None:
    torch.manual_seed(1)
    first = density(500, BASE, torch.Generator().manual_seed(3))
    torch.manual_seed(2)
    again = density(500, BASE, torch.Generator().manual_seed(3))
    other = density(500, BASE, torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (500,)
    assert first.dtype == torch.float64
    assert bool(((first > 0) & (first <= 1)).all())


def test_uniform_steps_draw_every_row_equally_often() -> None:
    rows = UniformSteps()(50_000, BASE, torch.Generator().manual_seed(0)) * 50
    torch.testing.assert_close(rows, rows.round(), rtol=0, atol=1e-12)
    counts = torch.bincount(rows.round().long(), minlength=51)
    assert int(counts[0]) == 0
    # Each count is binomial: mean 1000, deviation 31; no row leaves five deviations.
    assert bool(((counts[1:] - 1000).abs() < 5 * 31.3).all())


@given(st.integers(1, 64), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_stratified_times_take_each_part_once(size: int, seed: int) -> None:
    times = StratifiedTime()(size, BASE, torch.Generator().manual_seed(seed))
    parts = (times * size).ceil().sort().values
    assert parts.tolist() == list(range(1, size + 1))


def test_stratified_times_are_uniform_and_in_random_order() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([StratifiedTime()(8, BASE, generator) for _ in range(4000)])
    # A uniform number's mean is 1/2 with deviation 1/sqrt(12 n): every place in the batch sees all of (0, 1].
    assert bool(((draws.mean(0) - 0.5).abs() < 5 / (12 * 4000) ** 0.5).all())
    assert bool(((draws.square().mean(0) - 1 / 3).abs() < 5 * 0.3 / 4000**0.5).all())
    # The first two items' parts lie any number of parts apart, not always neighbours.
    apart = ((draws[:, 0] - draws[:, 1]) * 8).round().long() % 8
    assert apart.unique().tolist() == list(range(1, 8))
