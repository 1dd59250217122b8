"""The Open Source Drumkit: one acoustic kit, every drum struck from soft to hard (public domain).

Files `FOLDER/{articulation}{number}.wav` (or .flac), number 1 being the softest stroke: `kick/kick1.wav`,
`snare/snare-top-off7.wav`, `hihat/closed-hihat/chh12.wav`, `toms/large-tom38.wav`. What the kit has besides (a gong,
other strokes) is counted and left out. Original: 96 kHz stereo, of up to several seconds. No official split: strokes
10, 20, 30 of each articulation are test, 5, 15, 25 dev, so that soft and hard ones are held out.
Source: github.com/crabacus/the-open-source-drumkit, by Real Music Media.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from audiodiff.audio import io
from audiodiff.audio.loudness import loudness_db
from audiodiff.data.download import Archive
from audiodiff.data.one_shots import write_one_shot
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.errors import InputError
from audiodiff.progress import track

_COMMIT = "c58808b2ff5a6cd77c2f47cf45f1a892ce6a1e2c"
# GitHub makes this archive on request and promises no fixed bytes, so no checksum is known.
ARCHIVES = (Archive("osdk", f"https://github.com/crabacus/the-open-source-drumkit/archive/{_COMMIT}.zip"),)
# Class of each articulation, as its files are called.
ARTICULATIONS = {
    "kick": "kick", "snare-top": "snare", "snare-top-off": "snare", "sidestick": "sidestick", "rimshot": "rimshot",
    "chh": "closed_hihat", "hohh": "open_hihat", "large-tom": "tom", "medium-tom": "tom", "small-tom": "tom",
    "ride-bell": "ride", "ride-mid-in": "ride", "ride-mid-out": "ride", "crash": "crash", "crash-bell": "crash",
}  # fmt: skip
CLASSES = tuple(dict.fromkeys(ARTICULATIONS.values()))
SECONDS = 1.5
SPLIT_RULE = (
    "no official split; of each articulation strokes 10, 20, 30 are test, 5, 15, 25 dev, the rest train"
)
_NAME = re.compile(r"([a-z]+(?:-[a-z]+)*?)(\d+)")


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes every stroke as a clip of 1.5 s and the manifests, labels "class", "articulation" and "loudness".

    The loudness is the level of the loudest 50 ms in dB of full scale, "-23.4"; the number of the stroke stays with
    each cut.

    Args:
        source: the kit's folder, or one that contains it.
        out: prepared folder.
        options: rate, channels.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: no strokes there, none usable, or mixed rates or channels.
    """
    if source is None:
        raise InputError("drums: no source; pass --source DIR or --download")
    strokes, others = _strokes(source.absolute(), out.absolute())
    clips, problems = [], []
    for name, path in track(strokes.items(), "copying drums", len(strokes)):
        articulation, number = name
        identifier = f"{articulation}{number:02d}"
        try:
            shot = write_one_shot(identifier, path, SECONDS, out, options)
        except InputError as error:
            problems.append(Problem(identifier, str(error), excluded=True, path=str(path)))
            continue
        if shot.clipped:
            reason = f"{shot.clipped} samples beyond full scale were clipped"
            problems.append(Problem(identifier, reason, excluded=False, path=str(path)))
        labels = {
            "class": ARTICULATIONS[articulation],
            "articulation": articulation,
            "loudness": f"{loudness_db(shot.waveform, shot.sample_rate):.1f}",
        }
        custom = {"stroke": str(number), "source": str(path)}
        clips.append(Clip(identifier, shot.path, _split(number), labels=labels, custom=custom))
    listing = Listing("drums", source.absolute(), clips, SPLIT_RULE, problems, _notes(others))
    return write_corpus(listing, out, replace(options, peak=None))  # the copies have it already


def _strokes(root: Path, out: Path) -> tuple[dict[tuple[str, int], Path], Counter[str]]:
    """Returns the file of every articulation and number, and how many others each folder holds."""
    strokes: dict[tuple[str, int], Path] = {}
    others: Counter[str] = Counter()
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in io.AUDIO_SUFFIXES or path.is_relative_to(out / "audio"):
            continue
        match = _NAME.fullmatch(path.stem)
        if match is None or match[1] not in ARTICULATIONS:
            others[path.parent.name] += 1
            continue
        name = match[1], int(match[2])
        if name in strokes:
            raise InputError(
                f"drums: {path} and {strokes[name]} are the same stroke; pass the folder of one kit with --source"
            )
        strokes[name] = path
    if not strokes:
        raise InputError(
            f"drums: {root} holds no stroke such as kick1.wav or snare-top7.wav; "
            "pass the kit's folder with --source, or --download"
        )
    return strokes, others


def _split(number: int) -> str:
    return {0: "test", 5: "dev"}.get(number % 10, "train")


def _notes(others: Counter[str]) -> list[str]:
    if not others:
        return []
    listed = ", ".join(sorted(others))
    return [f"of no known articulation, left out: {others.total()} files in {len(others)} folders ({listed})"]
