"""Kaldi data directories: wav.scp, and where they are there segments, text, utt2spk, spk2gender.

A folder with wav.scp is split by rule, whole recordings at a time; a folder with train, dev and test in it, each
with its wav.scp, is split so. Durations come from decoding, not from utt2dur. Entries of wav.scp that are commands
("sph2pipe ... |") are never run, for a file that somebody sent must not run code. A relative path is looked for from
the data directory, the folders above it, and the current one. Povey et al. 2011, kaldi-asr.org/doc/data_prep.html.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiodiff.data import splits
from audiodiff.data.kaldi import Directory, read_directory
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.errors import InputError


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the manifests, with text, speaker and label "gender" where the tables have them.

    Args:
        source: a data directory, or a folder of train, dev and test with one each.
        out: prepared folder.
        options: rate, channels, threads.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: no wav.scp, a command in it, a table that is none, nothing usable, or mixed rates or channels.
    """
    if source is None:
        raise InputError("kaldi: no source; pass --source DIR")
    source = source.absolute()
    if (source / "wav.scp").is_file():
        directory = read_directory(source)
        places = splits.ranked({name: "" for name in directory.recordings})
        clips, problems = _clips(directory, places)
        rule = f"one data directory; recordings {splits.RULE}"
    else:
        parts = _split_folders(source)
        clips, problems = [], []
        for folder, split in parts.items():
            directory = read_directory(folder)
            found, bad = _clips(directory, dict.fromkeys(directory.recordings, split))
            clips += found
            problems += bad
        rule = f"the data directories {', '.join(folder.name for folder in parts)}"
    return write_corpus(Listing("kaldi", source, clips, rule, problems, (), ()), out, options)


def _split_folders(source: Path) -> dict[Path, str]:
    """Returns the split of every data directory in a folder."""
    found = {path.parent: path.parent.name for path in sorted(source.glob("*/wav.scp"))}
    parts = {
        folder: splits.NAMES[name.lower()] for folder, name in found.items() if name.lower() in splits.NAMES
    }
    if not parts:
        more = f" (of {', '.join(found.values())} the split is not known)" if found else ""
        raise InputError(
            f"kaldi: {source} holds no wav.scp, nor folders train, dev and test with one each{more}; "
            "pass one data directory with --source"
        )
    return parts


def _clips(directory: Directory, places: dict[str, str]) -> tuple[list[Clip], list[Problem]]:
    """Returns the utterances of a data directory, and what its tables lack."""
    clips, problems = [], list(directory.problems)
    for utterance in directory.utterances:
        path = directory.recordings.get(utterance.recording)
        reason = "its recording is not in wav.scp" if path is None else directory.lacking(utterance.id)
        if path is None or reason is not None:
            place = str(directory.folder)
            problems.append(Problem(utterance.id, reason or "", excluded=True, path=place))
            continue
        speaker = directory.speakers.get(utterance.id)
        gender = directory.genders.get(speaker or "")
        clips.append(
            Clip(
                utterance.id,
                path,
                places[utterance.recording],
                speaker,
                directory.texts.get(utterance.id) or None,
                {"gender": gender} if gender else {},
                recording=None if utterance.recording == utterance.id else utterance.recording,
                start_seconds=utterance.start_seconds,
                end_seconds=utterance.end_seconds,
            )
        )
    return clips, problems
