"""What must hold of the signal while it is sampled.

A Constraint acts on x after every step: (x, s) -> x. A Projection acts on the clean estimate before the step
uses it: (clean, t) -> clean; `projected` makes a Denoise of a Denoise and a projection. Where an observation
is linear, the projection puts back what it fixes and leaves the rest (Wang et al. 2023, DDNM, eq. 10).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise, VarianceDenoise
from audiodiff.diffusion.guidance import GuidedDenoise
from audiodiff.diffusion.process import diffuse
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.errors import InputError

Constraint = Callable[[Tensor, Tensor], Tensor]
Projection = Callable[[Tensor, Tensor], Tensor]


def chain(*parts: Constraint) -> Constraint:
    """Returns one constraint, or projection, that applies the parts in order."""

    def apply(x: Tensor, time: Tensor) -> Tensor:
        for part in parts:
            x = part(x, time)
        return x

    return apply


def projected(denoise: Denoise, projection: Projection) -> Denoise:
    """Returns a Denoise whose clean estimate is projected; it stays guided and keeps a learned variance."""
    if isinstance(denoise, GuidedDenoise):
        return replace(denoise, projection=projection)
    if isinstance(denoise, VarianceDenoise):
        return _ProjectedVariance(denoise, projection)
    return lambda x, t: projection(denoise(x, t), t)


@dataclass(frozen=True)
class _ProjectedVariance:
    denoise: VarianceDenoise
    projection: Projection

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.with_variance(x, t)[0]

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        clean, share = self.denoise.with_variance(x, t)
        return self.projection(clean, t), share


@dataclass(frozen=True)
class Clip:
    """Clamps to [low, high]: after each step as lmnt's DiffWave does, or the clean estimate as Ho et al. do.

    Attributes:
        low: smallest value kept.
        high: largest value kept.
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"clip: got {self.low} to {self.high}, expected low < high")

    def __call__(self, x: Tensor, s: Tensor) -> Tensor:
        """Returns x [B, C, F] clamped to [low, high]."""
        return x.clamp(self.low, self.high)


@dataclass(frozen=True)
class DynamicThreshold:
    """Projection: clamps each item to its own quantile and scales it back (Saharia et al. 2022, section 2.3).

    Attributes:
        quantile: of the absolute values, in (0, 1].
        bound: of the result; an item whose quantile lies below it is clamped to it and not scaled.
    """

    quantile: float = 0.995
    bound: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.quantile <= 1 or self.bound <= 0:
            raise InputError(
                f"dynamic threshold: got quantile {self.quantile} and bound {self.bound}, expected a quantile in "
                "(0, 1] and a bound above 0"
            )

    def __call__(self, clean: Tensor, t: Tensor) -> Tensor:
        """Returns clean [B, C, F] within +-bound."""
        flat = clean.flatten(1).abs()
        # The k-th value, not torch.quantile, which refuses tensors of more than 2^24 numbers.
        k = max(1, round(self.quantile * flat.shape[1]))
        limit = flat.kthvalue(k, dim=1).values.clamp(min=self.bound).view(-1, *[1] * (clean.dim() - 1))
        return clean.clamp(-limit, limit) * (self.bound / limit)


@dataclass(frozen=True)
class KnownRegion:
    """Constraint: where the signal is known, x is the known signal noised to the level reached.

    Lugmayr et al. 2022 (RePaint), eq. 8. At s = 0 the known samples come out bit for bit.

    Attributes:
        schedule: the noise schedule.
        known: [B, C, F], anything where it is not known.
        mask: [B, 1 or C, F], 1 where known, 0 elsewhere.
        noise: gives standard normal noise of x's shape, new at every call.
    """

    schedule: NoiseSchedule
    known: Tensor
    mask: Tensor
    noise: Callable[[], Tensor]

    def __call__(self, x: Tensor, s: Tensor) -> Tensor:
        """Returns x [B, C, F]."""
        known = self.known if float(s) == 0 else diffuse(self.schedule, self.known, self.noise(), s)
        return torch.where(self.mask.bool(), known, x)


@dataclass(frozen=True)
class LinearObservation:
    """Projection to the signals that an observation y = A x allows: clean + A^+ (y - A clean).

    Attributes:
        observation: y, of the shape that `observe` gives.
        observe: A.
        restore: a right inverse of A, A A^+ y = y.
    """

    observation: Tensor
    observe: Callable[[Tensor], Tensor]
    restore: Callable[[Tensor], Tensor]

    def __call__(self, clean: Tensor, t: Tensor) -> Tensor:
        """Returns the projected estimate [B, C, F]."""
        return clean + self.restore(self.observation - self.observe(clean))


def masked(known: Tensor, mask: Tensor) -> LinearObservation:
    """Returns the projection that fixes the samples where mask [B, 1 or C, F] is 1."""
    return LinearObservation(known * mask, lambda x: x * mask, lambda y: y * mask)


def band_limited(observation: Tensor, bandwidth: float) -> LinearObservation:
    """Returns the projection that fixes the spectrum below a frequency.

    Args:
        observation: [B, C, F], whose spectrum below the frequency is right.
        bandwidth: the frequency as a share of half the rate of the positions, in (0, 1).
    """
    if not 0 < bandwidth < 1:
        raise InputError(
            f"bandwidth: got {bandwidth}, expected a share of the Nyquist frequency between 0 and 1"
        )

    def low_pass(x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x)
        spectrum[..., int(bandwidth * (spectrum.shape[-1] - 1)) + 1 :] = 0
        return torch.fft.irfft(spectrum, n=x.shape[-1])

    return LinearObservation(low_pass(observation), low_pass, lambda y: y)


@dataclass(frozen=True)
class Clipped:
    """Projection to the signals whose clipping gives the observation: samples at the limit may lie beyond it.

    Attributes:
        observation: [B, C, F], within +-level.
        level: where it was clipped.
    """

    observation: Tensor
    level: float

    def __call__(self, clean: Tensor, t: Tensor) -> Tensor:
        """Returns the estimate, right where nothing was clipped and at least +-level where it was."""
        above = torch.maximum(clean, self.observation)
        below = torch.minimum(clean, self.observation)
        inside = torch.where(self.observation <= -self.level, below, self.observation)
        return torch.where(self.observation >= self.level, above, inside)
