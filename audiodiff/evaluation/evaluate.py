"""Scores systems against recordings (vocoders) or by a judge (class-conditional generation).

Every number is kept per file; a mean comes with the 95 % percentile interval of a bootstrap over files (Efron
1979). A file for which a metric has no value is left out of that metric's mean, and counted with its reason. A sample
that cannot be read (cut off, NaN) has no value of any metric; a judge counts it as not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audiodiff.audio import io
from audiodiff.audio.griffin_lim import GriffinLim
from audiodiff.audio.mel import LogMel
from audiodiff.errors import InputError
from audiodiff.evaluation.journal import Journal, key_of
from audiodiff.evaluation.judge import Judge
from audiodiff.evaluation.judge_training import confusion, spread
from audiodiff.evaluation.metrics import Metric, NotMeasurable
from audiodiff.evaluation.processes import in_processes
from audiodiff.evaluation.samples import SamplesFolder
from audiodiff.progress import track

RESAMPLES = 2000
RECORDING = "recording"  # the system that returns the recording itself
NOT_HEARD = "unreadable"  # what a judge recognises in a sample that cannot be read


@dataclass(frozen=True)
class Score:
    """One metric of one system.

    Attributes:
        values: by file name.
        reasons: why a file has no value, by file name.
        mean: over the files that have a value; None when none has.
        interval: 95 % bootstrap interval of the mean.
    """

    values: Mapping[str, float]
    reasons: Mapping[str, str]
    mean: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class VocoderScores:
    """Scores of all systems.

    Attributes:
        systems: system name -> metric key -> score.
        seconds: duration of all references together.
        sample_rate: Hz, at which all were compared.
        resampled: references that had another rate and were resampled.
        silent: files without sound of each system; what can be measured of them is.
    """

    systems: Mapping[str, Mapping[str, Score]]
    seconds: float
    sample_rate: int
    resampled: int
    silent: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class LabelScores:
    """What a judge makes of one system's samples.

    Attributes:
        asked: class asked for, by file name.
        recognised: most probable class, by file name.
        probability: the judge's probability of the class asked for, by file name.
        accuracy: share of files whose asked class was recognised, with its interval.
        certainty: mean of probability, with its interval.
        confusion: [N, N] counts, asked in rows, recognised in columns.
        diversity: mean distance between samples of one class over that of the real test clips: 1 is as
            diverse as the recordings, 0 always the same sound. None with less than two samples of any class.
        resampled: files that had another rate than the judge and were resampled.
        reasons: why a file cannot be heard, by file name; it counts as not recognised.
        silent: files without sound; they are judged like all others.
    """

    asked: Mapping[str, str]
    recognised: Mapping[str, str]
    probability: Mapping[str, float]
    accuracy: Score
    certainty: Score
    confusion: np.ndarray
    diversity: float | None
    resampled: int
    reasons: Mapping[str, str] = field(default_factory=dict)
    silent: Sequence[str] = ()


def summarize(values: Mapping[str, float], reasons: Mapping[str, str], seed: int) -> Score:
    """Returns values with their mean and its 95 % bootstrap interval, whatever the order of the files.

    Args:
        values: by file name.
        reasons: why other files have none.
        seed: of the resampling.
    """
    if not values:
        return Score({}, reasons, None, None)
    numbers = np.array([values[file] for file in sorted(values)])
    picks = np.random.default_rng(seed).integers(len(numbers), size=(RESAMPLES, len(numbers)))
    low, high = np.percentile(numbers[picks].mean(axis=1), [2.5, 97.5])
    return Score(values, reasons, float(numbers.mean()), (float(low), float(high)))


def score_vocoder(
    references: Mapping[str, Path],
    systems: Mapping[str, Mapping[str, Path]],
    metrics: Sequence[Metric],
    seed: int,
    show: bool = False,
    journal: Journal | None = None,
) -> VocoderScores:
    """Returns every metric of every system and of the recordings themselves, file by file.

    A reference at another sample rate than the estimates is resampled to theirs. Channels are scored one by
    one and averaged.

    Args:
        references: recording by file name.
        systems: system name -> file name -> what it made of that recording.
        metrics: see `load_metrics`.
        seed: of the bootstrap.
        show: a progress bar on the terminal.
        journal: of an evaluation that may have been interrupted; what it knows is not measured again.

    Raises:
        InputError: a file that cannot be read or does not fit its reference, systems at different rates, or a
            missing package.
    """
    names = (RECORDING, *systems)
    rate = _rate_of(next(iter(systems.values())).values())
    tasks = [
        _FileTask(file, path, {name: files[file] for name, files in systems.items()}, rate)
        for file, path in references.items()
    ]
    found = list(track(_scored(tasks, metrics, journal), "scoring", len(tasks), show))
    scores = {
        name: {
            m.key: summarize(
                {f.file: f.values[name, m.key] for f in found if (name, m.key) in f.values},
                {f.file: f.reasons[name, m.key] for f in found if (name, m.key) in f.reasons},
                seed,
            )
            for m in metrics
        }
        for name in names
    }
    silent = {name: [f.file for f in found if name in f.silent] for name in names}
    return VocoderScores(scores, sum(f.seconds for f in found), rate, sum(f.resampled for f in found), silent)


def _rate_of(files: Iterable[Path]) -> int:
    """Returns the sample rate in Hz of the first file that can be read; raises the last problem if none can."""
    for path in files:
        try:
            return io.probe(path).sample_rate
        except InputError as error:
            problem = error
    raise problem


@dataclass(frozen=True)
class _FileTask:
    """One recording and what every system made of it, at `rate` Hz."""

    file: str
    reference: Path
    systems: Mapping[str, Path]
    rate: int


@dataclass(frozen=True)
class _FileScores:
    """Values, or why there is none, by system and metric key."""

    file: str
    values: Mapping[tuple[str, str], float]
    reasons: Mapping[tuple[str, str], str]
    seconds: float
    resampled: bool
    silent: Sequence[str]

    def record(self) -> dict[str, Any]:
        """Returns all but the name as plain JSON values."""
        values = [[*place, value] for place, value in self.values.items()]
        reasons = [[*place, reason] for place, reason in self.reasons.items()]
        rest = {"seconds": self.seconds, "resampled": self.resampled, "silent": list(self.silent)}
        return {"values": values, "reasons": reasons, **rest}

    @classmethod
    def from_record(cls, file: str, record: Mapping[str, Any]) -> _FileScores:
        """Returns what `record` told of a file."""
        values, reasons = (
            {(system, metric): each for system, metric, each in record[kind]}
            for kind in ("values", "reasons")
        )
        return cls(file, values, reasons, record["seconds"], record["resampled"], record["silent"])


def _scored(
    tasks: Sequence[_FileTask], metrics: Sequence[Metric], journal: Journal | None
) -> Iterator[_FileScores]:
    """Yields the scores of each file, in order; those that a journal knows are not measured again."""
    if journal is None:
        yield from in_processes(partial(_score_file, metrics), tasks)
        return
    settings = [metric.key for metric in metrics]
    keys = [
        key_of([*settings, task.rate, *task.systems], [task.reference, *task.systems.values()])
        for task in tasks
    ]
    left = [task for task, key in zip(tasks, keys, strict=True) if journal.get(key) is None]
    measured = in_processes(partial(_score_file, metrics), left)
    for task, key in zip(tasks, keys, strict=True):
        known = journal.get(key)
        if known is None:
            scores = next(measured)
            journal.add(key, scores.record())
            yield scores
        else:
            yield _FileScores.from_record(task.file, known)


def _score_file(metrics: Sequence[Metric], task: _FileTask) -> _FileScores:
    values: dict[tuple[str, str], float] = {}
    reasons: dict[tuple[str, str], str] = {}
    resampled = io.probe(task.reference).sample_rate != task.rate
    reference = io.read(task.reference, task.rate)[0].numpy()
    silent = []
    for name in (RECORDING, *task.systems):
        try:
            estimate = (
                reference if name == RECORDING else _estimate(task.systems[name], reference, task.rate, name)
            )
        except NotMeasurable as reason:
            reasons |= {(name, metric.key): str(reason) for metric in metrics}
            continue
        if np.abs(estimate).max() < io.SILENCE_PEAK:
            silent.append(name)
        for metric in metrics:
            try:
                values[name, metric.key] = _mean_over_channels(metric, reference, estimate, task.rate)
            except NotMeasurable as reason:
                reasons[name, metric.key] = str(reason)
            except InputError as error:
                raise InputError(f"{name}, {task.file} against {task.reference}: {error}") from error
    return _FileScores(task.file, values, reasons, reference.shape[-1] / task.rate, resampled, silent)


def _estimate(path: Path, reference: np.ndarray, rate: int, system: str) -> np.ndarray:
    """Returns [C, T] of a file, like its reference [C, T'] in rate and channels."""
    try:
        waveform, its_rate = io.read(path)
    except InputError as error:
        # Like cases are counted together, however many samples are not numbers.
        what = re.sub(r"^\d+ of \d+ samples", "samples", str(error).removeprefix(f"{path}: "))
        raise NotMeasurable(f"the file cannot be read: {what}") from error
    if its_rate != rate or waveform.shape[0] != reference.shape[0]:
        raise InputError(
            f"{system}: {path} has {its_rate} Hz and {waveform.shape[0]} channel(s), the comparison {rate} Hz "
            f"and {reference.shape[0]}; expected one rate of all systems and the channels of the recording"
        )
    return waveform.numpy()


def _mean_over_channels(metric: Metric, reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    return float(np.mean([metric.function(r, e, rate) for r, e in zip(reference, estimate, strict=True)]))


def make_griffin_lim(
    references: Mapping[str, Path],
    log_mel: LogMel,
    folder: Path,
    seed: int,
    show: bool = False,
    journal: Journal | None = None,
) -> dict[str, Path]:
    """Writes what Griffin-Lim makes of each recording's mel, and returns the files.

    Args:
        references: recording by file name.
        log_mel: the mel definition that the vocoders had.
        folder: where the wav files go.
        seed: of the first phases.
        show: a progress bar on the terminal.
        journal: of an evaluation that may have been interrupted; what it made and is still there stays.

    Raises:
        InputError: a recording that cannot be read, or is shorter than a frame.
    """
    vocoder = GriffinLim(log_mel, layout="bands_first")  # a clip may have as many frames as bands
    made = {}
    for file, path in track(references.items(), "Griffin-Lim", len(references), show):
        made[file] = folder / f"{Path(file).stem}.wav"
        key = "" if journal is None else key_of(["griffin-lim", log_mel.definition(), seed], [path])
        if journal is not None and made[file].is_file() and journal.get(key) == key_of(None, [made[file]]):
            continue
        waveform, rate = io.read(path, log_mel.sample_rate)
        lengths = torch.full((waveform.shape[0],), waveform.shape[-1])
        io.write(made[file], vocoder(log_mel(waveform), lengths, seed), rate)
        if journal is not None:
            journal.add(key, key_of(None, [made[file]]))
    return made


def score_labels(
    judge: Judge, samples: SamplesFolder, label: str, seed: int, show: bool = False
) -> LabelScores:
    """Returns how often a judge recognises in a sample what was asked for.

    Samples at another rate than the judge's are resampled, several channels are averaged.

    Args:
        judge: a trained judge.
        samples: the sounds, each with its label.
        label: name of the label.
        seed: of the bootstrap.
        show: a progress bar on the terminal.

    Raises:
        InputError: the judge judges another label, or a sample lacks it or has a value that the judge does
            not know; a file that cannot be read.
    """
    if not samples.files:
        raise InputError(
            f"{samples.folder}: holds no samples.json, so what was asked for is unknown; synthesize again"
        )
    if judge.label != label:
        raise InputError(
            f"the judge recognises {judge.label!r}, asked for is {label!r}; train one for that label"
        )
    asked = {file: _asked(judge, samples, file) for file in samples.files}
    waveforms: dict[str, torch.Tensor] = {}
    reasons, resampled = {}, 0
    for file, path in track(samples.files.items(), "listening", len(samples.files), show):
        try:
            waveforms[file] = io.read(path, judge.sample_rate, channels=1)[0]
            resampled += io.probe(path).sample_rate != judge.sample_rate
        except InputError as error:
            reasons[file] = str(error).removeprefix(f"{path}: ")
    if not waveforms:
        raise InputError(f"{samples.folder}: no file can be heard; {next(iter(reasons.values()))}")
    heard = list(waveforms.values())
    probabilities = judge.predict(heard)
    truth = torch.tensor([judge.names.index(asked[file]) for file in waveforms])
    guesses = probabilities.argmax(-1)
    recognised = dict.fromkeys(asked, NOT_HEARD)
    recognised |= {file: judge.names[int(guess)] for file, guess in zip(waveforms, guesses, strict=True)}
    certainty = dict.fromkeys(asked, 0.0)
    certainty |= {f: float(row[i]) for f, row, i in zip(waveforms, probabilities, truth, strict=True)}
    right = {file: float(recognised[file] == asked[file]) for file in asked}
    made, real = spread(judge.describe(heard), truth), judge.facts.get("test_spread")
    return LabelScores(
        asked=asked,
        recognised=recognised,
        probability=certainty,
        accuracy=summarize(right, {}, seed),
        certainty=summarize(certainty, {}, seed),
        confusion=confusion(truth, guesses, len(judge.names)),
        diversity=made / real if made is not None and real else None,
        resampled=resampled,
        reasons=reasons,
        silent=[file for file, sound in waveforms.items() if float(sound.abs().max()) < io.SILENCE_PEAK],
    )


def _asked(judge: Judge, samples: SamplesFolder, file: str) -> str:
    value = samples.labels.get(file, {}).get(judge.label)
    if value not in judge.names:
        known = ", ".join(judge.names)
        got = "no such label" if value is None else f"{value!r}"
        raise InputError(f"{samples.folder / file}: {judge.label} is {got}; the judge knows {known}")
    return value
