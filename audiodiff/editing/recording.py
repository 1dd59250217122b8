"""A recording of any length, read by blocks and written again with parts replaced and every other sample as it was.

Positions are samples of the file; they may lie before its first or after its last sample, where there is nothing yet.
Integer encodings are carried as the integers that they are, floating ones as their floats, so that what no patch
touches comes out bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.files import writing

_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_FLOATS = {"FLOAT": "float32", "DOUBLE": "float64"}
_CONTAINERS = {
    ".wav": "WAV",
    ".flac": "FLAC",
    ".aiff": "AIFF",
    ".aif": "AIFF",
    ".w64": "W64",
    ".rf64": "RF64",
}
_BLOCK = 1 << 18  # samples that are copied at a time


@dataclass(frozen=True)
class Patch:
    """New samples for a stretch of a recording.

    Attributes:
        start: position of the first one.
        samples: [C, n], float32.
        replaced: [C, n] or [1, n], true where the new ones take the place of the old.
    """

    start: int
    samples: Tensor
    replaced: Tensor

    @property
    def stop(self) -> int:
        """Position after the last one."""
        return self.start + self.samples.shape[-1]


class Recording(Protocol):
    """What an edit reads."""

    @property
    def sample_rate(self) -> int:
        """Hertz."""
        ...

    @property
    def channels(self) -> int:
        """C."""
        ...

    @property
    def length(self) -> int:
        """T."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Returns [C, stop - start], zeros where there is nothing."""
        ...


@dataclass(frozen=True)
class InMemory:
    """A recording that is a tensor.

    Attributes:
        waveform: [C, T].
        sample_rate: hertz.
    """

    waveform: Tensor
    sample_rate: int

    @property
    def channels(self) -> int:
        """C."""
        return self.waveform.shape[0]

    @property
    def length(self) -> int:
        """T."""
        return self.waveform.shape[-1]

    def read(self, start: int, stop: int) -> Tensor:
        """Returns [C, stop - start], zeros where there is nothing."""
        low, high = _within(start, stop, self.length)
        return _placed(self.waveform[:, low:high].float(), low - start, stop - start)


class OnDisk:
    """A recording that is a file, of which nothing is kept in memory."""

    def __init__(self, path: Path) -> None:
        """Reads the header.

        Raises:
            InputError: no audio file.
        """
        self.path, self.info = path, io.probe(path)
        self.sample_rate, self.channels = self.info.sample_rate, self.info.channels
        self.length = self.info.length

    def read(self, start: int, stop: int) -> Tensor:
        """Returns [C, stop - start], zeros where there is nothing."""
        low, high = _within(start, stop, self.length)
        if low == high:
            return torch.zeros(self.channels, stop - start)
        return _placed(io.read(self.path, start=low, length=high - low)[0], low - start, stop - start)


def _within(start: int, stop: int, length: int) -> tuple[int, int]:
    low = min(max(start, 0), length)
    return low, max(low, min(stop, length))


def _placed(part: Tensor, offset: int, count: int) -> Tensor:
    whole = torch.zeros(part.shape[0], count)
    if part.shape[-1]:
        whole[:, offset : offset + part.shape[-1]] = part
    return whole


def blocks(recording: Recording, size: int = _BLOCK) -> Iterator[Tensor]:
    """Yields the recording as blocks [C, n]."""
    for start in range(0, recording.length, size):
        yield recording.read(start, min(start + size, recording.length))


def patched(recording: Recording, patches: Iterable[Patch], span: tuple[int, int]) -> Tensor:
    """Returns positions span[0] to span[1] of a recording as a tensor [C, T] with the patches in it."""
    whole = recording.read(*span)
    for patch in patches:
        part = whole[:, patch.start - span[0] : patch.stop - span[0]]
        part.copy_(torch.where(patch.replaced, patch.samples, part))
    return whole


@dataclass(frozen=True)
class Encoding:
    """How a file is written.

    Attributes:
        container: libsndfile's name, such as WAV.
        subtype: libsndfile's name, such as PCM_16.
        kept: libsndfile's name of the type in which samples are carried from the input: int32, float32, float64.
    """

    container: str
    subtype: str
    kept: str


def encoding_of(recording: OnDisk, out: Path, floating: bool) -> Encoding:
    """Returns how an edit of a recording is written to `out`: in the recording's own encoding, where that is exact.

    Args:
        recording: what is edited.
        out: the file; its suffix tells the container.
        floating: whether the result may exceed full scale, which integers cannot hold.

    Raises:
        InputError: a container that cannot hold the samples as they are.
    """
    container = _CONTAINERS.get(out.suffix.lower())
    if container is None:
        raise InputError(
            f"{out}: got suffix '{out.suffix}', expected one of {', '.join(_CONTAINERS)}, which keep untouched samples "
            "as they are"
        )
    subtype = recording.info.subtype
    if floating and subtype in _BITS:
        subtype = "DOUBLE" if subtype == "PCM_32" else "FLOAT"
    elif (
        subtype not in _BITS and subtype not in _FLOATS
    ):  # decoded from a lossy code, maybe beyond full scale
        subtype = "FLOAT"
    if container == "AIFF" and subtype == "PCM_U8":
        subtype = "PCM_S8"
    if container in ("WAV", "W64", "RF64") and subtype == "PCM_S8":
        subtype = "PCM_U8"
    if not soundfile.check_format(container, subtype):
        raise InputError(
            f"{out}: {container} cannot hold {subtype}, in which the samples of this edit are exact; choose .wav"
        )
    return Encoding(container, subtype, _FLOATS.get(subtype, "int32"))


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        replaced: samples, over all channels, that are new.
        clipped: new samples that lay beyond full scale.
    """

    replaced: int
    clipped: int


@dataclass(frozen=True)
class Target:
    """What an edited file holds.

    Attributes:
        recording: what is edited.
        sample_rate: of the result; another one than the recording's only where every sample is new.
        span: positions that the result holds.
        encoding: of the file.
    """

    recording: OnDisk
    sample_rate: int
    span: tuple[int, int]
    encoding: Encoding


def write_patched(target: Target, patches: Iterable[Patch], out: Path) -> Written:
    """Writes a recording with patches in it: beside `out`, then renamed.

    Args:
        target: the recording and how it is written.
        patches: rising, not overlapping; drawn one by one, so that memory does not grow with the length.
        out: the file; missing folders are made.

    Raises:
        InputError: the disk is full or the place cannot be written; nothing is left behind.
    """
    beside = out.with_name(f".{out.name}.{os.getpid()}.part")
    kept = target.encoding.kept
    replaced = clipped = 0
    try:
        with writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
        with soundfile.SoundFile(target.recording.path) as source, _opened(beside, out, target) as file:
            at = target.span[0]
            for patch in patches:
                _copy(source, file, (at, patch.start), kept)
                new, beyond = _encoded(patch.samples.T.double().numpy(), target.encoding)
                where = np.broadcast_to(patch.replaced.T.numpy(), new.shape)
                if not where.all():
                    new = np.where(where, new, _raw(source, patch.start, patch.stop, kept))
                _write(file, new, out)
                replaced += int(where.sum())
                clipped += int((beyond & where).sum())
                at = patch.stop
            _copy(source, file, (at, target.span[1]), kept)
        with writing(out):
            os.replace(beside, out)
    finally:
        beside.unlink(missing_ok=True)
    return Written(replaced, clipped)


def _opened(beside: Path, out: Path, target: Target) -> soundfile.SoundFile:
    encoding = target.encoding
    try:
        return soundfile.SoundFile(
            beside,
            "w",
            target.sample_rate,
            target.recording.channels,
            encoding.subtype,
            format=encoding.container,
        )
    except soundfile.LibsndfileError as error:
        raise InputError(f"{out}: cannot be written ({error.error_string.strip().rstrip('.')})") from error


def _copy(source: soundfile.SoundFile, file: soundfile.SoundFile, span: tuple[int, int], kept: str) -> None:
    for start in range(span[0], span[1], _BLOCK):
        _write(file, _raw(source, start, min(start + _BLOCK, span[1]), kept), Path(file.name))


def _write(file: soundfile.SoundFile, samples: np.ndarray, out: Path) -> None:
    try:
        file.write(samples)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"{out}: cannot be written (disk full?)") from error


def _raw(source: soundfile.SoundFile, start: int, stop: int, kept: str) -> np.ndarray:
    """Returns samples [n, C] as the file has them, zeros where there is nothing."""
    low, high = _within(start, stop, source.frames)
    whole = np.zeros((stop - start, source.channels), dtype=kept)
    if high > low:
        source.seek(low)
        part = source.read(high - low, dtype=kept, always_2d=True)
        if part.shape[0] < high - low:
            raise InputError(f"{source.name}: cut off: ends before sample {high}; copy the file again")
        whole[low - start : high - start] = part
    return whole


def _encoded(samples: np.ndarray, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """Returns new samples in the type that is carried, and which of them lay beyond full scale."""
    if encoding.subtype in _FLOATS:
        return samples.astype(encoding.kept), np.zeros(samples.shape, dtype=bool)
    bits = _BITS[encoding.subtype]
    scale = 2.0 ** (bits - 1)
    whole = np.clip(np.rint(samples * scale), -scale, scale - 1).astype(np.int64) << (32 - bits)
    return whole.astype(np.int32), np.abs(samples) > 1
