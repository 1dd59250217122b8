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

Coefficients = tuple[Tensor, Tensor, Tensor]
Parameterization = Callable[[Tensor, Tensor], Coefficients]


def epsilon(alpha: Tensor, sigma: Tensor) -> Coefficients:
    """F predicts the noise: clean = (x_t - sigma F) / alpha (Ho et al. 2020, eq. 15).

    Raises:
        ValueError: alpha is 0 somewhere, where the noise says nothing of the signal.
    """
    if bool((alpha <= 0).any()):
        raise ValueError("epsilon prediction needs alpha > 0; this schedule reaches alpha = 0")
    return alpha.new_ones(alpha.shape), 1 / alpha, -sigma / alpha


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
