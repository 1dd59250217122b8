"""MAESTRO: 1276 piano performances with their MIDI, 199 hours, 44.1 and 48 kHz stereo (CC BY-NC-SA 4.0).

Layout: `maestro-v3.0.0.csv` with columns canonical_composer, canonical_title, split, year, midi_filename,
audio_filename and duration, and the files in a folder per year. The official split puts a composition into one
split only. Label "composer"; title, year and path of the MIDI are kept with each cut. The rates are mixed: pass
--sample-rate. Hawthorne et al. 2019, arXiv:1810.12247.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiodiff.data import splits
from audiodiff.data.download import Archive
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.data.tables import read_table, search
from audiodiff.errors import InputError

ARCHIVES = (
    Archive(
        "maestro-v3.0.0",
        "https://storage.googleapis.com/magentadata/datasets/maestro/v3.0.0/maestro-v3.0.0.zip",
        "6680fea5be2339ea15091a249fbd70e49551246ddbd5ca50f1b2352c08c95291",
    ),
)
SPLIT_RULE = "official: the column split"
_NEEDED = ("canonical_composer", "canonical_title", "split", "year", "midi_filename", "audio_filename")


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the manifests, label "composer"; title, year and midi (its path) in each cut's custom fields.

    Args:
        source: the folder of maestro-v*.csv, or one that contains it.
        out: prepared folder.
        options: rate, channels, threads.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: not the layout of MAESTRO, nothing usable, or mixed rates or channels.
    """
    table = _table(source)
    clips: list[Clip] = []
    problems: list[Problem] = []
    for number, row in enumerate(read_table(table, _NEEDED, ","), start=2):
        found = _clip(table.parent, row)
        if isinstance(found, str):
            name = row["audio_filename"] or f"line {number}"
            problems.append(Problem(name, f"{found} in {table.name}", excluded=True, path=str(table)))
            continue
        clips.append(found)
        if "midi" not in found.custom:
            path = str(table.parent / row["midi_filename"])
            problems.append(Problem(found.id, "its MIDI file is missing", excluded=False, path=path))
    return write_corpus(Listing("maestro", table.parent, clips, SPLIT_RULE, problems), out, options)


def _table(source: Path | None) -> Path:
    """Returns the path of the table, absolute."""
    if source is None:
        raise InputError("maestro: no source; pass --source DIR or --download")
    found = search(source, "maestro-v*.csv", depth=2)
    if len(found) > 1:
        raise InputError(f"maestro: several versions: {', '.join(map(str, found))}; pass one with --source")
    if not found:
        raise InputError(
            f"maestro: {source} holds no maestro-v*.csv; pass the unpacked corpus with --source, or --download"
        )
    return found[0]


def _clip(root: Path, row: Mapping[str, str]) -> Clip | str:
    """Returns the clip of a row, or what is wrong with it."""
    split = splits.NAMES.get(row["split"])
    if split is None:
        return f"split {row['split']!r} is none of train, validation, test"
    audio = Path(row["audio_filename"])
    if not audio.name or audio.is_absolute() or ".." in audio.parts:
        return "no path of an audio file"
    custom = {"title": row["canonical_title"], "year": row["year"]}
    midi = root / row["midi_filename"]
    if midi.is_file():
        custom["midi"] = str(midi)
    labels = {"composer": row["canonical_composer"]} if row["canonical_composer"] else {}
    return Clip(audio.stem, root / audio, split, labels=labels, custom=custom)
