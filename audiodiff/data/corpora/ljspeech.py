"""LJ Speech 1.1: 13,100 clips of one speaker reading, 24 hours, 22.05 kHz mono (public domain).

Layout: `metadata.csv` with lines `id|text|normalised text`, and `wavs/{id}.wav`. The corpus has no official
split. Where the folder or its parent holds `splits/train.txt`, `dev.txt` and `test.txt` (one id per line),
these are used. Otherwise ids are sorted and of every 100 the second is dev, the third test, the rest train;
of every 10 in an excerpt of fewer than 200 clips. Source: keithito.com/LJ-Speech-Dataset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiodiff.data.download import Archive
from audiodiff.data.manifests import SPLITS
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.errors import InputError

ARCHIVES = (
    Archive(
        "LJSpeech-1.1",
        "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
        "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
    ),
)
SPEAKER = "ljspeech"
_ID = re.compile(r"[\w-]+")


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the manifests, with the normalised text and speaker "ljspeech".

    Args:
        source: the folder of metadata.csv and wavs, or one that contains LJSpeech-1.1.
        out: prepared folder.
        options: rate, channels, threads.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: not the layout of LJ Speech, nothing usable, or mixed rates or channels.
    """
    folder = _corpus_folder(source)
    texts, problems = _transcripts(folder)
    problems += _without_transcript(folder, texts)
    given = _split_lists(folder)
    if given is None:
        rule, splits, notes = *_spread(texts), []
    else:
        rule, splits = f"the lists in {given}", _read_lists(given)
        absent = len(splits.keys() - texts.keys())
        notes = [f"{absent} ids of the split lists have no usable line in metadata.csv"] if absent else []
    clips = []
    for name, text in texts.items():
        path = folder / "wavs" / f"{name}.wav"
        if name in splits:
            clips.append(Clip(name, path, splits[name], SPEAKER, text))
        else:
            problems.append(Problem(name, "in none of the split lists", excluded=True, path=str(path)))
    return write_corpus(Listing("ljspeech", folder, clips, rule, problems, notes), out, options)


def _corpus_folder(source: Path | None) -> Path:
    """Returns the folder that holds metadata.csv and wavs, absolute."""
    if source is None:
        raise InputError("ljspeech: no source; pass --source DIR or --download")
    candidates = [source, source / "LJSpeech-1.1"]
    if source.name == "wavs":
        candidates.append(source.parent)
    for folder in candidates:
        if (folder / "metadata.csv").is_file() and (folder / "wavs").is_dir():
            return folder.absolute()
    raise InputError(
        f"ljspeech: {source} holds no metadata.csv with wavs/ beside it, nor LJSpeech-1.1 with these; "
        "pass the folder of the unpacked corpus with --source, or --download"
    )


def _transcripts(folder: Path) -> tuple[dict[str, str], list[Problem]]:
    """Returns the normalised text by id, and the lines that have none."""
    path = folder / "metadata.csv"
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    texts: dict[str, str] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("|")]
        name = columns[0]
        reason = None
        if len(columns) != 3 or not _ID.fullmatch(name):
            reason = f"line {number} of metadata.csv is not id|text|normalised text"
        elif not columns[2]:
            reason = "transcript missing: the normalised text is empty"
        elif name in texts:
            reason = f"duplicate id in line {number} of metadata.csv, the first is kept"
        if reason is None:
            texts[name] = columns[2]
        else:
            problems.append(Problem(name[:40], reason, excluded=True, path=str(path)))
    return texts, problems


def _without_transcript(folder: Path, texts: Mapping[str, str]) -> list[Problem]:
    """Returns the audio files that metadata.csv does not name."""
    paths = sorted(path for path in (folder / "wavs").iterdir() if path.suffix.lower() == ".wav")
    reason = "transcript missing: no usable line in metadata.csv"
    return [
        Problem(path.stem, reason, excluded=True, path=str(path)) for path in paths if path.stem not in texts
    ]


def _split_lists(folder: Path) -> Path | None:
    """Returns the folder of the split lists beside or above the corpus, or None."""
    for place in (folder / "splits", folder.parent / "splits"):
        present = [name for name in SPLITS if (place / f"{name}.txt").is_file()]
        if len(present) == len(SPLITS):
            return place
        if present:
            raise InputError(
                f"ljspeech: {place} holds only {', '.join(present)}.txt; expected train, dev and test.txt"
            )
    return None


def _read_lists(folder: Path) -> dict[str, str]:
    """Returns the split of every listed id."""
    splits: dict[str, str] = {}
    for split in SPLITS:
        for name in (folder / f"{split}.txt").read_text(encoding="utf-8").split():
            if splits.setdefault(name, split) != split:
                raise InputError(f"{folder}: {name} is in both {splits[name]}.txt and {split}.txt")
    return splits


def _spread(texts: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Returns the rule in words and the split of every id, where no lists are given."""
    period = 100 if len(texts) >= 200 else 10
    places = {1: "dev", 2: "test"}
    splits = {name: places.get(number % period, "train") for number, name in enumerate(sorted(texts))}
    return f"no official split; ids sorted, of every {period} the second is dev, the third test", splits
