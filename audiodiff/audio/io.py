"""Audio files in and out: float32 waveforms [C, T] in [-1, 1] at a known sample rate.

libsndfile decodes and encodes, soxr resamples. A file that is missing, cut off, not audio or not finite
raises InputError with its name; nothing is repaired silently. Integer samples are written as
round(x * 2^(bits-1)), the inverse of how they are read, so that reading and writing a file changes no sample.
"""

from __future__ import annotations

import glob
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from audiodiff.errors import InputError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64")
SILENCE_PEAK = 1e-4  # -80 dB of full scale
CLIP_LEVEL = 1 - 2.0**-14  # within two 16-bit steps of full scale: where converters and editors clip

_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".aiff": "AIFF"}
_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
# What libsndfile notes while it parses a header that promises more bytes than the file has.
_PROMISED = re.compile(r"\b(?:data|SSND|Data Size|riff|Riff size) *: *(\d+) \(should be (\d+)\)")
_UNKNOWN_SIZE = 0x7FFF0000  # writers that cannot seek leave a size this large: no promise at all


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says.

    Attributes:
        sample_rate: in hertz.
        channels: number of channels C.
        length: samples per channel T.
        subtype: libsndfile's name of the encoding, for example "PCM_16".
        format: libsndfile's name of the container, for example "WAV".
    """

    sample_rate: int
    channels: int
    length: int
    subtype: str
    format: str

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.length / self.sample_rate


@dataclass(frozen=True)
class AudioHealth:
    """What a waveform's samples look like; NaN and infinite samples count in `has_nan` only.

    Attributes:
        peak: largest absolute sample.
        rms_db: root mean square of all channels, in dB of full scale (a full-scale square wave is 0);
            -200 for digital silence.
        clipped_share: share of samples at full scale (CLIP_LEVEL and above), 0..1.
        silent: whether the peak stays below SILENCE_PEAK.
        has_nan: whether any sample is NaN or infinite.
    """

    peak: float
    rms_db: float
    clipped_share: float
    silent: bool
    has_nan: bool


def read(
    path: str | os.PathLike[str],
    sample_rate: int | None = None,
    channels: int | None = None,
    start: int = 0,
    length: int | None = None,
) -> tuple[Tensor, int]:
    """Reads a file, or a part of it, as a float32 waveform.

    Args:
        path: any file that libsndfile decodes (WAV, FLAC, Ogg, MP3, AIFF, ...).
        sample_rate: hertz wanted; the waveform is resampled to round(T * sample_rate / file's rate)
            samples. None: the file's own.
        channels: 1 averages the channels of a file that has more. None: the file's own.
        start: first sample, in samples of the file.
        length: number of samples, in samples of the file. None: to the end.

    Returns:
        The waveform [C, T], integer encodings scaled to [-1, 1], and its sample rate.

    Raises:
        InputError: the file is missing, a folder, empty, cut off, not audio, has no samples or NaN samples;
            it has not the channels asked for; the part asked for lies beyond its end.
    """
    with _open(path) as file:
        stop = file.frames if length is None else start + length
        if not 0 <= start < stop <= file.frames:
            raise InputError(
                f"{path}: samples {start} to {stop} asked for, but the file has {file.frames}; "
                "name a part inside it"
            )
        if channels not in (None, 1, file.channels):
            raise InputError(
                f"{path}: {file.channels} channel(s), {channels} asked for; "
                "only a mean over channels (1) is offered"
            )
        samples = _decode(file, path, start, stop - start)
        rate = file.samplerate
    if not np.isfinite(samples).all():
        count = int((~np.isfinite(samples)).sum())
        raise InputError(
            f"{path}: {count} of {samples.size} samples are NaN or infinite; write the file again"
        )
    if channels == 1:
        samples = samples.mean(axis=1, keepdims=True)
    waveform = torch.from_numpy(np.ascontiguousarray(samples.T))
    if sample_rate is None or sample_rate == rate:
        return waveform, rate
    return resample(waveform, rate, sample_rate), sample_rate


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Returns what the header of a file says, without decoding it.

    A cut-off WAV, AIFF, AU or Ogg file is found here already; FLAC and MP3 only when `read` decodes them.

    Raises:
        InputError: the file is missing, a folder, empty, cut off, not audio, or has no samples.
    """
    with _open(path) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames, file.subtype, file.format)


def resample(waveform: Tensor, sample_rate: int, new_rate: int) -> Tensor:
    """Returns waveform [C, T] (on the CPU) at another rate: round(T * new / old) samples, halves rounded up.

    soxr's very high quality: flat to 0.91 of the lower Nyquist frequency or more, aliases below -120 dB.

    Raises:
        InputError: a rate is not positive, or no sample would be left.
    """
    if sample_rate <= 0 or new_rate <= 0:
        raise InputError(f"sample rates {sample_rate} and {new_rate} Hz: both must be positive")
    if sample_rate == new_rate:
        return waveform
    resampled = soxr.resample(waveform.numpy().T, sample_rate, new_rate, quality="VHQ")
    if resampled.shape[0] == 0:
        raise InputError(f"{waveform.shape[-1]} sample(s) at {sample_rate} Hz leave none at {new_rate} Hz")
    return torch.from_numpy(np.ascontiguousarray(resampled.T))


def write(path: str | os.PathLike[str], waveform: Tensor, sample_rate: int, subtype: str = "PCM_16") -> int:
    """Writes a waveform: beside the final name first, then renamed, so that no half-written file is seen.

    Args:
        path: its suffix chooses the container (.wav, .flac, .ogg, .aiff); missing folders are made.
        waveform: [C, T] or [T]; samples outside [-1, 1] are clipped, in float encodings too.
        sample_rate: in hertz.
        subtype: libsndfile's name of the encoding: "PCM_16", "PCM_24", "FLOAT", "VORBIS", ...

    Returns:
        The number of samples that were clipped, for the caller to report.

    Raises:
        InputError: the waveform is empty, of another shape or not finite; the suffix, encoding or rate
            cannot be written; the folder cannot be written or the disk is full (nothing is left behind).
    """
    path = Path(path)
    waveform = torch.as_tensor(waveform).detach().to("cpu", torch.float32)
    if waveform.dim() not in (1, 2) or waveform.numel() == 0:
        raise InputError(
            f"{path}: waveform of shape {tuple(waveform.shape)}, expected [C, T] or [T] with samples"
        )
    if not torch.isfinite(waveform).all():
        raise InputError(f"{path}: the waveform has NaN or infinite samples; not written")
    clipped = int((waveform.abs() > 1).sum())
    encoded = _encode(path, waveform.clamp(-1, 1).numpy().T, sample_rate, subtype)
    _replace(path, encoded)
    return clipped


def inspect(waveform: Tensor) -> AudioHealth:
    """Returns level, clipping, silence and NaN of a waveform of any shape.

    Raises:
        InputError: there are no samples.
    """
    if waveform.numel() == 0:
        raise InputError("the waveform has no samples")
    finite = torch.isfinite(waveform)
    samples = torch.where(finite, waveform, 0).double()
    peak = float(samples.abs().max())
    rms = float(samples.square().mean().sqrt())
    return AudioHealth(
        peak=peak,
        rms_db=20 * float(np.log10(max(rms, 1e-10))),
        clipped_share=float((samples.abs() >= CLIP_LEVEL).double().mean()),
        silent=peak < SILENCE_PEAK,
        has_nan=not bool(finite.all()),
    )


def find(inputs: Sequence[str | os.PathLike[str]], suffixes: Sequence[str] = AUDIO_SUFFIXES) -> list[Path]:
    """Returns the files that the inputs name, sorted, each once.

    Args:
        inputs: files, folders (searched with their subfolders) and globs ("takes/*.wav", "**/*.flac").
        suffixes: the endings wanted, with dot, in any case; what else folders and globs hold is left out.

    Raises:
        InputError: an input does not exist, matches nothing, or is a file with another suffix.
    """
    wanted = {suffix.lower() for suffix in suffixes}
    listed = ", ".join(suffixes)
    found: set[Path] = set()
    for given in inputs:
        path = Path(given)
        if path.is_file():
            if path.suffix.lower() not in wanted:
                raise InputError(f"{path}: suffix '{path.suffix}', expected one of {listed}")
            found.add(path)
            continue
        if path.is_dir():
            candidates = list(path.rglob("*"))
        elif glob.has_magic(str(given)):
            candidates = [Path(match) for match in glob.glob(str(given), recursive=True)]
        else:
            raise InputError(f"{path}: no such file or folder")
        matches = [match for match in candidates if match.suffix.lower() in wanted and match.is_file()]
        if not matches:
            raise InputError(f"{given}: no file with one of the suffixes {listed}")
        found.update(matches)
    if not found:
        raise InputError(f"no input given; name files, folders or globs of {listed}")
    return sorted(found)


def _open(path: str | os.PathLike[str]) -> soundfile.SoundFile:
    """Opens a file for reading and refuses what its header already shows to be broken."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected an audio file")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty (0 bytes), expected audio")
        file = soundfile.SoundFile(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from error
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: .raw, which has no header
        cause = getattr(error, "error_string", "headerless samples").strip().rstrip(".")
        raise InputError(
            f"{path}: not an audio file, or damaged ({cause}); expected WAV, FLAC, Ogg, MP3, ..."
        ) from error
    problem = _damage(path, file)
    if problem:
        file.close()
        raise InputError(f"{path}: {problem}")
    return file


def _damage(path: Path, file: soundfile.SoundFile) -> str | None:
    """Returns what is wrong with an opened file; libsndfile takes what is left of one for all of it."""
    for promised, present in _PROMISED.findall(file.extra_info):
        if int(present) < int(promised) < _UNKNOWN_SIZE:
            return f"cut off: the header promises {promised} bytes, {present} are there; copy the file again"
    if file.format == "OGG" and not _ogg_complete(path):
        return "cut off: the Ogg stream has no end; copy the file again"
    if file.frames == 0:
        return "has no samples (length 0)"
    return None


def _ogg_complete(path: Path) -> bool:
    """Whether the last Ogg page is whole and marked as the end of the stream (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**17))  # a page has at most 65,307 bytes
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    end_of_stream = bool(page[5] & 4)
    return end_of_stream and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def _decode(file: soundfile.SoundFile, path: str | os.PathLike[str], start: int, length: int) -> np.ndarray:
    """Returns samples [T, C] float32 of an open file, and refuses a file that ends before its header says."""
    try:
        file.seek(start)
        samples = file.read(length, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{path}: cut off or damaged ({error.error_string.strip()}); copy the file again"
        ) from error
    if samples.shape[0] < length:
        raise InputError(
            f"{path}: cut off: {start + samples.shape[0]} of {file.frames} samples can be decoded; "
            "copy the file again"
        )
    return samples


def _encode(path: Path, samples: np.ndarray, sample_rate: int, subtype: str) -> bytes:
    """Returns the file's bytes; encoded in memory so that a failing disk meets one plain write."""
    container = _FORMATS.get(path.suffix.lower())
    if container is None:
        raise InputError(f"{path}: cannot write '{path.suffix}' files, expected one of {', '.join(_FORMATS)}")
    if not soundfile.check_format(container, subtype):
        choices = ", ".join(soundfile.available_subtypes(container))
        raise InputError(
            f"{path}: encoding '{subtype}' does not exist in {container}, expected one of {choices}"
        )
    if subtype in _BITS:
        # libsndfile would scale by 2^(bits-1) - 1, one less than it divides by when reading.
        bits = _BITS[subtype]
        scale = 2.0 ** (bits - 1)
        samples = samples.astype(np.float64 if bits > 24 else np.float32)  # exact, and no wider than needed
        samples = np.clip(np.rint(samples * scale), -scale, scale - 1).astype(np.int32) << (32 - bits)
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, samples, sample_rate, subtype=subtype, format=container)
    except (soundfile.LibsndfileError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path}: shape {samples.T.shape} at {sample_rate} Hz cannot be written as {container} {subtype}"
        ) from error
    return buffer.getvalue()


def _replace(path: Path, content: bytes) -> None:
    """Puts bytes at a path in one step; on any failure the path is as it was before."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                file.write(content)
            os.replace(beside, path)
        except BaseException:  # also Ctrl-C
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); nothing was left behind") from error
