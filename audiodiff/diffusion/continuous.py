"""Schedules without rows: a formula in t for alpha and sigma, and its inverse.

Variance-preserving ones (cosine, sigmoid, the VP SDE), the variance-exploding one of Karras et al. 2022, and the
straight path of flow matching. Several leave no signal at t = 1; there the network must not predict the noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from audiodiff.diffusion.schedules import EARLIEST, VariancePreserving, checked_time, normalized
from audiodiff.errors import InputError

SIGMA_MIN = 0.002  # least noise that Karras et al. 2022 sample at, in standard deviations of the signal


class Cosine(VariancePreserving):
    """alpha is a quarter of a cosine: v-diffusion and Dance Diffusion with offset 0.

    alpha(t) = cos((t + offset) / (1 + offset) pi/2) / cos(offset / (1 + offset) pi/2), Nichol and Dhariwal
    2021, eq. 17. No signal is left at t = 1.
    """

    def __init__(self, offset: float = 0.0) -> None:
        """Stores the offset, 0.008 in the paper; it keeps the first noise from being too small."""
        if offset < 0:
            raise InputError(f"cosine offset: got {offset}, expected 0 or more")
        self.offset = offset
        self._unit = math.pi / 2 / (1 + offset)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (alpha, sigma) at t, as sines that keep their digits where they vanish."""
        t = checked_time(t)
        square = torch.sin(t * self._unit) * torch.sin((t + 2 * self.offset) * self._unit)
        return normalized(torch.sin((1 - t) * self._unit), square.sqrt())

    def time(self, log_snr: Tensor) -> Tensor:
        """Returns the t with that log-SNR, clamped to [0, 1]."""
        signal, noise = torch.sigmoid(log_snr.double()), torch.sigmoid(-log_snr.double())
        start = self.offset * self._unit
        # alpha is cos(angle) / cos(start); the sine comes from what is missing, which has digits near t = 0.
        sine = (noise + signal * math.sin(start) ** 2).sqrt()
        angle = torch.atan2(sine, signal.sqrt() * math.cos(start))
        return ((angle - start) / self._unit).clamp(0, 1)


class Sigmoid(VariancePreserving):
    """alpha^2 falls along a logistic curve (Jabri et al. 2023; Chen 2023, algorithm 1)."""

    def __init__(self, start: float = -3.0, end: float = 3.0, temperature: float = 1.0) -> None:
        """Stores the part of the curve that is used: from start to end, stretched by the temperature."""
        if not start < end or temperature <= 0:
            raise InputError(
                f"sigmoid schedule: got {start} to {end} at temperature {temperature}, expected start < end and "
                "a temperature above 0"
            )
        self._low, self._high = start / temperature, end / temperature

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (alpha, sigma) at t, each from the end of the curve where it vanishes."""
        t, span = checked_time(t), self._high - self._low
        position = self._low + t * span
        # logistic(b) - logistic(a) = logistic(b) logistic(-a) (1 - exp(a - b)): no digits cancel where b is near a.
        signal = -torch.expm1(-(1 - t) * span) * torch.sigmoid(-position) * _logistic(self._high)
        noise = -torch.expm1(-t * span) * torch.sigmoid(position) * _logistic(-self._low)
        return normalized(signal.sqrt(), noise.sqrt())

    def time(self, log_snr: Tensor) -> Tensor:
        """Returns the t with that log-SNR, clamped to [0, 1]."""
        signal, noise = torch.sigmoid(log_snr.double()), torch.sigmoid(-log_snr.double())
        low, high = _logistic(self._low), _logistic(self._high)
        rest_low, rest_high = _logistic(-self._low), _logistic(-self._high)
        position = (noise * high + signal * low).log() - (noise * rest_high + signal * rest_low).log()
        return ((position - self._low) / (self._high - self._low)).clamp(0, 1)


def _logistic(position: float) -> float:
    return 1 / (1 + math.exp(-position))


class VPSDE(VariancePreserving):
    """Linear beta(t) in continuous time: alpha = exp(-1/2 int_0^t beta) (Song et al. 2021, eq. 33).

    Grad-TTS has beta from 0.05 to 20 (Popov et al. 2021, section 4).
    """

    def __init__(self, beta_min: float = 0.05, beta_max: float = 20.0) -> None:
        """Stores the rates at t = 0 and t = 1, per unit of time."""
        if not 0 <= beta_min < beta_max:
            raise InputError(
                f"beta_min, beta_max: got {beta_min}, {beta_max}, expected 0 <= beta_min < beta_max"
            )
        self.beta_min, self.beta_max = beta_min, beta_max

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (alpha, sigma) at t."""
        t = checked_time(t)
        integral = self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2
        return torch.exp(-integral / 2), (-torch.expm1(-integral)).sqrt()

    def time(self, log_snr: Tensor) -> Tensor:
        """Returns the t with that log-SNR, clamped to [0, 1]."""
        integral = -torch.nn.functional.logsigmoid(log_snr.double())
        # The root of the quadratic, written so that no digits cancel at small t.
        root = (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral).sqrt()
        t = 2 * integral / (self.beta_min + root).clamp(min=1e-300)
        return torch.where(integral == torch.inf, 1.0, t).clamp(0, 1)


class LogSnrShift(VariancePreserving):
    """Another variance-preserving schedule with its log-SNR moved: noisier below 0 (Hoogeboom et al. 2023)."""

    def __init__(self, schedule: VariancePreserving, shift: float) -> None:
        """Stores both; the shift is 2 log of the factor on the signal-to-noise amplitude ratio."""
        self.schedule, self.shift = schedule, shift

    @property
    def earliest(self) -> float:  # type: ignore[override]
        """That of the schedule which is moved."""
        return self.schedule.earliest

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (alpha, sigma) at t, not from the log-SNR, which has no slope where it is infinite."""
        alpha, sigma = self.schedule.scales(t)
        return normalized(alpha * math.exp(self.shift / 2), sigma)

    def log_snr(self, t: Tensor) -> Tensor:
        """Returns the moved log-SNR."""
        return self.schedule.log_snr(t) + self.shift

    def time(self, log_snr: Tensor) -> Tensor:
        """Returns the t with that log-SNR, clamped to [0, 1]."""
        return self.schedule.time(log_snr.double() - self.shift)


class Karras:
    """Variance exploding: alpha = 1, sigma = sigma_max t^rho (Karras et al. 2022, section 3).

    Evenly spaced t from 1 is their eq. 5 with sigma_min = 0; the smallest sigma above 0 belongs to the
    sampling grid: `earliest` is where it is their 0.002. rho = 1/2 is the variance-exploding process of Song et
    al. 2021.
    """

    def __init__(self, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        """Stores the noise at t = 1, in standard deviations of the signal, and the exponent."""
        if sigma_max <= 0 or rho <= 0:
            raise InputError(f"sigma_max, rho: got {sigma_max}, {rho}, expected both above 0")
        self.sigma_max, self.rho = sigma_max, rho
        self.earliest = min(SIGMA_MIN / sigma_max, EARLIEST) ** (1 / rho)

    def alpha(self, t: Tensor) -> Tensor:
        """Returns 1."""
        return torch.ones_like(checked_time(t))

    def sigma(self, t: Tensor) -> Tensor:
        """Returns sigma_max t^rho."""
        return self.sigma_max * checked_time(t) ** self.rho

    def log_snr(self, t: Tensor) -> Tensor:
        """Returns -2 log sigma(t)."""
        return -2 * (math.log(self.sigma_max) + self.rho * checked_time(t).log())

    def time(self, log_snr: Tensor) -> Tensor:
        """Returns the t with that log-SNR, clamped to [0, 1]."""
        return torch.exp((-log_snr.double() / 2 - math.log(self.sigma_max)) / self.rho).clamp(0, 1)


class Flow:
    """The straight path of flow matching: alpha = 1 - t, sigma = sigma_min + (1 - sigma_min) t.

    Lipman et al. 2023, eq. 22, with time reversed (0 is data); Matcha-TTS has sigma_min 1e-4, rectified flow 0.
    `shift` runs the same path at another pace, t -> shift t / (1 + (shift - 1) t) (Esser et al. 2024, eq. 23).
    """

    earliest = EARLIEST

    def __init__(self, sigma_min: float = 0.0, shift: float = 1.0) -> None:
        """Stores the noise left at t = 0 and the shift; above 1 it spends more time where there is noise."""
        if not 0 <= sigma_min < 1 or shift <= 0:
            raise InputError(
                f"flow schedule: got sigma_min {sigma_min} and shift {shift}, expected sigma_min in [0, 1) and "
                "a shift above 0"
            )
        self.sigma_min, self.shift = sigma_min, shift

    def alpha(self, t: Tensor) -> Tensor:
        """Returns the scale of the signal at t."""
        t = checked_time(t)
        return (1 - t) / (1 + (self.shift - 1) * t)

    def sigma(self, t: Tensor) -> Tensor:
        """Returns the standard deviation of the noise at t."""
        t = checked_time(t)
        return self.sigma_min + (1 - self.sigma_min) * self.shift * t / (1 + (self.shift - 1) * t)

    def log_snr(self, t: Tensor) -> Tensor:
        """Returns log(alpha^2 / sigma^2)."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def time(self, log_snr: Tensor) -> Tensor:
        """Returns the t with that log-SNR, clamped to [0, 1]."""
        ratio = torch.exp(-log_snr.double() / 2)
        paced = (ratio - self.sigma_min) / (1 - self.sigma_min + ratio)
        paced = torch.where(ratio == torch.inf, 1.0, paced).clamp(0, 1)
        return paced / (self.shift - (self.shift - 1) * paced)
