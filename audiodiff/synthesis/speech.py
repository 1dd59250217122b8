"""What is spoken and how: a text in the sentences that a model can say, a manner of speaking, a spoken text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from torch import Tensor

from audiodiff.errors import InputError
from audiodiff.text.characters import Changes, counted
from audiodiff.text.front_end import Reading, TextFrontEnd
from audiodiff.text.sentences import sentences

SPEEDS = (0.1, 10.0)


@dataclass(frozen=True)
class Phrasing:
    """How a long text is divided.

    Attributes:
        longest: most characters that are spoken at once; a longer sentence is cut at a clause.
        pause_seconds: of silence between two sentences, rounded to whole hops.
        batch: sentences diffused together; changes speed and memory, not the audio beyond float rounding.
    """

    longest: int = 300
    pause_seconds: float = 0.2
    batch: int = 8

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: nothing at a time, or a pause that is negative or not finite.
        """
        if self.longest < 1 or self.batch < 1 or not 0 <= self.pause_seconds < math.inf:
            raise InputError(
                f"phrasing: got {self.longest} characters, {self.batch} sentences, pauses of {self.pause_seconds} s; "
                "expected at least 1, at least 1, and 0 s or more"
            )


@dataclass(frozen=True)
class Manner:
    """How a text is spoken.

    Attributes:
        seed: of the noise; the same seed gives the same audio.
        speaker: value of the model's label "speaker"; None for any.
        speed: how many times as fast as the model's own.
        temperature: divides the noise that sampling starts from; None for the model's own.
    """

    seed: int = 0
    speaker: str | None = None
    speed: float = 1.0
    temperature: float | None = None

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: a seed or speed out of range.
        """
        if not SPEEDS[0] <= self.speed <= SPEEDS[1]:
            raise InputError(
                f"speed: got {self.speed}, expected {SPEEDS[0]} to {SPEEDS[1]}, 1 for the model's own"
            )
        if not 0 <= self.seed < 2**64:
            raise InputError(f"seed: got {self.seed}, expected a whole number from 0 to 2^64 - 1")


@dataclass(frozen=True)
class Sentence:
    """One sentence as it was spoken.

    Attributes:
        text: as it was written.
        reading: what the front end made of it.
        durations: [L], frames of each token.
        mel: [n_mels, F], in the model's own convention; None where the model makes audio without one.
        waveform: [T].
    """

    text: str
    reading: Reading
    durations: Tensor
    mel: Tensor | None
    waveform: Tensor


@dataclass(frozen=True)
class Speech:
    """A spoken text.

    Attributes:
        waveform: [T], the sentences with pauses between.
        sample_rate: hertz.
        sentences: what was spoken.
        unsaid: parts of the text of which the model can say nothing, such as a line of emoji.
    """

    waveform: Tensor
    sample_rate: int
    sentences: tuple[Sentence, ...]
    unsaid: tuple[str, ...]

    @property
    def changes(self) -> Changes:
        """Characters that were replaced or left out, over all sentences."""
        return reduce(add, (sentence.reading.changes for sentence in self.sentences))

    @property
    def left_out(self) -> str:
        """What of the text cannot be heard, in words; empty when everything can."""
        return left_out(self.changes, self.unsaid)


@dataclass(frozen=True)
class Part:
    """One sentence of a text that is to be spoken: its place there, as written, as read."""

    item: int
    text: str
    reading: Reading


def read_sentences(front_end: TextFrontEnd, text: str, longest: int) -> tuple[list[Part], tuple[str, ...]]:
    """Returns the sentences of a text that can be said, and those of which nothing can.

    Args:
        front_end: how the text is read.
        text: as it is written.
        longest: most characters of a sentence.

    Raises:
        InputError: text that is refused as a whole, or none of whose sentences can be said.
    """
    written = sentences(text, longest)
    try:
        readings: list[Reading | None] = [*front_end.read_many(written)]
    except InputError:
        readings = [_said(front_end, sentence) for sentence in written]
        if not any(readings):
            raise
    pairs = list(zip(written, readings, strict=True))
    said = [(sentence, reading) for sentence, reading in pairs if reading is not None]
    parts = [Part(item, sentence, reading) for item, (sentence, reading) in enumerate(said)]
    return parts, tuple(sentence for sentence, reading in pairs if reading is None)


def left_out(changes: Changes, unsaid: Sequence[str]) -> str:
    """Returns what of a text cannot be heard, in words; empty when everything can."""
    parts = [counted(changes.dropped)] if changes.dropped else []
    parts += [f"{part[:40]!r}, of which this model can say nothing" for part in unsaid]
    return "; ".join(parts)


def _said(front_end: TextFrontEnd, sentence: str) -> Reading | None:
    try:
        return front_end.read(sentence)
    except InputError:
        return None
