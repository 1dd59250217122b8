"""Laws of every objective recipe: zero at the target, weights in closed form, padding without influence."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from audiodiff.diffusion import parameterizations
from audiodiff.diffusion.continuous import Cosine
from audiodiff.diffusion.denoiser import Denoiser, StepIndex, Time, VarianceDenoiser
from audiodiff.diffusion.objectives import (
    Huber,
    HybridVariational,
    MeanAbsoluteError,
    MeanSquaredError,
    Objective,
    WithSTFT,
    edm_weight,
    masked_mean,
    min_snr,
    pseudo_huber,
    step_bound,
    truncated_snr,
    variational,
)
from audiodiff.diffusion.process import diffuse, posterior, posterior_variance, transition_variance
from audiodiff.diffusion.schedules import NoiseSchedule, linear
from audiodiff.errors import InputError
from audiodiff.instantiation import instantiate
from audiodiff.recipes_folder import recipes_folder
from audiodiff.types import Condition
from tests.laws.exact import SCHEDULES, denoiser_of, draw, moments

SCHEDULE = linear(1e-4, 0.02, 1000)
RECIPES: dict[str, Objective] = {}
for path in sorted((recipes_folder() / "objective").glob("*.yaml")):
    node = yaml.safe_load(path.read_text())
    if "teacher" not in node and "teacher" not in path.stem:  # those that distil need a trained model
        RECIPES[path.stem] = instantiate(node)
ERRORS = {name: part for name, part in RECIPES.items() if not isinstance(part, HybridVariational | WithSTFT)}
T = torch.tensor([0.001, 0.002, 0.5, 1.0], dtype=torch.float64)
CLEAN, NOISE = torch.randn(2, 4, 3, 400, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([400, 130, 50, 7])
every_objective = pytest.mark.parametrize("name", list(RECIPES))


class Answer(nn.Module):
    """Answers with a fixed tensor; keeps the x that it saw."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)
        self.seen: Tensor | None = None

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        self.seen = x
        return self.answer


def denoiser(
    answer: Tensor, objective: Any = None, parameterization: Any = parameterizations.epsilon
) -> Denoiser:
    """A denoiser that answers so, with a share of the variance of 1/2 where the objective wants one."""
    if isinstance(objective, HybridVariational):
        both = torch.cat([answer, torch.zeros_like(answer)], dim=1)
        return VarianceDenoiser(Answer(both), SCHEDULE, parameterization, StepIndex())
    return Denoiser(Answer(answer), SCHEDULE, parameterization, StepIndex())


def answer_of(model: Denoiser) -> nn.Parameter:
    assert isinstance(model.network, Answer)
    return model.network.answer


# --- Every recipe ---


@every_objective
def test_there_is_one_finite_loss_per_item(name: str) -> None:
    loss = RECIPES[name](denoiser(NOISE * 0.9, RECIPES[name]), CLEAN, Condition(), NOISE, T)
    assert loss.shape == (4,)
    assert bool(loss.isfinite().all())
    assert bool((loss[2:] > 0).all())


@pytest.mark.parametrize("name", list(ERRORS))
@pytest.mark.parametrize("condition", [Condition(), Condition(frames=LENGTHS)])
def test_loss_is_zero_for_a_network_that_names_the_noise(name: str, condition: Condition) -> None:
    loss = ERRORS[name](denoiser(NOISE), CLEAN, condition, NOISE, T)
    assert float(loss.detach().max()) < 1e-9


@every_objective
def test_network_sees_the_diffused_signal(name: str) -> None:
    model = denoiser(NOISE, RECIPES[name])
    RECIPES[name](model, CLEAN, Condition(), NOISE, T)
    assert isinstance(model.network, Answer)
    assert model.network.seen is not None
    torch.testing.assert_close(model.network.seen, diffuse(SCHEDULE, CLEAN, NOISE, T), rtol=0, atol=0)


@every_objective
def test_padding_does_not_count(name: str) -> None:
    objective = RECIPES[name]
    condition, padding = Condition(frames=LENGTHS), torch.arange(400) >= LENGTHS[:, None]
    answer = torch.zeros_like(NOISE)
    expected = objective(denoiser(answer, objective), CLEAN, condition, NOISE, T)
    changed = torch.where(padding[:, None], torch.full_like(answer, 1e3), answer)
    found = objective(denoiser(changed, objective), CLEAN, condition, NOISE, T)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    model = denoiser(answer, objective)
    objective(model, CLEAN, condition, NOISE, T).sum().backward()
    gradient = answer_of(model).grad
    assert gradient is not None
    assert not gradient[padding[:, None].expand_as(gradient)].any()
    assert gradient[~padding[:, None].expand_as(gradient)].any()


@every_objective
def test_loss_of_an_item_is_its_loss_alone(name: str) -> None:
    objective, answer = RECIPES[name], NOISE.flip(0)
    together = objective(denoiser(answer, objective), CLEAN, Condition(frames=LENGTHS), NOISE, T)
    for i, length in enumerate(LENGTHS.tolist()):
        own = slice(i, i + 1), slice(None), slice(0, length)
        model = denoiser(answer[own], objective)
        alone = objective(model, CLEAN[own], Condition(), NOISE[own], T[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=2e-5, atol=1e-6)


# --- Distances and weights ---


@pytest.mark.parametrize(("objective", "expected"), [(MeanSquaredError(), 0.25), (MeanAbsoluteError(), 0.5)])
def test_loss_of_an_error_of_one_half_everywhere(objective: Objective, expected: float) -> None:
    signs = torch.where(draw(*NOISE.shape) < 0, -0.5, 0.5)
    loss = objective(denoiser(NOISE + signs), CLEAN, Condition(), NOISE, T)
    torch.testing.assert_close(loss, torch.full((4,), expected), rtol=1e-4, atol=0)


def test_pseudo_huber_is_the_square_of_small_and_proportional_to_large_errors() -> None:
    small, large = torch.tensor([1e-6, 1e-4, -1e-3]), torch.tensor([1e4, -1e5])
    torch.testing.assert_close(pseudo_huber(small, 0.5), small.square(), rtol=1e-5, atol=0)
    torch.testing.assert_close(pseudo_huber(large, 0.5), 2 * 0.5 * large.abs(), rtol=1e-3, atol=0)
    error = draw(100)
    plain = 2 * 0.7**2 * ((1 + (error / 0.7) ** 2).sqrt() - 1)
    torch.testing.assert_close(pseudo_huber(error, 0.7), plain, rtol=1e-9, atol=1e-12)
    for delta, expected in ((1e4, 0.25), (1e-4, 2e-4 * 0.5)):
        loss = Huber(delta)(denoiser(NOISE + 0.5), CLEAN, Condition(), NOISE, T)
        torch.testing.assert_close(loss, torch.full((4,), expected), rtol=1e-3, atol=0)


def test_min_snr_of_a_noise_prediction_is_min_snr_over_snr() -> None:
    snr = SCHEDULE.log_snr(T).exp()
    loss = RECIPES["min_snr"](denoiser(NOISE + 0.5), CLEAN, Condition(), NOISE, T)
    torch.testing.assert_close(loss.double(), 0.25 * snr.clamp(max=5) / snr, rtol=1e-3, atol=0)


def test_edm_weight_is_uniform_on_its_own_network() -> None:
    model = denoiser(torch.zeros_like(NOISE), None, parameterizations.edm)
    weighted = RECIPES["edm"](model, CLEAN, Condition(), NOISE, T)
    torch.testing.assert_close(
        weighted, MeanSquaredError()(model, CLEAN, Condition(), NOISE, T), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("kind", list(SCHEDULES))
def test_weights_in_closed_form(kind: str) -> None:
    schedule, t = SCHEDULES[kind], torch.tensor([0.0505, 0.4005, 0.9505], dtype=torch.float64)  # between rows
    snr = (schedule.alpha(t) / schedule.sigma(t)) ** 2
    torch.testing.assert_close(min_snr(schedule, t, gamma=3.0), snr.clamp(max=3))
    torch.testing.assert_close(truncated_snr(schedule, t), snr.clamp(min=1))
    torch.testing.assert_close(edm_weight(schedule, t), snr + 1)
    near = 1e-6
    slope = (schedule.log_snr(t + near).exp() - schedule.log_snr(t - near).exp()) / (2 * near)
    torch.testing.assert_close(variational(schedule, t), -slope / 2, rtol=1e-4, atol=1e-9)


def test_weights_are_finite_where_no_signal_is_left() -> None:
    for weight in (min_snr, truncated_snr, edm_weight, variational):
        found = weight(Cosine(), torch.ones(1, dtype=torch.float64))
        assert bool(found.isfinite().all())
        assert bool((found >= 0).all())


@pytest.mark.parametrize("weight", [min_snr, truncated_snr, edm_weight, variational])
@pytest.mark.parametrize("kind", ["epsilon", "clean", "velocity", "flow", "score"])
def test_a_weight_means_the_same_for_every_prediction(weight: Any, kind: str) -> None:
    schedule, t = SCHEDULES["vpsde"], torch.tensor([0.1, 0.5], dtype=torch.float64)
    clean, noise, wrong = draw(3, 2, 1, 6)
    parameterization = getattr(parameterizations, kind)
    model = denoiser_of(lambda x, t: clean + wrong, schedule, parameterization)
    found = MeanSquaredError(weight)(model, clean, Condition(), noise, t).double()
    expected = weight(schedule, t) * wrong.square().flatten(1).mean(1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", list(SCHEDULES))
def test_variational_weight_integrates_to_the_information_of_a_gaussian(kind: str) -> None:
    """Half the integral of the least error over the SNR is log sqrt(1 + SNR d^2), the KL between its ends."""
    schedule, std = SCHEDULES[kind], 0.4
    t = torch.linspace(0.05, 0.95, 20001, dtype=torch.float64)
    _, spread = moments(schedule, t, 0.0, std)
    error = (std * schedule.sigma(t) / spread) ** 2
    found = torch.trapezoid(variational(schedule, t) * error, t)
    ends = (1 + schedule.log_snr(t[[0, -1]]).exp() * std**2).log() / 2
    assert float(found) == pytest.approx(float(ends[0] - ends[1]), rel=1e-3)


def test_masked_mean_counts_every_channel_of_valid_positions_once() -> None:
    values = torch.arange(12.0).view(1, 2, 6)
    mask = torch.tensor([1.0, 1, 0, 0, 0, 0])[None, None]
    assert float(masked_mean(values, mask)) == (0 + 1 + 6 + 7) / 4
    assert float(masked_mean(values, torch.ones(1, 1, 6))) == float(masked_mean(values, None)) == 5.5
    assert float(masked_mean(values, torch.zeros(1, 1, 6))) == 0


# --- STFT loss ---


@pytest.mark.parametrize("condition", [Condition(), Condition(frames=LENGTHS)])
def test_stft_loss_is_zero_for_a_perfect_estimate(condition: Condition) -> None:
    model = denoiser(CLEAN, None, parameterizations.clean)
    assert float(WithSTFT(MeanSquaredError())(model, CLEAN, condition, NOISE, T).detach().max()) == 0


def test_stft_loss_of_a_signal_half_as_loud() -> None:
    model = denoiser(CLEAN / 2, None, parameterizations.clean)
    found = WithSTFT(MeanSquaredError(), 1.0)(model, CLEAN, Condition(), NOISE, T)
    main = MeanSquaredError()(model, CLEAN, Condition(), NOISE, T)
    # Spectral convergence 1/2, log magnitudes log 2 apart.
    expected = main + SCHEDULE.alpha(T).float() ** 2 * (0.5 + math.log(2))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_stft_loss_does_not_depend_on_the_phase_but_the_squared_error_does() -> None:
    model = denoiser(-CLEAN, None, parameterizations.clean)
    found = WithSTFT(MeanSquaredError(), 1.0)(model, CLEAN, Condition(), NOISE, T)
    torch.testing.assert_close(
        found, MeanSquaredError()(model, CLEAN, Condition(), NOISE, T), rtol=1e-4, atol=0
    )


# --- Learned variance ---

ROWS = torch.tensor([0.001, 0.002, 0.5, 1.0], dtype=torch.float64)


def bound_of(share: Tensor, clean: Tensor, estimate: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    return step_bound(SCHEDULE, x_t, clean, estimate, share, t, t - 0.001)


def test_bound_is_the_kl_divergence_of_two_gaussians_and_the_likelihood_at_the_end() -> None:
    clean, estimate, noise = draw(3, 4, 1, 6)
    share = torch.rand(4, 1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_t = diffuse(SCHEDULE, clean, noise, ROWS)
    found = bound_of(share, clean, estimate, x_t, ROWS) * math.log(2)
    for i, t in enumerate(ROWS):
        s = t - 0.001
        small, large = posterior_variance(SCHEDULE, t, s), transition_variance(SCHEDULE, t, s)
        if i == 0:
            small = posterior_variance(SCHEDULE, 2 * t, t)
        std = (share[i] * large.log() + (1 - share[i]) * small.log()).exp().sqrt()
        true, mean = (posterior(SCHEDULE, x_t[i], x, t, s)[0] for x in (clean[i], estimate[i]))
        if i == 0:
            expected = -Normal(mean, std).log_prob(clean[i])
        else:
            expected = kl_divergence(Normal(true, small.sqrt()), Normal(mean, std))
        torch.testing.assert_close(found[i], expected, rtol=1e-5, atol=1e-8)


def test_bound_is_least_at_the_variance_of_the_datas_own_reverse_step() -> None:
    """Given x_t, the clean signal lies around its estimate with a known variance; two points stand for it."""
    t, std = torch.tensor([0.3], dtype=torch.float64), 0.4
    _, spread = moments(SCHEDULE, t, 0.0, std)
    left = float(std * SCHEDULE.sigma(t) / spread)
    small, large = posterior_variance(SCHEDULE, t, t - 0.001), transition_variance(SCHEDULE, t, t - 0.001)
    gain = SCHEDULE.alpha(t - 0.001) * large / SCHEDULE.sigma(t) ** 2
    best = ((small + (gain * left) ** 2) / small).log() / (large / small).log()
    share = best.view(1, 1, 1).clone().requires_grad_()
    x_t = estimate = torch.full((1, 1, 1), 0.5, dtype=torch.float64)
    mean = sum(bound_of(share, estimate + e, estimate, x_t, t) for e in (-left, left)) / 2
    (slope,) = torch.autograd.grad(mean.sum(), share, create_graph=True)  # type: ignore[union-attr]
    (curvature,) = torch.autograd.grad(slope.sum(), share)
    assert abs(slope.item()) < 1e-6 * float(curvature)
    assert float(curvature) > 0
    assert 0 < float(best) < 1


def test_bound_trains_the_variance_and_not_the_mean() -> None:
    prediction, share = draw(2, 4, 1, 6).float()
    clean, noise = draw(2, 4, 1, 6, seed=1).float()

    def gradients(objective: Objective) -> Tensor:
        model = VarianceDenoiser(
            Answer(torch.cat([prediction, share], 1)), SCHEDULE, parameterizations.epsilon, StepIndex()
        )
        objective(model, clean, Condition(), noise, ROWS).sum().backward()
        gradient = answer_of(model).grad
        assert gradient is not None
        return gradient

    with_bound, without = gradients(HybridVariational(1e-3)), gradients(HybridVariational(0.0))
    assert torch.equal(with_bound[:, :1], without[:, :1])
    assert bool((with_bound[:, 1:] != 0).all())
    assert not without[:, 1:].any()
    alone = Answer(prediction)
    squared = Denoiser(alone, SCHEDULE, parameterizations.epsilon, StepIndex())
    MeanSquaredError()(squared, clean, Condition(), noise, ROWS).sum().backward()
    torch.testing.assert_close(alone.answer.grad, without[:, :1], rtol=1e-5, atol=1e-8)


def test_hybrid_objective_is_the_squared_error_and_its_share_of_the_bound() -> None:
    objective = HybridVariational(2e-3)
    model = denoiser(NOISE * 0.9, objective)
    found = objective(model, CLEAN, Condition(), NOISE, ROWS)
    x_t = diffuse(SCHEDULE, CLEAN, NOISE, ROWS)
    bound = bound_of(torch.full_like(CLEAN, 0.5), CLEAN, model(x_t, ROWS, Condition()), x_t, ROWS)
    expected = (0.1 * NOISE).square().flatten(1).mean(1) + 2e-3 * 1000 * bound.flatten(1).mean(1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


# --- Mistakes ---


def test_hybrid_objective_without_learned_variance_or_rows_is_refused() -> None:
    with pytest.raises(InputError, match="needs a VarianceDenoiser"):
        HybridVariational()(denoiser(NOISE), CLEAN, Condition(), NOISE, T)
    model = denoiser(NOISE, HybridVariational())
    model.schedule, model.noise_label = SCHEDULES["vpsde"], Time()
    with pytest.raises(InputError, match="hybrid objective: needs a schedule with rows"):
        HybridVariational()(model, CLEAN, Condition(), NOISE, T)


def test_hybrid_objective_with_a_network_of_one_output_is_refused() -> None:
    model = VarianceDenoiser(Answer(NOISE), SCHEDULE, parameterizations.epsilon, StepIndex())
    with pytest.raises(InputError, match="gives 1 output"):
        HybridVariational()(model, CLEAN, Condition(), NOISE, T)


def test_huber_of_no_width_is_refused() -> None:
    with pytest.raises(InputError, match="huber delta: got 0"):
        replace(Huber(), delta=0)


def test_least_error_of_a_gaussian_is_reached_by_its_exact_denoiser() -> None:
    schedule: NoiseSchedule = SCHEDULES["vpsde"]
    count, std, t = 20000, 0.4, torch.tensor([0.3], dtype=torch.float64)
    clean, noise = std * draw(1, 1, count), draw(1, 1, count, seed=1)

    def scaled(gain: float) -> float:
        model = denoiser_of(lambda x, t: gain * x, schedule, parameterizations.clean)
        return float(MeanSquaredError()(model, clean, Condition(), noise, t))

    alpha, (_, spread) = float(schedule.alpha(t)), moments(schedule, t, 0.0, std)
    best = alpha * std**2 / float(spread) ** 2
    least = (std * float(schedule.sigma(t)) / float(spread)) ** 2
    assert scaled(best) == pytest.approx(least, rel=0.04)
    assert scaled(best) < min(scaled(best * 0.8), scaled(best * 1.2))
