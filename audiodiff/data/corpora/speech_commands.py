"""SC09: the ten digit words of Google Speech Commands, 16 kHz mono, about 1 s, many speakers (CC BY 4.0).

Layout: `{word}/{speaker}_nohash_{count}.wav`, and `testing_list.txt` and `validation_list.txt` with the
official split; all other clips are train. The other words and `_background_noise_` are not SC09: they are
counted and left out. Both versions, v0.01 and v0.02, are read. Warden 2018, arXiv:1804.03209.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from audiodiff.data.download import Archive
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.errors import InputError

_PLACE = "https://storage.googleapis.com/download.tensorflow.org/data"
ARCHIVES = (
    Archive(
        "speech_commands_v0.02",
        f"{_PLACE}/speech_commands_v0.02.tar.gz",
        "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
    ),
    Archive(
        "speech_commands_v0.01",
        f"{_PLACE}/speech_commands_v0.01.tar.gz",
        "743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
    ),
)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LISTS = {"testing_list.txt": "test", "validation_list.txt": "dev"}
SPLIT_RULE = "official: testing_list.txt is test, validation_list.txt is dev, the rest train"
_NAME = re.compile(r"([0-9a-f]+)_nohash_(\d+)")


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the manifests of the digits, labels "digit" ("zero".."nine") and speaker.

    Args:
        source: the folder of the words, or one that contains (SpeechCommands/)speech_commands_v0.0*.
        out: prepared folder.
        options: rate, channels, threads.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: not the layout of Speech Commands, nothing usable, or mixed rates or channels.
    """
    folder = _corpus_folder(source)
    splits = _official_splits(folder)
    clips, problems = [], []
    for digit in DIGITS:
        found, bad = _clips_of(folder, digit, splits)
        clips += found
        problems += bad
    present = {f"{clip.labels['digit']}/{clip.path.name}" for clip in clips}
    for name in sorted(splits.keys() - present):
        if name.split("/")[0] in DIGITS:
            reason = "audio file missing: it is in the official lists"
            problems.append(Problem(name, reason, excluded=True, path=str(folder / name)))
    listing = Listing("speech_commands", folder, clips, SPLIT_RULE, problems, _other_words(folder))
    return write_corpus(listing, out, options)


def _corpus_folder(source: Path | None) -> Path:
    """Returns the folder of the words, absolute."""
    if source is None:
        raise InputError("speech_commands: no source; pass --source DIR or --download")
    below = [*source.glob("speech_commands_v0.0*"), *source.glob("SpeechCommands/speech_commands_v0.0*")]
    found = [
        folder for folder in (source, *sorted(below)) if any((folder / digit).is_dir() for digit in DIGITS)
    ]
    if not found:
        raise InputError(
            f"speech_commands: {source} holds none of the folders {', '.join(DIGITS)}, nor "
            "speech_commands_v0.0* with them; pass the unpacked corpus with --source, or --download"
        )
    if len(found) > 1:
        raise InputError(
            f"speech_commands: several versions: {', '.join(map(str, found))}; pass one with --source"
        )
    return found[0].absolute()


def _official_splits(folder: Path) -> dict[str, str]:
    """Returns the split of every listed file, by "word/file"."""
    splits = {}
    for name, split in LISTS.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"speech_commands: {path} is missing; it holds the official {split} split")
        splits.update(dict.fromkeys(path.read_text(encoding="utf-8").split(), split))
    return splits


def _clips_of(folder: Path, digit: str, splits: dict[str, str]) -> tuple[list[Clip], list[Problem]]:
    """Returns the clips of one word, and the audio files whose name is not of the known form."""
    clips, problems = [], []
    paths = sorted((folder / digit).iterdir()) if (folder / digit).is_dir() else []
    for path in (path for path in paths if path.suffix.lower() == ".wav"):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            reason = "name is not of the form {speaker}_nohash_{count}.wav"
            problems.append(Problem(f"{digit}/{path.name}", reason, excluded=True, path=str(path)))
            continue
        split = splits.get(f"{digit}/{path.name}", "train")
        clips.append(Clip(f"{digit}_{path.stem}", path, split, match[1], digit, {"digit": digit}))
    return clips, problems


def _other_words(folder: Path) -> list[str]:
    """Returns a note on the folders that are not part of SC09."""
    others = sorted(place for place in folder.iterdir() if place.is_dir() and place.name not in DIGITS)
    count = sum(1 for place in others for path in place.iterdir() if path.suffix.lower() == ".wav")
    names = ", ".join(place.name for place in others)
    return [f"not part of SC09, left out: {count} files in {len(others)} folders ({names})"] if others else []
