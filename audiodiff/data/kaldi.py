"""Kaldi data directories as they come: one line per entry, an id and the rest.

wav.scp names the recordings, segments (utterance, recording, start, end in seconds) the parts of them, text, utt2spk
and spk2gender what is said by whom. Commands in wav.scp are refused, never run.
Source: kaldi-asr.org/doc/data_prep.html.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from audiodiff.data.listing import Problem
from audiodiff.data.tables import read_text
from audiodiff.errors import InputError


@dataclass(frozen=True)
class Utterance:
    """A part of a recording.

    Attributes:
        id: of the utterance.
        recording: id of its recording.
        start_seconds: where it begins.
        end_seconds: where it ends; None for the recording's end.
    """

    id: str
    recording: str
    start_seconds: float = 0.0
    end_seconds: float | None = None


@dataclass(frozen=True)
class Directory:
    """What the tables of one data directory say.

    Attributes:
        folder: where they are.
        recordings: path by recording, absolute.
        utterances: in the order of the tables.
        texts: by utterance; empty where there is no such table.
        speakers: by utterance; empty where there is no such table.
        genders: by speaker.
        problems: lines that were left out.
    """

    folder: Path
    recordings: Mapping[str, Path]
    utterances: tuple[Utterance, ...]
    texts: Mapping[str, str]
    speakers: Mapping[str, str]
    genders: Mapping[str, str]
    problems: tuple[Problem, ...]

    def lacking(self, utterance: str) -> str | None:
        """Returns what a table lacks that has other utterances, or None."""
        if self.texts and utterance not in self.texts:
            return "transcript missing: no line in text"
        if self.speakers and not self.speakers.get(utterance):
            return "speaker missing: no line in utt2spk"
        return None


def read_directory(folder: Path) -> Directory:
    """Returns what a data directory says.

    Raises:
        InputError: no wav.scp, an entry of it that is no audio file (a command, an archive with offset), or a table
            that is no text.
    """
    problems: list[Problem] = []
    tables = {
        name: _table(folder / name, problems)
        for name in ("wav.scp", "segments", "text", "utt2spk", "spk2gender")
    }
    if not tables["wav.scp"]:
        raise InputError(
            f"{folder / 'wav.scp'}: absent or empty; expected lines of a recording's id and its file"
        )
    recordings = {name: _audio_path(folder, name, entry) for name, entry in tables["wav.scp"].items()}
    if (folder / "segments").is_file():
        utterances = tuple(_segments(folder / "segments", tables["segments"], problems))
    else:
        utterances = tuple(Utterance(name, name) for name in recordings)
    return Directory(
        folder,
        recordings,
        utterances,
        tables["text"],
        tables["utt2spk"],
        tables["spk2gender"],
        tuple(problems),
    )


def _table(path: Path, problems: list[Problem]) -> dict[str, str]:
    """Returns the rest of the line by id; the first line of an id counts."""
    rows: dict[str, str] = {}
    for number, line in enumerate(read_text(path).split("\n") if path.is_file() else (), start=1):
        name, _, rest = line.strip().replace("\t", " ").partition(" ")
        if name in rows:
            reason = f"duplicate id in line {number} of {path.name}, the first is kept"
            problems.append(Problem(name, reason, excluded=True, path=str(path)))
        elif name:
            rows[name] = rest.strip()
    return rows


def _audio_path(folder: Path, name: str, entry: str) -> Path:
    """Returns the file that an entry of wav.scp names.

    Raises:
        InputError: it names none.
    """
    where = f"{folder / 'wav.scp'}, {name}"
    if entry.endswith("|") or entry.startswith("|"):
        raise InputError(
            f"{where}: {entry[:80]!r} is a command; commands are not run here. Write the audio once with Kaldi "
            f"(wav-copy scp:wav.scp ark,scp:... or utils/data/resample_data_dir.sh) or lhotse and kaldi_native_io, "
            "or run the command by hand, and name the files"
        )
    if not entry or entry == "-" or re.search(r"\.ark(:\d+)?$|:\d+$", entry):
        raise InputError(
            f"{where}: {entry[:80]!r} is no audio file; archives and streams are not read here, copy the audio to "
            "files (for example with lhotse and kaldi_native_io) and name them"
        )
    path = Path(entry)
    places = (folder, *list(folder.parents)[:3], Path.cwd())
    return next((place / path for place in places if (place / path).is_file()), folder / path)


def _segments(path: Path, rows: Mapping[str, str], problems: list[Problem]) -> Iterable[Utterance]:
    """Yields the parts that segments names."""
    for name, rest in rows.items():
        columns = rest.split()
        try:
            recording, start, end = columns[0], float(columns[1]), float(columns[2])
        except (IndexError, ValueError):
            recording, start, end = "", math.nan, math.nan
        if len(columns) != 3 or not math.isfinite(start) or not math.isfinite(end):
            channel = "; a channel is not read here, write one file per channel" if len(columns) == 4 else ""
            reason = f"{rest[:60]!r} in segments is not: recording start end{channel}"
            problems.append(Problem(name, reason, excluded=True, path=str(path)))
            continue
        yield Utterance(name, recording, start, None if end == -1 else end)
