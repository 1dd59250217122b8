"""Clips with their texts: those that can be spoken and learnt from, each with the tokens of what is said in it.

A text is learnt from the whole recording of it, so that a clip is taken whole or not at all. Left out are clips without
a text, with one that the model's front-end cannot read, longer than the longest that training takes, and with more
tokens than frames, of which no alignment gives every token its own. All texts are read once, before training begins.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from audiodiff.data.entries import Entry, Summary
from audiodiff.data.order import Shards
from audiodiff.data.segments import Clips
from audiodiff.errors import InputError
from audiodiff.interval import label_values

ReadTexts = Callable[[Sequence[str]], Sequence[Sequence[int] | None]]
"""Texts -> the tokens of each, or None for one that cannot be read."""

NO_TEXT, UNREADABLE, TOO_LONG, TOO_DENSE = (
    "without a text",
    "with a text that cannot be read",
    "longer than data.segment_seconds",
    "with more tokens than frames",
)


@dataclass(frozen=True)
class Limits:
    """What a clip may be.

    Attributes:
        samples: longest clip.
        frames: samples -> frames, which have to be as many as there are tokens.
        labels: values that the model knows, by label name; another one is taken for any.
    """

    samples: int
    frames: Callable[[int], int]
    labels: Mapping[str, Sequence[str] | Mapping[str, float]]


class TranscribedClips:
    """Some of the clips of a corpus, whole, with tokens.

    Attributes:
        left_out: how many clips of the corpus are not here, by reason.
        other_labels: how many have a label value that the model does not know, by label name.
    """

    def __init__(self, clips: Clips, read: ReadTexts, limits: Limits) -> None:
        """Reads all texts.

        Args:
            clips: of a corpus.
            read: the model's front-end.
            limits: what a clip may be.

        Raises:
            InputError: no clip is left.
        """
        self._clips = clips
        self._known = {name: label_values(name, values) for name, values in limits.labels.items()}
        self.left_out: Counter[str] = Counter()
        self.other_labels: Counter[str] = Counter()
        numbers, tokens = self._chosen(read, limits)
        if not numbers:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            raise InputError(
                f"text: none of {len(clips)} clips can be learnt from ({reasons}); raise data.segment_seconds, or "
                "prepare a corpus with transcripts"
            )
        self._numbers = np.array(numbers, dtype=np.int64)
        # One array of all, not one object a clip: worker processes share it.
        self._ends = np.cumsum([0, *map(len, tokens)])
        self._tokens = np.concatenate([np.asarray(each, dtype=np.int16) for each in tokens])
        self.lengths = np.asarray(clips.lengths)[self._numbers]
        self.summary = Summary.of(self.entry(number) for number in range(len(self)))
        self.shards = None if clips.shards is None else _of_some(clips.shards, self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def tokens(self, number: int) -> Tensor:
        """Returns the tokens [L] int64 of one clip."""
        return torch.from_numpy(self._tokens[self._ends[number] : self._ends[number + 1]].astype(np.int64))

    def entry(self, number: int) -> Entry:
        """Returns where one clip lies and what its labels are, "" for a value that the model does not know."""
        return self._with_known_labels(self._clips.entry(int(self._numbers[number])))

    def content(self, number: int) -> bytes | None:
        """Returns the audio file of one clip where it lies in a shard."""
        return self._clips.content(int(self._numbers[number]))

    def fetch_ahead(self, clips: np.ndarray) -> None:
        """Begins to fetch what lies on a server."""
        self._clips.fetch_ahead(self._numbers[clips])

    def describe(self) -> str | None:
        """Returns what is left out and what is told as any, in one line; None where that is nothing."""
        parts = [f"{count} {reason}" for reason, count in sorted(self.left_out.items())]
        said = [f"{sum(self.left_out.values())} of {len(self._clips)} clips left out: {', '.join(parts)}"]
        said = said if parts else []
        said += [
            f"clips with another {name} than the model knows, taken for any: {count}"
            for name, count in sorted(self.other_labels.items())
        ]
        return "; ".join(said) or None

    def _chosen(self, read: ReadTexts, limits: Limits) -> tuple[array[int], list[Sequence[int]]]:
        """Returns the clips that can be learnt from and their tokens."""
        texts, asked = [], array("q")
        for number in range(len(self._clips)):
            length = int(self._clips.lengths[number])
            text = self._clips.entry(number).labels.get("text", "")
            if length > limits.samples:
                self.left_out[TOO_LONG] += 1
            elif not text.strip():
                self.left_out[NO_TEXT] += 1
            else:
                texts.append(text)
                asked.append(number)
        numbers, tokens = array("q"), []
        for number, ids in zip(asked, read(texts), strict=True):
            if ids is None:
                self.left_out[UNREADABLE] += 1
            elif len(ids) > limits.frames(int(self._clips.lengths[number])):
                self.left_out[TOO_DENSE] += 1
            else:
                self._count_other_labels(self._clips.entry(number))
                numbers.append(number)
                tokens.append(ids)
        return numbers, tokens

    def _count_other_labels(self, entry: Entry) -> None:
        for name, known in self._known.items():
            self.other_labels[name] += name in entry.labels and entry.labels[name] not in known
        self.other_labels = +self.other_labels

    def _with_known_labels(self, entry: Entry) -> Entry:
        other = {
            name: ""
            for name, known in self._known.items()
            if name in entry.labels and entry.labels[name] not in known
        }
        return replace(entry, labels={**entry.labels, **other}) if other else entry


def _of_some(shards: Shards, numbers: np.ndarray) -> Shards:
    """Returns how some clips, in order, lie in the shards of all; shards without any are left out."""
    starts = np.searchsorted(numbers, shards.starts)
    return replace(shards, starts=np.unique(starts))
