"""Free Spoken Digit Dataset: ten digits, a few speakers, 50 recordings of each, 8 kHz mono (CC BY-SA 4.0).

Files `recordings/{digit}_{speaker}_{index}.wav` (or .flac). Official split: index 0-4 is test, the rest
train. It has no dev set: indices 5 and 6 of each digit and speaker are taken out of train for that.
Source: github.com/Jakobovski/free-spoken-digit-dataset.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from audiodiff.data.download import Archive
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.errors import InputError

_PLACE = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs"
# GitHub makes these archives on request and promises no fixed bytes, so no checksum is known.
ARCHIVES = (
    Archive("v1.0.10", f"{_PLACE}/tags/v1.0.10.tar.gz"),
    Archive("master", f"{_PLACE}/heads/master.tar.gz"),
)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLIT_RULE = "official: index 0-4 test, the rest train; dev is index 5-6, taken out of train"
_NAME = re.compile(r"(\d)_([A-Za-z][\w-]*?)_(\d+)")
_AUDIO = (".wav", ".flac")


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the manifests of the digits, labels "digit" ("zero".."nine") and speaker.

    Args:
        source: the data set's folder, its `recordings`, or the folder it was unpacked in.
        out: prepared folder.
        options: rate, channels, threads.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: no recordings there, none usable, or mixed rates or channels.
    """
    folder = _recordings(source)
    clips, problems = [], []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _AUDIO:
            continue
        match = _NAME.fullmatch(path.stem)
        if match is None:
            reason = "name is not of the form {digit}_{speaker}_{index}"
            problems.append(Problem(path.name, reason, excluded=True, path=str(path)))
            continue
        digit, speaker, index = DIGITS[int(match[1])], match[2], int(match[3])
        clips.append(Clip(path.stem, path, _split(index), speaker, digit, {"digit": digit}))
    return write_corpus(Listing("fsdd", folder.parent, clips, SPLIT_RULE, problems), out, options)


def _split(index: int) -> str:
    if index < 5:
        return "test"
    return "dev" if index < 7 else "train"


def _recordings(source: Path | None) -> Path:
    """Returns the folder of the recordings, absolute."""
    if source is None:
        raise InputError("fsdd: no source; pass --source DIR or --download")
    candidates = [source / "recordings", source, *sorted(source.glob("*/recordings"))]
    for folder in candidates:
        if folder.is_dir() and any(_NAME.fullmatch(path.stem) for path in folder.iterdir()):
            return folder.absolute()
    raise InputError(
        f"fsdd: {source} holds no recordings/{{digit}}_{{speaker}}_{{index}}.wav or .flac; "
        "pass the data set's folder with --source, or --download"
    )
