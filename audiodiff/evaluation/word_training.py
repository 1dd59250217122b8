"""Teaches a judge of single words to hear where words begin and end, on real words put one after another.

Sequences of training clips are cut at the places where the recogniser would cut them. A segment that holds one word
whole keeps that word as its class, one without any part of a word is a pause, every other one a wrong cut. The judge
goes on learning with these two classes more. Its own word
error rate is measured once, on held-out orders of the test split.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from audiodiff.data.order import SegmentRequest
from audiodiff.data.segments import SegmentDataset
from audiodiff.data.sequences import ClipSequences, Sequencing
from audiodiff.errors import InputError
from audiodiff.evaluation.judge import BATCH, Judge
from audiodiff.evaluation.judge_training import CACHE_MEGABYTES, augment
from audiodiff.evaluation.word_errors import WordErrors, pooled, rate_interval, word_errors
from audiodiff.evaluation.word_recognition import (
    PAUSE,
    SHORTEST_SECONDS,
    WORD_SECONDS,
    WRONG_CUT,
    WordRecognizer,
    cut_places,
    possible_segments,
    spoken_part,
)
from audiodiff.progress import track

if TYPE_CHECKING:
    from lhotse.cut import Cut

MOST_WORDS = 6
PAUSE_SECONDS = (0.03, 0.15)  # as of the sequences that are scored
TRAINED_PAUSE_SECONDS = (0.0, 0.4)  # a model's pauses may be others
LONGEST_SEQUENCE_SECONDS = 12.0
EXAMINED = 360  # sequences

_WHOLE, _ABSENT = 0.85, 0.15  # shares of a word that count as all and as nothing of it
_MEASURED = 120  # sequences that the median duration of a word is taken from
_SEQUENCES = 8  # that the segments of an update come from


@dataclass(frozen=True)
class WordTraining:
    """How long and how fast a recogniser learns.

    Attributes:
        updates: optimizer updates.
        batch_size: segments per update.
        learning_rate: highest of the cycle.
        weight_decay: of AdamW.
    """

    updates: int = 120
    batch_size: int = BATCH
    learning_rate: float = 2e-3
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Spoken:
    """A sequence and what is said in it.

    Attributes:
        waveform: [T].
        words: in order.
        spans: first and last sample of each word.
    """

    waveform: Tensor
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


class SpokenSequences:
    """Real clips of one speaker, one after another, with the places of their words."""

    def __init__(
        self, cuts: Sequence[Cut], of: str, by: str, pauses: tuple[float, float], held_out: bool, seed: int
    ) -> None:
        """Sorts the clips.

        Args:
            cuts: mono clips of one word each, of one sample rate.
            of: label whose values are the words.
            by: label that the clips of a sequence share.
            pauses: shortest and longest pause in seconds.
            held_out: whether the orders are those that training never hears.
            seed: of what is drawn.

        Raises:
            InputError: no clips, a clip lacks a label, mixed rates, more than one channel.
        """
        if not cuts:
            raise InputError("got no cuts; run `audiodiff prepare` or name another split")
        self.sample_rate = int(cuts[0].sampling_rate)
        self._clips = SegmentDataset(cuts, self.sample_rate, 1, (of, by), CACHE_MEGABYTES)
        longest = round(LONGEST_SEQUENCE_SECONDS * self.sample_rate)
        # As many of each number of words in every MOST_WORDS sequences of a speaker; numbers go on without end.
        how = Sequencing(of, by, MOST_WORDS, pauses, 1, longest, held_out)
        self._sequences = ClipSequences(self._clips, how, lambda text: torch.empty(0), seed)

    def __getitem__(self, number: int) -> Spoken:
        """Returns a sequence by number.

        Raises:
            InputError: a clip cannot be read.
        """
        plan = self._sequences.plan(number)
        item = self._sequences[SegmentRequest(number, 0, 0, 0)]
        if item.problems:
            raise InputError(item.problems[0])
        spans, start = [], 0
        for pause, clip in zip(plan.pauses, plan.clips, strict=False):
            start += pause
            end = start + int(self._clips.lengths[clip])
            first, last = spoken_part(item.waveform[0, start:end].numpy(), self.sample_rate)
            spans.append((start + first, start + last))
            start = end
        return Spoken(item.waveform[0], plan.words, tuple(spans))

    def median_seconds(self, count: int) -> float:
        """Returns the median duration of the words of the first sequences, without silence around them."""
        spans = [span for number in range(count) for span in self[number].spans]
        return float(np.median([(end - start) / self.sample_rate for start, end in spans]))


def train_recognizer(
    judge: Judge, train: Sequence[Cut], by: str, options: WordTraining, show: bool = False
) -> WordRecognizer:
    """Returns a recogniser of sequences of the words of a judge; the same arguments give the same one.

    Args:
        judge: of single words; stays as it is.
        train: clips to learn from.
        by: label that the clips of a sequence share, for example "speaker".
        options: length and speed.
        show: a progress bar on the terminal.

    Raises:
        InputError: clips without these labels or at another rate than the judge's; a judge that is one already.
    """
    heard = SpokenSequences(
        train, judge.label, by, TRAINED_PAUSE_SECONDS, False, int(judge.facts.get("seed", 0))
    )
    if heard.sample_rate != judge.sample_rate:
        raise InputError(f"the judge hears {judge.sample_rate} Hz, the clips have {heard.sample_rate} Hz")
    seed = int(judge.facts.get("seed", 0))
    began = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        taught = extended(judge)
        optimizer = torch.optim.AdamW(taught.parameters(), weight_decay=options.weight_decay)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, options.updates)
        generator = torch.Generator().manual_seed(seed)
        batches = _batches(heard, taught.names, options, seed)
        for waveform, lengths, classes in track(batches, "recognizer", options.updates, show):
            scores = taught.train()(*augment(waveform, lengths, taught.sample_rate, generator))
            loss = nn.functional.cross_entropy(scores, classes, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
    taught.eval()
    taught.facts = {**judge.facts, "words": {**asdict(options), "by": by}}
    taught.facts["words"]["train_seconds"] = round(time.monotonic() - began, 1)
    taught.facts[WORD_SECONDS] = heard.median_seconds(_MEASURED)
    return WordRecognizer(taught)


def extended(judge: Judge) -> Judge:
    """Returns a copy of a judge of words with the classes PAUSE and WRONG_CUT besides, not trained yet.

    Raises:
        InputError: it has these classes already.
    """
    if PAUSE in judge.names or WRONG_CUT in judge.names:
        raise InputError(
            f"the judge of {judge.label} is a recogniser already; give the judge that it was made from"
        )
    taught = Judge(judge.label, (*judge.names, PAUSE, WRONG_CUT), copy.deepcopy(judge.log_mel))
    known = {name: value for name, value in judge.state_dict().items() if not name.startswith("classify")}
    taught.load_state_dict(known, strict=False)
    with torch.no_grad():
        taught.classify.weight[: len(judge.names)] = judge.classify.weight
        taught.classify.bias[: len(judge.names)] = judge.classify.bias
    return taught


def examine_recognizer(
    recognizer: WordRecognizer, cuts: Sequence[Cut], by: str, count: int = EXAMINED, show: bool = False
) -> WordErrors:
    """Returns the errors on real sequences in orders that training never heard, and adds them to the judge's facts.

    Args:
        recognizer: trained.
        cuts: the test split.
        by: label that the clips of a sequence share.
        count: sequences.
        show: a progress bar on the terminal.

    Raises:
        InputError: see `SpokenSequences`.
    """
    judge = recognizer.judge
    sequences = SpokenSequences(cuts, judge.label, by, PAUSE_SECONDS, True, int(judge.facts.get("seed", 0)))
    spoken = [sequences[number] for number in range(count)]
    heard = recognizer.recognize([each.waveform for each in spoken], show)
    errors = [word_errors(each.words, other.words) for each, other in zip(spoken, heard, strict=True)]
    total = pooled(errors)
    judge.facts |= {
        "test_sequences": count,
        "test_words": total.words,
        "test_word_errors": {
            "substitutions": total.substitutions,
            "deletions": total.deletions,
            "insertions": total.insertions,
        },
        "test_texts_right": sum(each.total == 0 for each in errors) / count,
        "test_word_error_rate": total.rate,
        "test_word_error_rate_interval_95": rate_interval(errors, 0),
    }
    return total


def labelled_segments(spoken: Spoken, sample_rate: int) -> list[tuple[int, int, str]]:
    """Returns start, end and class of all segments that a recogniser would hear of a sequence, and of its pauses."""
    places = cut_places(spoken.waveform.numpy(), sample_rate)
    spans = [(int(places[i]), int(places[j])) for i, j in possible_segments(places, sample_rate)]
    ends = [0, *(place for span in spoken.spans for place in span), spoken.waveform.shape[0]]
    pauses = [
        (a, b) for a, b in zip(ends[::2], ends[1::2], strict=True) if b - a >= SHORTEST_SECONDS * sample_rate
    ]
    return [(start, end, _class(spoken, start, end)) for start, end in [*spans, *pauses]]


def _class(spoken: Spoken, start: int, end: int) -> str:
    """Returns the word that a segment holds whole and alone, PAUSE where it holds none, or WRONG_CUT."""
    shares = [max(0, min(end, b) - max(start, a)) / max(b - a, 1) for a, b in spoken.spans]
    whole = [word for word, share in zip(spoken.words, shares, strict=True) if share >= _WHOLE]
    absent = sum(share <= _ABSENT for share in shares)
    if absent == len(shares):
        return PAUSE
    return whole[0] if len(whole) == 1 and absent == len(shares) - 1 else WRONG_CUT


def _batches(
    sequences: SpokenSequences, names: Sequence[str], options: WordTraining, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields waveform [B, T], lengths [B] and classes [B] of segments, one half of them words."""
    rate = sequences.sample_rate
    for update in range(options.updates):
        generator = np.random.default_rng([seed, update])
        words: list[tuple[Tensor, int]] = []
        others: list[tuple[Tensor, int]] = []
        for number in range(update * _SEQUENCES, (update + 1) * _SEQUENCES):
            spoken = sequences[number]
            for start, end, name in labelled_segments(spoken, rate):
                group = others if name in (PAUSE, WRONG_CUT) else words
                group.append((spoken.waveform[start:end], names.index(name)))
        half = options.batch_size // 2
        chosen = [
            group[int(n)] for group in (words, others) for n in generator.permutation(len(group))[:half]
        ]
        lengths = torch.tensor([piece.shape[0] for piece, _ in chosen])
        waveform = nn.utils.rnn.pad_sequence([piece for piece, _ in chosen], batch_first=True)
        yield waveform, lengths, torch.tensor([number for _, number in chosen])
