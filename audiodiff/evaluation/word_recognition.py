"""Which words a waveform says, one after another with short pauses, without being told how many.

The waveform may be cut at the minima of its level. A judge that also knows pauses and wrong cuts hears every segment
between two cuts, and the cutting a_0 < ... < a_K is taken that maximises

    sum_k log p(class_k | segment k) + [class_k is a word] (bonus - (log(seconds_k / median))^2 / (2 deviation^2)),

class_k a word or a pause, exactly, by dynamic programming over the cuts (semi-Markov decoding: Ostendorf, Digalakis &
Kimball 1996). A segment that holds half a word or two is improbable as either; its duration counts little (twice the
median costs a third of a nat), since what is judged may be spoken slower or faster. Bonus and deviation were chosen on
sequences of Free Spoken Digit Dataset's dev split; the median is that of the training clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.signal import find_peaks
from torch import Tensor

from audiodiff.errors import InputError
from audiodiff.evaluation.judge import BATCH, Judge
from audiodiff.evaluation.signals import FLOOR_POWER
from audiodiff.progress import track

PAUSE, WRONG_CUT = "(pause)", "(wrong cut)"  # classes of a judge that are no words
SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 1.4  # of a segment, with pauses around the word
BONUS, DEVIATION = 1.1, 0.85  # see above
WORD_SECONDS = "word_seconds"  # median among the facts of a judge

_WINDOW_SECONDS, _HOP_SECONDS = 0.03, 0.01  # of the level
_DEPTH_DB = 3.0  # how far the level has to rise on both sides of a cut
_APART_SECONDS = 0.05
_QUIETER_DB = 35.0  # than its loudest part is where a word has not begun, or has ended


@dataclass(frozen=True)
class Recognition:
    """What is heard in one waveform.

    Attributes:
        words: in order.
        segments: start and end of each word in samples.
        probabilities: of each word, given its segment.
    """

    words: tuple[str, ...]
    segments: tuple[tuple[int, int], ...]
    probabilities: tuple[float, ...]

    @property
    def text(self) -> str:
        """The words, one space between."""
        return " ".join(self.words)


class WordRecognizer:
    """Recognises sequences of the words that a judge knows.

    Attributes:
        judge: of words, PAUSE and WRONG_CUT, see `word_training`.
        vocabulary: the words.
    """

    def __init__(self, judge: Judge) -> None:
        """Takes a judge.

        Raises:
            InputError: it knows single clips alone.
        """
        if judge.names[-2:] != (PAUSE, WRONG_CUT) or WORD_SECONDS not in judge.facts:
            raise InputError(
                f"the judge of {judge.label} knows single clips alone, not where one word ends and the next begins; "
                "make one that does with `audiodiff recognizer`"
            )
        self.judge = judge
        self.vocabulary = judge.names[:-2]
        self._median = float(judge.facts[WORD_SECONDS])

    @staticmethod
    def load(folder: Path | str) -> WordRecognizer:
        """Returns the recogniser in a folder that `audiodiff recognizer` wrote.

        Raises:
            InputError: none there, or a damaged one.
        """
        return WordRecognizer(Judge.load(folder))

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz of what it hears."""
        return self.judge.sample_rate

    def recognize(self, waveforms: Sequence[Tensor], show: bool = False) -> list[Recognition]:
        """Returns what is heard in each waveform.

        Args:
            waveforms: [T] or [1, T] each, at the recogniser's sample rate.
            show: a progress bar on the terminal.

        Raises:
            InputError: a waveform of another shape, empty, or not finite.
        """
        signals = [self._signal(waveform, number) for number, waveform in enumerate(waveforms)]
        cuts = [cut_places(signal.numpy(), self.sample_rate) for signal in signals]
        spans = [possible_segments(places, self.sample_rate) for places in cuts]
        pieces = [
            signal[places[i] : places[j]]
            for signal, places, pairs in zip(signals, cuts, spans, strict=True)
            for i, j in pairs
        ]
        counts = [len(pairs) for pairs in spans]
        logs = self._listen(pieces, show).split(counts)
        durations = torch.tensor([self._duration(piece) for piece in pieces]).split(counts)
        return [
            self._decode(places, pairs, heard.numpy(), lasted.numpy())
            for places, pairs, heard, lasted in zip(cuts, spans, logs, durations, strict=True)
        ]

    def _listen(self, pieces: Sequence[Tensor], show: bool) -> Tensor:
        """Returns the log-probabilities [S, N] of segments [T]."""
        # Segments of like length share a batch, for the judge hears all of a batch as long as its longest.
        order = sorted(range(len(pieces)), key=lambda number: len(pieces[number]))
        logs = torch.empty(len(pieces), len(self.judge.names))
        starts = range(0, len(order), BATCH)
        for start in track(starts, "listening", len(starts), show):
            part = order[start : start + BATCH]
            logs[part] = self.judge.predict([pieces[number] for number in part]).clamp_min(1e-9).log()
        return logs

    def _duration(self, piece: Tensor) -> float:
        """Returns what the duration of what is spoken in a segment [T] adds to the score of a word."""
        start, end = spoken_part(piece.numpy(), self.sample_rate)
        seconds = max(end - start, 1) / self.sample_rate
        return BONUS - float(np.log(seconds / self._median)) ** 2 / (2 * DEVIATION**2)

    def _decode(
        self, places: np.ndarray, pairs: Sequence[tuple[int, int]], logs: np.ndarray, durations: np.ndarray
    ) -> Recognition:
        words = logs[:, :-2] + durations[:, None]
        scores = np.maximum(words.max(1), logs[:, -2])
        chosen = [n for n in best_cutting(len(places), pairs, scores) if words[n].max() > logs[n, -2]]
        classes = [int(words[n].argmax()) for n in chosen]
        return Recognition(
            tuple(self.vocabulary[each] for each in classes),
            tuple((int(places[pairs[n][0]]), int(places[pairs[n][1]])) for n in chosen),
            tuple(float(np.exp(logs[n, each])) for n, each in zip(chosen, classes, strict=True)),
        )

    @staticmethod
    def _signal(waveform: Tensor, number: int) -> Tensor:
        signal = torch.as_tensor(waveform, dtype=torch.float32).detach().cpu()
        signal = signal[0] if signal.dim() == 2 and signal.shape[0] == 1 else signal
        if signal.dim() != 1 or signal.numel() == 0 or not bool(signal.isfinite().all()):
            raise InputError(
                f"waveform {number}: got shape {tuple(torch.as_tensor(waveform).shape)}, expected [T] or [1, T], "
                "at least one sample, all finite"
            )
        return signal


def level_db(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the level [F] in dB of full scale of waveform [T]: windows of 30 ms around every 10 ms."""
    window, hop = round(_WINDOW_SECONDS * sample_rate), round(_HOP_SECONDS * sample_rate)
    power = np.pad(waveform.astype(np.float64) ** 2, (window // 2, window - window // 2))
    sums = np.cumsum(np.concatenate([[0.0], power]))
    starts = np.arange(0, waveform.size + 1, hop)
    level = 10 * np.log10((sums[starts + window] - sums[starts]) / window + FLOOR_POWER)
    return np.convolve(np.pad(level, 1, mode="edge"), (0.25, 0.5, 0.25), "valid")


def spoken_part(waveform: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """Returns the first and the last sample of waveform [T] that are at most 35 dB quieter than its loudest part."""
    level = level_db(waveform, sample_rate)
    loud = np.flatnonzero(level > level.max() - _QUIETER_DB)
    hop = round(_HOP_SECONDS * sample_rate)
    return int(loud[0]) * hop, min(waveform.size, int(loud[-1]) * hop)


def cut_places(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns where waveform [T] may be cut, in samples: its ends, and the minima of its level between.

    Where there is no minimum for longer than a segment may be, there are places at equal distances.
    """
    level = level_db(waveform, sample_rate)
    apart = max(1, round(_APART_SECONDS / _HOP_SECONDS))
    minima, _ = find_peaks(-level, prominence=_DEPTH_DB, distance=apart, plateau_size=1)
    places = np.concatenate([[0], minima * round(_HOP_SECONDS * sample_rate), [waveform.size]])
    counts = -(-np.diff(places) // int(LONGEST_SECONDS * sample_rate))
    filled = [
        np.linspace(start, end, int(max(count, 1)), endpoint=False)
        for start, end, count in zip(places, places[1:], counts, strict=False)
    ]
    return np.unique(np.concatenate([*filled, [waveform.size]]).astype(np.int64))


def possible_segments(places: np.ndarray, sample_rate: int) -> list[tuple[int, int]]:
    """Returns the pairs of numbers of places that a word or pause may lie between; neighbours always are one."""
    shortest, longest = SHORTEST_SECONDS * sample_rate, LONGEST_SECONDS * sample_rate
    return [
        (i, j)
        for i in range(len(places))
        for j in range(i + 1, len(places))
        if j == i + 1 or shortest <= places[j] - places[i] <= longest
    ]


def best_cutting(places: int, pairs: Sequence[tuple[int, int]], scores: np.ndarray) -> list[int]:
    """Returns the numbers of the segments, from the first place to the last, whose scores have the largest sum.

    Args:
        places: how many there are.
        pairs: first and last place of each segment, neighbours among them.
        scores: [S], of each segment.
    """
    best = np.full(places, -np.inf)
    best[0] = 0.0
    taken = [-1] * places
    for number in sorted(range(len(pairs)), key=lambda n: pairs[n]):
        start, end = pairs[number]
        if best[start] + scores[number] > best[end]:
            best[end], taken[end] = best[start] + scores[number], number
    path, place = [], places - 1
    while place > 0:
        path.append(taken[place])
        place = pairs[taken[place]][0]
    return path[::-1]
