"""VCTK: 109 or 110 English speakers of many accents, 44 hours, 48 kHz mono (CC BY 4.0).

Layout of 0.92: `wav48_silence_trimmed/{speaker}/{speaker}_{sentence}_mic1.flac` and `txt/{speaker}/{speaker}_
{sentence}.txt`; older: `wav48/{speaker}/{speaker}_{sentence}.wav`. The first microphone is read, for the second
lacks p280. p315 has no transcripts. Labels "gender" and "accent" from speaker-info.txt. The corpus has no official
split: whole speakers are held out, for the first 24 sentences are read by everybody.
Yamagishi, Veaux and MacDonald 2019, doi:10.7488/ds/2645.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiodiff.data import splits
from audiodiff.data.download import Archive
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.data.tables import read_text, search
from audiodiff.errors import InputError

ARCHIVES = (
    Archive(
        "VCTK-Corpus-0.92",
        "https://datashare.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip",
        "f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c",
    ),
)
SPLIT_RULE = f"no official split; whole speakers: {splits.RULE}"
_LAYOUTS = {"wav48_silence_trimmed": "*/*_mic1.flac", "wav48": "*/*.wav"}
_NAME = re.compile(r"([a-z]\d+)_(\d+)(_mic1)?")
_GENDERS = ("F", "M")


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the manifests, with text, speaker, and labels "gender" and "accent" where known.

    Args:
        source: the folder of wav48_silence_trimmed (or wav48) and txt, or one that contains it.
        out: prepared folder.
        options: rate, channels, threads.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: not the layout of VCTK, nothing usable, or mixed rates or channels.
    """
    audio = _audio_folder(source)
    about = _speaker_labels(audio.parent / "speaker-info.txt")
    found, problems, mute = [], [], 0
    for path in sorted(audio.glob(_LAYOUTS[audio.name])):
        match = _NAME.fullmatch(path.stem)
        if match is None or match[1] != path.parent.name:
            reason = "name is not of the form {speaker}/{speaker}_{sentence}"
            problems.append(Problem(path.name, reason, excluded=True, path=str(path)))
            continue
        text = _text(audio.parent, match[1], match[2])
        if not text and match[1] == "p315":
            mute += 1
        elif not text:
            reason = "transcript missing: none in txt, or an empty one"
            problems.append(Problem(path.stem, reason, excluded=True, path=str(path)))
        else:
            found.append((f"{match[1]}_{match[2]}", path, match[1], text))
    of_speaker = splits.ranked({speaker: "" for _, _, speaker, _ in found})
    clips = [
        Clip(name, path, of_speaker[speaker], speaker, text, dict(about.get(speaker, {})))
        for name, path, speaker, text in found
    ]
    notes = [f"p315 has no transcripts in this corpus, left out: {mute} files"] if mute else []
    return write_corpus(Listing("vctk", audio.parent, clips, SPLIT_RULE, problems, notes), out, options)


def _audio_folder(source: Path | None) -> Path:
    """Returns the folder of the speakers' audio, absolute; 0.92 before an older one."""
    if source is None:
        raise InputError("vctk: no source; pass --source DIR or --download")
    for name in _LAYOUTS:
        found = [folder for folder in search(source, name, depth=1) if (folder.parent / "txt").is_dir()]
        if len(found) > 1:
            raise InputError(f"vctk: several copies: {', '.join(map(str, found))}; pass one with --source")
        if found:
            return found[0]
    raise InputError(
        f"vctk: {source} holds no {' or '.join(_LAYOUTS)} with txt beside it; "
        "pass the unpacked corpus with --source, or --download"
    )


def _text(root: Path, speaker: str, sentence: str) -> str:
    path = root / "txt" / speaker / f"{speaker}_{sentence}.txt"
    return read_text(path) if path.is_file() else ""


def _speaker_labels(path: Path) -> Mapping[str, dict[str, str]]:
    """Returns gender and accent of the speakers: columns ID, AGE, GENDER, ACCENTS, ... between spaces."""
    labels: dict[str, dict[str, str]] = {}
    for line in read_text(path).splitlines() if path.is_file() else ():
        columns = line.split()
        if len(columns) >= 4 and columns[2] in _GENDERS:
            speaker = (
                columns[0] if columns[0][0].isalpha() else f"p{columns[0]}"
            )  # older lists say 225 for p225
            labels[speaker] = {"gender": columns[2], "accent": columns[3]}
    return labels
