"""What the answers of a listening test say.

Ratings: the mean of each system, with the 95 % percentile interval of a bootstrap that draws both listeners and files
anew (Owen 2007, "The pigeonhole bootstrap"), since another test would have others of both. Two systems are compared on
the (listener, file) pairs that rated both: the mean difference with the same bootstrap, and the Wilcoxon signed-rank
test, p-values raised by Holm's method. The test takes the pairs as independent, which those of one listener are not
quite: where interval and p-value disagree, believe the interval.

MUSHRA listeners are screened as ITU-R BS.1534-3 has it: out is who rates the hidden reference below 90
in more than 15 % of the items.

ABX: the exact binomial test of "no more often right than by guessing", one-sided, Holm over the pairs of systems, with
the interval of Clopper and Pearson (1934) for the share that was right.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audiodiff.evaluation.listening.answers import Answers, Choice, Rating
from audiodiff.evaluation.listening.design import REFERENCE
from audiodiff.evaluation.paired import holm, signed_rank

RESAMPLES = 2000
LOWEST_REFERENCE, MOST_MISSES = 90.0, 0.15


@dataclass(frozen=True)
class Opinion:
    """One system's ratings.

    Attributes:
        mean: of all ratings.
        interval: 95 % bootstrap interval over listeners and files.
        deviation: standard deviation of the ratings.
        ratings: how many.
    """

    mean: float
    interval: tuple[float, float]
    deviation: float
    ratings: int


@dataclass(frozen=True)
class Contrast:
    """Two systems that the same listeners rated on the same files.

    Attributes:
        first: a system.
        second: another one.
        pairs: of ratings.
        mean: first minus second.
        interval: 95 % bootstrap interval over listeners and files.
        p: of the signed-rank test after Holm's correction; None for too few pairs.
    """

    first: str
    second: str
    pairs: int
    mean: float
    interval: tuple[float, float]
    p: float | None


@dataclass(frozen=True)
class Detection:
    """How often X was named rightly in one pair of systems.

    Attributes:
        pair: of systems.
        right: answers that were.
        answers: in all.
        interval: 95 % of the share, Clopper-Pearson.
        p: of at least so many by guessing, after Holm's correction.
        listeners: (right, answers) of each.
    """

    pair: tuple[str, str]
    right: int
    answers: int
    interval: tuple[float, float]
    p: float
    listeners: Mapping[str, tuple[int, int]]


def screened(ratings: Sequence[Rating]) -> dict[str, float]:
    """Returns the listeners that BS.1534-3 leaves out, with their share of items whose hidden reference was missed."""
    found: dict[str, list[float]] = {}
    for rating in ratings:
        if rating.system == REFERENCE:
            found.setdefault(rating.listener, []).append(rating.score)
    shares = {
        listener: float(np.mean(np.array(scores) < LOWEST_REFERENCE)) for listener, scores in found.items()
    }
    return {listener: share for listener, share in shares.items() if share > MOST_MISSES}


def opinions(ratings: Sequence[Rating], seed: int) -> dict[str, Opinion]:
    """Returns each system's mean, the best first.

    Args:
        ratings: of all listeners.
        seed: of the bootstrap.
    """
    systems = list(dict.fromkeys(rating.system for rating in ratings))
    found = {}
    for system in systems:
        own = [rating for rating in ratings if rating.system == system]
        scores = np.array([rating.score for rating in own])
        interval = _interval([(r.listener, r.file) for r in own], scores, seed)
        found[system] = Opinion(
            float(scores.mean()), interval, float(scores.std(ddof=1)) if len(own) > 1 else 0.0, len(own)
        )
    return dict(sorted(found.items(), key=lambda item: -item[1].mean))


def contrasts(ratings: Sequence[Rating], seed: int) -> list[Contrast]:
    """Returns every pair of systems, in the order of their means.

    Args:
        ratings: of all listeners.
        seed: of the bootstrap.
    """
    by_system: dict[str, dict[tuple[str, str], float]] = {}
    for rating in ratings:
        by_system.setdefault(rating.system, {})[rating.listener, rating.file] = rating.score
    found: list[tuple[Contrast, float | None]] = []
    for first, second in itertools.combinations(opinions(ratings, seed), 2):
        both = [cell for cell in by_system[first] if cell in by_system[second]]
        if not both:
            continue
        gaps = np.array([by_system[first][cell] - by_system[second][cell] for cell in both])
        interval = _interval(both, gaps, seed)
        found.append(
            (Contrast(first, second, len(both), float(gaps.mean()), interval, None), signed_rank(gaps))
        )
    raised = holm([p for _, p in found])
    return [
        Contrast(each.first, each.second, each.pairs, each.mean, each.interval, p)
        for (each, _), p in zip(found, raised, strict=True)
    ]


def detections(choices: Sequence[Choice]) -> list[Detection]:
    """Returns how well each pair of systems was told apart."""
    from scipy.stats import binomtest

    pairs = list(dict.fromkeys(choice.pair for choice in choices))
    found = []
    for pair in pairs:
        own = [choice for choice in choices if choice.pair == pair]
        right = sum(choice.right for choice in own)
        interval = binomtest(right, len(own)).proportion_ci(0.95, "exact")
        by_listener = {
            listener: (
                sum(c.right for c in own if c.listener == listener),
                sum(c.listener == listener for c in own),
            )
            for listener in dict.fromkeys(choice.listener for choice in own)
        }
        p = float(binomtest(right, len(own), 0.5, "greater").pvalue)
        found.append(
            Detection(pair, right, len(own), (float(interval.low), float(interval.high)), p, by_listener)
        )
    raised = holm([each.p for each in found])
    return [
        Detection(each.pair, each.right, each.answers, each.interval, 1.0 if p is None else p, each.listeners)
        for each, p in zip(found, raised, strict=True)
    ]


def incomplete(answers: Answers, trials: int) -> dict[str, int]:
    """Returns how many trials those listeners answered who did not answer all."""
    return {listener: count for listener, count in answers.answered.items() if count < trials}


def _interval(cells: Sequence[tuple[str, str]], values: np.ndarray, seed: int) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of values [N] of (listener, file) cells, both drawn anew."""
    draw = np.random.default_rng(seed)
    weights = [_weights([cell[place] for cell in cells], draw) for place in (0, 1)]
    joint = weights[0] * weights[1]  # [RESAMPLES, N]
    totals = joint.sum(axis=1)
    drawn = totals > 0  # of incomplete answers, a draw may hold none
    means = (joint[drawn] @ values) / totals[drawn]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _weights(names: Sequence[str], draw: np.random.Generator) -> np.ndarray:
    """Returns how often each value's name is drawn in each resample [RESAMPLES, N]."""
    unique, places = np.unique(np.array(names), return_inverse=True)
    counts = draw.multinomial(len(unique), np.full(len(unique), 1 / len(unique)), size=RESAMPLES)
    return np.asarray(counts[:, places], dtype=np.float64)
