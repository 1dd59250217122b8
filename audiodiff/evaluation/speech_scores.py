"""Scores of spoken texts: words misheard, distance from real speech of the same text, and plain figures.

The distance is MCD-DTW; beside it stands the same against real speech of another text, by the same speaker where
there are several texts of one (a derangement drawn by seed): a model whose two distances are equal says nothing in
particular. The figures need no reference, and are read beside those of real speech: seconds, seconds per word, median
of F0, its spread (interquartile range of voiced frames), and level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.evaluation.evaluate import Score, summarize
from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.metrics.mcd_dtw import mcd_dtw
from audiodiff.evaluation.pitch import f0_pair
from audiodiff.evaluation.signals import FLOOR_POWER
from audiodiff.evaluation.spoken_references import words_of
from audiodiff.evaluation.word_errors import WordErrors, pooled, rate_interval, word_errors
from audiodiff.evaluation.word_recognition import WordRecognizer
from audiodiff.progress import track

FIGURES = {
    "seconds": "seconds",
    "seconds_per_word": "seconds per word",
    "f0_median": "F0 median (Hz)",
    "f0_spread": "F0 spread (semitones)",
    "level": "level (dBFS)",
}
_ATTEMPTS = 1000


@dataclass(frozen=True)
class HeardWords:
    """What a recogniser hears in one system's sounds.

    Attributes:
        heard: text by file name.
        errors: by file name.
        interval: 95 % bootstrap interval of the pooled rate.
    """

    heard: Mapping[str, str]
    errors: Mapping[str, WordErrors]
    interval: tuple[float, float]

    @property
    def total(self) -> WordErrors:
        """The errors of all texts."""
        return pooled(list(self.errors.values()))

    def by_length(self) -> dict[int, WordErrors]:
        """Returns the errors of all texts of each number of words."""
        lengths = sorted({each.words for each in self.errors.values()})
        return {n: pooled([each for each in self.errors.values() if each.words == n]) for n in lengths}


@dataclass(frozen=True)
class SpokenScores:
    """Scores of one system.

    Attributes:
        figures: each of FIGURES.
        words: what is heard; None without a recogniser.
        distance: MCD-DTW from real speech of the same text; None without any.
        shuffled: MCD-DTW from real speech of another text.
    """

    figures: Mapping[str, Score]
    words: HeardWords | None = None
    distance: Score | None = None
    shuffled: Score | None = None


@dataclass(frozen=True)
class SpeechScores:
    """Scores of all systems.

    Attributes:
        texts: by file name.
        systems: by name; real speech, where there is any, under `real`.
        real: name of the row of real speech, None without.
        recognizer: facts of the recogniser, None without.
        compared_rate: Hz at which distances were measured.
    """

    texts: Mapping[str, str]
    systems: Mapping[str, SpokenScores]
    real: str | None = None
    recognizer: Mapping[str, object] | None = None
    compared_rate: int | None = None


@dataclass(frozen=True)
class SpeechQuestion:
    """What is scored.

    Attributes:
        texts: by file name.
        speakers: who was asked for, by file name; "" for anybody.
        systems: system name -> file name -> sound.
        real: name of the row of real speech, None without.
        references: file name -> real speech, of some of the texts at least.
        seed: of derangement and bootstrap.
    """

    texts: Mapping[str, str]
    speakers: Mapping[str, str]
    systems: Mapping[str, Mapping[str, Path]]
    real: str | None = None
    references: Mapping[str, Path] = field(default_factory=dict)
    seed: int = 0


def score_speech(
    asked: SpeechQuestion, recognizer: WordRecognizer | None, show: bool = False
) -> SpeechScores:
    """Returns the scores of all systems, and of real speech where there is any.

    Args:
        asked: what is scored.
        recognizer: of the words of the texts; None hears no words.
        show: progress bars on the terminal.

    Raises:
        InputError: a file that cannot be read, or a word that the recogniser does not know.
    """
    systems = dict(asked.systems)
    if asked.real is not None:
        systems = {asked.real: asked.references, **systems}
    others = deranged(asked.texts, asked.speakers, list(asked.references), asked.seed)
    every = [path for files in systems.values() for path in files.values()]
    rate = min(io.probe(path).sample_rate for path in every)
    scores = {}
    for name, files in systems.items():
        distance = shuffled = None
        if asked.references:
            same = {file: file for file in asked.references}
            distance, shuffled = (
                _distances(files, asked.references, pairs, rate, (asked.seed, f"{name}, {kind}", show))
                for kind, pairs in (("same text", same), ("other text", others))
            )
        words = None if recognizer is None else _heard(recognizer, files, asked, show)
        scores[name] = SpokenScores(
            _figures(files, asked, f"{name}, figures", show), words, distance, shuffled
        )
    facts = None if recognizer is None else recognizer.judge.facts
    return SpeechScores(asked.texts, scores, asked.real, facts, rate if asked.references else None)


def deranged(
    texts: Mapping[str, str], speakers: Mapping[str, str], names: Sequence[str], seed: int
) -> dict[str, str]:
    """Returns for each name another one with another text, each once; of the same speaker where that can be.

    Args:
        texts: by name.
        speakers: by name.
        names: that are exchanged.
        seed: of the choice.

    Returns:
        Name -> name; empty where no such exchange was found, as with a single text.
    """
    generator = np.random.default_rng(seed)
    exchanged: dict[str, str] = {}
    for speaker in sorted({speakers.get(name, "") for name in names}):
        group = [name for name in names if speakers.get(name, "") == speaker]
        found = _exchange(texts, group, generator)
        if found is None:
            return _exchange(texts, names, generator) or {}
        exchanged |= found
    return exchanged


def _exchange(
    texts: Mapping[str, str], names: Sequence[str], generator: np.random.Generator
) -> dict[str, str] | None:
    said = [words_of(texts[name]) for name in names]
    for _ in range(_ATTEMPTS):
        order = generator.permutation(len(names))
        if all(said[place] != said[other] for place, other in enumerate(order)):
            return {name: names[int(other)] for name, other in zip(names, order, strict=True)}
    return None


def figures_of(waveform: np.ndarray, sample_rate: int, words: int) -> dict[str, float]:
    """Returns each of FIGURES of a waveform [T] that says so many words; F0 is absent where nothing is voiced."""
    seconds = waveform.size / sample_rate
    level = 10 * np.log10(max(float(np.mean(waveform**2)), FLOOR_POWER))
    found = {"seconds": seconds, "seconds_per_word": seconds / max(words, 1), "level": float(level)}
    try:
        f0 = f0_pair(waveform, waveform, sample_rate)[0]
    except NotMeasurable:
        return found
    voiced = f0[f0 > 0]
    if voiced.size:
        low, middle, high = np.percentile(voiced, [25, 50, 75])
        found |= {"f0_median": float(middle), "f0_spread": float(12 * np.log2(high / low))}
    return found


def _figures(files: Mapping[str, Path], asked: SpeechQuestion, title: str, show: bool) -> dict[str, Score]:
    values: dict[str, dict[str, float]] = {key: {} for key in FIGURES}
    for name, path in track(files.items(), title, len(files), show):
        waveform, rate = io.read(path)
        found = figures_of(waveform.mean(0).double().numpy(), rate, len(words_of(asked.texts[name])))
        for key, value in found.items():
            values[key][name] = value
    reasons = {
        key: {name: "nothing is voiced" for name in files if name not in values[key]} for key in FIGURES
    }
    return {key: summarize(values[key], reasons[key], asked.seed) for key in FIGURES}


def _distances(
    files: Mapping[str, Path],
    references: Mapping[str, Path],
    pairs: Mapping[str, str],
    rate: int,
    how: tuple[int, str, bool],
) -> Score:
    """Returns MCD-DTW of each file from the reference that is paired with it."""
    seed, title, show = how
    values, reasons = {}, {}
    for name, other in track(pairs.items(), title, len(pairs), show):
        made, real = (
            io.read(path, rate, channels=1)[0][0].numpy() for path in (files[name], references[other])
        )
        try:
            values[name] = mcd_dtw(real, made, rate)
        except NotMeasurable as reason:
            reasons[name] = str(reason)
    return summarize(values, reasons, seed)


def _heard(
    recognizer: WordRecognizer, files: Mapping[str, Path], asked: SpeechQuestion, show: bool
) -> HeardWords:
    said = {name: words_of(asked.texts[name]) for name in files}
    for name, words in said.items():
        unknown = [word for word in words if word not in recognizer.vocabulary]
        if unknown or not words:
            raise InputError(
                f"{name}: the text {asked.texts[name]!r} has {unknown[0] if unknown else 'no word'}; the recogniser "
                f"knows {', '.join(recognizer.vocabulary)}; leave out --judge for other texts"
            )
    waveforms = [io.read(path, recognizer.sample_rate, channels=1)[0] for path in files.values()]
    heard = dict(zip(files, recognizer.recognize(waveforms, show), strict=True))
    errors = {name: word_errors(said[name], heard[name].words) for name in files}
    texts = {name: each.text for name, each in heard.items()}
    return HeardWords(texts, errors, rate_interval(list(errors.values()), asked.seed))
