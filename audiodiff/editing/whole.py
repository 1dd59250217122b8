"""Edits that concern a whole recording: declipping, bandwidth extension, denoising, window by window.

The recording is read in overlapping windows of two training segments; what the model changes in each is brought back
to the recording's rate, cross-faded with its neighbours' in the middle of the overlap, and added. So content that the
model cannot hold, above half its rate, passes as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from audiodiff.audio import io
from audiodiff.editing.detection import Clipping
from audiodiff.editing.gaps import OnWindow
from audiodiff.editing.observation import AtLeast, LowBand, filtered
from audiodiff.editing.recording import Patch, Recording
from audiodiff.editing.sparse_declipping import beyond, sparsest
from audiodiff.editing.window import Bridge

_TRANSITION_HERTZ = 200.0
_DECLIP_START = 0.05  # sigma / alpha, measured in docs/editing.md
_FRAME_SECONDS = 0.046  # in which sound is sparse
_NOISE_SEGMENTS = 8  # of noise that is measured in x


class Change(Protocol):
    """What an edit does to one window."""

    def __call__(self, waveform: Tensor, position: int) -> tuple[Tensor, Tensor] | None:
        """Returns what is to be added [C, T] to a window [C, T], and where [C or 1, T]; None for nothing at all."""
        ...


@dataclass(frozen=True)
class Declip:
    """Restores clipped samples; those that are not stay as they are.

    Attributes:
        bridge: to the model.
        clipping: level and share.
    """

    bridge: Bridge
    clipping: Clipping

    def __call__(self, waveform: Tensor, position: int) -> tuple[Tensor, Tensor] | None:
        """Returns what is to be added to the clipped samples."""
        clipped = self.clipping.clipped(waveform)
        if not bool(clipped.any()):
            return None
        observed, reliable = self.bridge.to_model(waveform), self.bridge.flags_to_model(~clipped)
        guess = self._guess(waveform, clipped)
        started = self.bridge.to_model(guess)
        result = self.bridge.restorer(AtLeast(observed, 1 - reliable), position, _DECLIP_START, started)
        restored = guess + self.bridge.from_model(result - started, waveform.shape[-1])
        kept = beyond(restored.double().numpy(), waveform.double().numpy(), clipped.numpy())
        return torch.from_numpy(kept).float() - waveform, clipped

    def _guess(self, waveform: Tensor, clipped: Tensor) -> Tensor:
        """Returns waveform [C, T] restored without the model."""
        frame = 1 << round(math.log2(max(_FRAME_SECONDS * self.bridge.sample_rate, 16)))
        channels = zip(waveform.double().numpy(), clipped.numpy(), strict=True)
        return torch.from_numpy(np.stack([sparsest(*each, frame) for each in channels])).float()


@dataclass(frozen=True)
class Extend:
    """Makes the spectrum above a frequency.

    Attributes:
        bridge: to the model.
        cutoff: hertz.
    """

    bridge: Bridge
    cutoff: float

    def __call__(self, waveform: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """Returns the new high band."""
        observed = self.bridge.to_model(waveform)
        frequencies = torch.linspace(0, self.bridge.restorer.sample_rate / 2, observed.shape[-1] // 2 + 1)
        gain = ((self.cutoff - frequencies) / _TRANSITION_HERTZ).clamp(0, 1).to(observed)
        result = self.bridge.restorer(LowBand(observed, gain), position)
        high = filtered(result - observed, 1 - gain)
        return self.bridge.from_model(high, waveform.shape[-1]), torch.ones(1, 1, dtype=torch.bool)


@dataclass(frozen=True)
class Denoise:
    """Takes stationary noise away.

    Attributes:
        bridge: to the model.
        ratios: [D, 1], deviation of the noise in each channel of x.
    """

    bridge: Bridge
    ratios: Tensor

    def __call__(self, waveform: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """Returns what is to be added, the noise with its sign turned."""
        observed = self.bridge.to_model(waveform)
        result = self.bridge.restorer.without_noise(observed, self.ratios, position)
        change = self.bridge.from_model(result - observed, waveform.shape[-1])
        return change, torch.ones(1, 1, dtype=torch.bool)


def noise_ratios(bridge: Bridge, deviations: Tensor) -> Tensor:
    """Returns the deviation [D, 1] of a recording's noise in each channel of x.

    Args:
        bridge: from the recording to a model.
        deviations: [bins] of the noise at the recording's rate, in its samples.
    """
    restorer = bridge.restorer
    length = _NOISE_SEGMENTS * restorer.segment
    bins = length // 2 + 1
    # The same noise density has, in samples of another rate, a variance in proportion to the rate.
    share = (torch.linspace(0, restorer.sample_rate / 2, bins) / (bridge.sample_rate / 2)).clamp(max=1)
    place = share * (len(deviations) - 1)
    low = place.long().clamp(max=len(deviations) - 2)
    deviation = torch.lerp(deviations[low], deviations[low + 1], place - low)
    deviation = deviation * (restorer.sample_rate / bridge.sample_rate) ** 0.5 * bridge.gain
    white = torch.randn(1, restorer.channels, length, generator=torch.Generator().manual_seed(0))
    return restorer.noise_ratios(filtered(white, deviation).to(restorer.model.device))


def changed(
    recording: Recording, bridge: Bridge, change: Change, on_window: OnWindow | None = None
) -> Iterator[Patch]:
    """Yields the recording's new samples, window by window from its start to its end.

    Args:
        recording: what is edited.
        bridge: to the model.
        change: what is done to a window.
        on_window: told how far the work is.
    """
    restorer = bridge.restorer
    segment = max(6, round(restorer.segment * recording.sample_rate / restorer.sample_rate))
    size, overlap = 2 * segment, segment // 2
    weights = _weights(size, overlap)
    ahead: tuple[Tensor, Tensor] | None = None  # what the window before says of this one's start
    for start in range(0, max(recording.length - overlap, 1), size - overlap):
        stop = min(start + size, recording.length)
        waveform = recording.read(start, stop)
        position = round(start * restorer.sample_rate / recording.sample_rate)
        added, where = _within_bounds(change(waveform, position), waveform)
        if start > 0:
            added = added * weights[: stop - start]
        if ahead is not None:
            added[:, : ahead[0].shape[-1]] += ahead[0]
            where[:, : ahead[1].shape[-1]] |= ahead[1]
        final = stop == recording.length
        ready = stop - start if final else size - overlap
        if not final:
            # The tail fades out as the next window's start fades in.
            ahead = added[:, ready:] * (1 - weights[:overlap]), where[:, ready:]
        yield Patch(start, (waveform + added)[:, :ready], where[:, :ready])
        if on_window is not None:
            on_window(float(stop), float(recording.length))
        if final:
            return


def _within_bounds(result: tuple[Tensor, Tensor] | None, waveform: Tensor) -> tuple[Tensor, Tensor]:
    if result is None:
        return torch.zeros_like(waveform), torch.zeros(waveform.shape, dtype=torch.bool)
    return result[0], result[1].expand_as(waveform).clone()


def _weights(size: int, overlap: int) -> Tensor:
    """Returns [size]: 0, then rising in the middle third of the overlap, then 1."""
    third = overlap // 3
    rise = (torch.arange(overlap - 2 * third) + 0.5) / (overlap - 2 * third)
    return torch.cat([torch.zeros(third), rise, torch.ones(size - overlap + third)])


class Resampled:
    """A recording at another rate, resampled piece by piece as it is read."""

    def __init__(self, recording: Recording, sample_rate: int) -> None:
        """Takes a recording and the rate wanted, in hertz."""
        common = math.gcd(recording.sample_rate, sample_rate)
        self._of, self.sample_rate, self.channels = recording, sample_rate, recording.channels
        self._old, self._new = recording.sample_rate // common, sample_rate // common
        self.length = -(-recording.length * self._new // self._old)

    def read(self, start: int, stop: int) -> Tensor:
        """Returns [C, stop - start], zeros where there is nothing."""
        # Whole units of both rates begin together; some more on either side hold the filter.
        beside = -(-self._of.sample_rate // 20 // self._old)
        first = start // self._new - beside
        last = -(-stop // self._new) + beside
        low = max(first, 0)
        part = io.resample(
            self._of.read(low * self._old, last * self._old), self._of.sample_rate, self.sample_rate
        )
        offset = start - low * self._new
        part = part[:, max(offset, 0) : stop - low * self._new]
        return nn.functional.pad(part, (stop - start - part.shape[-1], 0))
