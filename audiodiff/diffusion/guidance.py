"""Guidance: one Denoise made of two, a better and a worse one.

Classifier-free guidance moves away from the estimate without the condition (Ho and Salimans 2022, eq. 6);
autoguidance moves away from that of a smaller or less trained model under the same condition (Karras et al.
2024). Both are the same extrapolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise, VarianceDenoise
from audiodiff.errors import InputError


@dataclass(frozen=True)
class Guidance:
    """How far to move.

    Attributes:
        scale: 1 is the plain conditional estimate, 0 the other one; above 1 exaggerates. The clean estimate is
            affine in every parameterization, so this is the papers' rule for epsilon too.
        rescale: share of the result whose spread is brought back to that of the conditional estimate, 0 to 1
            (Lin et al. 2024, eq. 16); against the loudness that large scales add.
        interval: (lowest, highest) t in which to guide; outside the estimate is the plain conditional one
            (Kynkaanniemi et al. 2024).
    """

    scale: float = 1.0
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise InputError(f"guidance scale: got {self.scale}, expected a number of 0 or more")
        if not 0 <= self.rescale <= 1:
            raise InputError(f"guidance rescale: got {self.rescale}, expected a number from 0 to 1")
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise InputError(f"guidance interval: got {low} to {high}, expected 0 <= lowest < highest <= 1")

    def changed(
        self, scale: float | None, rescale: float | None, interval: tuple[float, float] | None
    ) -> Guidance:
        """Returns the same guidance with what is not None put in."""
        return Guidance(
            self.scale if scale is None else scale,
            self.rescale if rescale is None else rescale,
            self.interval if interval is None else interval,
        )


@dataclass(frozen=True)
class GuidedDenoise:
    """A Denoise that moves away from a worse one.

    Attributes:
        conditional: told the condition.
        other: told nothing, or a weaker model.
        guidance: how far.
        projection: (clean, t) -> clean, of the guided estimate; None for none.
    """

    conditional: Denoise
    other: Denoise
    guidance: Guidance
    projection: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def scale(self) -> float:
        """The guidance scale."""
        return self.guidance.scale

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the guided clean estimate [B, C, F]."""
        return self.both(x, t)[0]

    def both(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the guided and the other clean estimate; outside the interval the conditional one for both."""
        return self._guide(self.conditional(x, t), x, t)

    def _guide(self, conditional: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.guidance.interval
        inside = ((t >= low) & (t <= high)).to(x.device).view(-1, *[1] * (x.dim() - 1))
        clean = other = conditional
        if bool(inside.any()):
            other = torch.where(inside, self.other(x, t), conditional)
            clean = other + self.guidance.scale * (conditional - other)
        if self.guidance.rescale > 0:
            matched = clean * (_spread(conditional) / _spread(clean).clamp(min=1e-12))
            clean = clean + self.guidance.rescale * (matched - clean)
        return (clean if self.projection is None else self.projection(clean, t)), other


@dataclass(frozen=True)
class GuidedVariance(GuidedDenoise):
    """Guidance of a model that learned the variance of each step, which is the conditional one's (as in ADM)."""

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the guided clean estimate and the conditional share v, both [B, C, F]."""
        assert isinstance(self.conditional, VarianceDenoise)
        conditional, share = self.conditional.with_variance(x, t)
        return self._guide(conditional, x, t)[0], share


def guided(conditional: Denoise, other: Denoise, guidance: Guidance) -> Denoise:
    """Returns the guided Denoise; at scale 1 the conditional one itself, which costs one evaluation."""
    if guidance.scale == 1:
        return conditional
    kind = GuidedVariance if isinstance(conditional, VarianceDenoise) else GuidedDenoise
    return kind(conditional, other, guidance)


def _spread(x: Tensor) -> Tensor:
    return x.flatten(1).std(1).view(-1, *[1] * (x.dim() - 1))
