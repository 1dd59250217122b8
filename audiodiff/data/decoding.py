"""Decoding from the first sample to the last in blocks, and transcoding to FLAC the same way.

A piece of an hour needs no more memory than a word. What is decoded front to back is what libsndfile makes of the
file, encoder delay and padding handled as it does. Seeking is another matter: after a seek into MP3 or Vorbis the
samples are not those of a full decode (libsndfile issue 885; 3 to 8 of 100 random segments of speech differed, some
by half of full scale), so these two are kept as FLAC. Opus and PCM of any kind, FLAC among them, seek exactly.
libsndfile decodes no AAC (M4A), WMA or ALAC in MP4.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
import soxr

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.files import writing

BLOCK = 1 << 18  # samples per channel
# libsndfile's names of the encodings that are transcoded, and what the report calls them.
INEXACT_SEEK = {"MPEG_LAYER_I": "MP1", "MPEG_LAYER_II": "MP2", "MPEG_LAYER_III": "MP3", "VORBIS": "Vorbis"}
_DEEP = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_20", "ALAC_24", "ALAC_32")


class UnusableAudioError(InputError):
    """A file's own fault: it is left out, and the others go on."""


@dataclass
class Health:
    """What the samples of a file look like, block by block.

    Attributes:
        peak: largest absolute sample so far.
        clipped: samples at full scale (io.CLIP_LEVEL and above).
        samples: of all channels together.
        sums: of the samples of each channel.
        squares: sum of the squares of all samples.
        lowest: smallest sample of each channel.
        highest: largest sample of each channel.
    """

    peak: float = 0.0
    clipped: int = 0
    samples: int = 0
    sums: np.ndarray = field(default_factory=lambda: np.zeros(1))
    squares: float = 0.0
    lowest: np.ndarray = field(default_factory=lambda: np.full(1, np.inf))
    highest: np.ndarray = field(default_factory=lambda: np.full(1, -np.inf))

    def watch(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the blocks as they are, and counts."""
        for block in blocks:
            magnitude = np.abs(block)
            self.peak = max(self.peak, float(magnitude.max()))
            self.clipped += int((magnitude >= io.CLIP_LEVEL).sum())
            self.samples += block.size
            self.sums = self.sums + block.sum(axis=0, dtype=np.float64)
            self.squares += float(np.square(block, dtype=np.float64).sum())
            self.lowest = np.minimum(self.lowest, block.min(axis=0))
            self.highest = np.maximum(self.highest, block.max(axis=0))
            yield block

    @property
    def clipped_share(self) -> float:
        """Share of the samples that are clipped."""
        return self.clipped / max(1, self.samples)

    @property
    def offsets(self) -> np.ndarray:
        """Mean of each channel."""
        return self.sums * len(self.sums) / max(1, self.samples)

    @property
    def centred_peak(self) -> float:
        """Largest absolute sample once each channel's mean is taken away."""
        return float(np.maximum(self.highest - self.offsets, self.offsets - self.lowest).max())

    @property
    def centred_rms(self) -> float:
        """Root mean square once each channel's mean is taken away."""
        mean_square = self.squares / max(1, self.samples) - float(np.square(self.offsets).mean())
        return math.sqrt(max(0.0, mean_square))


def probe(path: Path) -> io.AudioInfo:
    """Returns what the header of a file says.

    Raises:
        UnusableAudioError: the file is missing, cut off, not audio, or has no samples.
    """
    try:
        return io.probe(path)
    except InputError as error:
        raise UnusableAudioError(str(error).removeprefix(f"{path}: ")) from error


def decode(path: Path) -> Iterator[np.ndarray]:
    """Yields a file's samples [T, C] float32, front to back.

    Args:
        path: of a file that `probe` took.

    Raises:
        UnusableAudioError: the file is cut off, damaged, or has NaN samples.
    """
    with soundfile.SoundFile(path) as file:
        left = file.frames
        while left:
            try:
                block = file.read(min(BLOCK, left), dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise UnusableAudioError(
                    f"cut off or damaged ({error.error_string.strip()}); copy the file again"
                ) from error
            if not len(block):
                raise UnusableAudioError(
                    f"cut off: {file.frames - left} of {file.frames} samples can be decoded; copy the file again"
                )
            if not np.isfinite(block).all():
                raise UnusableAudioError("NaN or infinite samples; write the file again")
            left -= len(block)
            yield block


@dataclass(frozen=True)
class Written:
    """What a transcoding wrote.

    Attributes:
        sample_rate: Hz.
        channels: C.
        length: samples per channel.
        clipped: samples beyond full scale that were clipped.
    """

    sample_rate: int
    channels: int
    length: int
    clipped: int

    @property
    def clipped_share(self) -> float:
        """Share of the samples that were clipped."""
        return self.clipped / (self.length * self.channels)


def converted_blocks(
    blocks: Iterable[np.ndarray], info: io.AudioInfo, sample_rate: int, channels: int
) -> Iterator[np.ndarray]:
    """Yields decoded blocks [T, C] resampled and mixed; see `transcode`."""
    return _resampled(_mixed(blocks, channels), info.sample_rate, sample_rate, channels)


def transcode(
    blocks: Iterable[np.ndarray],
    info: io.AudioInfo,
    sample_rate: int,
    channels: int,
    target: Path,
    gain: float = 1.0,
    offsets: np.ndarray | None = None,
) -> Written:
    """Writes decoded blocks as a FLAC file, resampled, mixed, centred and made louder as asked.

    24 bits where the source has more than 16, else 16; lossy sources have no depth of their own and get 16.

    Args:
        blocks: [T, C] float32, front to back.
        info: of the source.
        sample_rate: Hz wanted.
        channels: 1 mixes; else the source's own.
        target: a draft: on an error what was written so far stays there.
        gain: factor of the amplitude.
        offsets: [C], taken away from each channel before.

    Raises:
        UnusableAudioError: the source is damaged, no sample is left at the new rate, or FLAC cannot hold the
            channels or the rate.
        InputError: the disk is full or the folder cannot be written.
    """
    bits = 24 if info.subtype in _DEEP else 16
    length = clipped = 0
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream, _flac(_Target(stream), sample_rate, channels, bits) as write:
            for block in converted_blocks(blocks, info, sample_rate, channels):
                centred = block if offsets is None else block - offsets.astype(np.float32)
                block = centred * np.float32(gain)
                clipped += int((np.abs(block) > 1).sum())
                write(_integers(block, bits))
                length += len(block)
    if not length:
        raise UnusableAudioError(
            f"{info.length} sample(s) at {info.sample_rate} Hz leave none at {sample_rate} Hz"
        )
    return Written(sample_rate, channels, length, clipped)


@contextmanager
def _flac(
    target: _Target, sample_rate: int, channels: int, bits: int
) -> Iterator[Callable[[np.ndarray], None]]:
    """Gives a function that writes blocks of int32 [T, C] to a FLAC file; raises the disk's own OSError."""
    try:
        file = soundfile.SoundFile(target, "w", sample_rate, channels, subtype=f"PCM_{bits}", format="FLAC")
    except (soundfile.LibsndfileError, TypeError, OverflowError) as error:
        raise UnusableAudioError(
            f"{channels} channels at {sample_rate} Hz cannot be kept as FLAC; pass --mono or --sample-rate"
        ) from error

    def write(samples: np.ndarray) -> None:
        file.write(samples)
        target.check()

    try:
        yield write
    finally:
        file.close()
    target.check()


def _mixed(blocks: Iterable[np.ndarray], channels: int) -> Iterator[np.ndarray]:
    for block in blocks:
        yield block.mean(axis=1, keepdims=True) if channels == 1 else block


def _resampled(
    blocks: Iterable[np.ndarray], sample_rate: int, new_rate: int, channels: int
) -> Iterator[np.ndarray]:
    """Yields the blocks at another rate; the same samples as `io.resample` gives for the whole."""
    if sample_rate == new_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(sample_rate, new_rate, channels, dtype="float32", quality="VHQ")
    before: np.ndarray | None = None
    for block in blocks:  # one block late, for the last has to be known as such
        if before is not None:
            yield _two_dimensional(resampler.resample_chunk(before), channels)
        before = block
    if before is not None:
        yield _two_dimensional(resampler.resample_chunk(before, last=True), channels)


def _two_dimensional(samples: np.ndarray, channels: int) -> np.ndarray:
    return samples.reshape(-1, channels)


def _integers(samples: np.ndarray, bits: int) -> np.ndarray:
    """Returns samples as left-aligned int32, rounded as `io.write` does."""
    scale = np.float32(2.0 ** (bits - 1))
    rounded = np.rint(np.clip(samples, -1, 1).astype(np.float64) * scale)
    return np.clip(rounded, -scale, scale - 1).astype(np.int32) << (32 - bits)


class _Target:
    """A file that libsndfile writes through; it keeps the first error of the disk, which libsndfile would lose."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._error: OSError | None = None

    def check(self) -> None:
        """Raises the first OSError so far."""
        if self._error is not None:
            raise self._error

    def write(self, data: bytes) -> int:
        """Writes, and claims success: the error is raised by `check`."""
        self._keep(lambda: self._stream.write(data))
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves, as files do."""
        self._keep(lambda: self._stream.seek(offset, whence))
        return self._stream.tell()

    def tell(self) -> int:
        """Returns the position, as files do."""
        return self._stream.tell()

    def _keep(self, action: Callable[[], object]) -> None:
        if self._error is None:
            try:
                action()
            except OSError as error:
                self._error = error
