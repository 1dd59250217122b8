"""Which generated sounds are kept: those that a judge recognises, and that lie as far from training clips as real ones.

    silent         a peak below -80 dB of full scale
    other class    the judge hears another class than was asked for
    unsure         the class that was asked for, with less than the wanted probability
    too near       nearer to a training clip than a percentile of the training clips are to one another: memorised
    too far        farther than a high percentile of them: odd

Distances are those of the judge's features, without a judge of mean and deviation of a log-mel. The percentiles come
from training clips alone, each to its nearest other one, so that no test clip has a say in what is trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.evaluation.distributions.neighbours import nearest_distances
from audiodiff.evaluation.features import Features, describe_split, judge_features, mel_features
from audiodiff.evaluation.judge import Judge

REASONS = ("silent", "other class", "unsure", "too near", "too far")


@dataclass(frozen=True)
class FilterChoice:
    """What is asked of the filters.

    Attributes:
        judge: its folder; None: nothing is recognised.
        confidence: least probability of the class that was asked for, 0 to 1.
        nearest: lower and upper percentile of the distances between training clips; 0 and 100 allow any.
    """

    judge: Path | None = None
    confidence: float = 0.8
    nearest: tuple[float, float] = (1.0, 99.0)

    def __post_init__(self) -> None:
        if not 0 <= self.confidence <= 1:
            raise InputError(f"--confidence: got {self.confidence}, expected a probability, 0 to 1")
        low, high = self.nearest
        if not 0 <= low < high <= 100:
            raise InputError(f"--nearest: got {low} {high}, expected two percentiles in this order, 0 to 100")


@dataclass(frozen=True)
class Verdict:
    """What the filters say of one sound.

    Attributes:
        reason: one of REASONS; "" for a sound that is kept.
        recognised: class that the judge hears; None without a judge, or for silence.
        confidence: probability of the class that was asked for; None likewise.
        distance: to the nearest training clip; None for silence.
        nearest: id of that clip.
    """

    reason: str
    recognised: str | None = None
    confidence: float | None = None
    distance: float | None = None
    nearest: str | None = None


class Filters:
    """The filters, with what they need to know of the corpus.

    Attributes:
        judge: recognises; None without.
        features: in which distances are measured.
        low: smallest distance allowed.
        high: largest.
    """

    def __init__(
        self, choice: FilterChoice, data: Path, real: Iterable[str], sample_rate: int, label: str | None
    ) -> None:
        """Describes the training clips and takes the percentiles.

        Args:
            choice: what is asked.
            data: prepared folder.
            real: ids of the training clips that are not generated.
            sample_rate: of the sounds, Hz.
            label: the class; None where there is none.

        Raises:
            InputError: no judge there, or one of another label; less than two training clips.
        """
        self.choice, self._rate = choice, sample_rate
        self.judge = None if choice.judge is None else Judge.load(choice.judge)
        if self.judge is not None and self.judge.label != label:
            raise InputError(
                f"--judge {choice.judge}: recognises {self.judge.label!r}, the class that is made is {label!r}; "
                f"name that one first with --each, or train a judge with `audiodiff judge DATA --label {label}`"
            )
        self.features = _features(self.judge, choice.judge, sample_rate)
        ids = set(real)
        described = describe_split(self.features, data, "train", label or "", show=True)
        rows = np.array([number for number, name in enumerate(described.names) if name in ids], dtype=int)
        if len(rows) < 2:
            raise InputError(f"{data}: {len(rows)} real training clips; neighbours need at least two")
        self._train, self._names = described.features[rows], [described.names[row] for row in rows]
        distances, _ = nearest_distances(self._train, self._train, themselves=True)
        low, high = choice.nearest
        self.low = float(np.percentile(distances, low)) if low > 0 else 0.0
        self.high = float(np.percentile(distances, high)) if high < 100 else float("inf")

    def check_classes(self, values: Iterable[str]) -> None:
        """Refuses classes that the judge does not know.

        Raises:
            InputError: naming them.
        """
        unknown = sorted(set(values) - set(self.judge.names)) if self.judge is not None else []
        if unknown:
            raise InputError(
                f"--judge {self.choice.judge}: does not know {', '.join(unknown)}; train it on this corpus"
            )

    def __call__(self, waveforms: Sequence[Tensor], classes: Sequence[str]) -> list[Verdict]:
        """Returns the verdict on each sound [C, T] that was asked to be of a class."""
        loud = [number for number, each in enumerate(waveforms) if float(each.abs().max()) >= io.SILENCE_PEAK]
        verdicts = [Verdict("silent")] * len(waveforms)
        if not loud:
            return verdicts
        mono = [
            io.resample(waveforms[number].mean(0, keepdim=True), self._rate, self.features.sample_rate)[0]
            for number in loud
        ]
        described, probabilities = self.features.describe(mono)
        distances, nearest = nearest_distances(described.double().numpy(), self._train)
        for row, number in enumerate(loud):
            distance, neighbour = float(distances[row]), self._names[int(nearest[row])]
            if self.judge is None or probabilities is None:
                verdicts[number] = Verdict(self._place(distance), None, None, distance, neighbour)
                continue
            asked = float(probabilities[row, self.judge.names.index(classes[number])])
            heard = self.judge.names[int(probabilities[row].argmax())]
            reason = "other class" if heard != classes[number] else ""
            reason = reason or ("unsure" if asked < self.choice.confidence else self._place(distance))
            verdicts[number] = Verdict(reason, heard, asked, distance, neighbour)
        return verdicts

    def describe(self) -> dict[str, Any]:
        """Returns what the filters are, for the record."""
        return {
            "judge": None if self.choice.judge is None else str(self.choice.judge),
            "confidence": None if self.judge is None else self.choice.confidence,
            "features": f"{self.features.name} {self.features.digest}",
            "nearest_percentiles": list(self.choice.nearest),
            "nearest_distances": [self.low, None if np.isinf(self.high) else self.high],
        }

    def _place(self, distance: float) -> str:
        """Returns what is wrong with a distance, "" for nothing."""
        if distance < self.low:
            return "too near"
        return "too far" if distance > self.high else ""


def _features(judge: Judge | None, folder: Path | None, sample_rate: int) -> Features:
    if judge is None or folder is None:
        return mel_features(sample_rate)
    return judge_features(judge, folder)
