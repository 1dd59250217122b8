"""A stretch of a recording as the model takes it: its rate, its channels, its level; and the way back.

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


@dataclass(frozen=True)
class Bridge:
    """Between a recording and a model.

    Attributes:
        restorer: the model.
        sample_rate: of the recording, hertz.
        channels: of the recording.
        gain: by which the recording reaches the level that the model was trained at.
    """

    restorer: Restorer
    sample_rate: int
    channels: int
    gain: float

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


def round_half_up(value: float) -> int:
    """Returns the length that resampling gives."""
    return max(1, math.floor(value + 0.5))


def bridge(recording: Recording, restorer: Restorer) -> Bridge:
    """Returns the bridge from a recording to a model; the recording is read once for its level.

    Raises:
        InputError: a recording of digital silence, from which no model could go on.
    """
    squares, peak = 0.0, 0.0
    for block in blocks(recording):
        squares += float(block.double().square().sum())
        peak = max(peak, float(block.abs().max()))
    if peak < io.SILENCE_PEAK:
        raise InputError("the recording is digital silence: there is nothing to go by")
    rms = math.sqrt(squares / (recording.length * recording.channels))
    limit = 10 ** (_GAIN_DB / 20)
    gain = min(max(restorer.rms / rms, 1 / limit), limit)
    return Bridge(restorer, recording.sample_rate, recording.channels, gain)
