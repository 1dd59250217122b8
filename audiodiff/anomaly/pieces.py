"""A recording as the pieces that a model judges: overlapping windows, of which the middle counts.

A window is one training segment. Of a recording that is longer, every window but the first and the last keeps its
middle half, so that what is kept tiles the positions of x and has context on both sides; where that context is wider
than the network's receptive field, the pieces give the numbers of the whole. Windows start on whole frames and are
read one at a time, so a recording of any length needs the same memory.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from audiodiff.audio import io
from audiodiff.conditioning.mel import Mel
from audiodiff.editing.recording import InMemory, OnDisk
from audiodiff.editing.recording import Recording as Readable
from audiodiff.editing.whole import Resampled
from audiodiff.errors import InputError
from audiodiff.evaluation.likelihood import Recording, find_recordings
from audiodiff.model import AudioDiffusion

SHORTEST_SECONDS = 0.02
_SEGMENT_SECONDS = 1.0  # where the recipe does not tell
_MANIFESTS = (".jsonl.gz", ".jsonl")


@dataclass(frozen=True)
class Tiling:
    """How positions of x are cut into windows and frames.

    Attributes:
        hop_length: samples between positions.
        pool: positions of a frame.
        window: samples of a window.
        margin: samples at either side of a window that only give context.
    """

    hop_length: int
    pool: int
    window: int
    margin: int

    @property
    def frame(self) -> int:
        """Samples between frames."""
        return self.hop_length * self.pool


@dataclass(frozen=True)
class Piece:
    """One window of a recording.

    Attributes:
        waveform: [C, T] at the model's rate.
        start: position of x within the recording at which the window starts.
        keep: positions within the window that count.
        key: of the recording's noise.
        labels: told to the model.
    """

    waveform: Tensor
    start: int
    keep: slice
    key: int
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Signal:
    """A recording at the model's rate, read piece by piece.

    Attributes:
        readable: at the model's rate.
        channels: of the model.
        own_rate: hertz, of the file.
    """

    readable: Readable
    channels: int
    own_rate: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.readable.length / self.readable.sample_rate

    def read(self, start: int, stop: int) -> Tensor:
        """Returns [C, stop - start]; a model of mono audio hears the mean of the channels."""
        waveform = self.readable.read(start, stop)
        return waveform.mean(0, keepdim=True) if self.channels == 1 else waveform


def tiling_of(model: AudioDiffusion, frame_seconds: float, window_seconds: float | None = None) -> Tiling:
    """Returns how a model's recordings are cut.

    Args:
        model: the model.
        frame_seconds: wanted; a frame is a whole number of positions, at least one.
        window_seconds: None for a training segment.
    """
    rate, hop_length = model.sample_rate, model.representation.hop_length
    pool = max(1, round(frame_seconds * rate / hop_length))
    # Windows also start on whole frames of a mel that the model hears.
    hops = [part.log_mel.hop_length for part in model.modules() if isinstance(part, Mel)]
    unit = math.lcm(hop_length * pool, *hops)
    if window_seconds is None:
        window_seconds = model.recipe.get("data", {}).get("segment_seconds") or _SEGMENT_SECONDS
    margin = unit * max(1, round(window_seconds * rate / 4 / unit))
    return Tiling(hop_length, pool, 4 * margin, margin)


def find_sources(
    inputs: Sequence[str], known: Mapping[str, Sequence[str]], labels: Mapping[str, str]
) -> list[Recording]:
    """Returns the recordings of files, folders, globs and manifests; a file's name is its path as it was given.

    Args:
        inputs: what a user named.
        known: label names of the model; those of a manifest's cuts are taken from it.
        labels: told to the model of all recordings.

    Raises:
        InputError: nothing found.
    """
    manifests = [given for given in inputs if given.endswith(_MANIFESTS)]
    rest = [given for given in inputs if given not in manifests]
    files = io.find(rest) if rest or not manifests else []
    found = [Recording(str(file), file, None, dict(labels)) for file in files]
    return found + (find_recordings(manifests, known, labels) if manifests else [])


def opened(recording: Recording, model: AudioDiffusion) -> Signal:
    """Returns a recording to be read at the model's rate.

    Raises:
        InputError: it cannot be read, has other channels, or is shorter than 20 ms.
    """
    channels = model.representation.channels
    own: Readable
    if recording.file is None:
        own = InMemory(recording.read(model.sample_rate, channels), model.sample_rate)
    else:
        own = OnDisk(recording.file)
    if channels not in (1, own.channels):
        raise InputError(f"{recording.name}: {own.channels} channels, the model has {channels}")
    if own.length < SHORTEST_SECONDS * own.sample_rate:
        milliseconds = 1000 * own.length / own.sample_rate
        raise InputError(
            f"{recording.name}: too short, {milliseconds:.1f} ms, expected at least {1000 * SHORTEST_SECONDS:g} ms"
        )
    rate = own.sample_rate
    return Signal(own if rate == model.sample_rate else Resampled(own, model.sample_rate), channels, rate)


def pieces(signal: Signal, recording: Recording, tiling: Tiling) -> Iterator[Piece]:
    """Yields the windows of a recording, from its start to its end.

    Raises:
        InputError: it cannot be read, has samples that are not finite, or is silent all through.
    """
    length, step = signal.readable.length, tiling.window - 2 * tiling.margin
    key = zlib.crc32(Path(recording.name).name.encode())
    peak, start, final = 0.0, 0, False
    while not final:
        final = start + tiling.window >= length
        waveform = signal.read(start, length if final else start + tiling.window)
        if not bool(waveform.isfinite().all()):
            raise InputError(f"{recording.name}: samples that are not finite near {start / length:.0%}")
        peak = max(peak, float(waveform.abs().max()))
        first = tiling.margin if start else 0
        last = None if final else (tiling.window - tiling.margin) // tiling.hop_length
        keep = slice(first // tiling.hop_length, last)
        if final and peak < io.SILENCE_PEAK:
            raise InputError(f"{recording.name}: digital silence (peak {peak:.1g})")
        yield Piece(waveform, start // tiling.hop_length, keep, key, recording.labels)
        start += step
