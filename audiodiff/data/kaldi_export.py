"""A prepared folder as Kaldi data directories, one for each split.

wav.scp, utt2spk, spk2utt, text, utt2dur and reco2dur, and segments where cuts are parts of recordings. Kaldi wants
every table sorted in the C locale, by utterance and by speaker alike, so an utterance's id begins with its speaker's:
"SPEAKER-CUT". Labels have no place in these tables and stay behind.
Source: kaldi-asr.org/doc/data_prep.html, utils/validate_data_dir.sh.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from audiodiff.audio import io
from audiodiff.data.listing import file_name
from audiodiff.data.manifests import SPLITS, load_cuts
from audiodiff.errors import InputError
from audiodiff.files import writing_folder
from audiodiff.progress import track

if TYPE_CHECKING:
    from lhotse.cut import Cut

_COPIES = "wav"


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        utterances: number by split.
        not_wav: recordings that are named where they are and are no WAV.
        without_text: utterances that have no text; they are in all tables but `text`.
    """

    utterances: Mapping[str, int]
    not_wav: int
    without_text: int


@dataclass(frozen=True)
class _Row:
    """What the tables say of one cut; times in seconds."""

    utterance: str
    speaker: str
    text: str
    recording: str
    audio: Path
    recording_seconds: float
    start: float
    seconds: float
    whole: bool


def export(prepared: Path, out: Path, copy_to_wav: bool = False) -> Exported:
    """Writes a data directory for each split that has cuts.

    Without a speaker an utterance is its own speaker, as Kaldi has it. White space in ids becomes an underscore.

    Args:
        prepared: folder of train, dev and test.jsonl.gz.
        out: folder for train, dev and test; what an earlier export left there is replaced.
        copy_to_wav: write each recording as WAV to out/wav, for Kaldi's own tools read nothing else.

    Raises:
        InputError: no manifests, several channels, ids that Kaldi cannot sort, or `out` holds something else.
    """
    parts = [split for split in SPLITS if _has_lines(prepared / f"{split}.jsonl.gz")]
    if not parts:
        raise InputError(f"{prepared}: no manifest with clips; make them with `audiodiff prepare`")
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= {*SPLITS, _COPIES}):
        raise InputError(f"--out {out}: exists and holds something else; name a new folder")
    counts, not_wav, without_text = {}, 0, 0
    with writing_folder(out) as draft:
        for split in parts:
            cuts = load_cuts(prepared / f"{split}.jsonl.gz")
            rows = sorted(
                (_row(cut) for cut in track(cuts, f"reading {split}", len(cuts))), key=_utterance_of
            )
            _check_order(rows, split)
            places = _audio_places(rows, out.absolute(), draft, copy_to_wav)
            _write(draft / split, _tables(rows, places))
            counts[split] = len(rows)
            not_wav += sum(place.suffix.lower() != ".wav" for place in set(places.values()))
            without_text += sum(not row.text for row in rows)
    return Exported(counts, not_wav, without_text)


def _has_lines(manifest: Path) -> bool:
    """Whether a manifest is there and not empty; a damaged one counts, so that reading it says so."""
    if not manifest.is_file():
        return False
    try:
        with gzip.open(manifest) as lines:
            return bool(lines.read(1))
    except (OSError, EOFError):
        return True


def _row(cut: Cut) -> _Row:
    recording = cut.recording
    if recording.num_channels != 1:
        raise InputError(
            f"cut {cut.id}: {recording.num_channels} channels; Kaldi's tables have one, prepare with --mono"
        )
    supervision = cut.supervisions[0] if cut.supervisions else None
    name = _without_space(cut.id)
    speaker = _without_space((supervision and supervision.speaker) or "")
    utterance = name if not speaker or name.startswith(f"{speaker}-") else f"{speaker}-{name}"
    return _Row(
        utterance,
        speaker or utterance,
        " ".join(((supervision and supervision.text) or "").split()),
        _without_space(recording.id),
        Path(recording.sources[0].source),
        recording.num_samples / recording.sampling_rate,
        cut.start,
        cut.num_samples / cut.sampling_rate,
        cut.start == 0 and cut.num_samples == recording.num_samples,
    )


def _without_space(name: str) -> str:
    return re.sub(r"\s+", "_", name)


def _utterance_of(row: _Row) -> str:
    return row.utterance  # code points sort as their UTF-8 bytes do: the C locale


def _check_order(rows: list[_Row], split: str) -> None:
    """Raises InputError where Kaldi would find its tables unsorted or ids twice."""
    for before, after in pairwise(rows):
        if before.utterance == after.utterance:
            raise InputError(f"{split}: two utterances are called {after.utterance}; expected each id once")
        if before.speaker > after.speaker:
            raise InputError(
                f"{split}: utterances sort otherwise than their speakers {after.speaker!r} and {before.speaker!r}, "
                "which Kaldi refuses; rename a speaker so that none is the beginning of another"
            )


def _audio_places(rows: list[_Row], out: Path, draft: Path, copy_to_wav: bool) -> dict[Path, Path]:
    """Returns where the audio of each original is, after copying it where that is asked for."""
    originals = {row.audio: row.recording for row in rows}
    if not copy_to_wav:
        return {original: original for original in originals}
    places = {}
    for original, name in track(originals.items(), "copying to WAV", len(originals)):
        copy = f"{file_name(name)}.wav"
        waveform, sample_rate = io.read(original)
        io.write(draft / _COPIES / copy, waveform, sample_rate)
        places[original] = out / _COPIES / copy
    return places


def _tables(rows: list[_Row], places: Mapping[Path, Path]) -> dict[str, dict[str, str]]:
    """Returns the lines of every table by id; a recording of one whole cut is called as its utterance."""
    parted = not all(row.whole for row in rows)
    speakers: dict[str, list[str]] = {}
    tables: dict[str, dict[str, str]] = {
        name: {} for name in ("wav.scp", "reco2dur", "utt2spk", "utt2dur", "text", *(["segments"] * parted))
    }
    for row in rows:
        recording = row.recording if parted else row.utterance
        tables["wav.scp"][recording] = str(places[row.audio])
        tables["reco2dur"][recording] = f"{row.recording_seconds:.7f}"
        tables["utt2spk"][row.utterance] = row.speaker
        tables["utt2dur"][row.utterance] = f"{row.seconds:.7f}"
        if row.text:
            tables["text"][row.utterance] = row.text
        if parted:
            end = row.start + row.seconds
            tables["segments"][row.utterance] = f"{recording} {row.start:.7f} {end:.7f}"
        speakers.setdefault(row.speaker, []).append(row.utterance)
    tables["spk2utt"] = {speaker: " ".join(names) for speaker, names in speakers.items()}
    return tables


def _write(folder: Path, tables: Mapping[str, Mapping[str, str]]) -> None:
    folder.mkdir()
    for name, lines in tables.items():
        if lines:
            text = "".join(f"{key} {lines[key]}\n" for key in sorted(lines))
            (folder / name).write_bytes(text.encode("utf-8"))
