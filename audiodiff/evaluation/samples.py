"""What is known of the sounds that are scored: their samples.json, the facts and the mel of their model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiodiff.audio import io
from audiodiff.audio.mel import LogMel
from audiodiff.data.manifests import load_cuts, whole_file
from audiodiff.errors import InputError
from audiodiff.evaluation.costs import cost_of, joined_cost
from audiodiff.model import FACTS, find_model, read_recipe
from audiodiff.synthesis.cost import Cost
from audiodiff.synthesis.samples import COST, RECORD

LOG_MEL = "audiodiff.audio.mel.LogMel"
LISTED = 10  # names in a message


@dataclass(frozen=True)
class SamplesFolder:
    """A folder of sounds.

    Attributes:
        folder: where.
        files: path of each sound by file name, in the order of samples.json.
        labels: what was asked for, by file name.
        references: recording that a sound was made from, by file name; sounds from noise have none.
        record: the rest of samples.json: model, seed, sampler, command; empty when there is no such file.
        texts: what is said in it, by file name; empty for sounds that were not asked for by text.
    """

    folder: Path
    files: Mapping[str, Path]
    labels: Mapping[str, Mapping[str, str]]
    references: Mapping[str, Path]
    record: Mapping[str, Any]
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> Path | None:
        """The model folder that samples.json names, None when it is not there."""
        named = self.record.get("model")
        try:
            return find_model(named) if isinstance(named, str) else None
        except InputError:
            return None

    @property
    def cost(self) -> Cost | None:
        """What the sounds cost, None where samples.json does not tell.

        Raises:
            InputError: it is damaged.
        """
        return cost_of(self.record, self.folder)


def read_samples(folder: Path) -> SamplesFolder:
    """Returns what samples.json says of a folder, or of all folders in it where only these have one.

    Raises:
        InputError: no such folder, no samples.json, one that cannot be read or names no or missing files.
    """
    path = folder / RECORD
    if not path.is_file():
        parts = sorted(found.parent for found in folder.glob(f"*/{RECORD}"))
        if parts:
            return _together(folder, [read_samples(part) for part in parts])
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
        texts = {name: str(entry["text"]) for name, entry in entries.items() if entry.get("text")}
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
    return SamplesFolder(folder, files, labels, references, content, texts)


def _together(folder: Path, parts: Sequence[SamplesFolder]) -> SamplesFolder:
    """Returns the sounds of several folders, named by folder and file; recorded is what all have in common."""
    first = parts[0].record
    same = {
        key for key in first if all(key in part.record and part.record[key] == first[key] for part in parts)
    }
    record = {key: value for key, value in first.items() if key in same or key == "command"}
    record.pop(COST, None)
    cost = joined_cost([part.record for part in parts], folder)
    record |= {} if cost is None else {COST: cost}
    if "command" in record and "command" not in same:
        record["command"] = f"{record['command']} (the first of {len(parts)})"

    def named(attribute: str) -> dict[str, Any]:
        return {
            f"{part.folder.name}/{name}": value
            for part in parts
            for name, value in getattr(part, attribute).items()
        }

    return SamplesFolder(folder, named("files"), named("labels"), named("references"), record, named("texts"))


def read_sounds(path: Path, recorded: bool) -> SamplesFolder:
    """Returns a samples folder, or where it has no samples.json the audio files in it, or one audio file.

    Args:
        path: folder or file.
        recorded: a folder must have its samples.json, for nothing else says what to compare it with.

    Raises:
        InputError: nothing there, or a damaged samples.json.
    """
    if path.is_file() and path.suffix.lower() in io.AUDIO_SUFFIXES:
        return SamplesFolder(path.parent, {path.name: path}, {}, {}, {})
    if recorded or (path / RECORD).is_file() or any(path.glob(f"*/{RECORD}")):
        return read_samples(path)
    files = audio_files(path)
    if not files:
        return read_samples(path)
    return SamplesFolder(path, files, {}, {}, {})


def audio_files(folder: Path) -> dict[str, Path]:
    """Returns the audio files of a folder by name, sorted; none where there is no such folder."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: path for path in found if path.suffix.lower() in io.AUDIO_SUFFIXES}


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
        given: a folder with files of the same name, a manifest whose cuts have the names as ids, or the
            recording of a single sound; None: what samples.json says.

    Raises:
        InputError: some sounds have a reference and some have none.
    """
    if given is None:
        found = dict(samples.references)
        if found and len(found) < len(samples.files):
            missing = [name for name in samples.files if name not in found]
            raise InputError(
                f"{samples.folder}: {len(missing)} of {len(samples.files)} files have no reference "
                f"({listed(missing)}); pass --reference DIR with recordings of the same names"
            )
        return found
    if given.is_file() and given.suffix.lower() in io.AUDIO_SUFFIXES:
        if len(samples.files) > 1:
            raise InputError(
                f"{given}: one recording for {len(samples.files)} files; pass a folder of recordings"
            )
        return dict.fromkeys(samples.files, given)
    if given.is_file():
        cuts = {cut.id: whole_file(cut) for cut in load_cuts(given)}
        cuts = {path.stem: path for path in cuts.values()} | cuts
        missing = [name for name in samples.files if Path(name).stem not in cuts]
        if missing:
            raise InputError(
                f"{given}: {len(missing)} of {len(samples.files)} files have no cut of their name "
                f"({listed([Path(name).stem for name in missing])})"
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
    there = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in io.AUDIO_SUFFIXES]
    by_stem = {path.stem: path for path in there}
    if len(by_stem) < len(there):
        twice = [path.name for path in there if by_stem[path.stem] != path]
        raise InputError(f"{folder}: several files of one name ({listed(twice)}); keep one of each")
    missing = [name for name in names if Path(name).stem not in by_stem]
    if missing:
        wanted = {Path(name).stem for name in names}
        alone = [path.name for path in there if path.stem not in wanted]
        raise InputError(
            f"{folder}: {len(missing)} of {len(names)} files are missing ({listed(missing)}); "
            f"of other names are there {listed(alone) or 'none'}"
        )
    return {name: by_stem[Path(name).stem] for name in names}


def listed(names: Sequence[str]) -> str:
    """Returns names for a message, as many as can be read."""
    rest = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


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
