"""A prior is a change of coordinates: its inverse, its volume, and the formulas of PriorGrad and Grad-TTS."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from audiodiff.diffusion.continuous import VPSDE
from audiodiff.diffusion.denoiser import Denoiser, Time
from audiodiff.diffusion.objectives import MeanSquaredError
from audiodiff.diffusion.parameterizations import clean as predict_clean
from audiodiff.diffusion.parameterizations import edm, epsilon, flow, score, velocity
from audiodiff.diffusion.priors import color, log_volume, whiten, whiten_scale
from audiodiff.diffusion.process import diffuse
from audiodiff.diffusion.schedules import linear
from audiodiff.types import Condition

SCHEDULE = linear(1e-4, 0.05, 50)
T = torch.tensor([0.02, 0.3, 1.0], dtype=torch.float64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, NOISE = draw(2, 3, 2, 8)
MEAN = draw(3, 2, 8, seed=1)
STD = 0.1 + draw(3, 2, 8, seed=2).abs()
SHARED = 0.1 + draw(3, 1, 8, seed=3).abs()  # one deviation for all channels

PRIORS = {
    "none": Condition(),
    "mean": Condition(prior_mean=MEAN),
    "std": Condition(prior_std=STD),
    "shared-std": Condition(prior_std=SHARED),
    "both": Condition(prior_mean=MEAN, prior_std=SHARED),
}
every_prior = pytest.mark.parametrize("condition", PRIORS.values(), ids=PRIORS)


class Linear(nn.Module):
    """A network that answers a fixed part of x plus a fixed signal, and keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        self.seen.append(x)
        return 0.3 * x + draw(3, 2, 8, seed=4)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, noise_label: self(x, noise_label, condition)


@every_prior
def test_color_inverts_whiten(condition: Condition) -> None:
    torch.testing.assert_close(color(whiten(X, condition), condition), X, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(whiten(color(X, condition), condition), X, rtol=1e-13, atol=1e-13)


def test_without_a_prior_nothing_is_computed() -> None:
    assert whiten(X, Condition()) is X
    assert color(X, Condition()) is X
    assert whiten_scale(X, Condition()) is X
    assert log_volume(X, Condition()) == 0.0


@every_prior
def test_log_volume_is_the_log_determinant_of_the_jacobian_of_whiten(condition: Condition) -> None:
    jacobian = torch.autograd.functional.jacobian(lambda x: whiten(x, condition), X)
    for item in range(len(X)):
        own = jacobian[item, :, :, item].reshape(16, 16)
        expected = torch.linalg.slogdet(own).logabsdet
        found = torch.as_tensor(log_volume(X, condition), dtype=torch.float64).expand(3)[item]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@every_prior
def test_density_of_x_is_that_of_the_whitened_times_the_volume(condition: Condition) -> None:
    standard = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    found = standard.log_prob(whiten(X, condition)).flatten(1).sum(1) + log_volume(X, condition)
    mean = torch.zeros_like(X) if condition.prior_mean is None else condition.prior_mean
    std = torch.ones_like(X) if condition.prior_std is None else condition.prior_std
    expected = torch.distributions.Normal(mean, std.expand_as(X)).log_prob(X).flatten(1).sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("std", [STD, SHARED])
def test_network_of_priorgrad_sees_noise_of_the_prior_and_is_paid_in_its_units(std: Tensor) -> None:
    condition, network = Condition(prior_std=std), Linear()
    denoiser = Denoiser(network, SCHEDULE, epsilon, Time())
    loss = MeanSquaredError()(denoiser, whiten(X, condition), condition, NOISE, T)
    # Lee et al. 2022, algorithm 1: noise from N(0, std^2), loss weighted by its inverse variance.
    alpha, sigma = SCHEDULE.alpha(T)[:, None, None], SCHEDULE.sigma(T)[:, None, None]
    noise = std * NOISE
    x_t = alpha * X + sigma * noise
    torch.testing.assert_close(network.seen[0], x_t, rtol=1e-12, atol=1e-12)
    expected = ((noise - Linear()(x_t, T, condition)) / std).square().flatten(1).mean(1)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)


def test_clean_estimate_of_priorgrad_is_its_own_reverse_formula() -> None:
    condition = Condition(prior_std=SHARED)
    denoiser = Denoiser(Linear(), SCHEDULE, epsilon, Time())
    alpha, sigma = SCHEDULE.alpha(T)[:, None, None], SCHEDULE.sigma(T)[:, None, None]
    x_t = alpha * X + sigma * SHARED * NOISE
    expected = (x_t - sigma * Linear()(x_t, T, condition)) / alpha
    for estimate in (denoiser, denoiser.bind(condition)):
        arguments = (condition,) if estimate is denoiser else ()
        found = color(estimate(whiten(x_t, condition), T, *arguments), condition)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_network_of_grad_tts_sees_the_path_from_the_signal_to_the_prior_mean() -> None:
    condition, network, schedule = Condition(prior_mean=MEAN), Linear(), VPSDE(0.05, 20.0)
    denoiser = Denoiser(network, schedule, score, Time())
    loss = MeanSquaredError()(denoiser, whiten(X, condition), condition, NOISE, T)
    # Popov et al. 2021, eqs. 9 and 15 with cum_noise of the released code; X_t ends around the mean.
    cumulative = (0.05 * T + 0.5 * (20 - 0.05) * T**2)[:, None, None]
    sigma = (1 - torch.exp(-cumulative)).sqrt()
    x_t = X * torch.exp(-cumulative / 2) + MEAN * (1 - torch.exp(-cumulative / 2)) + NOISE * sigma
    torch.testing.assert_close(network.seen[0], x_t, rtol=1e-11, atol=1e-11)
    expected = (Linear()(x_t, T, condition) + NOISE / sigma).square().flatten(1).mean(1)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)


@every_prior
@pytest.mark.parametrize("parameterization", [epsilon, score, predict_clean, velocity, flow, edm])
def test_denoiser_with_a_prior_is_the_plain_one_whose_network_is_colored(
    condition: Condition, parameterization: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
) -> None:
    """What the network sees is c_in (mean + std z), what it says is relative to the mean and in units of std."""
    z = diffuse(SCHEDULE, X, NOISE, T)
    network = Linear()
    found = Denoiser(network, SCHEDULE, parameterization, Time())(z, T, condition)
    c_in, c_skip, c_out = (c[:, None, None] for c in parameterization(SCHEDULE.alpha(T), SCHEDULE.sigma(T)))
    mean = torch.zeros_like(X) if condition.prior_mean is None else condition.prior_mean
    std = torch.ones_like(X) if condition.prior_std is None else condition.prior_std
    seen = c_in * (mean + std * z)
    torch.testing.assert_close(network.seen[0], seen, rtol=1e-12, atol=1e-12)
    expected = c_skip * z + c_out * (0.3 * seen + draw(3, 2, 8, seed=4)) / std
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
