"""What decoding one audio file shows, remembered so that no file is decoded twice.

A file is decoded whole: a header can promise what the data does not hold. Findings are kept in a JSON-lines
file in the prepared folder, keyed by path, size, time of change and what was asked, so that an interrupted
preparation goes on where it stopped and a second one is quick.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.files import write_whole, writing

# Part of the key: findings made under other rules do not count.
RULES = 1

# Share of samples at full scale above which a clip is reported, and above which it is of no use.
CLIPPED_REPORTED = 0.001
CLIPPED_EXCLUDED = 0.1


@dataclass(frozen=True)
class Wanted:
    """What the audio must be; None leaves it as it is.

    Attributes:
        sample_rate: Hz.
        channels: 1 for mono.
    """

    sample_rate: int | None = None
    channels: int | None = None


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
    """

    path: str
    sample_rate: int = 0
    channels: int = 0
    length: int = 0
    excluded: str | None = None
    remark: str | None = None


def examine(path: Path, wanted: Wanted, converted: Path) -> Finding:
    """Decodes a file whole and converts it where it is not as wanted.

    Args:
        path: of the original.
        wanted: rate and channels.
        converted: where the conversion goes; appears whole or not at all.

    Returns:
        The finding; a bad file is a finding with `excluded`, never an exception.
    """
    if not path.is_file():
        return Finding(str(path), excluded="audio file missing")
    try:
        waveform, sample_rate = io.read(path)
        health = io.inspect(waveform)
        excluded = _unusable(health)
        if excluded is not None:
            return Finding(str(path), excluded=excluded)
        channels, length = waveform.shape
        if wanted.sample_rate in (None, sample_rate) and wanted.channels in (None, channels):
            return Finding(str(path), sample_rate, channels, length, remark=_remark(health.clipped_share))
        waveform, sample_rate = io.read(path, sample_rate=wanted.sample_rate, channels=wanted.channels)
    except InputError as error:
        return Finding(str(path), excluded=str(error).removeprefix(f"{path}: "))
    # Outside the try: a disk that is full is no fault of this file.
    clipped = io.write(converted, waveform, sample_rate) / waveform.numel()
    remark = _remark(max(clipped, health.clipped_share))
    channels, length = waveform.shape
    return Finding(str(converted), sample_rate, channels, length, remark=remark)


def _unusable(health: io.AudioHealth) -> str | None:
    """Returns why a decoded file cannot be used, or None."""
    if health.has_nan:
        return "NaN or infinite samples"
    if health.silent:
        return f"silent: peak {health.peak:.2g}"
    if health.clipped_share > CLIPPED_EXCLUDED:
        return _remark(health.clipped_share)
    return None


def _remark(clipped_share: float) -> str | None:
    """Returns a word on clipping where it is worth one."""
    if clipped_share <= CLIPPED_REPORTED:
        return None
    return f"clipped: {clipped_share:.1%} of the samples at full scale"


class Memory:
    """Findings of earlier runs, by key.

    Args:
        path: JSON-lines file; lines that were cut off by an interruption are left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Finding] = {}
        self._used: dict[str, Finding] = {}
        if path.is_file():
            self._known = dict(filter(None, map(_entry, path.read_text(encoding="utf-8").splitlines())))

    def recall(self, key: str) -> Finding | None:
        """Returns the finding of a key, or None when there is none or its conversion is gone."""
        finding = self._known.get(key)
        if finding is None or (finding.excluded is None and not Path(finding.path).is_file()):
            return None
        self._used[key] = finding
        return finding

    def remember(self, key: str, finding: Finding) -> None:
        """Keeps a finding, on disk at once."""
        self._used[key] = finding
        with writing(self.path):
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
    return json.dumps([*facts, str(converted)])


def _line(key: str, finding: Finding) -> str:
    return json.dumps({"key": key, **asdict(finding)}, ensure_ascii=False) + "\n"


def _entry(line: str) -> tuple[str, Finding] | None:
    try:
        values = json.loads(line)
        return values.pop("key"), Finding(**values)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None  # the last line of an interrupted run; its file is examined again
