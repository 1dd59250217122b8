"""A gain whose label follows: what is played softer has another loudness."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from audiodiff.data.augmenting import check_range, kept_within, numeric_label


@dataclass(frozen=True)
class LabelledGain:
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

    def __call__(self, waveform: Tensor, generator: np.random.Generator) -> Tensor:
        """Returns [C, T]."""
        return self.with_labels(waveform, {}, generator)[0]

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
