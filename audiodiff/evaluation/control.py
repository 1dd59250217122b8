"""Does a sound have the loudness or the pitch that was asked for? Measured, with no judge and no reference.

Loudness: Spearman's rank correlation between what was asked and the level of the loudest 50 ms (`audio.loudness`), and
the median error in dB. Pitch: share of sounds whose pitch (`note_pitch`) lies within 50 cents of the MIDI number asked
for, the median error in cents, and how many of the others are off by whole octaves. A sound without a measurable pitch
counts as wrong, one that is silent has the lowest loudness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from audiodiff.audio import io
from audiodiff.audio.loudness import loudness_db
from audiodiff.errors import InputError
from audiodiff.evaluation.evaluate import Score, summarize
from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.note_pitch import note_pitch
from audiodiff.evaluation.processes import in_processes
from audiodiff.evaluation.samples import SamplesFolder
from audiodiff.progress import track

LOUDNESS, PITCH = "loudness", "pitch"
RIGHT_CENTS = 50.0


@dataclass(frozen=True)
class Measured:
    """One measure of sounds for which a value was asked.

    Attributes:
        asked: number asked for, by file name.
        measured: by file name.
        reasons: why a file has no value, by file name.
    """

    asked: Mapping[str, float]
    measured: Mapping[str, float]
    reasons: Mapping[str, str]

    def errors(self) -> dict[str, float]:
        """Returns measured less asked, by file name."""
        return {file: value - self.asked[file] for file, value in self.measured.items()}


@dataclass(frozen=True)
class LoudnessControl:
    """Asked and measured loudness.

    Attributes:
        values: in dB.
        correlation: Spearman's; None with less than three values or where either does not vary.
        error: absolute error in dB, median.
    """

    values: Measured
    correlation: float | None
    error: float | None


@dataclass(frozen=True)
class PitchControl:
    """Asked and measured pitch.

    Attributes:
        values: MIDI numbers.
        right: 1 or 0 by file name, within RIGHT_CENTS of what was asked.
        error_cents: absolute error in cents, median over measured files.
        octaves: files that are off by one or more whole octaves, within RIGHT_CENTS.
    """

    values: Measured
    right: Score
    error_cents: float | None
    octaves: int


def score_loudness(samples: SamplesFolder, show: bool = False) -> LoudnessControl | None:
    """Returns how well sounds follow their label "loudness"; None when none has one.

    Args:
        samples: the sounds with what was asked for.
        show: a progress bar on the terminal.

    Raises:
        InputError: a label that is no number.
    """
    asked = asked_numbers(samples, LOUDNESS)
    if not asked:
        return None
    values = _measure(samples, asked, _loudness, "loudness", show)
    pairs = np.array([(asked[file], value) for file, value in values.measured.items()]).reshape(-1, 2)
    varied = len(pairs) >= 3 and all(np.ptp(pairs, axis=0) > 0)
    correlation = float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic) if varied else None
    return LoudnessControl(values, correlation, _median_error(values))


def score_pitch(samples: SamplesFolder, seed: int, show: bool = False) -> PitchControl | None:
    """Returns how well sounds follow their label "pitch", a MIDI number; None when none has one.

    Args:
        samples: the sounds with what was asked for.
        seed: of the bootstrap.
        show: a progress bar on the terminal.

    Raises:
        InputError: a label that is no number.
    """
    asked = asked_numbers(samples, PITCH)
    if not asked:
        return None
    values = _measure(samples, asked, _pitch, "pitch", show)
    errors = {file: 100 * error for file, error in values.errors().items()}
    right = {file: float(abs(errors.get(file, math.inf)) <= RIGHT_CENTS) for file in asked}
    octaves = sum(_whole_octaves(error) for error in errors.values())
    median = _median_error(values)
    return PitchControl(values, summarize(right, {}, seed), None if median is None else 100 * median, octaves)


def asked_numbers(samples: SamplesFolder, label: str) -> dict[str, float]:
    """Returns the number asked for, by file name; files whose label is absent or empty (any) are left out.

    Raises:
        InputError: a label that is no finite number.
    """
    asked = {}
    for file in samples.files:
        value = samples.labels.get(file, {}).get(label, "")
        if value == "":
            continue
        try:
            asked[file] = float(value)
        except ValueError:
            asked[file] = math.nan
        if not math.isfinite(asked[file]):
            raise InputError(f"{samples.folder / file}: {label} is {value!r}; expected a number")
    return asked


def _whole_octaves(cents: float) -> bool:
    octaves = round(cents / 1200)
    return octaves != 0 and abs(cents - 1200 * octaves) <= RIGHT_CENTS


def _median_error(values: Measured) -> float | None:
    errors = [abs(error) for error in values.errors().values()]
    return float(np.median(errors)) if errors else None


def _measure(
    samples: SamplesFolder,
    asked: Mapping[str, float],
    measure: Callable[[Path], float | str],
    name: str,
    show: bool,
) -> Measured:
    paths = [samples.files[file] for file in asked]
    results = track(in_processes(measure, paths), name, len(paths), show)
    found = dict(zip(asked, results, strict=True))
    values = {file: value for file, value in found.items() if not isinstance(value, str)}
    reasons = {file: value for file, value in found.items() if isinstance(value, str)}
    return Measured(asked, values, reasons)


def _loudness(path: Path) -> float | str:
    """Returns the loudness of a file, or why it has none."""
    try:
        return loudness_db(*io.read(path))
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")


def _pitch(path: Path) -> float | str:
    """Returns the pitch of a file, or why it has none."""
    try:
        waveform, rate = io.read(path, channels=1)
        return note_pitch(waveform[0].numpy(), rate)
    except NotMeasurable as reason:
        return str(reason)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
