"""Denoiser = network + schedule + parameterization + noise label.

It is the preconditioned whole of Karras et al. 2022, section 5: it maps x_t and t to the expected clean
signal. Samplers see only `bind(condition)`, a function (x, t) -> clean; an ONNX session or a guided pair of
denoisers is the same thing to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from audiodiff.diffusion.parameterizations import Parameterization
from audiodiff.diffusion.priors import color, whiten_scale
from audiodiff.diffusion.process import expand, score_from_clean
from audiodiff.diffusion.schedules import NoiseSchedule, table_of
from audiodiff.errors import InputError
from audiodiff.types import Condition

Denoise = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class VarianceDenoise(Protocol):
    """A Denoise of a model that also learned the variance of each step."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the clean estimate [B, C, F]."""
        ...

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the clean estimate and the share v of the large log-variance, both [B, C, F]."""
        ...


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
        return (t * table_of(schedule, "noise_label StepIndex").steps - 1).clamp(min=0)


@dataclass(frozen=True)
class LogSnr:
    """A quarter of the log-SNR, about -2.5 to 2.5: -2 c_noise of Karras et al. 2022, table 1."""

    def __call__(self, schedule: NoiseSchedule, t: Tensor) -> Tensor:
        """Returns [B], within +-10 where the log-SNR is infinite."""
        return (schedule.log_snr(t) / 4).clamp(-10, 10)


@dataclass(frozen=True)
class Alpha:
    """The scale of the signal, sqrt(alpha-bar): the continuous noise level of Chen et al. 2021 (WaveGrad)."""

    def __call__(self, schedule: NoiseSchedule, t: Tensor) -> Tensor:
        """Returns [B] in [0, 1]."""
        return schedule.alpha(t)


@dataclass(frozen=True)
class Time:
    """The time itself, as Grad-TTS, Dance Diffusion and flow matching tell it."""

    def __call__(self, schedule: NoiseSchedule, t: Tensor) -> Tensor:
        """Returns [B] in [0, 1]."""
        return t.double()


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
    """Maps x_t [B, C, F] at t [B] to the clean estimate [B, C, F].

    Where the condition tells a prior, x_t and the estimate are whitened by it (see `priors`); the network
    sees and predicts in the coordinates of the data.
    """

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
        """Returns the network's prediction F(c_in x_t), for the objective.

        Args:
            x_t: [B, C, F].
            t: [B] or a scalar, float64, in (0, 1].
            condition: what the network is told besides.
        """
        return self._predict(self._open(condition), x_t, t, condition)[0]

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Returns the clean estimate [B, C, F] for x_t at t."""
        return self.clean_of(x_t, t, self.predict(x_t, t, condition))

    def bind(self, condition: Condition) -> Denoise:
        """Returns (x, t) -> clean for one condition; what depends on it alone is computed once."""
        network = self.network.bind(condition)
        return lambda x_t, t: self.clean_of(x_t, t, self._predict(network, x_t, t, condition)[0])

    def score(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Returns grad log p(x_t) [B, C, F], t > 0 (Song et al. 2021, section 3)."""
        return score_from_clean(self.schedule, x_t, self(x_t, t, condition), t)

    def clean_of(self, x_t: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        """Returns the clean estimate [B, C, F] that a prediction at x_t means."""
        _, c_skip, c_out = self.coefficients(_per_item(t, x_t))
        return expand(c_skip, x_t) * x_t + expand(c_out, x_t) * prediction.to(x_t.dtype)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (c_in, c_skip, c_out) at t, float64."""
        return self.parameterization(self.schedule.alpha(t), self.schedule.sigma(t))

    def to_network(self, x_t: Tensor, condition: Condition) -> Tensor:
        """Returns whitened x_t [B, C, F] in the coordinates that the network sees: the data's."""
        return color(x_t, condition)

    def from_network(self, prediction: Tensor, condition: Condition) -> Tensor:
        """Returns what the network predicted [B, C, F] in whitened coordinates."""
        return whiten_scale(prediction, condition)

    def _predict(
        self, network: Callable[[Tensor, Tensor], Tensor], x_t: Tensor, t: Tensor, condition: Condition
    ) -> tuple[Tensor, ...]:
        """Returns the tensors of x's shape that the network gives, the prediction first."""
        t = _per_item(t, x_t)
        c_in, _, _ = self.coefficients(t)
        label = self.noise_label(self.schedule, t).to(device=x_t.device, dtype=x_t.dtype)
        prediction, *others = network(expand(c_in, x_t) * self.to_network(x_t, condition), label).split(
            x_t.shape[1], 1
        )
        return self.from_network(prediction, condition), *others

    def _open(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, noise_label: self.network(x, noise_label, condition)


class WhitenedDenoiser(Denoiser):
    """A Denoiser whose network also sees and predicts in the whitened coordinates of the prior.

    Where the deviations of a prior span decades, as those of a spectral envelope do, every coefficient then reaches the
    network at the same level, and the levels themselves only as what the condition tells.
    """

    def to_network(self, x_t: Tensor, condition: Condition) -> Tensor:
        """Returns x_t [B, C, F] itself."""
        return x_t

    def from_network(self, prediction: Tensor, condition: Condition) -> Tensor:
        """Returns the prediction [B, C, F] itself."""
        return prediction


class VarianceDenoiser(Denoiser):
    """A Denoiser whose network also tells the variance of each reverse step (Nichol and Dhariwal 2021, eq. 15).

    The network has outputs = 2: the prediction and, stacked behind it along the channels, a number that is
    -1 where the variance is the posterior's and 1 where it is the transition's.
    """

    def predict_with_variance(self, x_t: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Returns the prediction and the share v of the transition's log-variance, both [B, C, F].

        Raises:
            InputError: the network gives no second output.
        """
        return _shared(self._predict(self._open(condition), x_t, t, condition))

    def bind(self, condition: Condition) -> VarianceDenoise:
        """Returns a VarianceDenoise for one condition."""
        network = self.network.bind(condition)
        return _BoundVariance(self, lambda x, t: _shared(self._predict(network, x, t, condition)))


@dataclass(frozen=True)
class _BoundVariance:
    denoiser: Denoiser
    predict: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.with_variance(x, t)[0]

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        prediction, share = self.predict(x, t)
        return self.denoiser.clean_of(x, t, prediction), share


def _shared(outputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    if len(outputs) != 2:
        raise InputError(
            f"learned variance: the network gives {len(outputs)} output(s), expected 2; build it with outputs: 2"
        )
    return outputs[0], (outputs[1] + 1) / 2


def _per_item(t: Tensor, x: Tensor) -> Tensor:
    return torch.as_tensor(t, dtype=torch.float64).reshape(-1).expand(x.shape[0])
