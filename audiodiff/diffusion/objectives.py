"""What training minimises: (denoiser, clean, condition, noise, t) -> loss [B].

The default is the epsilon-prediction mean squared error of Ho et al. 2020, eq. 14: draw x_t, let the
network say which noise was added, and square the error. One published DiffWave was trained with the
absolute error instead. Positions beyond an item's length do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from audiodiff.diffusion.denoiser import Denoiser
from audiodiff.diffusion.parameterizations import target
from audiodiff.diffusion.process import diffuse
from audiodiff.types import Condition


class Objective(Protocol):
    """A loss per item."""

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Returns the loss [B] of clean [B, C, F] at t [B] with the given noise [B, C, F]."""
        ...


@dataclass(frozen=True)
class MeanSquaredError:
    """Mean squared error of the prediction; with epsilon prediction, the simple loss of Ho et al. 2020."""

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Returns the loss [B]."""
        error = prediction_error(denoiser, clean, condition, noise, t)
        return masked_mean(error.square(), condition.mask(clean))


@dataclass(frozen=True)
class MeanAbsoluteError:
    """Mean absolute error of the prediction, as lmnt's DiffWave and WaveGrad train."""

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Returns the loss [B]."""
        error = prediction_error(denoiser, clean, condition, noise, t)
        return masked_mean(error.abs(), condition.mask(clean))


def prediction_error(
    denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor
) -> Tensor:
    """Returns the network's prediction minus its target [B, C, F]; t [B] in (0, 1]."""
    alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
    coefficients = denoiser.parameterization(alpha, sigma)
    x_t = diffuse(denoiser.schedule, clean, noise, t)
    prediction = denoiser.predict(x_t, t, condition)
    return prediction.float() - target(coefficients, alpha, sigma, clean, noise).to(prediction.device).float()


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the mean over channels and valid positions of values [B, C, F] as [B].

    Args:
        values: [B, C, F].
        mask: [B, 1, F] with 1 at valid positions, or None for all.
    """
    if mask is None:
        return values.flatten(1).mean(1)
    count = mask.flatten(1).sum(1) * values.shape[1]
    return (values * mask).flatten(1).sum(1) / count.clamp(min=1)
