"""NSynth: 305,979 notes of 1,006 instruments, 4 s each, 16 kHz mono (CC BY 4.0).

Layout: `nsynth-{train,valid,test}/examples.json` and `audio/{note}.wav` beside it; the three are the official split,
and instruments of train are in neither of the others. Labels "pitch" and "velocity" (MIDI numbers 0 to 127),
"instrument_family" (bass, brass, ...) and "source" (acoustic, electronic, synthetic); instrument and qualities stay
with each cut. Engel et al. 2017, arXiv:1704.01279.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiodiff.data.download import Archive
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.data.tables import read_text, search
from audiodiff.errors import InputError

SUBSETS = {"nsynth-train": "train", "nsynth-valid": "dev", "nsynth-test": "test"}
_PLACE = "https://storage.googleapis.com/magentadata/datasets/nsynth"
# The publisher names no SHA256.
ARCHIVES = tuple(Archive(name, f"{_PLACE}/{name}.jsonwav.tar.gz") for name in SUBSETS)
DEFAULT_ARCHIVES = tuple(SUBSETS)
SPLIT_RULE = "official: nsynth-train, nsynth-valid and nsynth-test"
TABLE = "examples.json"
_LABELS = {
    "pitch": "pitch", "velocity": "velocity", "instrument_family": "instrument_family_str",
    "source": "instrument_source_str",
}  # fmt: skip
_NAME = re.compile(r"[\w-]+")


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the manifests, labels "pitch", "velocity", "instrument_family" and "source".

    Args:
        source: the folder of nsynth-train, nsynth-valid and nsynth-test, one of them, or one of downloads.
        out: prepared folder.
        options: rate, channels, threads.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: not the layout of NSynth, a subset twice, nothing usable, or mixed rates or channels.
    """
    if source is None:
        raise InputError("nsynth: no source; pass --source DIR or --download")
    clips: list[Clip] = []
    problems: list[Problem] = []
    folders = _folders(source)
    for folder in folders:
        for name, row in _table(folder / TABLE).items():
            found = _clip(folder, name, row)
            if isinstance(found, str):
                problems.append(Problem(name, found, excluded=True, path=str(folder / TABLE)))
            else:
                clips.append(found)
    absent = SUBSETS.keys() - {folder.name for folder in folders}
    notes = [f"subsets that are not there: {', '.join(sorted(absent))}"] if absent else []
    listing = Listing("nsynth", folders[0].parent, clips, SPLIT_RULE, problems, notes)
    return write_corpus(listing, out, options)


def _folders(source: Path) -> list[Path]:
    """Returns the folders of the subsets that are there, absolute."""
    folders = []
    for name in SUBSETS:
        found = [folder for folder in search(source, name, depth=2) if (folder / TABLE).is_file()]
        if len(found) > 1:
            raise InputError(
                f"nsynth: {name} is there twice: {found[0]} and {found[1]}; pass one with --source"
            )
        folders += found
    if not folders:
        raise InputError(
            f"nsynth: {source} holds none of {', '.join(SUBSETS)} with {TABLE} in it; "
            "pass the unpacked corpus with --source, or --download"
        )
    return folders


def _table(path: Path) -> Mapping[str, Any]:
    try:
        rows = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error.msg} in line {error.lineno}); unpack it again") from error
    if not isinstance(rows, dict):
        raise InputError(f"{path}: a {type(rows).__name__}, expected an object with a note under each name")
    return rows


def _clip(folder: Path, name: str, row: Any) -> Clip | str:
    """Returns the clip of a note, or what is wrong with it."""
    if not _NAME.fullmatch(name):
        return "its name is no name of a file"
    if not isinstance(row, dict) or not set(_LABELS.values()) <= row.keys():
        return f"not all of {', '.join(_LABELS.values())} are given"
    labels = {label: str(row[key]) for label, key in _LABELS.items()}
    if not all(labels[number].isdigit() and int(labels[number]) <= 127 for number in ("pitch", "velocity")):
        return f"pitch {labels['pitch']}, velocity {labels['velocity']}; expected MIDI numbers from 0 to 127"
    custom = {"instrument": str(row.get("instrument_str", ""))}
    custom["qualities"] = " ".join(map(str, row.get("qualities_str") or ()))
    known = {key: value for key, value in custom.items() if value}
    path = folder / "audio" / f"{name}.wav"
    return Clip(name, path, SUBSETS[folder.name], labels=labels, custom=known)
