"""What an edit knows of the sound, stated on waveforms and carried to whatever the model diffuses.

Samples that are known, samples at or beyond a clipping level, a spectrum below a frequency.
With decode(encode(w)) = w a projection P of waveforms is lifted to x + encode(P(decode(x)) - decode(x)), so no
observation knows a representation (`Lifted`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from audiodiff.audio.representation import Representation
from audiodiff.diffusion.constraints import Constraint
from audiodiff.diffusion.process import diffuse
from audiodiff.diffusion.schedules import NoiseSchedule


class WaveformObservation(Protocol):
    """What is known of waveforms [B, C, T]."""

    @property
    def observed(self) -> Tensor:
        """The recording [B, C, T]; anything where it says nothing."""
        ...

    @property
    def std(self) -> float:
        """Standard deviation of the noise of what is observed."""
        ...

    def difference(self, waveform: Tensor) -> Tensor:
        """Returns observed - waveform, of what was observed and is not met; differentiable."""
        ...

    def tangent(self, waveform: Tensor, change: Tensor) -> Tensor:
        """Returns what would be observed of a change, near that waveform."""
        ...


@dataclass(frozen=True)
class Known:
    """Samples that are as recorded.

    Attributes:
        observed: [B, C, T].
        known: [B, 1 or C, T] of 0 and 1.
    """

    observed: Tensor
    known: Tensor
    std: float = 0.0

    def difference(self, waveform: Tensor) -> Tensor:
        """Returns what is missing at the known samples."""
        return self.known * (self.observed - waveform)

    def tangent(self, waveform: Tensor, change: Tensor) -> Tensor:
        """Returns the change of the known samples."""
        return self.known * change


@dataclass(frozen=True)
class AtLeast:
    """Samples that are as recorded, and others that were clipped: they lie at the recording or beyond it.

    Attributes:
        observed: [B, C, T], clipped.
        clipped: [B, C, T] of 0 and 1.
    """

    observed: Tensor
    clipped: Tensor
    std: float = 0.0

    def _active(self, waveform: Tensor) -> Tensor:
        """1 where the recording binds: at reliable samples and where the estimate stays within the clipping level."""
        short = (waveform - self.observed) * self.observed.sign() < 0
        return torch.where(self.clipped.bool(), short, True).to(waveform.dtype)

    def difference(self, waveform: Tensor) -> Tensor:
        """Returns what is missing at the reliable samples and below the clipping level."""
        return self._active(waveform.detach()) * (self.observed - waveform)

    def tangent(self, waveform: Tensor, change: Tensor) -> Tensor:
        """Returns the change where the recording binds."""
        return self._active(waveform) * change


@dataclass(frozen=True)
class LowBand:
    """A spectrum that is right below a frequency.

    Attributes:
        observed: [B, C, T].
        gain: [T // 2 + 1] of 0 to 1, what of each bin of the DFT was observed.
    """

    observed: Tensor
    gain: Tensor
    std: float = 0.0

    def difference(self, waveform: Tensor) -> Tensor:
        """Returns what is missing in the low band."""
        return filtered(self.observed - waveform, self.gain)

    def tangent(self, waveform: Tensor, change: Tensor) -> Tensor:
        """Returns the low band of a change."""
        return filtered(change, self.gain)


def filtered(waveform: Tensor, gain: Tensor) -> Tensor:
    """Returns waveform [B, C, T] with its DFT times gain [T // 2 + 1]."""
    return torch.fft.irfft(torch.fft.rfft(waveform) * gain, n=waveform.shape[-1])


@dataclass(frozen=True)
class Lifted:
    """An observation of waveforms as one of x; as a projection it puts what was observed into a clean estimate.

    Attributes:
        of: on waveforms.
        representation: between waveforms and x.
    """

    of: WaveformObservation
    representation: Representation

    @property
    def std(self) -> float:
        """That of the waveform's observation."""
        return self.of.std

    def decode(self, x: Tensor) -> Tensor:
        """Returns the waveform [B, C, T] of x [B, D, F]."""
        return self.representation.decode(x, self.of.observed.shape[-1])

    def difference(self, x: Tensor) -> Tensor:
        """Returns what is missing [B, C, T]."""
        return self.of.difference(self.decode(x))

    def tangent(self, x: Tensor, change: Tensor) -> Tensor:
        """Returns what would be observed of a change."""
        return self.of.tangent(self.decode(x), self.decode(change))

    def __call__(self, clean: Tensor, t: Tensor) -> Tensor:
        """Returns the estimate [B, D, F] with the observation put in (Wang et al. 2023, DDNM, eq. 10)."""
        return clean + self.representation.encode(self.difference(clean))


def replaced(observation: Lifted, schedule: NoiseSchedule, noise: Callable[[], Tensor]) -> Constraint:
    """Returns the constraint that puts the noised recording into x: Lugmayr et al. 2022 (RePaint), eq. 8, lifted.

    Args:
        observation: without noise of its own.
        schedule: the noise schedule.
        noise: gives standard normal noise [B, D, F], new at every call.
    """
    observed = observation.of.observed
    recording = observation.representation.encode(observed)

    def apply(x: Tensor, s: Tensor) -> Tensor:
        at_level = diffuse(schedule, recording, noise(), s)
        missing = observation.decode(at_level) - observation.decode(x)
        return x + observation.representation.encode(observation.of.tangent(observed, missing))

    return apply
