"""What a listening test asks, and the key that tells which sound was whose.

Three kinds:

- mos: one sound at a time, rated 1 to 5 (ITU-T P.800, absolute category rating);
- mushra: all systems of a file at once beside an open reference, rated 0 to 100, with a hidden reference and low-pass
  anchors among them (ITU-R BS.1534-3);
- abx: two systems and an X that is one of them; which? (Clark 1982; forced choice.)

The page knows sounds by random names alone. Which trial comes when, and which of two sounds is X, is drawn on the page
by the name of the test, which hangs on the seed, and the listener's code: every listener has another order, and the
same one again when the page is opened again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audiodiff.errors import InputError
from audiodiff.evaluation.listening.stimuli import Stimuli, low_pass, pair_up, prepare, removes_something

MOS, MUSHRA, ABX = "mos", "mushra", "abx"
KINDS = (MOS, MUSHRA, ABX)
REFERENCE = "reference"
ANCHORS_HZ = (3500.0, 7000.0)  # the low and the mid anchor of ITU-R BS.1534-3
_PRACTISED = 6  # trials at most
_MOST_RATED = 9  # systems of a MUSHRA trial; with reference and anchors the standard's limit
_QUESTIONS = {
    MOS: "How good is the quality of what you hear?",
    MUSHRA: "How good is the quality of each sound, compared with the reference?",
    ABX: "Is X the same as A or as B?",
}


@dataclass(frozen=True)
class Question:
    """What is to be tested.

    Attributes:
        kind: mos, mushra or abx.
        systems: folder of each system's sounds.
        reference: folder of the recordings; needed by mushra, one more system to the others.
        seed: of names, choice of files and orders.
        files: most files that are heard, drawn from all; None for all.
        repeats: of each pair and file of abx.
        match_loudness: bring all sounds of a file to one level.
        anchors_hz: cut-offs of mushra's anchors; none of them for those of ANCHORS_HZ that take something away at the
            sounds' rate.
        text: the question; None for that of the kind.
    """

    kind: str
    systems: Mapping[str, Path]
    reference: Path | None = None
    seed: int = 0
    files: int | None = None
    repeats: int = 1
    match_loudness: bool = False
    anchors_hz: Sequence[float] = ()
    text: str | None = None

    def check(self) -> None:
        """Refuses what makes no test.

        Raises:
            InputError: which.
        """
        if self.kind not in KINDS:
            raise InputError(f"--kind: got {self.kind!r}, choose one of {', '.join(KINDS)}")
        if self.seed < 0 or self.repeats < 1 or (self.files is not None and self.files < 1):
            raise InputError(
                f"--seed {self.seed}, --repeats {self.repeats}, --files {self.files}: expected 0, 1 and 1 or more"
            )
        anchors = [anchor_name(cutoff) for cutoff in self.anchors_hz or ANCHORS_HZ]
        taken = [name for name in (REFERENCE, *anchors) if name in self.systems]
        if taken:
            raise InputError(f"--system {taken[0]}=...: this name is taken; choose another")
        if self.kind == MUSHRA and self.reference is None:
            raise InputError("--kind mushra: sounds are rated against a reference; pass --reference DIR")
        if self.kind == MUSHRA and len(self.systems) > _MOST_RATED:
            raise InputError(
                f"--kind mushra: {len(self.systems)} systems at once are too many to rate; expected {_MOST_RATED} at "
                "most (ITU-R BS.1534-3), so make two tests"
            )
        least = 2 if self.kind == ABX and self.reference is None else 1
        if len(self.systems) < least:
            raise InputError(
                f"--kind {self.kind}: got {len(self.systems)} system(s), expected {least} or more"
            )
        if self.repeats > 1 and self.kind != ABX:
            raise InputError(f"--repeats {self.repeats}: belongs to --kind abx")
        if self.anchors_hz and self.kind != MUSHRA:
            raise InputError(f"--anchor {self.anchors_hz[0]:g}: belongs to --kind mushra")
        if len(set(self.anchors_hz)) < len(self.anchors_hz) or len(self.anchors_hz) > len(ANCHORS_HZ):
            raise InputError(
                f"--anchor: got {', '.join(f'{cutoff:g}' for cutoff in self.anchors_hz)} Hz, expected at most "
                f"{len(ANCHORS_HZ)}, each once"
            )


@dataclass(frozen=True)
class Design:
    """A test that is ready to be sent.

    Attributes:
        kind: mos, mushra or abx.
        question: that is asked.
        trials: of the page: id, sounds (random names), reference (mushra).
        practice: trials like them, of a file of their own, that do not count.
        sounds: samples [T, C] by random name, sorted by it.
        sample_rate: Hz.
        loudest: name of the sound by which listeners set their level.
        key: what stays with the experimenter.
    """

    kind: str
    question: str
    trials: Sequence[Mapping[str, Any]]
    practice: Sequence[Mapping[str, Any]]
    sounds: Mapping[str, np.ndarray]
    sample_rate: int
    loudest: str
    key: Mapping[str, Any]

    @property
    def test(self) -> str:
        """Name of the test, by which answers find their key."""
        return str(self.key["test"])


def design(question: Question, command: str, show: bool = False) -> Design:
    """Returns the test that a question asks for; the same question gives the same test.

    Args:
        question: what is to be tested.
        command: for the key.
        show: a progress bar on the terminal.

    Raises:
        InputError: a question that makes no test, or sounds that do not serve, see `stimuli`.
    """
    question.check()
    folders = {} if question.reference is None else {REFERENCE: question.reference}
    folders |= question.systems
    paths = pair_up(folders)
    draw = np.random.default_rng(question.seed)
    chosen = _chosen(list(paths), question.files, draw)
    stimuli = prepare(
        {file: paths[file] for file in chosen}, question.kind != MOS, question.match_loudness, show
    )
    practice, *counted = chosen
    names = _Names(stimuli, draw)
    trials = [trial for file in sorted(counted) for trial in _trials(question, names, stimuli, file)]
    first = list(
        itertools.islice(_trials(replace(question, repeats=1), names, stimuli, practice), _PRACTISED)
    )
    loudest = max(names.sounds, key=lambda name: float(np.sqrt(np.mean(names.sounds[name] ** 2))))
    text = question.text or _QUESTIONS[question.kind]
    key: dict[str, Any] = {
        "kind": question.kind,
        "question": text,
        "seed": question.seed,
        "command": command,
        "systems": {name: str(folder) for name, folder in folders.items()},
        "files": sorted(counted),
        "practice_file": practice,
        "sample_rate": stimuli.sample_rate,
        "notes": [*stimuli.notes, *_notes(question, stimuli.sample_rate)],
        "trials": {trial["id"]: {"file": names.owners[trial["sounds"][0]][1], **trial} for trial in trials},
        "sounds": {
            name: {"system": system, "file": file} for name, (system, file) in sorted(names.owners.items())
        },
    }
    told = json.dumps(key, sort_keys=True) + "".join(_digest(sound) for sound in names.sounds.values())
    key = {"test": hashlib.sha256(told.encode()).hexdigest()[:16]} | key
    return Design(
        question.kind, text, trials, first, dict(sorted(names.sounds.items())), stimuli.sample_rate, loudest, key
    )  # fmt: skip


class _Names:
    """Random names of sounds, and whose they are."""

    def __init__(self, stimuli: Stimuli, draw: np.random.Generator) -> None:
        self.sounds: dict[str, np.ndarray] = {}
        self.owners: dict[str, tuple[str, str]] = {}
        self._stimuli, self._draw = stimuli, draw

    def give(self, system: str, file: str, samples: np.ndarray) -> str:
        """Returns a new name for the samples."""
        name = self._draw.bytes(8).hex()
        self.sounds[name], self.owners[name] = samples, (system, file)
        return name

    def trial(self) -> str:
        """Returns a new name for a trial."""
        return self._draw.bytes(6).hex()


def _chosen(files: list[str], most: int | None, draw: np.random.Generator) -> list[str]:
    """Returns the file of the practice, and those that count."""
    if len(files) < 2:
        raise InputError(
            f"one file alone ({files[0]}): listeners need another one to practise on; expected two or more"
        )
    picked = draw.permutation(len(files))[: None if most is None else most + 1]
    return [files[number] for number in picked]


def _trials(question: Question, names: _Names, stimuli: Stimuli, file: str) -> Iterator[dict[str, Any]]:
    sounds = stimuli.sounds[file]
    if question.kind == MOS:
        for system, samples in sounds.items():
            yield {"id": names.trial(), "sounds": [names.give(system, file, samples)]}
        return
    if question.kind == ABX:
        given = {system: names.give(system, file, samples) for system, samples in sounds.items()}
        for one, other in itertools.combinations(given, 2):
            for _ in range(question.repeats):
                yield {"id": names.trial(), "sounds": sorted((given[one], given[other]))}
        return
    anchors = {
        anchor_name(cutoff): low_pass(sounds[REFERENCE], stimuli.sample_rate, cutoff)
        for cutoff in _anchors_hz(question, stimuli.sample_rate)
    }
    rated = [names.give(system, file, samples) for system, samples in {**sounds, **anchors}.items()]
    opened = names.give(REFERENCE, file, sounds[REFERENCE])
    yield {"id": names.trial(), "sounds": sorted(rated), "reference": opened}


def anchor_name(cutoff: float) -> str:
    """Returns what an anchor is called in the key and in the results."""
    return f"anchor-{cutoff:g}"


def _anchors_hz(question: Question, sample_rate: int) -> Sequence[float]:
    """Returns the cut-offs that are asked for, else the standard's that the rate leaves; one of them at least."""
    usable = [cutoff for cutoff in ANCHORS_HZ if removes_something(cutoff, sample_rate)]
    return question.anchors_hz or usable or ANCHORS_HZ[:1]


def _notes(question: Question, sample_rate: int) -> list[str]:
    if question.kind != MUSHRA:
        return []
    anchors = _anchors_hz(question, sample_rate)
    wanted = " and ".join(f"{cutoff:g}" for cutoff in ANCHORS_HZ)
    own = "" if tuple(anchors) == ANCHORS_HZ else f" (ITU-R BS.1534-3 wants {wanted} Hz)"
    told = " and ".join(f"{cutoff:g}" for cutoff in anchors)
    return [f"Anchors: the reference through a low-pass of {told} Hz{own}."]


def _digest(samples: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(samples, dtype=np.float32).tobytes()).hexdigest()
