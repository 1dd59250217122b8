"""What the network predicts, as coefficients of the clean estimate.

A parameterization is a function (alpha, sigma) -> (c_in, c_skip, c_out) with

    clean = c_skip x_t + c_out F(c_in x_t)

(Karras et al. 2022, eq. 7, in variance-preserving coordinates). The target of F follows from it alone:
`target` is the F that makes the clean estimate exact. Adding a parameterization is adding one function.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from audiodiff.diffusion.process import expand
from audiodiff.errors import InputError

Coefficients = tuple[Tensor, Tensor, Tensor]
Parameterization = Callable[[Tensor, Tensor], Coefficients]


def epsilon(alpha: Tensor, sigma: Tensor) -> Coefficients:
    """F predicts the noise: clean = (x_t - sigma F) / alpha (Ho et al. 2020, eq. 15).

    Raises:
        InputError: alpha is 0 somewhere, where the noise says nothing of the signal.
    """
    _require_signal("epsilon", alpha)
    return alpha.new_ones(alpha.shape), 1 / alpha, -sigma / alpha


def score(alpha: Tensor, sigma: Tensor) -> Coefficients:
    """F predicts grad log p(x_t) = -eps / sigma: clean = (x_t + sigma^2 F) / alpha (Song et al. 2021).

    Raises:
        InputError: alpha is 0 somewhere.
    """
    _require_signal("score", alpha)
    return alpha.new_ones(alpha.shape), 1 / alpha, sigma**2 / alpha


def clean(alpha: Tensor, sigma: Tensor) -> Coefficients:
    """F predicts the clean signal itself (Ramesh et al. 2022)."""
    one = alpha.new_ones(alpha.shape)
    return one, 0 * one, one


def velocity(alpha: Tensor, sigma: Tensor) -> Coefficients:
    """F predicts v = alpha eps - sigma x_0, at any level (Salimans and Ho 2022, appendix D)."""
    power = alpha**2 + sigma**2
    return alpha.new_ones(alpha.shape), alpha / power, -sigma / power


def flow(alpha: Tensor, sigma: Tensor) -> Coefficients:
    """F predicts eps - x_0, the speed along a straight path (Lipman et al. 2023; Liu et al. 2023)."""
    total = alpha + sigma
    return alpha.new_ones(alpha.shape), 1 / total, -sigma / total


def edm(alpha: Tensor, sigma: Tensor, *, data_std: float = 1.0) -> Coefficients:
    """The preconditioning of Karras et al. 2022, table 1: input and target of F have unit variance.

    Args:
        alpha: scale of the signal.
        sigma: scale of the noise.
        data_std: standard deviation of the clean signal; 1 for a Representation with its statistics.
    """
    power = sigma**2 + (alpha * data_std) ** 2
    return power.rsqrt(), alpha * data_std**2 / power, sigma * data_std * power.rsqrt()


def _require_signal(name: str, alpha: Tensor) -> None:
    if bool((alpha <= 0).any()):
        raise InputError(
            f"{name} prediction divides by alpha, and this schedule reaches alpha = 0; "
            "choose velocity, clean, flow or edm"
        )


def target(coefficients: Coefficients, alpha: Tensor, sigma: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    """Returns the F for which the clean estimate is exact: (clean - c_skip x_t) / c_out.

    It is written in clean and noise with coefficients combined in float64, since near t = 0 the plain
    form loses the digits of the noise in the difference of two nearly equal numbers.

    Args:
        coefficients: (c_in, c_skip, c_out), each [B], float64.
        alpha: [B] scale of the signal.
        sigma: [B] scale of the noise.
        clean: [B, C, F].
        noise: [B, C, F].
    """
    _, c_skip, c_out = coefficients
    weight_clean = (1 - c_skip * alpha) / c_out
    weight_noise = -c_skip * sigma / c_out
    return expand(weight_clean, clean) * clean + expand(weight_noise, clean) * noise
