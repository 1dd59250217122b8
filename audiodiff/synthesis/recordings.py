"""Recordings of any length in and out, a block at a time: at the model's rate and channels in, at the file's own out.

A file at another rate is resampled once, as a stream, into a temporary file, of which any part can be read. What is
written goes beside its final name and gets the name when it is complete.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.files import writing

_BLOCK = 2**18  # samples that are read or resampled at a time
_WAV_BYTES = 2**32 - 2**16  # beyond, a WAV header cannot say how long the file is


class Recording:
    """A recording as a model takes it: groups of channels at its rate, zeros beyond the ends.

    Attributes:
        info: the file's header.
        samples: its length at the model's rate.
        groups: how many items the channels make; a mono model takes every channel as an item of its own.
        changes: in words, what is done to the file on its way into the model and back; empty where nothing is.
    """

    def __init__(self, path: Path, sample_rate: int, channels: int) -> None:
        """Opens the file, and resamples it where it has another rate.

        Args:
            path: any file that `audio.io` reads.
            sample_rate: of the model.
            channels: of the model.

        Raises:
            InputError: a file that cannot be read, or channels that the model's cannot stand for.
        """
        self.info = io.probe(path)
        if self.info.channels != channels and 1 not in (self.info.channels, channels):
            raise InputError(
                f"{path}: {self.info.channels} channels, the model has {channels}; mix the file down first"
            )
        self._path, self._channels = path, channels
        self.groups = self.info.channels if channels == 1 else 1
        self.samples = max(1, round(self.info.length * sample_rate / self.info.sample_rate))
        self.changes = _changes(self.info, sample_rate, channels)
        self._resampled: np.memmap | None = None
        if sample_rate != self.info.sample_rate:
            self._resampled = self._resample(sample_rate)

    def read(self, start: int, stop: int) -> Tensor:
        """Returns the waveform [groups, C of the model, stop - start] from sample start on.

        Raises:
            InputError: the file breaks off, or holds samples that are not finite.
        """
        first, last = max(start, 0), min(stop, self.samples)
        if last <= first:
            part = torch.zeros(self.info.channels, 0)
        elif self._resampled is None:
            part = io.read(self._path, start=first, length=last - first)[0]
        else:
            part = torch.from_numpy(np.array(self._resampled[first:last])).T
        part = torch.nn.functional.pad(part, (first - start, stop - start - (first - start) - part.shape[-1]))
        if self.groups > 1:
            return part[:, None]
        return part.expand(self._channels, -1)[None] if part.shape[0] == 1 else part[None]

    def restore(self, blocks: Iterator[Tensor], sample_rate: int) -> Iterator[Tensor]:
        """Yields waveforms [C of the file, n] at the file's rate, as long as the file in all.

        Args:
            blocks: [groups * C of the model, n] at the model's rate.
            sample_rate: of the model.
        """
        own = self.info.channels
        mixed = (block.mean(0, keepdim=True) if own == 1 else block for block in blocks)
        if sample_rate == self.info.sample_rate:
            yield from mixed
            return
        stream = soxr.ResampleStream(sample_rate, self.info.sample_rate, own, dtype="float32", quality="VHQ")
        left = self.info.length
        for block in mixed:
            done = _taken(stream.resample_chunk(np.ascontiguousarray(block.cpu().numpy().T)), left)
            left -= done.shape[-1]
            if done.shape[-1]:
                yield done
        rest = _taken(stream.resample_chunk(np.zeros((0, own), dtype=np.float32), last=True), left)
        yield torch.nn.functional.pad(rest, (0, left - rest.shape[-1]))

    def _resample(self, sample_rate: int) -> np.memmap:
        """Returns the samples [T, C] at another rate, on the disk."""
        file = tempfile.NamedTemporaryFile(suffix=".f32")  # noqa: SIM115 the map keeps it until the object goes
        self._file, count = file, 0
        stream = soxr.ResampleStream(
            self.info.sample_rate, sample_rate, self.info.channels, dtype="float32", quality="VHQ"
        )
        with writing(Path(file.name)):
            for first in range(0, self.info.length, _BLOCK):
                length = min(_BLOCK, self.info.length - first)
                part = io.read(self._path, start=first, length=length)[0].numpy().T
                done = stream.resample_chunk(
                    np.ascontiguousarray(part), last=first + length == self.info.length
                )
                file.write(done.tobytes())
                count += len(done)
            # The stream and the rounded length may differ by a sample.
            file.write(
                np.zeros((max(0, self.samples - count), self.info.channels), dtype=np.float32).tobytes()
            )
            file.flush()
        return np.memmap(file.name, np.float32, "r", shape=(self.samples, self.info.channels))


class BlockWriter:
    """A wav file that grows block by block beside its name.

    Attributes:
        samples: written so far.
        clipped: samples that were limited to full scale.
    """

    def __init__(self, path: Path, sample_rate: int, channels: int) -> None:
        """Opens the file beside its name."""
        self.path, self.samples, self.clipped = path, 0, 0
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                # RF64 is written as plain WAV unless it grows beyond what WAV can hold.
                self._file = soundfile.SoundFile(
                    self._beside, "w", sample_rate, channels, "PCM_16", format="WAV"
                )
            except soundfile.LibsndfileError as error:
                raise InputError(f"{path}: cannot be written ({error.error_string})") from error
        self._most = _WAV_BYTES // (2 * channels)

    def write(self, waveform: Tensor) -> None:
        """Appends a waveform [C, n].

        Raises:
            InputError: the disk is full, or the file would be longer than a WAV file can be.
        """
        self.clipped += int((waveform.abs() > 1).sum())
        self.samples += waveform.shape[-1]
        if self.samples > self._most:
            raise InputError(
                f"{self.path}: a WAV file holds at most {self._most} samples; ask for a shorter one"
            )
        try:
            self._file.write(pcm(waveform))
        except soundfile.LibsndfileError as error:
            raise InputError(f"{self.path}: cannot be written ({error.error_string})") from error

    def close(self) -> None:
        """Gives the file its name."""
        with writing(self.path):
            self._file.close()
            os.replace(self._beside, self.path)

    def discard(self) -> None:
        """Removes what was written."""
        self._file.close()
        self._beside.unlink(missing_ok=True)


@contextmanager
def writing_blocks(path: Path, sample_rate: int, channels: int) -> Iterator[BlockWriter]:
    """Gives a BlockWriter whose file appears when the block ends well, and not at all otherwise."""
    writer = BlockWriter(path, sample_rate, channels)
    try:
        yield writer
        writer.close()
    except BaseException:  # also Ctrl-C
        writer.discard()
        raise


def write_pcm(blocks: Iterable[Tensor], pipe: BinaryIO) -> int:
    """Writes waveforms [C, n] as 16-bit little-endian samples and returns how many; ends when the reader goes."""
    samples = 0
    for block in blocks:
        try:
            pipe.write(pcm(block).astype("<i2").tobytes())
            pipe.flush()
        except BrokenPipeError:
            break
        samples += block.shape[-1]
    return samples


def stream_file(target: str) -> Path:
    """Returns the file that a stream is to be written to.

    Raises:
        InputError: a name that is not that of a wav file.
    """
    path = Path(target)
    if path.suffix.lower() != ".wav":
        raise InputError(f"--stream {target}: expected a file name that ends in .wav, or - for stdout")
    return path


def pcm(waveform: Tensor) -> np.ndarray:
    """Returns waveform [C, n] as 16-bit samples [n, C], rounded as `audio.io` does."""
    samples = waveform.detach().cpu().float().clamp(-1, 1).numpy().T * 2.0**15
    return np.ascontiguousarray(np.clip(np.rint(samples), -(2**15), 2**15 - 1).astype(np.int16))


def _taken(samples: np.ndarray, most: int) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(samples[:most].T))


def _changes(info: io.AudioInfo, sample_rate: int, channels: int) -> tuple[str, ...]:
    changes = []
    if info.sample_rate != sample_rate:
        changes.append(f"resampled from {info.sample_rate} to {sample_rate} Hz and back")
    if info.channels > channels:
        changes.append(f"its {info.channels} channels one by one, with the same noise")
    elif info.channels < channels:
        changes.append(f"one channel as {channels}, whose mean is written")
    return tuple(changes)
