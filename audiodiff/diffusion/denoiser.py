"""Denoiser = network + schedule + parameterization + noise label.

It is the preconditioned whole of Karras et al. 2022, section 5: it maps x_t and t to the expected clean
signal. Samplers see only `bind(condition)`, a function (x, t) -> clean; an ONNX session or a guided pair of
denoisers is the same thing to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from audiodiff.diffusion.parameterizations import Parameterization
from audiodiff.diffusion.process import expand, score_from_clean
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.types import Condition

Denoise = Callable[[Tensor, Tensor], Tensor]


class NoiseLabel(Protocol):
    """How t is told to the network."""

    def __call__(self, schedule: NoiseSchedule, t: Tensor) -> Tensor:
        """Returns the label [B] for t [B], float64."""
        ...


@dataclass(frozen=True)
class StepIndex:
    """The row of the table, counted from 0 as DiffWave does: t N - 1, fractional between rows."""

    def __call__(self, schedule: NoiseSchedule, t: Tensor) -> Tensor:
        """Returns [B] in [0, N - 1]; a level below the first row counts as the first row."""
        return (t * schedule.steps - 1).clamp(min=0)


@dataclass(frozen=True)
class LogSnr:
    """A quarter of the log-SNR, about -2.5 to 2.5 (Karras et al. 2022, c_noise = log(sigma) / 4, up to sign)."""

    def __call__(self, schedule: NoiseSchedule, t: Tensor) -> Tensor:
        """Returns [B]."""
        return schedule.log_snr(t) / 4


class Network(Protocol):
    """The contract of every network."""

    def __call__(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        """Returns [B, C, F] for x [B, C, F] and noise_label [B]."""
        ...

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns (x, noise_label) -> [B, C, F], with what depends on the condition alone computed once."""
        ...

    def receptive_field(self) -> int:
        """Returns how many positions of x one position of the output depends on."""
        ...


class Denoiser(nn.Module):
    """Maps x_t [B, C, F] at t [B] to the clean estimate [B, C, F]."""

    network: Network

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        parameterization: Parameterization,
        noise_label: NoiseLabel,
    ) -> None:
        """Joins the four parts.

        Args:
            network: forward(x [B, C, F], noise_label [B], condition) -> [B, C, F], and bind(condition).
            schedule: alpha and sigma.
            parameterization: what the network's output means.
            noise_label: what of t the network is told.
        """
        super().__init__()
        self.network = network  # type: ignore[assignment]
        self.schedule = schedule
        self.parameterization = parameterization
        self.noise_label = noise_label

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Returns the network's own output F(c_in x_t), for the objective.

        Args:
            x_t: [B, C, F].
            t: [B] or a scalar, float64, in (0, 1].
            condition: what the network is told besides.
        """
        t = _per_item(t, x_t)
        c_in, _, _ = self._coefficients(t)
        return self.network(expand(c_in, x_t) * x_t, self._label(t, x_t), condition)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Returns the clean estimate [B, C, F] for x_t at t."""
        return self._clean(x_t, _per_item(t, x_t), self.predict(x_t, t, condition))

    def bind(self, condition: Condition) -> Denoise:
        """Returns (x, t) -> clean for one condition; what depends on it alone is computed once."""
        network = self.network.bind(condition)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            t = _per_item(t, x_t)
            c_in, _, _ = self._coefficients(t)
            output = network(expand(c_in, x_t) * x_t, self._label(t, x_t))
            return self._clean(x_t, t, output)

        return denoise

    def score(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Returns grad log p(x_t) [B, C, F], t > 0 (Song et al. 2021, section 3)."""
        return score_from_clean(self.schedule, x_t, self(x_t, t, condition), t)

    def _clean(self, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        _, c_skip, c_out = self._coefficients(t)
        return expand(c_skip, x_t) * x_t + expand(c_out, x_t) * output.to(x_t.dtype)

    def _coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.parameterization(self.schedule.alpha(t), self.schedule.sigma(t))

    def _label(self, t: Tensor, x: Tensor) -> Tensor:
        return self.noise_label(self.schedule, t).to(device=x.device, dtype=x.dtype)


def _per_item(t: Tensor, x: Tensor) -> Tensor:
    return torch.as_tensor(t, dtype=torch.float64).reshape(-1).expand(x.shape[0])
