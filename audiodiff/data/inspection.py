"""What decoding one audio file shows, remembered so that no file is decoded twice.

A file is decoded whole: a header can promise what the data does not hold. What is not as wanted, and what cannot be
read at an exact sample (MP3, Vorbis), is kept as FLAC beside the manifests. Findings are kept in a JSON-lines file
in the prepared folder, keyed by path, size, time of change and what was asked, so that an interrupted preparation
goes on where it stopped and a second one is quick.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from audiodiff.audio import io
from audiodiff.data.decoding import (
    INEXACT_SEEK,
    Health,
    UnusableAudioError,
    converted_blocks,
    decode,
    probe,
    transcode,
)
from audiodiff.files import write_whole, writing

# Part of the key: findings made under other rules do not count.
RULES = 3

# Share of samples at full scale above which a clip is reported, and above which it is of no use.
CLIPPED_REPORTED = 0.001
CLIPPED_EXCLUDED = 0.1
# Mean of a channel, of full scale and of the root mean square around it, from which on it is reported.
OFFSET_REPORTED, OFFSET_SHARE_REPORTED = 0.01, 0.25


@dataclass(frozen=True)
class Wanted:
    """What the audio must be; None leaves it as it is.

    Attributes:
        sample_rate: Hz.
        channels: 1 for mono.
        peak: largest absolute sample of a file.
        centred: whether the mean of each channel of a file is taken away.
    """

    sample_rate: int | None = None
    channels: int | None = None
    peak: float | None = None
    centred: bool = False

    def fits(self, info: io.AudioInfo) -> bool:
        """Whether a file is so already, as far as its header tells."""
        rate, channels = (None, info.sample_rate), (None, info.channels)
        as_is = self.peak is None and not self.centred
        return as_is and self.sample_rate in rate and self.channels in channels


@dataclass(frozen=True)
class Finding:
    """What one file holds.

    Attributes:
        path: the file to use: the original, or its conversion.
        sample_rate: of that file, Hz; 0 when excluded.
        channels: of that file; 0 when excluded.
        length: samples of that file; 0 when excluded.
        excluded: why the file cannot be used, or None.
        remark: what is odd about a file that can be used, or None.
        lossy: what the original is encoded with ("MP3", "Vorbis") where that is why it was converted, or None.
        stamp: size and time of change of the conversion, by which it is known again; None for originals.
    """

    path: str
    sample_rate: int = 0
    channels: int = 0
    length: int = 0
    excluded: str | None = None
    remark: str | None = None
    lossy: str | None = None
    stamp: tuple[int, int] | None = None


def examine(path: Path, wanted: Wanted, converted: Path) -> Finding:
    """Decodes a file whole and converts it where it is not as wanted or cannot be read at an exact sample.

    Args:
        path: of the original.
        wanted: rate, channels, level and offset.
        converted: where the conversion goes; appears whole or not at all.

    Returns:
        The finding; a bad file is a finding with `excluded`, never an exception.

    Raises:
        InputError: the conversion cannot be written.
    """
    if not path.is_file():
        return Finding(str(path), excluded="audio file missing")
    try:
        info = probe(path)
        lossy = INEXACT_SEEK.get(info.subtype)
        if lossy is None and wanted.fits(info):
            health = Health()
            for _ in health.watch(decode(path)):
                pass
            _refuse(health)
            remark = _remark(health.clipped_share, health)
            return Finding(str(path), info.sample_rate, info.channels, info.length, remark=remark)
        return _converted(path, info, wanted, converted, lossy)
    except UnusableAudioError as error:
        return Finding(str(path), excluded=str(error))


def _converted(path: Path, info: io.AudioInfo, wanted: Wanted, converted: Path, lossy: str | None) -> Finding:
    """Returns the finding of a file that is converted while it is decoded."""
    beside = converted.with_name(f".{converted.name}.{os.getpid()}.part")
    health = Health()
    try:
        rate, channels = wanted.sample_rate or info.sample_rate, wanted.channels or info.channels
        gain, offsets = _adjustment(path, info, wanted, rate, channels)
        written = transcode(health.watch(decode(path)), info, rate, channels, beside, gain, offsets)
        _refuse(health)
        with writing(converted):
            os.replace(beside, converted)
            stamp = _stamp(converted)
    finally:
        with suppress(OSError):  # where it could not be written, it is not there either
            beside.unlink()
    clipped_share = max(written.clipped_share, health.clipped_share)
    remark = _remark(clipped_share, None if wanted.centred else health)
    return Finding(str(converted), rate, channels, written.length, remark=remark, lossy=lossy, stamp=stamp)


def _adjustment(
    path: Path, info: io.AudioInfo, wanted: Wanted, sample_rate: int, channels: int
) -> tuple[float, np.ndarray | None]:
    """Returns the gain and the offsets [C] with which a file that is converted comes out as wanted.

    Raises:
        UnusableAudioError: the file is damaged or silent.
    """
    if wanted.peak is None and not wanted.centred:
        return 1.0, None
    health = Health()
    for _ in health.watch(
        block for block in converted_blocks(decode(path), info, sample_rate, channels) if len(block)
    ):
        pass
    _refuse(health)
    peak = health.centred_peak if wanted.centred else health.peak
    gain = 1.0 if wanted.peak is None else wanted.peak / peak
    return gain, health.offsets if wanted.centred else None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _refuse(health: Health) -> None:
    """Raises UnusableAudioError for a decoded file that is of no use."""
    if health.centred_peak < io.SILENCE_PEAK:
        raise UnusableAudioError(
            f"silent: peak {health.centred_peak:.2g} around a mean of {health.offsets[0]:.2g}"
        )
    if health.clipped_share > CLIPPED_EXCLUDED:
        raise UnusableAudioError(_clipped(health.clipped_share))


def _remark(clipped_share: float, health: Health | None) -> str | None:
    """Returns a word on clipping, and on the offset of what is not centred, where they are worth one."""
    remarks = [_clipped(clipped_share)] if clipped_share > CLIPPED_REPORTED else []
    if health is not None:
        offset = float(max(health.offsets, key=abs))
        if abs(offset) >= max(OFFSET_REPORTED, OFFSET_SHARE_REPORTED * health.centred_rms):
            remarks.append(f"offset: the samples' mean is {offset:.3f}; --remove-offset takes it away")
    return "; ".join(remarks) or None


def _clipped(share: float) -> str:
    return f"clipped: {share:.1%} of the samples at full scale"


class Memory:
    """Findings of earlier runs, by key; several threads may use one.

    Args:
        path: JSON-lines file; lines that were cut off by an interruption are left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Finding] = {}
        self._used: dict[str, Finding] = {}
        self._lock = threading.Lock()
        if path.is_file():
            # A kill may have cut a line inside a letter.
            with path.open(encoding="utf-8", errors="replace") as lines:
                self._known = dict(filter(None, map(_entry, lines)))

    def recall(self, key: str) -> Finding | None:
        """Returns the finding of a key, or None when there is none or its conversion is gone or another by now."""
        finding = self._known.get(key)
        if finding is None or (finding.stamp is not None and finding.stamp != _stamp(Path(finding.path))):
            return None
        self._used[key] = finding
        return finding

    def remember(self, key: str, finding: Finding) -> None:
        """Keeps a finding, on disk at once."""
        with self._lock, writing(self.path):
            self._used[key] = finding
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(_line(key, finding))

    def compact(self) -> None:
        """Rewrites the file with what this run used, sorted."""
        lines = "".join(_line(key, finding) for key, finding in sorted(self._used.items()))
        write_whole({self.path: lines.encode("utf-8")})


def key_of(path: Path, wanted: Wanted, converted: Path) -> str | None:
    """Returns what a finding depends on, or None for a file that is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    facts = [RULES, str(path), status.st_size, status.st_mtime_ns, wanted.sample_rate, wanted.channels]
    return json.dumps([*facts, wanted.peak, wanted.centred, str(converted)])


def _line(key: str, finding: Finding) -> str:
    return json.dumps({"key": key, **asdict(finding)}, ensure_ascii=False) + "\n"


def _entry(line: str) -> tuple[str, Finding] | None:
    try:
        values = json.loads(line)
        stamp = values.pop("stamp")
        return values.pop("key"), Finding(**values, stamp=None if stamp is None else (stamp[0], stamp[1]))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return None  # the last line of an interrupted run; its file is examined again
