"""Laws of the Denoiser: one estimate by every road, the score of a Gaussian, what the network hears."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from audiodiff.diffusion import denoiser as module
from audiodiff.diffusion.continuous import VPSDE, Cosine, Flow, Karras
from audiodiff.diffusion.denoiser import (
    Alpha,
    Denoiser,
    LogSnr,
    NoiseLabel,
    StepIndex,
    Time,
    VarianceDenoise,
    VarianceDenoiser,
)
from audiodiff.diffusion.parameterizations import Parameterization, edm, epsilon, velocity
from audiodiff.diffusion.process import diffuse, epsilon_from_clean, expand
from audiodiff.diffusion.schedules import BetaTable, NoiseSchedule, linear, zero_terminal_snr
from audiodiff.errors import InputError
from audiodiff.types import Condition
from tests.laws.schedule_examples import BASE, EVERY, LARGE, leaves_no_signal
from tests.laws.test_parameterizations import ALL, DIVIDE_BY_ALPHA, VARIANTS, T, draw

LABELS: dict[str, NoiseLabel] = {
    name: label()
    for name, label in inspect.getmembers(module, inspect.isclass)
    if label.__module__ == module.__name__
    and "__dataclass_fields__" in vars(label)
    and not vars(label)["__dataclass_fields__"]
}


class Told(nn.Module):
    """A network that answers what it was told to, and keeps what it saw."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.seen: list[tuple[Tensor, Tensor, Condition]] = []

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        self.seen.append((x, noise_label, condition))
        return self.answer

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, noise_label: self(x, noise_label, condition)

    def receptive_field(self) -> int:
        return 1


@pytest.mark.parametrize("name", VARIANTS)
def test_estimate_is_the_same_called_bound_and_put_together_from_the_prediction(name: str) -> None:
    answer, _ = draw()
    x_t = diffuse(LARGE, *draw(), T)
    denoiser = Denoiser(Told(answer), LARGE, VARIANTS[name], StepIndex())
    _, c_skip, c_out = VARIANTS[name](LARGE.alpha(T), LARGE.sigma(T))
    expected = expand(c_skip, x_t) * x_t + expand(c_out, x_t) * answer
    assert torch.equal(denoiser.predict(x_t, T, Condition()), answer)
    torch.testing.assert_close(denoiser(x_t, T, Condition()), expected, rtol=0, atol=0)
    torch.testing.assert_close(denoiser.bind(Condition())(x_t, T), expected, rtol=0, atol=0)
    torch.testing.assert_close(denoiser.clean_of(x_t, T, answer), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_one_time_for_all_items_equals_that_time_for_each(name: str) -> None:
    answer, x_t = draw()
    denoiser = Denoiser(Told(answer), LARGE, VARIANTS[name], LogSnr())
    each = denoiser(x_t, torch.full((len(T),), 0.37, dtype=torch.float64), Condition())
    for t in (torch.tensor(0.37, dtype=torch.float64), torch.tensor([0.37], dtype=torch.float64)):
        assert torch.equal(denoiser(x_t, t, Condition()), each)
        assert torch.equal(denoiser.bind(Condition())(x_t, t), each)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("schedule", EVERY)
def test_score_of_a_gaussian_is_analytic_in_every_parameterization(
    schedule: NoiseSchedule, name: str
) -> None:
    mean, std = 0.7, 0.4
    t = torch.tensor([0.05, 0.3, 0.6, 0.9, 1.0], dtype=torch.float64)
    if name in DIVIDE_BY_ALPHA and leaves_no_signal(schedule):
        t = t.clamp(max=0.95)
    alpha, sigma = (expand(value, draw()[0]) for value in (schedule.alpha(t), schedule.sigma(t)))
    variance = (alpha * std) ** 2 + sigma**2
    x_t = alpha * mean + variance.sqrt() * draw()[0]
    expected_clean = mean + std**2 * alpha / variance * (x_t - alpha * mean)
    _, c_skip, c_out = (expand(c, x_t) for c in VARIANTS[name](schedule.alpha(t), schedule.sigma(t)))
    network = Told((expected_clean - c_skip * x_t) / c_out)
    score = Denoiser(network, schedule, VARIANTS[name], Time()).score(x_t, t, Condition())
    # The score is a difference over sigma^2: times sigma^2 it is as exact as the estimate.
    power = sigma**2
    torch.testing.assert_close(score * power, (alpha * mean - x_t) / variance * power, rtol=1e-8, atol=1e-11)


def test_noise_that_an_epsilon_network_names_is_what_the_estimate_leaves_in_x() -> None:
    output, _ = draw()
    x_t = diffuse(LARGE, *draw(), T)
    denoiser = Denoiser(Told(output), LARGE, epsilon, StepIndex())
    found = epsilon_from_clean(LARGE, x_t, denoiser(x_t, T, Condition()), T)
    torch.testing.assert_close(found[1:], output[1:], rtol=1e-9, atol=1e-9)


# Labels.


def test_every_label_of_the_library_is_tested_here() -> None:
    assert set(LABELS) == {"StepIndex", "LogSnr", "Alpha", "Time"}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("schedule", EVERY)
def test_label_is_finite_of_the_shape_of_t_and_tells_levels_apart(schedule: NoiseSchedule, name: str) -> None:
    t = torch.tensor([0.0, 0.3, 0.6, 0.9, 1.0], dtype=torch.float64)
    if name == "StepIndex" and not isinstance(schedule, BetaTable):
        with pytest.raises(InputError, match="noise_label StepIndex: needs a schedule with rows"):
            LABELS[name](schedule, t)
        return
    label = LABELS[name](schedule, t)
    assert label.shape == t.shape
    assert bool(label.isfinite().all())
    if name != "Alpha" or not isinstance(schedule, Karras):  # whose alpha is 1 throughout
        inner = label[1:] if not isinstance(schedule, BetaTable) else label[t * schedule.steps >= 1]
        assert bool((inner.diff() != 0).all())


def test_step_index_counts_rows_from_zero_with_fractions_between_them() -> None:
    steps = torch.tensor([0.0, 0.5, 1.0, 1.25, 2.0, 200.0], dtype=torch.float64)
    labels = StepIndex()(LARGE, steps / LARGE.steps)
    torch.testing.assert_close(labels.tolist(), [0.0, 0.0, 0.0, 0.25, 1.0, 199.0])


def test_log_snr_label_is_minus_half_the_logarithm_of_edms_level_and_bounded() -> None:
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    label = LogSnr()(Karras(80.0, 7.0), t)
    assert float(label[0]) == 10
    # c_noise = log(sigma) / 4 of Karras et al. 2022; log-SNR is -2 log(sigma).
    torch.testing.assert_close(label[1:], -Karras(80.0, 7.0).sigma(t[1:]).log() / 2)
    assert float(LogSnr()(Cosine(), t)[-1]) == -10


def test_alpha_label_is_the_noise_level_of_wavegrad_and_time_label_is_t() -> None:
    t = torch.tensor([0.02, 0.5, 1.0], dtype=torch.float64)
    rows = (t * 50).long() - 1
    torch.testing.assert_close(Alpha()(BASE, t), BASE.alpha_bars.sqrt()[rows])
    assert torch.equal(Time()(VPSDE(), t.float()), t.float().double())


# What the network hears.


@pytest.mark.parametrize("name", VARIANTS)
def test_network_hears_scaled_x_one_label_per_item_and_the_condition(name: str) -> None:
    clean, noise = draw(torch.float32)
    for t in (torch.tensor(0.5, dtype=torch.float64), torch.full((len(T),), 0.5)):
        network, condition = Told(noise), Condition(vector=torch.ones(len(T), 2))
        denoiser = Denoiser(network, LARGE, VARIANTS[name], LogSnr())
        denoiser(clean, t, condition)
        denoiser.bind(condition)(clean, t)
        half = torch.full((len(T),), 0.5)
        c_in = VARIANTS[name](LARGE.alpha(half), LARGE.sigma(half))[0].float()
        assert len(network.seen) == 2
        for x, label, heard in network.seen:
            assert torch.equal(x, clean * c_in[:, None, None])
            assert heard is condition
            assert label.dtype == torch.float32
            torch.testing.assert_close(label, (LARGE.log_snr(half) / 4).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_estimate_has_the_type_of_x_also_when_the_network_answers_in_half_precision(
    dtype: torch.dtype,
) -> None:
    clean, noise = draw(dtype)
    denoiser = Denoiser(Told(noise.bfloat16()), LARGE, velocity, LogSnr())
    assert denoiser(clean, T, Condition()).dtype == dtype
    assert denoiser.bind(Condition())(clean, T).dtype == dtype


@pytest.mark.parametrize("schedule", [Cosine(), Flow(), zero_terminal_snr(BASE)])
def test_denoiser_that_would_divide_by_alpha_zero_is_refused_where_it_happens(
    schedule: NoiseSchedule,
) -> None:
    clean, noise = draw()
    denoiser = Denoiser(Told(noise), schedule, epsilon, Time())
    denoiser(clean, torch.tensor(0.99), Condition())
    with pytest.raises(InputError, match="epsilon prediction divides by alpha"):
        denoiser(clean, torch.tensor(1.0), Condition())


def test_time_outside_the_schedule_is_refused() -> None:
    clean, noise = draw()
    with pytest.raises(InputError, match=r"time: got 1\.5"):
        Denoiser(Told(noise), LARGE, epsilon, StepIndex())(clean, torch.tensor(1.5), Condition())


# Learned variance.


@pytest.mark.parametrize("parameterization", ALL.values(), ids=ALL)
def test_second_output_is_the_share_of_the_large_variance_from_minus_one_to_one(
    parameterization: Parameterization,
) -> None:
    clean, noise = draw()
    share = torch.linspace(-1, 1, noise.numel(), dtype=torch.float64).view_as(noise)
    denoiser = VarianceDenoiser(Told(torch.cat([noise, share], dim=1)), LARGE, parameterization, StepIndex())
    plain = Denoiser(Told(noise), LARGE, parameterization, StepIndex())
    prediction, v = denoiser.predict_with_variance(clean, T, Condition())
    assert torch.equal(prediction, noise)
    torch.testing.assert_close(v, (share + 1) / 2)
    assert (float(v.min()), float(v.max())) == (0.0, 1.0)
    bound = denoiser.bind(Condition())
    assert isinstance(bound, VarianceDenoise)
    estimate, v_bound = bound.with_variance(clean, T)
    assert torch.equal(v_bound, v)
    for found in (estimate, bound(clean, T), denoiser(clean, T, Condition())):
        assert torch.equal(found, plain(clean, T, Condition()))
    assert not isinstance(plain.bind(Condition()), VarianceDenoise)


def test_learned_variance_of_a_network_with_one_output_is_refused() -> None:
    clean, noise = draw()
    denoiser = VarianceDenoiser(Told(noise), LARGE, epsilon, StepIndex())
    with pytest.raises(
        InputError, match=r"the network gives 1 output\(s\), expected 2; build it with outputs: 2"
    ):
        denoiser.predict_with_variance(clean, T, Condition())
    with pytest.raises(InputError, match="outputs: 2"):
        denoiser.bind(Condition())(clean, T)


def test_edm_denoiser_of_zero_output_is_wieners_filter() -> None:
    clean, noise = draw()
    schedule, t = Karras(), torch.tensor(0.5, dtype=torch.float64)
    sigma = float(schedule.sigma(t))
    x_t = diffuse(schedule, clean, noise, t)
    found = Denoiser(Told(0 * noise), schedule, edm, LogSnr())(x_t, t, Condition())
    torch.testing.assert_close(found, x_t / (1 + sigma**2), rtol=1e-14, atol=0)
    assert math.isclose(sigma, 80 * 0.5**7)


def test_table_of_a_single_row_can_be_denoised() -> None:
    clean, noise = draw()
    table, t = linear(0.3, 0.3, 1), torch.tensor(1.0, dtype=torch.float64)
    found = Denoiser(Told(noise), table, epsilon, StepIndex())(
        diffuse(table, clean, noise, t), t, Condition()
    )
    torch.testing.assert_close(found, clean)
