"""Salamander Grand Piano: a Yamaha C5, every third semitone from A0 to C8 (CC BY 3.0, Alexander Holm).

Files `{note}.ogg` or `{note}v{layer}.wav` in one folder: `A0.ogg`, `Ds4.flac`, `F#3v12.wav`; "s" and "#" are sharps,
the layer is one of 16 of loudness. Label "pitch" is the MIDI number of the note (A4 is 69, 440 Hz), label "layer" the
layer where there are any. Thirty notes of 88: the others are for an augmentation that transposes. The first 2 s of
each note are taken. No official split: D#3 is dev and F#5 is test, all others train, for more held-out notes would
leave more gaps of six semitones. Source: github.com/Tonejs/audio, one layer.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from audiodiff.audio import io
from audiodiff.data.download import Archive
from audiodiff.data.one_shots import write_one_shot
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.errors import InputError
from audiodiff.progress import track

_COMMIT = "efd8296360f9526e379bfbe5c1698ff54d6a1d34"
# GitHub makes this archive on request and promises no fixed bytes, so no checksum is known.
ARCHIVES = (Archive("tonejs", f"https://github.com/Tonejs/audio/archive/{_COMMIT}.zip"),)
SECONDS = 2.0
HELD_OUT = {51: "dev", 78: "test"}  # D#3 and F#5
SPLIT_RULE = "no official split; the note D#3 is dev, F#5 is test, the others train"
_NAME = re.compile(r"([A-G])([s#]?)(\d)(?:v(\d+))?")
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the first 2 s of every note and the manifests, labels "pitch" and, where files have one, "layer".

    Args:
        source: the folder of the notes, or one that contains it.
        out: prepared folder.
        options: rate, channels, peak.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: no notes there, none usable, or mixed rates or channels.
    """
    if source is None:
        raise InputError("piano: no source; pass --source DIR or --download")
    folder = _folder(source.absolute(), out.absolute())
    notes = _notes(folder)
    clips, problems = [], []
    for path in track(notes, "copying notes", len(notes)):
        pitch, layer = _pitch_and_layer(path)
        identifier = f"piano{pitch:03d}" + ("" if layer is None else f"_{layer:02d}")
        try:
            shot = write_one_shot(identifier, path, SECONDS, out, options)
        except InputError as error:
            problems.append(Problem(identifier, str(error), excluded=True, path=str(path)))
            continue
        labels = {"pitch": str(pitch)} | ({} if layer is None else {"layer": str(layer)})
        custom = {"note": path.stem, "source": str(path)}
        clips.append(Clip(identifier, shot.path, HELD_OUT.get(pitch, "train"), labels=labels, custom=custom))
    listing = Listing("piano", folder, clips, SPLIT_RULE, problems)
    return write_corpus(listing, out, replace(options, peak=None))  # the copies have it already


def midi_number(note: str) -> int:
    """Returns the MIDI number of a note such as "A4" (69), "Ds4" or "D#4".

    Raises:
        InputError: it is no note.
    """
    match = _NAME.fullmatch(note)
    if match is None or match[4]:
        raise InputError(
            f"note {note!r}; expected a letter A to G, s or # for a sharp, and an octave: A4, Ds4"
        )
    return 12 * (int(match[3]) + 1) + _SEMITONES[match[1]] + bool(match[2])


def _pitch_and_layer(path: Path) -> tuple[int, int | None]:
    note, _, layer = path.stem.partition("v")
    return midi_number(note), int(layer) if layer else None


def _is_note(path: Path) -> bool:
    return path.suffix.lower() in io.AUDIO_SUFFIXES and _NAME.fullmatch(path.stem) is not None


def _notes(folder: Path) -> list[Path]:
    """Returns one file of every note and layer: the one of a format that loses least, where there are several."""
    kept: dict[str, Path] = {}
    for path in sorted(filter(_is_note, folder.iterdir())):
        rank = io.AUDIO_SUFFIXES.index(path.suffix.lower())
        if path.stem not in kept or rank < io.AUDIO_SUFFIXES.index(kept[path.stem].suffix.lower()):
            kept[path.stem] = path
    return list(kept.values())


def _folder(root: Path, out: Path) -> Path:
    """Returns the folder of the notes: one called salamander where there is one, for other pianos may lie beside it."""
    below = [root, *sorted(root.glob("*")), *sorted(root.glob("*/*"))]
    folders = [path for path in below if path.is_dir() and not path.is_relative_to(out)]
    found = [folder for folder in folders if any(map(_is_note, folder.iterdir()))]
    named = [folder for folder in found if folder.name.lower() == "salamander"]
    found = named or found
    if not found:
        raise InputError(
            f"piano: {root} holds no note such as A4.ogg or Ds4v12.wav; pass the folder of the notes with --source, "
            "or --download"
        )
    if len(found) > 1:
        raise InputError(
            f"piano: several folders of notes: {', '.join(map(str, found))}; pass one with --source"
        )
    return found[0]
