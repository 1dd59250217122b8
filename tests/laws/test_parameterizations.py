"""Laws of every parameterization, and of the Denoiser that applies it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from audiodiff.diffusion import parameterizations
from audiodiff.diffusion.denoiser import Denoiser, LogSnr, StepIndex
from audiodiff.diffusion.parameterizations import Parameterization, epsilon, target
from audiodiff.diffusion.process import diffuse, epsilon_from_clean, expand
from audiodiff.diffusion.schedules import linear
from audiodiff.types import Condition

SCHEDULE = linear(1e-4, 0.02, 200)
ALL = [
    function
    for _, function in inspect.getmembers(parameterizations, inspect.isfunction)
    if list(inspect.signature(function).parameters) == ["alpha", "sigma"]
]
T = torch.tensor([1e-9, 1e-3, 0.25, 0.5, 1.0], dtype=torch.float64)


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


def draw(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, len(T), 3, 50, generator=generator, dtype=torch.float64)
    return clean.to(dtype), noise.to(dtype)


@pytest.mark.parametrize("parameterization", ALL)
def test_clean_estimate_is_exact_when_the_network_meets_its_target(
    parameterization: Parameterization,
) -> None:
    clean, noise = draw()
    alpha, sigma = SCHEDULE.alpha(T), SCHEDULE.sigma(T)
    network = Told(target(parameterization(alpha, sigma), alpha, sigma, clean, noise))
    denoiser = Denoiser(network, SCHEDULE, parameterization, StepIndex())
    x_t = diffuse(SCHEDULE, clean, noise, T)
    torch.testing.assert_close(denoiser(x_t, T, Condition()), clean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(denoiser.bind(Condition())(x_t, T), clean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("parameterization", ALL)
def test_target_is_what_solves_the_definition_of_the_clean_estimate(
    parameterization: Parameterization,
) -> None:
    clean, noise = draw()
    alpha, sigma = SCHEDULE.alpha(T), SCHEDULE.sigma(T)
    _, c_skip, c_out = parameterization(alpha, sigma)
    x_t = diffuse(SCHEDULE, clean, noise, T)
    plain = (clean - expand(c_skip, x_t) * x_t) / expand(c_out, x_t)
    exact = target(parameterization(alpha, sigma), alpha, sigma, clean, noise)
    torch.testing.assert_close(exact[1:], plain[1:], rtol=1e-8, atol=1e-8)


def test_epsilon_target_is_the_noise_to_the_last_float32_digit_also_at_tiny_sigma() -> None:
    clean, noise = draw(torch.float32)
    alpha, sigma = SCHEDULE.alpha(T), SCHEDULE.sigma(T)
    assert float(sigma[0]) < 1e-5
    found = target(epsilon(alpha, sigma), alpha, sigma, clean, noise)
    # 1/alpha * alpha may differ from 1 by half a unit of float64; over sigma 5e-6 that is 4e-11 of the signal.
    torch.testing.assert_close(found, noise, rtol=6e-8, atol=1e-10)


def test_epsilon_network_output_is_the_noise_that_the_clean_estimate_leaves_in_x() -> None:
    output, _ = draw()
    x_t = diffuse(SCHEDULE, *draw(), T)
    denoiser = Denoiser(Told(output), SCHEDULE, epsilon, StepIndex())
    found = epsilon_from_clean(SCHEDULE, x_t, denoiser(x_t, T, Condition()), T)
    torch.testing.assert_close(found[1:], output[1:], rtol=1e-9, atol=1e-9)
    assert denoiser.predict(x_t, T, Condition()) is output


def test_epsilon_without_signal_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha > 0"):
        epsilon(torch.tensor([0.5, 0.0]), torch.tensor([0.8, 1.0]))


def test_score_is_minus_noise_over_sigma_for_a_network_that_knows_the_noise() -> None:
    clean, noise = draw()
    x_t = diffuse(SCHEDULE, clean, noise, T)
    score = Denoiser(Told(noise), SCHEDULE, epsilon, StepIndex()).score(x_t, T, Condition())
    torch.testing.assert_close(
        score[1:], (-noise / SCHEDULE.sigma(T)[:, None, None])[1:], rtol=1e-7, atol=1e-7
    )


def test_step_index_counts_rows_from_zero_with_fractions_between_them() -> None:
    steps = torch.tensor([0.0, 0.5, 1.0, 1.25, 2.0, 200.0], dtype=torch.float64)
    labels = StepIndex()(SCHEDULE, steps / SCHEDULE.steps)
    torch.testing.assert_close(labels.tolist(), [0.0, 0.0, 0.0, 0.25, 1.0, 199.0])


def test_network_hears_scaled_x_one_label_per_item_and_the_condition() -> None:
    clean, noise = draw(torch.float32)
    for t in (torch.tensor(0.5, dtype=torch.float64), torch.full((len(T),), 0.5)):
        network, condition = Told(noise), Condition(vector=torch.ones(len(T), 2))
        denoiser = Denoiser(network, SCHEDULE, epsilon, LogSnr())
        denoiser(clean, t, condition)
        denoiser.bind(condition)(clean, t)
        for x, label, heard in network.seen:
            assert torch.equal(x, clean)
            assert heard is condition
            assert label.dtype == torch.float32
            expected = SCHEDULE.log_snr(torch.full((len(T),), 0.5)) / 4
            torch.testing.assert_close(label, expected.float())
