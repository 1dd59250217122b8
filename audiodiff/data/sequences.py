"""Sequences: several clips of one speaker, one after another with short pauses, and the text that they make.

From recordings of single words ("three") come texts of several ("three one four"). Nothing is written: which sequence
stands where depends on (seed, epoch, number) alone. Every tenth order of two words or more, by a hash of speaker and
words, is held out: training never puts it together, the other splits put together nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from audiodiff.data.collate import Item
from audiodiff.data.entries import check_label
from audiodiff.data.order import SEQUENCE, SegmentRequest
from audiodiff.data.segments import Clips, SegmentDataset
from audiodiff.errors import InputError

HELD_OUT_SHARE = 0.1
_ATTEMPTS = 1000
_BLOCK_SECONDS = 0.01  # in which the level of a pause is looked for


@dataclass(frozen=True)
class Sequencing:
    """How sequences are put together.

    Attributes:
        of: label whose values are the words.
        by: label that all clips of a sequence share.
        most: words of the longest sequences; there are as many of each number from 1 on.
        pause_seconds: shortest and longest pause, before, between and after the clips.
        per_epoch: sequences of one epoch.
        longest: samples; a sequence that would last longer is drawn again.
        held_out: whether the orders are those that are held out, or the others.
    """

    of: str
    by: str
    most: int
    pause_seconds: tuple[float, float]
    per_epoch: int
    longest: int
    held_out: bool

    def __post_init__(self) -> None:
        """Checks what a user may have written.

        Raises:
            InputError: nothing to put together, or pauses that are none.
        """
        low, high = self.pause_seconds
        if self.most < 1 or self.per_epoch < 1 or not 0 <= low <= high:
            raise InputError(
                f"data.sequences: got most {self.most}, per_epoch {self.per_epoch}, pause_seconds [{low}, {high}]; "
                "expected at least one of both, and pauses of 0 <= shortest <= longest"
            )

    @classmethod
    def of_recipe(cls, data: Mapping[str, Any], held_out: bool) -> Sequencing:
        """Returns what a recipe's data node asks for.

        Raises:
            InputError: as above.
        """
        node = data["sequences"]
        low, high = node["pause_seconds"]
        longest = round(data["segment_seconds"] * data["sample_rate"])
        return cls(node["of"], node["by"], node["most"], (low, high), node["per_epoch"], longest, held_out)


@dataclass(frozen=True)
class Plan:
    """A sequence before its audio is read.

    Attributes:
        shared: value of the label that all its clips share.
        words: values of the other label, in order.
        clips: their numbers.
        pauses: samples before each clip and after the last.
    """

    shared: str
    words: tuple[str, ...]
    clips: tuple[int, ...]
    pauses: tuple[int, ...]

    @property
    def text(self) -> str:
        """What is said."""
        return " ".join(self.words)


class ClipSequences(Dataset[Item]):
    """Sequences of clips, by number; of one number and epoch it is always the same.

    Attributes:
        lengths: samples that each sequence is counted as, int64: by its words; none is longer than the longest.
        shards: None; any clip may be in any sequence.
    """

    shards = None

    def __init__(
        self, dataset: SegmentDataset, how: Sequencing, tokens: Callable[[str], Tensor], seed: int
    ) -> None:
        """Sorts the clips.

        Args:
            dataset: single clips with both labels, none of them augmented in its length.
            how: sequences are made.
            tokens: text -> [L] int64.
            seed: of what is drawn.

        Raises:
            InputError: a clip lacks a label.
        """
        self.dataset = dataset
        self.how = how
        self.seed = seed
        self._tokens = tokens
        self._pools = _pools(dataset.clips, how)
        self._shared = sorted(self._pools)
        words = 1 + np.arange(how.per_epoch) // len(self._shared) % how.most
        self.lengths = np.maximum(how.longest * words // how.most, 1).astype(np.int64)

    @property
    def clips(self) -> Clips:
        """The clips that sequences are made of."""
        return self.dataset.clips

    def __len__(self) -> int:
        return self.how.per_epoch

    def plan(self, number: int, epoch: int = 0) -> Plan:
        """Returns what one sequence is made of.

        Raises:
            InputError: there is hardly any such sequence: too short a limit, or too few words to hold any out.
        """
        how = self.how
        shared = self._shared[number % len(self._shared)]
        count = 1 + number // len(self._shared) % how.most
        generator = np.random.default_rng([self.seed, SEQUENCE, how.held_out, epoch, number])
        for _ in range(_ATTEMPTS):
            plan = self._draw(shared, count, generator)
            allowed = count == 1 or is_held_out(shared, plan.words) == how.held_out
            samples = sum(plan.pauses) + int(self.clips.lengths[list(plan.clips)].sum())
            if allowed and samples <= how.longest:
                return plan
        raise InputError(
            f"data.sequences: found none of {count} clips of {how.by} {shared} within {how.longest} samples; raise "
            "data.segment_seconds or lower data.sequences.most"
        )

    def __getitem__(self, request: SegmentRequest) -> Item:
        """Returns a sequence; a request names its number and epoch, start and length of it are not read.

        Raises:
            InputError: see `plan`; or clips cannot be read.
        """
        plan = self.plan(request.index, request.epoch)
        items = [
            self.dataset[SegmentRequest(clip, 0, int(self.clips.lengths[clip]), request.epoch)]
            for clip in plan.clips
        ]
        generator = np.random.default_rng([self.seed, SEQUENCE, 2, request.epoch, request.index])
        waveform = _joined(items, plan.pauses, self.dataset.sample_rate, generator)
        # A clip that stands in for an unreadable one says its own word.
        text = " ".join(item.labels[self.how.of] for item in items)
        return Item(
            waveform,
            waveform.shape[-1],
            {self.how.by: plan.shared},
            f"{plan.shared}-{'-'.join(plan.words)}",
            self._tokens(text),
            tuple(problem for item in items for problem in item.problems),
        )

    def _draw(self, shared: str, count: int, generator: np.random.Generator) -> Plan:
        pools = self._pools[shared]
        known = sorted(pools)
        words = tuple(known[int(place)] for place in generator.integers(len(known), size=count))
        clips = tuple(pools[word][int(generator.integers(len(pools[word])))] for word in words)
        seconds = generator.uniform(*self.how.pause_seconds, size=count + 1)
        pauses = tuple(round(float(each) * self.dataset.sample_rate) for each in seconds)
        return Plan(shared, words, clips, pauses)


def is_held_out(shared: str, words: Sequence[str]) -> bool:
    """Returns whether training never puts these words together in this order for this speaker."""
    digest = hashlib.sha256(" ".join([shared, *words]).encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def _pools(clips: Clips, how: Sequencing) -> dict[str, dict[str, list[int]]]:
    """Returns the numbers of all clips by shared label and word."""
    pools: dict[str, dict[str, list[int]]] = {}
    for number in range(len(clips)):
        entry = clips.entry(number)
        of_shared = pools.setdefault(check_label(entry, how.by), {})
        of_shared.setdefault(check_label(entry, how.of), []).append(number)
    return pools


def _joined(
    items: Sequence[Item], pauses: Sequence[int], sample_rate: int, generator: np.random.Generator
) -> Tensor:
    """Returns the clips with pauses before, between and after them, at the level of the quietest clip's quietest part.

    Digital silence is heard nowhere else in a recording, and would be most of what a log-mel tells.
    """
    block = max(1, round(_BLOCK_SECONDS * sample_rate))
    level = min(_quietest(item.waveform, block) for item in items)
    channels = items[0].waveform.shape[0]
    parts = []
    for pause, item in zip(pauses, [*items, None], strict=True):
        noise = generator.standard_normal((channels, pause), dtype=np.float32)
        parts.append(torch.from_numpy(noise) * level)
        if item is not None:
            parts.append(item.waveform)
    return torch.cat(parts, 1)


def _quietest(waveform: Tensor, block: int) -> float:
    """Returns the smallest root mean square of a block of samples."""
    blocks = waveform.unfold(1, min(block, waveform.shape[1]), min(block, waveform.shape[1]))
    return float(blocks.square().mean((0, 2)).min().sqrt())
