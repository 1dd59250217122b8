"""Laws of every sampler recipe and of the first-order steps, against exact answers for Gaussian data."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from audiodiff.diffusion import multistep, renoising, samplers, singlestep
from audiodiff.diffusion.constraints import Clip
from audiodiff.diffusion.continuous import Cosine, Karras
from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.guidance import Guidance, GuidedDenoise
from audiodiff.diffusion.multistep import PLMS, PNDM, CleanMultistep, NoiseMultistep, UniPC
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.process import (
    diffuse,
    epsilon_from_clean,
    noise_ratio,
    posterior,
    posterior_variance,
    transition_variance,
)
from audiodiff.diffusion.renoising import Churn
from audiodiff.diffusion.samplers import (
    DDIM,
    Ancestral,
    CFGPlusPlus,
    Consistency,
    GradTTSEuler,
    Sampler,
    Step,
    interpolated_log_variance,
)
from audiodiff.diffusion.schedules import NoiseSchedule, linear
from audiodiff.diffusion.singlestep import DPMSolverSinglestep, TimeHeun
from audiodiff.diffusion.times import Grid, LogSnrGrid, TableGrid, UniformGrid, published_grid
from audiodiff.errors import InputError
from audiodiff.types import Condition
from tests.laws.exact import (
    DETERMINISTIC,
    DEVIATION,
    MEAN,
    SAMPLERS,
    SCHEDULES,
    STOCHASTIC,
    Noise,
    draw,
    flow_map,
    gaussian,
    log_times,
    moments,
    no_noise,
    scalar,
    suited,
    walk,
    with_share,
)

SCHEDULE = SCHEDULES["table"]
STEPS = [Ancestral(), DDIM(), DDIM(0.5), DDIM(1.0)]
STEPPING_IN_TIME = (GradTTSEuler, TimeHeun)  # their steps are not exact for a constant clean estimate
every_sampler = pytest.mark.parametrize("name", list(SAMPLERS))


def steps_within(step: Any) -> Iterator[Any]:
    yield step
    if hasattr(step, "step"):
        yield from steps_within(step.step)


def test_every_step_and_every_rule_is_in_a_recipe() -> None:
    parts = [part for sampler in SAMPLERS.values() for part in steps_within(sampler.step)]
    used = {type(part).__name__ for part in parts} | {
        part.rule.func.__name__ for part in parts if hasattr(part, "rule")
    }
    moves, wanted = list(inspect.signature(Step.__call__).parameters), set()
    for module in (samplers, multistep, singlestep, renoising):
        for name, part in vars(module).items():
            if getattr(part, "__module__", "") != module.__name__ or name.startswith("_"):
                continue
            if inspect.isclass(part):
                call = part.__dict__.get("__call__")
                if part is not Step and call and list(inspect.signature(call).parameters) == moves:
                    wanted.add(name)
            elif callable(part) and list(inspect.signature(part).parameters) == ["ratios", "target"]:
                wanted.add(name)
    # Resampled takes a known signal, which no recipe holds; adams_bashforth is PLMS's, dpmpp_third dpmpp_3m's.
    assert wanted - used - {"Resampled", "adams_bashforth"} <= {"dpmpp_exact", "dpmpp_third"}
    assert not {"dpmpp_exact", "dpmpp_third"}.isdisjoint(used)
    assert "Step" not in used


# --- A denoiser that knows the signal ---


def exact_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """The recipes and schedules with which a step is exact for a constant clean estimate.

    Steps in t are not, but on the straight path of flow matching, where Heun's is.
    """
    pairs = [(name, kind) for name in names for kind in SCHEDULES]
    inexact = {name for name in names if isinstance(SAMPLERS[name].step, STEPPING_IN_TIME)}
    return [pair for pair in pairs if pair[0] not in inexact or pair == ("flow_heun", "flow")]


@pytest.mark.parametrize(("name", "kind"), exact_pairs(SAMPLERS))
def test_a_denoiser_that_knows_the_signal_leads_to_it(name: str, kind: str) -> None:
    schedule, clean, shape = SCHEDULES[kind], draw(2, 3, 4, seed=9), (2, 3, 4)
    step = SAMPLERS[name].step
    denoise = suited(name, lambda x, t: clean, schedule)
    times = torch.cat([log_times(schedule, 5, 20, 0.05), torch.zeros(1)])
    start = diffuse(schedule, clean, draw(*shape), times[0])
    x = walk(step, denoise, schedule, times, start, Noise(shape))
    torch.testing.assert_close(x, clean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "kind"), exact_pairs(DETERMINISTIC))
def test_a_deterministic_step_is_exact_for_a_constant_clean_estimate(name: str, kind: str) -> None:
    schedule, clean, noise = SCHEDULES[kind], draw(2, 3, 4, seed=9), draw(2, 3, 4)
    step = SAMPLERS[name].step
    times = log_times(schedule, 5, 20, 0.05)
    x = walk(
        step,
        suited(name, lambda x, t: clean, schedule),
        schedule,
        times,
        diffuse(schedule, clean, noise, times[0]),
    )
    torch.testing.assert_close(x, diffuse(schedule, clean, noise, times[-1]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("step", STEPS, ids=repr)
@pytest.mark.parametrize("grid", [UniformGrid(1), UniformGrid(5), LogSnrGrid(6), TableGrid()], ids=repr)
def test_first_order_steps_reach_the_signal_on_every_grid(step: Step, grid: Grid) -> None:
    clean = draw(2, 3, 4, seed=9)
    schedule = linear(1e-4, 0.02, 100)
    x = Sampler(step, grid)(lambda x, t: clean, schedule, draw(2, 3, 4), Noise((2, 3, 4)))
    torch.testing.assert_close(x, clean, rtol=1e-9, atol=1e-9)


# --- Order of convergence ---


def order_of(step: Any) -> int:
    """What theory says, with exact starting values and times evenly spaced in log-SNR."""
    if isinstance(step, DPMSolverSinglestep):
        return len(step.fractions) + 1
    if isinstance(step, NoiseMultistep | CleanMultistep):
        rule = step.rule.func  # type: ignore[attr-defined]
        return step.order if rule in (multistep.lms, multistep.deis, multistep.dpmpp_exact) else 2
    if isinstance(step, UniPC):
        return step.order + 1  # the corrector adds one (Zhao et al. 2023, theorem 3.1)
    if isinstance(step, DDIM | CFGPlusPlus | GradTTSEuler):
        return 1
    return 2  # Heun, TimeHeun, DPM2; PLMS and PNDM, whose weights are for times even in sigma / alpha


def measured_order(step: Step, name: str, kind: str, steps: int) -> float:
    schedule, errors = SCHEDULES[kind], []
    for count in (steps, 2 * steps):
        times = log_times(schedule, count, 1.5, 0.05)
        start = draw(1, 1, 4) * moments(schedule, times[0])[1] + moments(schedule, times[0])[0]

        def exact(t: Tensor, start: Tensor = start, first: Tensor = times[0]) -> Tensor:
            return flow_map(schedule, start, first, t)

        x = walk(step, suited(name, gaussian(schedule), schedule), schedule, times, start, no_noise, exact, 3)
        errors.append(float((x - exact(times[-1])).abs().max()))
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(
    # The slope in t of a table jumps at its rows.
    ("name", "kind"),
    [(n, k) for n in DETERMINISTIC for k in SCHEDULES if (n, k) != ("flow_heun", "table")],
)
def test_error_falls_with_the_order_of_the_method(name: str, kind: str) -> None:
    step = SAMPLERS[name].step
    assert measured_order(step, name, kind, 32) == pytest.approx(order_of(step), abs=0.4)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_exact_rule_of_the_clean_estimate_has_the_order_of_its_estimates(order: int) -> None:
    step = CleanMultistep(multistep.dpmpp_exact, order)
    assert measured_order(step, "ddim", "vpsde", 32) == pytest.approx(order, abs=0.4)


@pytest.mark.parametrize("step", [PLMS(), PNDM()], ids=repr)
def test_pseudo_linear_multistep_is_of_fourth_order_where_times_are_even_in_the_noise_level(
    step: Step,
) -> None:
    schedule, errors = Karras(sigma_max=3.0, rho=1.0), []
    for count in (40, 80):
        times = torch.linspace(1, 0.2, count + 1, dtype=torch.float64)
        start = draw(1, 1, 4) * 3

        def exact(t: Tensor, start: Tensor = start) -> Tensor:
            return flow_map(schedule, start, scalar(1.0), t)

        x = walk(step, gaussian(schedule), schedule, times, start, no_noise, exact, 3)
        errors.append(float((x - exact(times[-1])).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.5)


@pytest.mark.parametrize("name", [name for name in DETERMINISTIC if order_of(SAMPLERS[name].step) > 1])
def test_higher_orders_beat_ddim_from_their_own_start(name: str) -> None:
    schedule = SCHEDULES["vpsde"]
    times = log_times(schedule, 12, 8, 0.15)
    start = draw(1, 1, 4) * moments(schedule, times[0])[1]
    exact = flow_map(schedule, start, times[0], times[-1])

    def error(step: Step) -> float:
        return float((walk(step, gaussian(schedule), schedule, times, start) - exact).abs().max())

    assert error(SAMPLERS[name].step) < error(DDIM()) / 2


@pytest.mark.parametrize("grid", [UniformGrid, LogSnrGrid])
def test_ddim_converges_to_the_probability_flow_with_first_order(grid: Callable[[int], Grid]) -> None:
    x, one = draw(4, 2, 8), scalar(1.0)
    exact = flow_map(SCHEDULE, x, one, scalar(0.0))
    errors = [
        float((Sampler(DDIM(), grid(steps))(gaussian(SCHEDULE), SCHEDULE, x, no_noise) - exact).abs().max())
        for steps in (100, 200, 400)
    ]
    for coarse, fine in pairwise(errors):
        assert 1.8 < coarse / fine < 2.2
    assert errors[-1] < 0.02


# --- Moments of stochastic samplers ---


def sampled_moments(
    step: Step, denoise: Denoise, schedule: NoiseSchedule, times: Tensor
) -> tuple[float, float]:
    """Exact mean and variance of x at the last time, for x distributed as it is at the first.

    Every sampler is affine here: item 0 starts at the mean and runs without any noise, item 1 starts one standard
    deviation away, item n + 1 has unit noise at step n alone; the differences to item 0 are the gains of the
    independent noises.
    """
    mean, spread = moments(schedule, times[0])
    x = torch.full((len(times) + 1, 1, 1), float(mean), dtype=torch.float64)
    x[1] += float(spread)

    def noise(number: int, drawn: int) -> Tensor:
        assert drawn == 0
        unit = torch.zeros_like(x)
        unit[number + 1] = 1
        return unit

    out = walk(step, denoise, schedule, times, x, noise).flatten()
    return float(out[0]), float((out[1:] - out[0]).square().sum())


def optimal_share(schedule: NoiseSchedule, times: Tensor) -> Denoise:
    """The share v with which the learned variance is that of the data's own reverse step."""

    def share(x: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1)[0]
        s = times[int((times - t).abs().argmin()) + 1]
        small, large = posterior_variance(schedule, t, s), transition_variance(schedule, t, s)
        _, spread = moments(schedule, t)
        left = (DEVIATION * schedule.sigma(t) / spread) ** 2  # variance of the clean signal given x_t
        gain = schedule.alpha(s) * large / schedule.sigma(t) ** 2
        value = ((small + gain**2 * left) / small).log() / (large / small).log()
        return torch.full_like(x, float(value))

    return share


def at_resolution(name: str, steps: int) -> Any:
    step: Any = SAMPLERS[name].step
    # The share of churn is per step; a rise that does not shrink with the steps would leave a step's error.
    return replace(step, gamma=4 / steps) if isinstance(step, Churn) else step


@pytest.mark.parametrize("kind", ["table", "vpsde", "karras", "flow"])
@pytest.mark.parametrize("name", [name for name in STOCHASTIC if name != "consistency"])
def test_many_steps_give_the_mean_and_variance_of_the_data(name: str, kind: str) -> None:
    schedule, errors = SCHEDULES[kind], []
    for steps in (50, 100):
        times = log_times(schedule, steps, 8, 0.1)
        denoise = suited(name, gaussian(schedule), schedule)
        if name == "ancestral_learned":
            denoise = with_share(gaussian(schedule), schedule, optimal_share(schedule, times)).bind(
                Condition()
            )
        mean, variance = sampled_moments(at_resolution(name, steps), denoise, schedule, times)
        expected, spread = moments(schedule, times[-1])
        errors.append((abs(mean - float(expected)), abs(variance / float(spread**2) - 1)))
    for coarse, fine in zip(*errors, strict=True):
        assert fine < 0.05
        assert fine < 0.65 * coarse or fine < 1e-3


def test_ancestral_step_with_the_optimal_learned_variance_keeps_the_moments_at_any_step_size() -> None:
    times = log_times(SCHEDULE, 4, 8, 0.1)
    denoise = with_share(gaussian(SCHEDULE), SCHEDULE, optimal_share(SCHEDULE, times)).bind(Condition())
    mean, variance = sampled_moments(Ancestral("learned"), denoise, SCHEDULE, times)
    expected, spread = moments(SCHEDULE, times[-1])
    assert mean == pytest.approx(float(expected), rel=1e-9)
    assert variance == pytest.approx(float(spread**2), rel=1e-9)


def test_consistency_sampling_with_the_exact_flow_map_keeps_the_moments_at_any_step_size() -> None:
    times = torch.tensor([1.0, 0.6, 0.3, 0.0], dtype=torch.float64)
    for schedule in SCHEDULES.values():

        def jump(x: Tensor, t: Tensor, schedule: NoiseSchedule = schedule) -> Tensor:
            return flow_map(schedule, x, t, scalar(0.0))

        mean, variance = sampled_moments(Consistency(), jump, schedule, times)
        assert mean == pytest.approx(MEAN, rel=1e-9)
        assert variance == pytest.approx(DEVIATION**2, rel=1e-9)


# --- What equals what ---


@pytest.mark.parametrize("grid", [UniformGrid(7), LogSnrGrid(9), published_grid("fastdiff-4")])
def test_ddim_with_eta_one_equals_ancestral(grid: Grid) -> None:
    x, shape = draw(3, 2, 8), (3, 2, 8)
    ancestral = Sampler(Ancestral(), grid)(gaussian(SCHEDULE), SCHEDULE, x, Noise(shape))
    ddim = Sampler(DDIM(1.0), grid)(gaussian(SCHEDULE), SCHEDULE, x, Noise(shape))
    torch.testing.assert_close(ddim, ancestral, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_step_keeps_the_noise_level_and_adds_eta_times_the_posterior_deviation(eta: float) -> None:
    t, s = scalar(0.6), scalar(0.35)
    clean, noise, fresh = draw(3, 1, 1, 4)
    x = diffuse(SCHEDULE, clean, noise, t)
    quiet, _ = DDIM(eta)(lambda x, t: clean, SCHEDULE, x, t, s, None, lambda: torch.zeros_like(x))
    moved, _ = DDIM(eta)(lambda x, t: clean, SCHEDULE, x, t, s, None, lambda: fresh)
    deviation = eta * posterior(SCHEDULE, x, clean, t, s)[1].sqrt()
    torch.testing.assert_close(moved - quiet, deviation * fresh, rtol=1e-9, atol=1e-9)
    kept = epsilon_from_clean(SCHEDULE, quiet, clean, s) / noise
    torch.testing.assert_close(
        (kept * SCHEDULE.sigma(s)) ** 2 + deviation**2, SCHEDULE.sigma(s).square().expand_as(x)
    )


@pytest.mark.parametrize(("value", "variance"), [(0.0, "small"), (1.0, "large")])
def test_learned_variance_at_its_ends_equals_the_fixed_ones(value: float, variance: str) -> None:
    shape, x = (2, 2, 8), draw(2, 2, 8)
    learned = with_share(gaussian(SCHEDULE), SCHEDULE, lambda x, t: torch.full_like(x, value))
    found = Sampler(Ancestral("learned"), UniformGrid(6))(
        learned.bind(Condition()), SCHEDULE, x, Noise(shape)
    )
    expected = Sampler(Ancestral(variance), UniformGrid(6))(gaussian(SCHEDULE), SCHEDULE, x, Noise(shape))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_learned_variance_interpolates_the_logarithms() -> None:
    small, large = scalar(0.01), scalar(0.04)
    found = interpolated_log_variance(torch.full((1, 1, 1), 0.5, dtype=torch.float64), small, large).exp()
    assert float(found) == pytest.approx(0.02)


@pytest.mark.parametrize("scale", [0.0, 0.4, 0.8])
def test_cfgpp_step_is_ddim_with_its_equivalent_classifier_free_scale(scale: float) -> None:
    t, s = scalar(0.7), scalar(0.4)
    conditional, other = gaussian(SCHEDULE, 1.0), gaussian(SCHEDULE, -1.0)
    x = draw(2, 1, 6)
    found, _ = CFGPlusPlus()(
        GuidedDenoise(conditional, other, Guidance(scale)), SCHEDULE, x, t, s, None, Noise
    )
    equivalent = scale / float(1 - noise_ratio(SCHEDULE, s) / noise_ratio(SCHEDULE, t))
    expected, _ = DDIM()(
        GuidedDenoise(conditional, other, Guidance(equivalent)), SCHEDULE, x, t, s, None, Noise
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_cfgpp_of_two_equal_models_and_at_scale_zero_is_ddim() -> None:
    x, same, other = draw(2, 1, 6), gaussian(SCHEDULE), gaussian(SCHEDULE, -1.0)
    ddim = {model: Sampler(DDIM(), UniformGrid(5))(model, SCHEDULE, x, no_noise) for model in (same, other)}
    for pair, scale, expected in (((same, same), 0.6, same), ((same, other), 0.0, other)):
        found = Sampler(CFGPlusPlus(), UniformGrid(5))(
            GuidedDenoise(*pair, Guidance(scale)), SCHEDULE, x, no_noise
        )
        torch.testing.assert_close(found, ddim[expected], rtol=1e-9, atol=1e-9)


def test_cfgpp_outside_the_guidance_interval_is_ddim_of_the_conditional_model() -> None:
    x, conditional = draw(2, 1, 6), gaussian(SCHEDULE)
    outside = Guidance(0.6, interval=(0.0, 1e-6))
    pair = GuidedDenoise(conditional, gaussian(SCHEDULE, -1.0), outside)
    found = Sampler(CFGPlusPlus(), UniformGrid(5))(pair, SCHEDULE, x, no_noise)
    expected = Sampler(DDIM(), UniformGrid(5))(conditional, SCHEDULE, x, no_noise)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


# --- The walk ---


@pytest.mark.parametrize(("step", "draws"), [(Ancestral(), True), (DDIM(), False), (DDIM(0.1), True)])
def test_noise_is_asked_once_per_step_but_the_last_and_never_without_variance(
    step: Step, draws: bool
) -> None:
    noise = Noise((1, 1, 4))
    Sampler(step, UniformGrid(6))(gaussian(SCHEDULE), SCHEDULE, draw(1, 1, 4), noise)
    assert noise.asked == ([(number, 0) for number in (1, 2, 3, 4, 5)] if draws else [])


@every_sampler
def test_progress_counts_every_step(name: str) -> None:
    told: list[tuple[int, int]] = []
    Sampler(SAMPLERS[name].step, LogSnrGrid(4))(
        suited(name, gaussian(SCHEDULE), SCHEDULE), SCHEDULE, draw(1, 1, 4), Noise((1, 1, 4)),
        on_step=lambda *done: told.append(done),
    )  # fmt: skip
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_first_order_steps_evaluate_once_at_every_time(step: Step) -> None:
    evaluated: list[float] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        evaluated.append(float(t))
        return gaussian(SCHEDULE)(x, t)

    Sampler(step, UniformGrid(4))(denoise, SCHEDULE, draw(1, 1, 4), Noise((1, 1, 4)))
    assert evaluated == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_constraint_acts_after_every_step_at_the_time_reached_and_its_result_goes_on(step: Step) -> None:
    reached: list[float] = []
    entered: list[float] = []
    clip = Clip(-0.5, 0.25)

    def constraint(x: Tensor, s: Tensor) -> Tensor:
        reached.append(float(s))
        return clip(x, s)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        entered.append(float(x.abs().max()))
        return gaussian(SCHEDULE, mean=3.0)(x, t)

    start = draw(2, 1, 50) * 3
    x = Sampler(step, UniformGrid(5))(denoise, SCHEDULE, start, Noise((2, 1, 50)), constraint)
    assert reached == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])
    assert float(x.min()) >= -0.5
    assert float(x.max()) == 0.25  # the data lie above, so the bound is met
    assert entered[0] == float(start.abs().max())
    assert max(entered[1:]) <= 0.5


def follows_the_clean_estimate(step: Any) -> bool:
    return not isinstance(step, (*STEPPING_IN_TIME, NoiseMultistep, PLMS, PNDM))


@pytest.mark.parametrize("name", [n for n in DETERMINISTIC if follows_the_clean_estimate(SAMPLERS[n].step)])
def test_what_a_constraint_changes_is_carried_on_and_not_forgotten(name: str) -> None:
    """With a constant clean estimate, a push of x is a push of its noise, and scales with sigma from then on."""
    schedule, clean = SCHEDULES["vpsde"], draw(1, 1, 4, seed=9)
    times = log_times(schedule, 8, 20, 0.05)
    pushed_at, start = 3, diffuse(schedule, clean, draw(1, 1, 4), times[0])
    x, memory, denoise = start, None, suited(name, lambda x, t: clean, schedule)
    quiet = walk(SAMPLERS[name].step, denoise, schedule, times, start)
    for number, (t, s) in enumerate(pairwise(times), start=1):
        x, memory = SAMPLERS[name].step(denoise, schedule, x, t, s, memory, no_noise)
        x = x + 0.1 if number == pushed_at else x
    push = 0.1 * schedule.sigma(times[-1]) / schedule.sigma(times[pushed_at])
    torch.testing.assert_close(x, quiet + push, rtol=1e-9, atol=1e-9)


def test_constraint_of_the_sampler_acts_before_the_one_of_the_call() -> None:
    sampler = Sampler(DDIM(), UniformGrid(2), constraint=lambda x, s: x * 0 + 1)
    assert float(sampler(gaussian(SCHEDULE), SCHEDULE, draw(1, 1, 1), no_noise, lambda x, s: x + 1)) == 2.0


@pytest.mark.parametrize("name", [n for n in SAMPLERS if follows_the_clean_estimate(SAMPLERS[n].step)])
def test_projection_acts_on_every_clean_estimate(name: str) -> None:
    sampler = Sampler(
        SAMPLERS[name].step, LogSnrGrid(4), projection=lambda clean, t: torch.full_like(clean, 0.3)
    )
    denoise = suited(name, gaussian(SCHEDULE), SCHEDULE)
    x = sampler(denoise, SCHEDULE, draw(1, 1, 4), Noise((1, 1, 4)))
    torch.testing.assert_close(x, torch.full_like(x, 0.3), rtol=1e-9, atol=1e-9)


def test_what_a_step_remembers_reaches_the_next_step() -> None:
    class Counting:
        def __call__(
            self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor,
            memory: Any, noise: Callable[[], Tensor],
        ) -> tuple[Tensor, Any]:  # fmt: skip
            handed.append(memory)
            noise()
            return noise(), len(handed)

    handed: list[Any] = []
    noise = Noise((1, 1, 2))
    x = Sampler(Counting(), UniformGrid(3))(gaussian(SCHEDULE), SCHEDULE, draw(1, 1, 2), noise)
    assert handed == [None, 1, 2]
    assert noise.asked == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert torch.equal(x, draw(1, 1, 2, seed=1003))


@every_sampler
def test_state_stays_float32_and_the_start_is_not_changed(name: str) -> None:
    start = draw(2, 2, 4).float()
    kept = start.clone()
    denoise = suited(name, lambda x, t: torch.zeros(2, 2, 4), SCHEDULE)
    with torch.inference_mode():  # as synthesis runs
        x = Sampler(SAMPLERS[name].step, LogSnrGrid(3))(
            denoise, SCHEDULE, start, lambda *asked: draw(2, 2, 4).float()
        )
    assert x.dtype == torch.float32
    assert torch.equal(start, kept)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_keyed_noise_gives_an_item_the_same_numbers_in_any_batch(name: str) -> None:
    shape, device = (3, 2, 10), torch.device("cpu")
    sampler = replace(SAMPLERS[name], grid=LogSnrGrid(5))
    denoise = suited(name, gaussian(SCHEDULE), SCHEDULE)

    def run(items: list[int]) -> Tensor:
        source = KeyedNoise(7, items)
        size = (len(items), *shape[1:])
        x = sampler.start(SCHEDULE, source(0, size, device))
        return sampler(denoise, SCHEDULE, x, lambda step, number: source(step, size, device, number))

    together = run([3, 8, 5])
    for place, item in enumerate([3, 8, 5]):
        assert torch.equal(run([item])[0], together[place])
    assert not torch.equal(together[0], together[1])
    assert torch.equal(run([5, 3])[1], together[0])


# --- Mistakes ---


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_eta_outside_zero_to_one_is_refused(eta: float) -> None:
    with pytest.raises(InputError, match="eta: got"):
        DDIM(eta)


def test_unknown_variance_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match="choose small, large or learned"):
        Ancestral("medium")


def test_learned_variance_of_a_model_without_it_is_refused() -> None:
    with pytest.raises(InputError, match="not learned one; choose small or large"):
        Sampler(Ancestral("learned"), UniformGrid(3))(gaussian(SCHEDULE), SCHEDULE, draw(1, 1, 2), no_noise)


def test_cfgpp_without_guidance_or_with_a_scale_above_one_is_refused() -> None:
    sampler, model = Sampler(CFGPlusPlus(), UniformGrid(3)), gaussian(SCHEDULE)
    with pytest.raises(InputError, match=r"cfg\+\+: needs guidance"):
        sampler(model, SCHEDULE, draw(1, 1, 2), no_noise)
    with pytest.raises(InputError, match=r"cfg\+\+: got guidance scale 3"):
        sampler(GuidedDenoise(model, model, Guidance(3.0)), SCHEDULE, draw(1, 1, 2), no_noise)


@every_sampler
def test_a_network_that_gives_no_numbers_is_named_with_its_step(name: str) -> None:
    def broken(x: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x, float("nan")) if float(t.reshape(-1)[0]) < 0.3 else torch.zeros_like(x)

    sampler = Sampler(SAMPLERS[name].step, UniformGrid(4))  # 1, 0.75, 0.5, 0.25
    with pytest.raises(FloatingPointError, match=r"sampling step [34] of 4"):  # some look ahead
        sampler(suited(name, broken, SCHEDULE), SCHEDULE, draw(2, 1, 2), Noise((2, 1, 2)))


@pytest.mark.parametrize(
    "times", [[1.0], [1.0, 1.0, 0.0], [0.2, 0.5, 0.0], [1.2, 0.5, 0.0], [0.5, -0.1], [1.0, float("nan"), 0.0]]
)
def test_a_grid_that_does_not_fall_within_zero_and_one_is_refused(times: list[float]) -> None:
    sampler = Sampler(DDIM(), lambda schedule: torch.tensor(times, dtype=torch.float64))
    with pytest.raises(InputError, match="grid: got"):
        sampler(gaussian(SCHEDULE), SCHEDULE, draw(1, 1, 2), no_noise)


def test_no_signal_at_the_start_is_no_hindrance_where_the_clean_estimate_is_followed() -> None:
    schedule = Cosine()
    for name in ("ancestral", "ddim", "dpmpp_2m", "dpmpp_3m", "unipc", "unipc_3", "unipc_bh1", "euler_churn"):
        x = Sampler(SAMPLERS[name].step, UniformGrid(40))(
            gaussian(schedule), schedule, draw(2, 1, 4), Noise((2, 1, 4))
        )
        assert bool(x.isfinite().all()), name
        if name in DETERMINISTIC:
            exact = flow_map(schedule, draw(2, 1, 4), scalar(1.0), scalar(0.0))
            assert float((x - exact).abs().max()) < 0.05, name
