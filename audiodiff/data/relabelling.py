"""Augmentations after which a label is another: what is played softer or higher has another loudness or pitch.

Called as the others of `audiodiff.data.augmentation` are; `with_labels` returns the labels as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from audiodiff.data.augmenting import Relabelling, check_range, kept_within, numeric_label, played
from audiodiff.errors import InputError


@dataclass(frozen=True)
class LabelledGain(Relabelling):
    """Louder or softer, by decibels drawn uniformly, and the label that says how loud moves as far.

    Models of loudness learn from it every level between the bounds, also those at which nothing was recorded. A clip
    without the label changes its level all the same.

    Attributes:
        lowest_db: -6 halves the amplitude.
        highest_db: less where the peak would exceed 1, which the label says.
        label: name of the label, a number in dB.
        lowest_level: no label is moved below it, dB.
        highest_level: none is moved above it, dB.

    Raises:
        InputError: bounds that are not in order, or beyond -100..100 dB.
    """

    lowest_db: float = -12.0
    highest_db: float = 12.0
    label: str = "loudness"
    lowest_level: float = -60.0
    highest_level: float = 0.0

    def __post_init__(self) -> None:
        check_range("LabelledGain: decibels", self.lowest_db, self.highest_db, -100, 100)
        check_range("LabelledGain: levels", self.lowest_level, self.highest_level, -200, 100)

    def with_labels(
        self, waveform: Tensor, labels: Mapping[str, str], generator: np.random.Generator
    ) -> tuple[Tensor, Mapping[str, str]]:
        """Returns [C, T] and the labels with the new level.

        Raises:
            InputError: the label is no number.
        """
        gain = float(generator.uniform(self.lowest_db, self.highest_db))
        level = numeric_label("LabelledGain", labels, self.label)
        if level is not None:
            gain = kept_within(gain, level, self.lowest_level, self.highest_level)
        peak = float(waveform.abs().max())
        if peak > 0:
            gain = min(gain, max(0.0, -20 * math.log10(peak)))
        louder = waveform * 10 ** (gain / 20)
        return louder, labels if level is None else {**labels, self.label: f"{level + gain:.2f}"}


@dataclass(frozen=True)
class Transpose(Relabelling):
    """Played faster or slower, by semitones drawn uniformly, and the pitch that is its label moved along.

    Where the corpus has every third note, one and a half semitones up and down fill the gaps. Segments without that
    label are transposed all the same. With whole steps and the pitches that were recorded it does what a sampler does:
    every key sounds as the nearest recorded note, and as no other.

    Attributes:
        lowest_semitones: -12 or more; -12 halves the frequencies.
        highest_semitones: 12 or less. The factor of speed is rounded to a thousandth, and the label says what it is.
        label: name of the label, a number in semitones such as a MIDI number.
        lowest_pitch: no label is moved below it.
        highest_pitch: none is moved above it.
        step_semitones: 0 draws any distance between the bounds; 1 the lowest and whole semitones above it, so that of
            a keyboard's notes come its other keys and nothing between them. The label moves by whole steps too, which
            the rounded factor misses by a cent at most.
        recorded: pitches of the corpus. A segment moves to no pitch to which another of them is nearer, nor to one as
            near to a lower one; none of them for no such limit.

    Raises:
        InputError: bounds that are not in order, semitones beyond an octave, or recorded pitches without steps.
    """

    lowest_semitones: float = -1.5
    highest_semitones: float = 1.5
    label: str = "pitch"
    lowest_pitch: float = 0.0
    highest_pitch: float = 127.0
    step_semitones: float = 0.0
    recorded: Sequence[float] = ()

    def __post_init__(self) -> None:
        check_range("Transpose: semitones", self.lowest_semitones, self.highest_semitones, -12, 12)
        if not 0 <= self.step_semitones <= 24:
            raise InputError(f"Transpose: step_semitones: got {self.step_semitones}, expected 0 to 24")
        check_range("Transpose: pitches", self.lowest_pitch, self.highest_pitch, -1000, 1000)
        if self.recorded and self.step_semitones == 0:
            raise InputError("Transpose: recorded: belongs to step_semitones above 0, got 0")

    def with_labels(
        self, waveform: Tensor, labels: Mapping[str, str], generator: np.random.Generator
    ) -> tuple[Tensor, Mapping[str, str]]:
        """Returns [C, round(T / factor)], halves rounded up, and the labels with the new pitch.

        Raises:
            InputError: the label is no number, or lies outside of its bounds.
        """
        pitch = numeric_label("Transpose", labels, self.label, self.lowest_pitch, self.highest_pitch)
        semitones = self._any(generator, pitch) if self.step_semitones == 0 else self._step(generator, pitch)
        transposed, speed = played(waveform, 2 ** (semitones / 12))
        if pitch is None:
            return transposed, labels
        moved = pitch + (semitones if self.step_semitones else 12 * math.log2(speed))
        # Rounding may pass a bound by a hundredth of a semitone.
        moved = min(max(moved, self.lowest_pitch), self.highest_pitch)
        return transposed, {**labels, self.label: f"{round(moved, 3):g}"}

    def _any(self, generator: np.random.Generator, pitch: float | None) -> float:
        drawn = float(generator.uniform(self.lowest_semitones, self.highest_semitones))
        return drawn if pitch is None else kept_within(drawn, pitch, self.lowest_pitch, self.highest_pitch)

    def _step(self, generator: np.random.Generator, pitch: float | None) -> float:
        count = math.floor((self.highest_semitones - self.lowest_semitones) / self.step_semitones + 1e-9) + 1
        steps = [self.lowest_semitones + self.step_semitones * number for number in range(count)]
        if pitch is not None:
            steps = [step for step in steps if self._belongs(pitch, pitch + step)] or [0.0]
        return steps[int(generator.integers(len(steps)))]

    def _belongs(self, pitch: float, moved: float) -> bool:
        """Returns whether a pitch is the one to be moved to another."""
        if not self.lowest_pitch <= moved <= self.highest_pitch:
            return False
        distances = [(abs(each - moved), each) for each in self.recorded]
        return not distances or min(distances) >= (abs(pitch - moved), pitch)
