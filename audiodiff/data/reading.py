"""Reading the samples that an entry names, from an audio file or from the bytes of one.

Training reads parts of files thousands of times a second, so only what is wrong is looked at closely: a file that does
not give the samples asked for is read again by `audio.io`, which says why.
"""

from __future__ import annotations

import io as streams
import os
import struct
from dataclasses import dataclass

import numpy as np
import soundfile
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.data.entries import Entry
from audiodiff.errors import InputError

_HEAD = 512  # bytes in which a plain WAV file says where its audio begins


def read_entry(entry: Entry, start: int, length: int, content: bytes | None = None) -> Tensor:
    """Returns [C, length] of a cut at its own sample rate.

    Args:
        entry: of the cut.
        start: first sample, counted from the start of the cut.
        length: samples.
        content: the audio file itself where it lies in a shard; None reads `entry.source`.

    Raises:
        InputError: the audio cannot be read, or is not what the cut says.
    """
    first = entry.first + start
    if content is None:
        found = _plain_wav(entry.source, first, length) or _decode(entry.source, first, length)
    else:
        found = _decode(streams.BytesIO(content), first, length)
    if found is None and content is None:
        found = io.read(entry.source, start=first, length=length)  # says what is wrong
    if found is None:
        raise InputError(
            f"{entry.source}: its audio is cut off, damaged or not finite; write the shard again"
        )
    waveform, rate = found
    if rate != entry.sample_rate or waveform.shape[0] <= max(entry.rows):
        raise InputError(
            f"{entry.source} is now at {rate} Hz with {waveform.shape[0]} channel(s), the manifest says "
            f"{entry.sample_rate} Hz and more than {max(entry.rows)}; run `audiodiff prepare` again"
        )
    if entry.rows == tuple(range(waveform.shape[0])):
        return waveform
    return waveform[list(entry.rows)]


@dataclass(frozen=True)
class MelGrid:
    """Where the frames of the mels in files lie.

    Attributes:
        n_mels: bands.
        hop_length: samples from frame to frame.
        centred: whether frame f is centred on sample f * hop_length; otherwise within that hop.
    """

    n_mels: int
    hop_length: int
    centred: bool

    def frames(self, length: int) -> int:
        """Returns the frames of so many samples; audio shorter than a hop has one."""
        return max(length // self.hop_length + self.centred, 1)


def read_mel(entry: Entry, grid: MelGrid, start: int, length: int) -> Tensor:
    """Returns the frames [n_mels, F] of a cut's mel that belong to a part of its samples.

    Args:
        entry: of the cut.
        grid: of its mel.
        start: first sample, which begins a frame.
        length: samples.

    Raises:
        InputError: the cut names no mel, or its file cannot be read or is of other audio.
    """
    if not entry.mel:
        raise InputError("names no mel, as the other cuts of its manifest do; run `audiodiff align` again")
    try:
        mel = np.load(entry.mel, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{entry.mel}: cannot be read as a mel ({' '.join(str(error).split())})") from error
    expected = (grid.n_mels, grid.frames(entry.length))
    if mel.shape != expected or mel.dtype != np.float32:
        raise InputError(
            f"{entry.mel}: got {mel.dtype} of shape {list(mel.shape)}, expected float32 of {list(expected)} for "
            f"{entry.length} samples; run `audiodiff align` again"
        )
    first = start // grid.hop_length
    return torch.from_numpy(np.array(mel[:, first : first + grid.frames(length)]))


def _plain_wav(path: str, first: int, length: int) -> tuple[Tensor, int] | None:
    """Returns [C, length] and the sample rate of a part of a 16-bit WAV file, or None where it is anything else.

    The samples are those of libsndfile, n / 2^15, at a quarter of its time.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        layout = _wav_layout(os.pread(file, _HEAD, 0))
        if layout is None:
            return None
        start, frames, channels, rate = layout
        if not 0 <= first < first + length <= frames:
            return None
        content = os.pread(file, 2 * channels * length, start + 2 * channels * first)
    except OSError:
        return None
    finally:
        os.close(file)
    if len(content) < 2 * channels * length:
        return None
    integers = np.frombuffer(content, "<i2").reshape(length, channels).T
    return torch.from_numpy(np.multiply(integers, np.float32(2.0**-15), dtype=np.float32, order="C")), rate


def _wav_layout(head: bytes) -> tuple[int, int, int, int] | None:
    """Returns first byte, samples, channels and rate of the audio of a WAV file that begins so, if it is 16-bit PCM."""
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    position, form = 12, None
    while position + 8 <= len(head):
        name, size = (
            head[position : position + 4],
            int.from_bytes(head[position + 4 : position + 8], "little"),
        )
        if name == b"fmt " and position + 24 <= len(head):
            form = struct.unpack_from("<HHIIHH", head, position + 8)
        elif name == b"data":
            if form is None or form[0] != 1 or form[5] != 16 or form[1] < 1 or form[4] != 2 * form[1]:
                return None
            return position + 8, size // form[4], form[1], form[2]
        position += 8 + size + size % 2
    return None


def _decode(source: str | streams.BytesIO, first: int, length: int) -> tuple[Tensor, int] | None:
    """Returns [C, length] and the sample rate of a part of an audio file, or None if anything is wrong with it."""
    try:
        with soundfile.SoundFile(source) as file:
            if not 0 <= first < first + length <= file.frames:
                return None
            file.seek(first)
            samples = file.read(length, dtype="float32", always_2d=True)
            rate = file.samplerate
    except (soundfile.LibsndfileError, TypeError, OSError):
        return None
    if samples.shape[0] < length or not np.isfinite(samples).all():
        return None
    return torch.from_numpy(np.ascontiguousarray(samples.T)), rate
