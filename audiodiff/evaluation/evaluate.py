"""Scores systems against recordings (vocoders) or by a judge (class-conditional generation).

Every number is kept per file; a mean comes with the 95 % percentile interval of a bootstrap over files (Efron
1979). A file for which a metric has no value is left out of that metric's mean, and counted with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from audiodiff.audio import io
from audiodiff.audio.griffin_lim import GriffinLim
from audiodiff.audio.mel import LogMel
from audiodiff.errors import InputError
from audiodiff.evaluation.judge import Judge
from audiodiff.evaluation.judge_training import confusion, spread
from audiodiff.evaluation.metrics import Metric, NotMeasurable
from audiodiff.evaluation.samples import SamplesFolder
from audiodiff.progress import track

RESAMPLES = 2000
RECORDING = "recording"  # the system that returns the recording itself


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
    """

    systems: Mapping[str, Mapping[str, Score]]
    seconds: float
    sample_rate: int
    resampled: int


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
    """

    asked: Mapping[str, str]
    recognised: Mapping[str, str]
    probability: Mapping[str, float]
    accuracy: Score
    certainty: Score
    confusion: np.ndarray
    diversity: float | None
    resampled: int


def summarize(values: Mapping[str, float], reasons: Mapping[str, str], seed: int) -> Score:
    """Returns values with their mean and its 95 % bootstrap interval.

    Args:
        values: by file name.
        reasons: why other files have none.
        seed: of the resampling.
    """
    if not values:
        return Score({}, reasons, None, None)
    numbers = np.array(list(values.values()))
    picks = np.random.default_rng(seed).integers(len(numbers), size=(RESAMPLES, len(numbers)))
    low, high = np.percentile(numbers[picks].mean(axis=1), [2.5, 97.5])
    return Score(values, reasons, float(numbers.mean()), (float(low), float(high)))


def score_vocoder(
    references: Mapping[str, Path],
    systems: Mapping[str, Mapping[str, Path]],
    metrics: Sequence[Metric],
    seed: int,
    show: bool = False,
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

    Raises:
        InputError: a file that cannot be read or does not fit its reference, systems at different rates, or a
            missing package.
    """
    names = (RECORDING, *systems)
    values: dict[tuple[str, str], dict[str, float]] = {(s, m.key): {} for s in names for m in metrics}
    reasons: dict[tuple[str, str], dict[str, str]] = {key: {} for key in values}
    rate = io.probe(next(iter(next(iter(systems.values())).values()))).sample_rate
    seconds, resampled = 0.0, 0
    for file, path in track(references.items(), "scoring", len(references), show):
        resampled += io.probe(path).sample_rate != rate
        reference = io.read(path, rate)[0].numpy()
        seconds += reference.shape[-1] / rate
        for name in names:
            estimate = (
                reference if name == RECORDING else _estimate(systems[name][file], reference, rate, name)
            )
            for metric in metrics:
                try:
                    values[name, metric.key][file] = _mean_over_channels(metric, reference, estimate, rate)
                except NotMeasurable as reason:
                    reasons[name, metric.key][file] = str(reason)
                except InputError as error:
                    raise InputError(f"{name}, {file} against {path}: {error}") from error
    scores = {
        name: {m.key: summarize(values[name, m.key], reasons[name, m.key], seed) for m in metrics}
        for name in names
    }
    return VocoderScores(scores, seconds, rate, resampled)


def _estimate(path: Path, reference: np.ndarray, rate: int, system: str) -> np.ndarray:
    """Returns [C, T] of a file, like its reference [C, T'] in rate and channels."""
    waveform, its_rate = io.read(path)
    if its_rate != rate or waveform.shape[0] != reference.shape[0]:
        raise InputError(
            f"{system}: {path} has {its_rate} Hz and {waveform.shape[0]} channel(s), the comparison {rate} Hz "
            f"and {reference.shape[0]}; expected one rate of all systems and the channels of the recording"
        )
    return waveform.numpy()


def _mean_over_channels(metric: Metric, reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    return float(np.mean([metric.function(r, e, rate) for r, e in zip(reference, estimate, strict=True)]))


def make_griffin_lim(
    references: Mapping[str, Path], log_mel: LogMel, folder: Path, seed: int, show: bool = False
) -> dict[str, Path]:
    """Writes what Griffin-Lim makes of each recording's mel, and returns the files.

    Args:
        references: recording by file name.
        log_mel: the mel definition that the vocoders had.
        folder: where the wav files go.
        seed: of the first phases.
        show: a progress bar on the terminal.

    Raises:
        InputError: a recording that cannot be read, or is shorter than a frame.
    """
    vocoder = GriffinLim(log_mel)
    made = {}
    for file, path in track(references.items(), "Griffin-Lim", len(references), show):
        waveform, rate = io.read(path, log_mel.sample_rate)
        lengths = torch.full((waveform.shape[0],), waveform.shape[-1])
        made[file] = folder / f"{Path(file).stem}.wav"
        io.write(made[file], vocoder(log_mel(waveform), lengths, seed), rate)
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
    waveforms, resampled = [], 0
    for path in track(samples.files.values(), "listening", len(samples.files), show):
        resampled += io.probe(path).sample_rate != judge.sample_rate
        waveforms.append(io.read(path, judge.sample_rate, channels=1)[0])
    probabilities = judge.predict(waveforms)
    truth = torch.tensor([judge.names.index(name) for name in asked.values()])
    guesses = probabilities.argmax(-1)
    recognised = {file: judge.names[int(guess)] for file, guess in zip(asked, guesses, strict=True)}
    certainty = {file: float(row[i]) for file, row, i in zip(asked, probabilities, truth, strict=True)}
    right = {file: float(recognised[file] == asked[file]) for file in asked}
    made, real = spread(judge.describe(waveforms), truth), judge.facts.get("test_spread")
    return LabelScores(
        asked=asked,
        recognised=recognised,
        probability=certainty,
        accuracy=summarize(right, {}, seed),
        certainty=summarize(certainty, {}, seed),
        confusion=confusion(truth, guesses, len(judge.names)),
        diversity=made / real if made is not None and real else None,
        resampled=resampled,
    )


def _asked(judge: Judge, samples: SamplesFolder, file: str) -> str:
    value = samples.labels.get(file, {}).get(judge.label)
    if value not in judge.names:
        known = ", ".join(judge.names)
        got = "no such label" if value is None else f"{value!r}"
        raise InputError(f"{samples.folder / file}: {judge.label} is {got}; the judge knows {known}")
    return value
