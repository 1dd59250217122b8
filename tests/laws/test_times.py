"""Grids fall from noise to signal; published schedules land on the steps that their papers' tables give."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audiodiff.diffusion import times as module
from audiodiff.diffusion.continuous import VPSDE, Cosine, Flow, Karras, LogSnrShift
from audiodiff.diffusion.denoiser import StepIndex
from audiodiff.diffusion.process import noise_ratio
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.schedules import (
    BetaTable,
    NoiseSchedule,
    VariancePreserving,
    linear,
    zero_terminal_snr,
)
from audiodiff.diffusion.times import (
    FAST_SCHEDULES,
    BetaGrid,
    Grid,
    GridTimes,
    KarrasGrid,
    LeadingGrid,
    LinspaceGrid,
    LogNormalRatio,
    LogSnrGrid,
    StratifiedTime,
    TableGrid,
    TimeDensity,
    TimesGrid,
    UniformGrid,
    UniformSteps,
    UniformTime,
    published_grid,
)
from audiodiff.errors import InputError
from tests.laws.schedule_examples import BASE, EVERY, LARGE, WAVEGRAD, leaves_no_signal, scalar

FASTDIFF = linear(1e-6, 0.01, 1000)
FREGRAD = zero_terminal_snr(BASE, remaining=1e-4)
TABLE_OF = {
    "diffwave-base": BASE,
    "diffwave-large": LARGE,
    "priorgrad": BASE,
    "priorgrad-acoustic": linear(1e-4, 0.05, 400),
    "fregrad": FREGRAD,
    "wavegrad": WAVEGRAD,
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


def classes_with(*arguments: str) -> set[str]:
    """Returns the dataclasses of the module whose call takes these arguments."""
    return {
        name
        for name, member in inspect.getmembers(module, inspect.isclass)
        if member.__module__ == module.__name__ and "__dataclass_fields__" in vars(member)
        and list(inspect.signature(member.__call__).parameters)[1:] == list(arguments)
    }  # fmt: skip


GRIDS: dict[str, Callable[[int], Grid]] = {
    "UniformGrid": UniformGrid,
    "LinspaceGrid": LinspaceGrid,
    "LeadingGrid": LeadingGrid,
    "LogSnrGrid": LogSnrGrid,
    "KarrasGrid": KarrasGrid,
    "TableGrid": lambda steps: TableGrid(),
    "TimesGrid": lambda steps: TimesGrid(tuple(1 - step / steps for step in range(steps))),
    "BetaGrid": lambda steps: BetaGrid((0.02,) * steps),
}
DENSITIES: dict[str, TimeDensity] = {
    "UniformSteps": UniformSteps(),
    "UniformTime": UniformTime(),
    "StratifiedTime": StratifiedTime(),
    "LogNormalRatio": LogNormalRatio(),
    "GridTimes": GridTimes(LinspaceGrid(7)),
}


def table_of(name: str) -> BetaTable:
    return TABLE_OF[name.rsplit("-", 1)[0].removesuffix("-lj").removesuffix("-vctk")]


def falls(schedule: NoiseSchedule, grid: Grid) -> torch.Tensor:
    """Returns the grid's times, which fall strictly to 0, as Sampler also finds."""
    times = grid(schedule)
    assert times.dtype == torch.float64
    assert 0 < float(times[0]) <= 1
    assert float(times[-1]) == 0
    assert bool((times.diff() < 0).all())
    assert torch.equal(Sampler(DDIM(), grid).times(schedule), times)
    return times


def accepts(name: str, schedule: NoiseSchedule, steps: int) -> bool:
    """What the documentation of a grid says of the schedules that it is for."""
    table = isinstance(schedule, BetaTable)
    if name in ("UniformGrid", "TimesGrid"):
        return True
    if name == "LinspaceGrid":
        return schedule.earliest < 1 or steps == 1
    if name == "TableGrid":
        return table
    if name == "LeadingGrid":
        return isinstance(schedule, BetaTable) and steps <= schedule.steps
    if name in ("LogSnrGrid", "KarrasGrid"):
        return not leaves_no_signal(schedule) and schedule.earliest < 1
    alphas = torch.cumprod(torch.full((steps,), 0.98, dtype=torch.float64), 0).sqrt()
    last = float(schedule.alpha(scalar(1.0)))
    return isinstance(schedule, VariancePreserving) and int((alphas < last).sum()) <= 1


def test_every_grid_and_every_density_of_the_library_is_tested_here() -> None:
    assert classes_with("schedule") == set(GRIDS)
    assert classes_with("size", "schedule", "generator") == set(DENSITIES)


# Every grid on every schedule.


@pytest.mark.filterwarnings("ignore:the noisiest level of the fast schedule")
@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("schedule", EVERY)
def test_grid_falls_strictly_to_zero_or_says_why_it_cannot(schedule: NoiseSchedule, name: str) -> None:
    for steps in (1, 2, 3, 12, 50, 300):
        grid = GRIDS[name](steps)
        if accepts(name, schedule, steps):
            times = falls(schedule, grid)
            expected = schedule.steps if isinstance(schedule, BetaTable) and name == "TableGrid" else steps
            assert len(times) == expected + 1
            if name not in ("LeadingGrid", "BetaGrid"):
                assert float(times[0]) == 1
        else:
            with pytest.raises(InputError):
                Sampler(DDIM(), grid).times(schedule)


@given(st.integers(1, 300), st.lists(st.floats(1e-5, 0.3), min_size=2, max_size=30).map(BetaTable))
@settings(max_examples=40, deadline=None)
def test_grids_fall_strictly_from_one_to_zero_on_any_table(steps: int, schedule: BetaTable) -> None:
    for name in ("UniformGrid", "LinspaceGrid", "LogSnrGrid", "KarrasGrid", "TableGrid"):
        times = falls(schedule, GRIDS[name](steps))
        assert float(times[0]) == 1
        if name in ("LinspaceGrid", "LogSnrGrid", "KarrasGrid") and steps > 1:
            assert float(times[-2]) == pytest.approx(schedule.earliest, abs=1e-11)


def test_uniform_grid_is_evenly_spaced() -> None:
    assert UniformGrid(4)(Cosine()).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_linspace_grid_is_even_over_the_rows_of_a_table() -> None:
    # 5 of 1000 rows, as "linspace" of published code: 999, 749.25, ..., 0 counted from 0.
    rows = StepIndex()(FASTDIFF, LinspaceGrid(5)(FASTDIFF)[:-1])
    torch.testing.assert_close(rows.tolist(), [999.0, 749.25, 499.5, 249.75, 0.0], rtol=0, atol=1e-9)
    assert LinspaceGrid(1)(FASTDIFF).tolist() == [1, 0]


def test_leading_grid_is_every_kth_row_from_the_first() -> None:
    rows = StepIndex()(FASTDIFF, LeadingGrid(10)(FASTDIFF)[:-1])
    torch.testing.assert_close(rows, torch.arange(900, -1, -100).double(), rtol=0, atol=1e-9)
    rows = StepIndex()(BASE, LeadingGrid(3)(BASE)[:-1])  # 50 // 3 = 16
    torch.testing.assert_close(rows.tolist(), [32.0, 16.0, 0.0], rtol=0, atol=1e-12)


def test_table_grid_is_every_row_of_the_table() -> None:
    torch.testing.assert_close(StepIndex()(BASE, TableGrid()(BASE)[:-1]).flip(0), torch.arange(50.0).double())


@pytest.mark.parametrize("schedule", [LARGE, VPSDE(), Karras(), LogSnrShift(LARGE, -2.0)])
@pytest.mark.parametrize("steps", [2, 3, 12])
def test_log_snr_grid_is_even_in_log_snr_down_to_the_earliest_time(
    schedule: NoiseSchedule, steps: int
) -> None:
    times = LogSnrGrid(steps)(schedule)
    levels = schedule.log_snr(times[:-1])
    torch.testing.assert_close(levels.diff(), (levels[-1] - levels[0]).expand(steps - 1) / (steps - 1))
    assert float(times[-2]) == pytest.approx(schedule.earliest, abs=1e-12)


@pytest.mark.parametrize(
    "schedule", [Karras(80.0, 7.0), Karras(100.0, 0.5), Flow(), Cosine(), VPSDE(0.0, 30.0)]
)
def test_karras_grid_has_the_levels_of_edm_on_any_schedule_that_reaches_them(schedule: NoiseSchedule) -> None:
    levels = noise_ratio(schedule, KarrasGrid(18, 7.0, 0.002, 80.0)(schedule))
    steps = [80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7)) for i in range(18)]  # eq. 5
    torch.testing.assert_close(levels.tolist(), [step**7 for step in steps] + [0.0], rtol=1e-7, atol=0)


@pytest.mark.parametrize("grid", [LogSnrGrid, KarrasGrid])
def test_grid_between_given_levels_goes_from_one_to_the_other(grid: type[KarrasGrid]) -> None:
    for schedule in (Cosine(), zero_terminal_snr(BASE), Karras(), Flow()):
        times = falls(schedule, grid(9, ratio_min=0.05, ratio_max=20.0))
        ends = noise_ratio(schedule, times[[0, -2]])
        torch.testing.assert_close(ends.tolist(), [20.0, 0.05], rtol=1e-9, atol=0)
        one = falls(schedule, grid(1, ratio_min=0.05, ratio_max=20.0))
        assert float(noise_ratio(schedule, one[0])) == pytest.approx(20.0, rel=1e-9)


def test_default_grids_do_not_spend_steps_below_the_least_noise_of_edm() -> None:
    for grid in (KarrasGrid(18), LogSnrGrid(18), LinspaceGrid(18)):
        levels = noise_ratio(Karras(), grid(Karras()))
        assert float(levels[-2]) == pytest.approx(0.002, rel=1e-9)


@pytest.mark.parametrize(
    ("grid", "schedule", "message"),
    [
        *((GRIDS[name](steps), BASE, f"got {steps}, expected at least 1")
          for name in ("UniformGrid", "LinspaceGrid", "LeadingGrid", "LogSnrGrid", "KarrasGrid")
          for steps in (0, -3)),
        (KarrasGrid(5, rho=0.0), BASE, "rho: got 0.0, expected a number above 0"),
        (KarrasGrid(5, rho=-7.0), BASE, "rho: got"),
        (KarrasGrid(5, rho=math.nan), BASE, "rho: got nan"),
        (KarrasGrid(5, rho=1e-4), BASE, "grid: got"),
        (KarrasGrid(5), Cosine(), "leaves no signal at t = 1, .* give the grid a ratio_max"),
        (LogSnrGrid(5), Flow(), "leaves no signal at t = 1"),
        (LogSnrGrid(5, ratio_max=math.inf), Flow(), "ratio_max inf, expected"),
        (LogSnrGrid(5, ratio_max=math.nan), BASE, "ratio_max nan, expected"),
        (LogSnrGrid(5, ratio_min=0.0), BASE, "ratio_min 0 and"),
        (LogSnrGrid(5, ratio_min=-1.0), BASE, "ratio_min -1 and"),
        (KarrasGrid(5, ratio_min=2.0, ratio_max=1.0), BASE, "expected 0 < ratio_min < ratio_max"),
        (KarrasGrid(5, ratio_max=1e4), BASE, "expected levels within those of the schedule, 0 to 1.6"),
        (LogSnrGrid(5, ratio_min=1e-6), Flow(1e-3), "ratio_max, or choose a uniform grid"),
        (LogSnrGrid(5, 1e-6, 10.0), Flow(1e-3), "expected levels within those of the schedule, 0.001 to inf"),
        (LeadingGrid(51), BASE, "51 steps of a table with 50 rows; choose at most 50"),
        (LeadingGrid(5), Cosine(), "leading grid: needs a schedule with rows"),
        (TableGrid(), Flow(), "table grid: needs a schedule with rows"),
        (BetaGrid((0.1, 0.2)), Flow(), "variance-preserving schedule, got Flow; choose a uniform"),
        (BetaGrid((0.1, 1.2)), BASE, "betas: got"),
        (BetaGrid(()), BASE, "betas: got"),
        (TimesGrid((0.5, 0.5)), BASE, "grid: got times 0.5, 0.5, 0..., expected numbers that fall strictly"),
        (TimesGrid((0.5, 0.7)), BASE, "fall strictly"),
        (TimesGrid((0.5, 0.0, 0.0)), BASE, "fall strictly"),
        (TimesGrid((1.5, 0.5)), BASE, "from at most 1 to 0"),
        (TimesGrid((0.5, -0.5)), BASE, "grid: got times"),
        (TimesGrid((math.nan, 0.5)), BASE, "grid: got times nan"),
        (TimesGrid(()), BASE, r"got 1 time\(s\), expected two or more"),
        (TimesGrid((0.0,)), BASE, r"got 1 time\(s\), expected two or more"),
        (LinspaceGrid(3), BetaTable([0.5]), "fall strictly"),
    ],
)  # fmt: skip
def test_impossible_grid_is_refused(grid: Grid, schedule: NoiseSchedule, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampler(DDIM(), grid).times(schedule)


def test_own_times_stay_as_they_are_and_end_at_zero() -> None:
    assert TimesGrid((0.9, 0.4))(BASE).tolist() == [0.9, 0.4, 0]
    assert TimesGrid((0.9, 0.4, 0.0))(BASE).tolist() == [0.9, 0.4, 0]


# Published fast schedules.


@pytest.mark.parametrize("name", FAST_SCHEDULES)
def test_published_schedule_keeps_its_own_levels_on_its_table(name: str) -> None:
    schedule = table_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        times = falls(schedule, published_grid(name))
    assert len(times) == len(FAST_SCHEDULES[name]) + 1
    product = torch.cumprod(1 - torch.tensor(FAST_SCHEDULES[name], dtype=torch.float64), 0)
    torch.testing.assert_close(schedule.alpha(times[:-1]).flip(0), product.sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("schedule", [Cosine(), VPSDE(), LogSnrShift(Cosine(), -1.0)])
@pytest.mark.parametrize("name", FAST_SCHEDULES)
def test_published_schedule_keeps_its_own_levels_on_a_schedule_without_rows(
    name: str, schedule: VariancePreserving
) -> None:
    times = falls(schedule, published_grid(name))
    product = torch.cumprod(1 - torch.tensor(FAST_SCHEDULES[name], dtype=torch.float64), 0)
    torch.testing.assert_close(schedule.alpha(times[:-1]).flip(0), product.sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ALIGNED)
def test_published_schedule_meets_the_aligned_steps_of_its_table(name: str) -> None:
    schedule = table_of(name)
    steps = StepIndex()(schedule, published_grid(name)(schedule)[:-1]).flip(0)
    for found, printed in zip(steps.tolist(), ALIGNED[name], strict=True):
        digits = len(f"{printed}".partition(".")[2])
        assert found == pytest.approx(printed, abs=0.51 * 10**-digits if printed else 1e-9)


@pytest.mark.parametrize("name", FAST_SCHEDULES)
def test_published_schedule_meets_the_rule_of_the_released_code_where_it_finds_a_step(name: str) -> None:
    schedule = table_of(name)
    steps = StepIndex()(schedule, published_grid(name)(schedule)[:-1]).flip(0).tolist()
    trained = np.sqrt(np.cumprod(1 - schedule.betas.numpy()))
    levels = np.sqrt(np.cumprod(1 - np.array(FAST_SCHEDULES[name])))
    for level, step in zip(levels, steps, strict=True):
        # Kong et al. 2021, appendix B, row by row; a level above the first row has no step and counts as row 0.
        row = int(np.searchsorted(-trained, -level, side="left")) - 1
        if row < 0:
            assert step == 0
            continue
        expected = row + (trained[row] - level) / (trained[row] - trained[row + 1])
        assert step == pytest.approx(expected, abs=1e-8)


def test_six_steps_of_diffwave_have_the_levels_of_their_betas() -> None:
    levels = BASE.alpha(published_grid("diffwave-base-6")(BASE)[:-1]).flip(0)
    assert levels.tolist() == pytest.approx(
        [0.99995, 0.99945, 0.99444, 0.96926, 0.86693, 0.61301], abs=5.1e-6
    )


def test_a_level_noisier_than_the_table_becomes_its_last_row_with_a_warning() -> None:
    short = BetaTable([1e-4] * 20)
    with pytest.warns(UserWarning, match="set to t = 1"):
        times = BetaGrid((1e-4, 1e-3, 0.5))(short)
    assert len(times) == 4
    assert bool((times.diff() < 0).all())
    assert (float(times[0]), float(times[-1])) == (1, 0)


def test_two_levels_noisier_than_the_table_are_refused() -> None:
    with pytest.raises(InputError, match="2 of its 6 levels are noisier than this model's noisiest level"):
        published_grid("diffwave-base-6")(BetaTable([1e-2] * 10))


def test_published_schedule_needs_levels_that_alpha_alone_tells() -> None:
    for schedule in (Karras(), Flow()):
        with pytest.raises(InputError, match=f"variance-preserving schedule, got {type(schedule).__name__}"):
            published_grid("diffwave-base-6")(schedule)


def test_unknown_published_schedule_lists_the_choices() -> None:
    with pytest.raises(InputError, match="diffwave-base-6, diffwave-large-6") as caught:
        published_grid("diffwave-7")
    assert all(name in str(caught.value) for name in FAST_SCHEDULES)


# Densities.


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("schedule", EVERY)
def test_training_times_lie_in_zero_to_one_and_depend_on_the_generator_alone(
    schedule: NoiseSchedule, name: str
) -> None:
    density = DENSITIES[name]
    if name == "UniformSteps" and not isinstance(schedule, BetaTable):
        with pytest.raises(InputError, match="density UniformSteps: needs a schedule with rows"):
            density(5, schedule, torch.Generator())
        return
    torch.manual_seed(1)
    first = density(500, schedule, torch.Generator().manual_seed(3))
    torch.manual_seed(2)
    again = density(500, schedule, torch.Generator().manual_seed(3))
    other = density(500, schedule, torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other) or schedule.earliest == 1  # one row: nothing to choose
    assert first.shape == (500,)
    assert first.dtype == torch.float64
    assert bool(((first > 0) & (first <= 1)).all())
    assert bool((schedule.sigma(first) > 0).all())


def test_uniform_steps_draw_every_row_equally_often() -> None:
    rows = UniformSteps()(50_000, BASE, torch.Generator().manual_seed(0)) * 50
    torch.testing.assert_close(rows, rows.round(), rtol=0, atol=1e-12)
    counts = torch.bincount(rows.round().long(), minlength=51)
    assert int(counts[0]) == 0
    # Each count is binomial: mean 1000, deviation 31; no row leaves five deviations.
    assert bool(((counts[1:] - 1000).abs() < 5 * 31.3).all())


def test_uniform_time_on_a_table_is_the_noise_level_of_wavegrad() -> None:
    """Chen et al. 2021, algorithm 1: a row s is uniform, sqrt(alpha-bar) uniform between rows s - 1 and s."""
    draws = UniformTime()(50_000, BASE, torch.Generator().manual_seed(0))
    alpha = BASE.alpha(draws).numpy()
    levels = np.concatenate([[1.0], BASE.alpha_bars.sqrt().numpy()])
    row = np.searchsorted(-levels, -alpha).clip(1, 50)
    counts = np.bincount(row, minlength=51)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3
    within = (levels[row - 1] - alpha) / (levels[row - 1] - levels[row])
    for chosen in (within, within[row == 1], within[row == 25], within[row == 50]):
        assert stats.kstest(chosen, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(row, within)[0, 1]) < 5 / len(row) ** 0.5


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


@pytest.mark.parametrize("schedule", [Karras(1e4, 7.0), Flow(), Cosine(), LogSnrShift(VPSDE(0.0, 40.0), 0.0)])
def test_log_normal_ratio_has_its_moments_on_every_schedule_that_reaches_its_levels(
    schedule: NoiseSchedule,
) -> None:
    size = 20_000
    times = LogNormalRatio(mean=-1.2, std=1.2)(size, schedule, torch.Generator().manual_seed(0))
    logs = noise_ratio(schedule, times).log()
    assert float(logs.mean()) == pytest.approx(-1.2, abs=5 * 1.2 / size**0.5)
    assert float(logs.std()) == pytest.approx(1.2, rel=5 / (2 * size) ** 0.5)
    assert stats.kstest(((logs + 1.2) / 1.2).numpy(), "norm").pvalue > 1e-3


def test_log_normal_ratio_beyond_the_noisiest_level_is_that_level() -> None:
    times = LogNormalRatio(mean=3.0, std=1.0)(2000, BASE, torch.Generator().manual_seed(0))
    share = float((times == 1).double().mean())
    limit = float(noise_ratio(BASE, scalar(1.0)).log())
    expected = 1 - stats.norm.cdf(limit - 3.0)
    assert share == pytest.approx(expected, abs=5 * (expected * (1 - expected) / 2000) ** 0.5)


@pytest.mark.parametrize(
    "grid", [UniformGrid(7), KarrasGrid(4), published_grid("diffwave-base-6"), TimesGrid((0.9, 0.4))]
)
def test_grid_times_are_drawn_equally_often_from_the_grid_without_zero(grid: Grid) -> None:
    choices = grid(BASE)[:-1]
    drawn = GridTimes(grid)(7000, BASE, torch.Generator().manual_seed(0))
    found, counts = drawn.unique(return_counts=True)
    assert torch.equal(found, choices.sort().values)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
