"""Stretches of a recording made anew from what lies beside them: inpainting, continuation, drop-outs.

Each gap is made in a window of its own, with half a training segment of known sound on either side, so that neither
time nor memory depends on the length of the recording. A gap longer than half a segment is made piece by piece, each
from the sound made before it, the last one towards what comes after. At the seams the new sound is faded in from the
linear prediction of the old one, inside the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio.io import SILENCE_PEAK
from audiodiff.editing.intervals import Interval, runs
from audiodiff.editing.linear_prediction import continued, interpolated
from audiodiff.editing.observation import Known
from audiodiff.editing.recording import Patch, Recording
from audiodiff.editing.restore import RATIO_MAX
from audiodiff.editing.window import Bridge

_FADE_SECONDS = 0.002
_PREDICTION_ORDER = 32
_PREDICTION_SECONDS = 0.03
_GUESS_SECONDS, _GUESS_ORDER = 0.05, 256

OnWindow = Callable[[float, float], None]
"""Told (work done, work in all), for progress bars."""


@dataclass(frozen=True)
class Gap:
    """What is made anew.

    Attributes:
        interval: of the recording; it may reach beyond its ends.
        channels: [C], true for those concerned.
    """

    interval: Interval
    channels: Tensor


def gaps_of(intervals: Sequence[Interval], channels: int) -> list[Gap]:
    """Returns gaps of all channels."""
    return [Gap(interval, torch.ones(channels, dtype=torch.bool)) for interval in intervals]


def fill(
    recording: Recording, bridge: Bridge, gaps: Sequence[Gap], on_window: OnWindow | None = None
) -> Iterator[Patch]:
    """Yields the gaps' new sound, in their order.

    Args:
        recording: what is edited.
        bridge: to the model.
        gaps: rising, not overlapping.
        on_window: told how far the work is.
    """
    total = float(sum(gap.interval.length for gap in gaps))
    done = 0.0
    for number, gap in enumerate(gaps):
        near = gaps[max(0, number - 8) : number + 9]
        for patch in _in_pieces(_Filling(recording, bridge, gap, near)):
            yield patch
            done += patch.samples.shape[-1]
            if on_window is not None:
                on_window(done, total)


@dataclass(frozen=True)
class _Filling:
    """One gap and what is around it.

    Attributes:
        near: this gap and those beside it, whose samples are not known either.
    """

    recording: Recording
    bridge: Bridge
    gap: Gap
    near: Sequence[Gap]

    @property
    def context(self) -> int:
        """Samples that the model is shown on either side."""
        restorer = self.bridge.restorer
        return max(1, round(restorer.segment / 2 * self.recording.sample_rate / restorer.sample_rate))

    def known(self, start: int, stop: int) -> Tensor:
        """Returns flags [C, stop - start] of what the recording tells."""
        positions = torch.arange(start, stop)
        inside = (positions >= 0) & (positions < self.recording.length)
        flags = inside.expand(self.recording.channels, -1).clone()
        for gap in self.near:
            masked = (positions >= gap.interval.start) & (positions < gap.interval.stop)
            flags &= ~(masked & gap.channels[:, None])
        return flags

    def made(self, waveform: Tensor, known: Tensor, start: int) -> Tensor:
        """Returns the window [C, T] at position `start` with its unknown samples made, faded in at the seams."""
        silence = _constant(waveform, known)
        if silence is not None:
            return torch.where(known, waveform, silence)  # between silences there is silence
        bridged = _guessed(waveform, known, self.recording.sample_rate)
        observation = Known(self.bridge.to_model(bridged), self.bridge.flags_to_model(known))
        rate = self.bridge.restorer.sample_rate / self.recording.sample_rate
        position = max(0, round((start + self.context) * rate))
        longest = max(stretch.length for flags in ~known for stretch in runs(flags))
        result = self.bridge.restorer(observation, position, _start_of(longest / self.recording.sample_rate))
        made = torch.where(known, waveform, self.bridge.from_model(result, waveform.shape[-1]))
        return _faded(made, known, self.recording.sample_rate)


def _constant(waveform: Tensor, known: Tensor) -> Tensor | None:
    """Returns the values [C, 1] at which the known samples of each channel stand still, or None if they move."""
    lowest = torch.where(known, waveform, torch.inf).amin(1, keepdim=True)
    highest = torch.where(known, waveform, -torch.inf).amax(1, keepdim=True)
    if bool((highest - lowest >= SILENCE_PEAK).any()):
        return None
    return torch.where(known.any(1, keepdim=True), lowest, 0.0)


def _in_pieces(filling: _Filling) -> Iterator[Patch]:
    gap, context, recording = filling.gap, filling.context, filling.recording
    start, stop = gap.interval.start, gap.interval.stop
    if start <= 0 and stop < recording.length and stop - start > context:
        yield _backwards(filling)
        return
    before = recording.read(start - context, start)
    known_before = filling.known(start - context, start)
    for first in range(start, stop, context):
        last = min(first + context, stop)
        after = context if last == stop else 0
        waveform = torch.cat([before, recording.read(first, last + after)], 1)
        known = torch.cat([known_before, filling.known(first, last + after)], 1)
        made = filling.made(waveform, known, first - context)
        piece = made[:, context : context + last - first]
        yield Patch(first, piece, gap.channels[:, None].expand(-1, last - first))
        before = made[:, last - first : last - first + context]
        known_before = torch.ones_like(known_before)


def _backwards(filling: _Filling) -> Patch:
    """Returns a long gap with nothing before it, made from its end to its start."""
    gap, context, recording = filling.gap, filling.context, filling.recording
    start, stop = gap.interval.start, gap.interval.stop
    pieces: list[Tensor] = []
    after, known_after = recording.read(stop, stop + context), filling.known(stop, stop + context)
    for last in range(stop, start, -context):
        first = max(last - context, start)
        waveform = torch.cat([recording.read(first, last), after], 1)
        known = torch.cat([filling.known(first, last), known_after], 1)
        made = filling.made(waveform, known, first - context)
        pieces.insert(0, made[:, : last - first])
        after, known_after = made[:, :context], torch.ones_like(known_after)
    return Patch(start, torch.cat(pieces, 1), gap.channels[:, None].expand(-1, stop - start))


def _start_of(seconds: float) -> float:
    """Returns the sigma / alpha from which a gap so long is best sampled after linear prediction, as measured."""
    return min(RATIO_MAX, 3 * (seconds / 0.1) ** 1.4)


def _guessed(waveform: Tensor, known: Tensor, sample_rate: int) -> Tensor:
    """Returns the waveform [C, T] with linear prediction where it is not known, and lines where that is long.

    It is what a late start of the sampling begins with, and keeps resampling from ringing with what is masked.
    """
    result = waveform.clone()
    reach = round(_GUESS_SECONDS * sample_rate)
    positions = np.arange(waveform.shape[-1])
    for channel, flags in zip(result, known, strict=True):
        there = flags.numpy()
        if not there.any():
            channel.zero_()
            continue
        samples = np.where(there, channel.numpy(), 0)
        samples[~there] = np.interp(positions[~there], positions[there], samples[there])
        for stretch in runs(~flags):
            before = samples[max(0, stretch.start - reach) : stretch.start]
            after = samples[stretch.stop : stretch.stop + reach]
            if stretch.length <= 2 * reach and before.size + after.size > 8:
                samples[stretch.start : stretch.stop] = interpolated(
                    before, after, stretch.length, _GUESS_ORDER
                )
        channel.copy_(torch.from_numpy(samples))
    return result


def _faded(made: Tensor, known: Tensor, sample_rate: int) -> Tensor:
    """Returns made [C, T] with every unknown stretch faded in and out from linear predictions of its neighbours."""
    result = made.clone()
    for channel, flags in zip(result, known, strict=True):
        for stretch in runs(~flags):
            _fade_edge(channel, flags, stretch, sample_rate)
            length = channel.shape[-1]
            turned = Interval(length - stretch.stop, length - stretch.start)
            backwards = channel.flip(0)
            _fade_edge(backwards, flags.flip(0), turned, sample_rate)
            channel.copy_(backwards.flip(0))
    return result


def _fade_edge(channel: Tensor, flags: Tensor, stretch: Interval, sample_rate: int) -> None:
    """Fades the start of an unknown stretch of channel [T] in from the prediction of what lies before, in place."""
    count = min(round(_FADE_SECONDS * sample_rate), stretch.length // 2)
    low = max(0, stretch.start - round(_PREDICTION_SECONDS * sample_rate))
    unknown = (~flags[low : stretch.start]).nonzero()
    low = low + int(unknown[-1]) + 1 if unknown.numel() else low
    if count < 1 or stretch.start - low < 2:
        return
    past = channel[low : stretch.start].double().numpy()
    predicted = torch.from_numpy(continued(past, count, _PREDICTION_ORDER)).float()
    weight = 0.5 + 0.5 * torch.cos(torch.pi * (torch.arange(count) + 0.5) / count)
    inside = channel[stretch.start : stretch.start + count]
    inside.copy_(weight * predicted + (1 - weight) * inside)
