"""What listeners sent back, read against the key: ratings and choices by system and file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiodiff.errors import InputError
from audiodiff.evaluation.listening.design import ABX, KINDS, MOS, MUSHRA

_SCALES = {MOS: (1, 5), MUSHRA: (0, 100)}


@dataclass(frozen=True)
class Key:
    """What the experimenter kept.

    Attributes:
        test: name of the test.
        kind: mos, mushra or abx.
        question: that was asked.
        systems: names, the reference among them.
        trials: id -> its sounds, as in the page.
        owners: name of a sound -> (system, file).
        notes: what was done to the sounds.
    """

    test: str
    kind: str
    question: str
    systems: Sequence[str]
    trials: Mapping[str, Sequence[str]]
    owners: Mapping[str, tuple[str, str]]
    notes: Sequence[str]


@dataclass(frozen=True)
class Rating:
    """A number that a listener gave to a sound."""

    listener: str
    file: str
    system: str
    score: float


@dataclass(frozen=True)
class Choice:
    """Whether a listener named X rightly, in a pair of systems (sorted)."""

    listener: str
    file: str
    pair: tuple[str, str]
    right: bool


@dataclass(frozen=True)
class Answers:
    """Everything that came back.

    Attributes:
        ratings: of mos and mushra.
        choices: of abx.
        answered: trials by listener.
    """

    ratings: Sequence[Rating]
    choices: Sequence[Choice]
    answered: Mapping[str, int]


def read_key(path: Path) -> Key:
    """Returns a key.

    Raises:
        InputError: no key, or a damaged one.
    """
    content = _json(path, "a key that `audiodiff listening-test make` wrote")
    try:
        if content["kind"] not in KINDS:
            raise ValueError(f"kind {content['kind']!r}")
        return Key(
            str(content["test"]),
            str(content["kind"]),
            str(content["question"]),
            list(content["systems"]),
            {trial: [str(sound) for sound in each["sounds"]] for trial, each in content["trials"].items()},
            {name: (str(each["system"]), str(each["file"])) for name, each in content["sounds"].items()},
            [str(note) for note in content["notes"]],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a key, or damaged ({type(error).__name__}: {error})") from error


def read_answers(given: Sequence[Path], key: Key) -> Answers:
    """Returns what is in answer files.

    Args:
        given: files, or folders of them.
        key: of the test that they answer.

    Raises:
        InputError: none, one of another test, a damaged or changed one, or two of one listener.
    """
    ratings: list[Rating] = []
    choices: list[Choice] = []
    answered: dict[str, int] = {}
    source: dict[str, Path] = {}
    for path in _files(given):
        content = _json(path, "answers that a listening test saved")
        if content.get("test") != key.test or content.get("kind") != key.kind:
            raise InputError(
                f"{path}: answers of another test ({content.get('kind')}, {content.get('test')}); expected those of "
                f"{key.kind}, {key.test}"
            )
        try:
            listener, found = str(content["listener"]), list(content["answers"])
            if listener in source:
                raise InputError(
                    f"{path} and {source[listener]}: both are of listener {listener!r}; leave one of them out"
                )
            source[listener] = path
            _check_trials(found, key)
            for answer in found:
                if key.kind == ABX:
                    choices.append(_choice(answer, key, listener))
                else:
                    ratings += _ratings(answer, key, listener)
            answered[listener] = len(found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: damaged, or changed by hand ({_reason(error)})") from error
    if not sum(answered.values()):
        raise InputError(f"{', '.join(map(str, given))}: not one answer in them")
    return Answers(ratings, choices, answered)


def _files(given: Sequence[Path]) -> list[Path]:
    files = [
        path
        for each in given
        for path in (sorted(each.glob("*.json")) if each.is_dir() else [each])
        if path.name != "key.json"
    ]
    if not files:
        raise InputError(f"{', '.join(map(str, given))}: no .json files; expected what listeners saved")
    return files


def _json(path: Path, expected: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no JSON"
        raise InputError(f"{path}: cannot be read ({reason}); expected {expected}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no record; expected {expected}")
    return content


def _check_trials(found: Sequence[Mapping[str, Any]], key: Key) -> None:
    trials = [str(answer["trial"]) for answer in found]
    unknown = [trial for trial in trials if trial not in key.trials]
    if unknown:
        raise ValueError(f"trial {unknown[0]} is not of this test")
    if len(set(trials)) < len(trials):
        raise ValueError(f"trial {next(t for t in trials if trials.count(t) > 1)} is answered twice")


def _ratings(answer: Mapping[str, Any], key: Key, listener: str) -> Iterator[Rating]:
    scores = {answer["sound"]: answer["score"]} if key.kind == MOS else dict(answer["scores"])
    asked = key.trials[answer["trial"]]
    if set(scores) != set(asked):
        raise ValueError(f"trial {answer['trial']} rates other sounds than it has")
    low, high = _SCALES[key.kind]
    for sound in asked:
        score = scores[sound]
        if isinstance(score, bool) or not isinstance(score, int | float) or not low <= score <= high:
            raise ValueError(f"score {score!r} is not from {low} to {high}")
        system, file = key.owners[sound]
        yield Rating(listener, file, system, float(score))


def _choice(answer: Mapping[str, Any], key: Key, listener: str) -> Choice:
    asked = key.trials[answer["trial"]]
    if {answer["a"], answer["b"]} != set(asked) or not {answer["x"], answer["answer"]} <= set(asked):
        raise ValueError(f"trial {answer['trial']} compares other sounds than it has")
    (one, file), (other, _) = (key.owners[sound] for sound in asked)
    pair = (one, other) if key.systems.index(one) < key.systems.index(other) else (other, one)
    return Choice(listener, file, pair, answer["x"] == answer["answer"])


def _reason(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
