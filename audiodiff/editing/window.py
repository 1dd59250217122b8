"""A stretch of a recording as the model takes it: its rate, its channels, its level, its offset; and the way back.

A recording of as many channels as the model's is one item; otherwise each channel is an item of its own, repeated for
a model of more channels and averaged afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiodiff.audio import io
from audiodiff.editing.recording import Recording, blocks
from audiodiff.editing.restore import Restorer
from audiodiff.errors import InputError

_GUARD_SECONDS = 0.0005  # beside unknown samples, where resampling has mixed them into their neighbours
_GAIN_DB = 60.0  # most by which a recording is raised or lowered for the model
_OFFSET_SECONDS = 0.5  # the mean of a shorter recording is part of its sound
_LEAST_RMS = 1e-3  # of the peak that counts as silence; one click in an hour has more


@dataclass(frozen=True)
class Bridge:
    """Between a recording and a model.

    Attributes:
        restorer: the model.
        sample_rate: of the recording, hertz.
        channels: of the recording.
        gain: by which the recording reaches the level that the model was trained at.
        offsets: [C, 1], mean of each channel of the recording, which the model is not shown; see `Centred`.
    """

    restorer: Restorer
    sample_rate: int
    channels: int
    gain: float
    offsets: Tensor

    def to_model(self, waveform: Tensor) -> Tensor:
        """Returns [B, C', T'] at the model's rate and level of waveform [C, T]."""
        return self._as_items(io.resample(waveform, self.sample_rate, self.restorer.sample_rate)) * self.gain

    def flags_to_model(self, flags: Tensor) -> Tensor:
        """Returns [B, C', T'] of 0 and 1: samples of flags [C, T] that are true together with their neighbours."""
        if self.sample_rate == self.restorer.sample_rate:
            return self._as_items(flags.float())
        guard = max(1, round(_GUARD_SECONDS * self.sample_rate))
        false = nn.functional.max_pool1d((~flags).float()[None], 2 * guard + 1, 1, guard)[0]
        count = round_half_up(flags.shape[-1] * self.restorer.sample_rate / self.sample_rate)
        at = torch.arange(count, dtype=torch.float64) * self.sample_rate / self.restorer.sample_rate
        return self._as_items(1 - false[:, at.round().long().clamp(max=flags.shape[-1] - 1)])

    def from_model(self, waveform: Tensor, length: int) -> Tensor:
        """Returns [C, length] at the recording's rate and level of waveform [B, C', T']."""
        items = waveform.detach().cpu() / self.gain
        channels = items[0] if self._together else items.mean(1)
        back = io.resample(channels, self.restorer.sample_rate, self.sample_rate)[:, :length]
        return nn.functional.pad(back, (0, length - back.shape[-1]))

    @property
    def _together(self) -> bool:
        return self.channels == self.restorer.channels

    def _as_items(self, waveform: Tensor) -> Tensor:
        waveform = waveform.to(self.restorer.model.device)
        if self._together:
            return waveform[None]
        return waveform[:, None].expand(-1, self.restorer.channels, -1)


class Centred:
    """A recording whose channels have no offset: what a model is shown of it."""

    def __init__(self, recording: Recording, offsets: Tensor) -> None:
        """Takes a recording and its offsets [C, 1]."""
        self._of, self._offsets = recording, offsets
        self.sample_rate, self.channels = recording.sample_rate, recording.channels
        self.length = recording.length

    def read(self, start: int, stop: int) -> Tensor:
        """Returns [C, stop - start], zeros where there is nothing."""
        waveform = self._of.read(start, stop).clone()
        inside = slice(max(-start, 0), max(self.length - start, 0))
        waveform[:, inside] -= self._offsets
        return waveform


def round_half_up(value: float) -> int:
    """Returns the length that resampling gives."""
    return max(1, math.floor(value + 0.5))


def bridge(recording: Recording, restorer: Restorer) -> Bridge:
    """Returns the bridge from a recording to a model; the recording is read once for its level and its offset.

    Raises:
        InputError: a recording of digital silence, from which no model could go on.
    """
    sums, squares, peak = torch.zeros(recording.channels, dtype=torch.float64), 0.0, 0.0
    for block in blocks(recording):
        sums += block.double().sum(1)
        squares += float(block.double().square().sum())
        peak = max(peak, float(block.abs().max()))
    if peak < io.SILENCE_PEAK:
        raise InputError("the recording is digital silence: there is nothing to go by")
    offsets = sums / recording.length
    if recording.length < _OFFSET_SECONDS * recording.sample_rate:
        offsets = torch.zeros_like(offsets)
    mean_square = squares / (recording.length * recording.channels) - float(offsets.square().mean())
    if mean_square < (io.SILENCE_PEAK * _LEAST_RMS) ** 2:
        raise InputError("the recording is a constant: there is nothing to go by")
    limit = 10 ** (_GAIN_DB / 20)
    gain = min(max(restorer.rms / math.sqrt(mean_square), 1 / limit), limit)
    return Bridge(restorer, recording.sample_rate, recording.channels, gain, offsets.float()[:, None])
