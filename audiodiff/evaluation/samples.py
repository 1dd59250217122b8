"""What is known of the sounds that are scored: their samples.json, the facts and the mel of their model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiodiff.audio import io
from audiodiff.audio.mel import LogMel
from audiodiff.data.manifests import load_cuts, whole_file
from audiodiff.errors import InputError
from audiodiff.model import FACTS, find_model, read_recipe

RECORD = "samples.json"
LOG_MEL = "audiodiff.audio.mel.LogMel"


@dataclass(frozen=True)
class SamplesFolder:
    """A folder of sounds.

    Attributes:
        folder: where.
        files: path of each sound by file name, in the order of samples.json.
        labels: what was asked for, by file name.
        references: recording that a sound was made from, by file name; sounds from noise have none.
        record: the rest of samples.json: model, seed, sampler, command; empty when there is no such file.
    """

    folder: Path
    files: Mapping[str, Path]
    labels: Mapping[str, Mapping[str, str]]
    references: Mapping[str, Path]
    record: Mapping[str, Any]

    @property
    def model(self) -> Path | None:
        """The model folder that samples.json names, None when it is not there."""
        named = self.record.get("model")
        try:
            return find_model(named) if isinstance(named, str) else None
        except InputError:
            return None


def read_samples(folder: Path) -> SamplesFolder:
    """Returns what samples.json says of a folder.

    Raises:
        InputError: no such folder, no samples.json, one that cannot be read or names no or missing files.
    """
    path = folder / RECORD
    if not path.is_file():
        reason = f"holds no {RECORD}" if folder.is_dir() else "no such folder"
        raise InputError(
            f"{folder}: {reason}; expected what `audiodiff synthesize` or `audiodiff vocode` wrote"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = {str(entry["file"]): entry for entry in content.pop("files")}
        labels = {name: dict(entry.get("labels") or {}) for name, entry in entries.items()}
        references = {
            name: Path(entry["reference"]) for name, entry in entries.items() if entry.get("reference")
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not a samples record, or damaged ({type(error).__name__}: {error})"
        ) from error
    files = {name: folder / name for name in entries}
    if not files:
        raise InputError(f"{path}: names no files; synthesize again")
    gone = [name for name, file in files.items() if not file.is_file()]
    if gone:
        raise InputError(
            f"{path}: {len(gone)} of {len(files)} files are gone, first {gone[0]}; synthesize again"
        )
    return SamplesFolder(folder, files, labels, references, content)


def read_system(folder: Path) -> SamplesFolder:
    """Returns another system's sounds: a samples folder, or only files of the same names, without a record.

    Raises:
        InputError: no such folder, or a damaged samples.json.
    """
    if folder.is_dir() and not (folder / RECORD).is_file():
        return SamplesFolder(folder, {}, {}, {}, {})
    return read_samples(folder)


def find_references(samples: SamplesFolder, given: Path | None) -> dict[str, Path]:
    """Returns the recording of each sound; empty when no sound has one.

    Args:
        samples: the sounds.
        given: a folder with files of the same name, or a manifest whose cuts have the names as ids; None:
            what samples.json says.

    Raises:
        InputError: some sounds have a reference and some have none.
    """
    if given is None:
        found = dict(samples.references)
        if found and len(found) < len(samples.files):
            missing = [name for name in samples.files if name not in found]
            raise InputError(
                f"{samples.folder}: {len(missing)} of {len(samples.files)} files have no reference, first "
                f"{missing[0]}; pass --reference DIR with recordings of the same names"
            )
        return found
    if given.is_file():
        cuts = {cut.id: whole_file(cut) for cut in load_cuts(given)}
        cuts = {path.stem: path for path in cuts.values()} | cuts
        missing = [name for name in samples.files if Path(name).stem not in cuts]
        if missing:
            raise InputError(
                f"{given}: no cut {Path(missing[0]).stem} ({len(missing)} of {len(samples.files)} missing)"
            )
        return {name: cuts[Path(name).stem] for name in samples.files}
    return find_by_name(given, samples.files)


def find_by_name(folder: Path, names: Mapping[str, Path]) -> dict[str, Path]:
    """Returns the audio file of each name in a folder; another suffix serves too.

    Raises:
        InputError: no such folder, or a file missing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one with {next(iter(names))} and the like")
    by_stem = {
        path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in io.AUDIO_SUFFIXES
    }
    missing = [name for name in names if Path(name).stem not in by_stem]
    if missing:
        raise InputError(f"{folder}: {len(missing)} of {len(names)} files are missing, first {missing[0]}")
    return {name: by_stem[Path(name).stem] for name in names}


def training_facts(model: Path | None) -> dict[str, Any]:
    """Returns training.json of a model folder; empty when there is none.

    Raises:
        InputError: it cannot be read.
    """
    path = None if model is None else model / FACTS
    if path is None or not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def model_mel(model: Path) -> LogMel | None:
    """Returns the mel definition in a model's recipe, None when its recipe has none.

    Raises:
        InputError: not a model folder, or a definition that is not a LogMel.
    """
    features = read_recipe(model).get("features")
    if features is None:
        return None
    if not isinstance(features, dict) or features.get("_target_", LOG_MEL) != LOG_MEL:
        raise InputError(
            f"{model}: `features` in its recipe is no mel definition; expected _target_ {LOG_MEL}"
        )
    return LogMel.from_definition({key: value for key, value in features.items() if key != "_target_"})
