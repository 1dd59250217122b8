"""Classifier-free guidance: one Denoise made of two (Ho and Salimans 2022, eq. 6)."""

from __future__ import annotations

from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise


def guided(conditional: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """Returns a Denoise that moves away from the unconditional estimate.

    Args:
        conditional: told the condition.
        unconditional: told nothing.
        scale: 1 is the plain conditional estimate, 0 the unconditional one; above 1 exaggerates. The clean
            estimate is affine in every parameterization, so that this is the paper's rule for epsilon.
    """

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        base = unconditional(x, t)
        return base + scale * (conditional(x, t) - base)

    return denoise
