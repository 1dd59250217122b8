"""Generated sounds as a set beside the real test split, with the real training split measured in the same way.

Distances, precision, recall, density, coverage and AM compare with the test split, which the model never saw; NDB and
the nearest neighbour look into the training split. The row of the training split says what real sounds that are not
the test split reach: with as many clips as the system has sounds, drawn by the seed, for the measures depend on the
count. Nothing in the table is worth more than the difference to that row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from audiodiff.evaluation.distributions.bins import bin_test
from audiodiff.evaluation.distributions.frechet import frechet_distance
from audiodiff.evaluation.distributions.inception import am_score, inception_score, modified_inception_score
from audiodiff.evaluation.distributions.kernel import kernel_distance
from audiodiff.evaluation.distributions.manifold import manifolds
from audiodiff.evaluation.distributions.neighbours import (
    Memorization,
    diversity,
    memorization,
    nearest_distances,
)
from audiodiff.evaluation.features import Described

MOST_BINS, SOUNDS_PER_BIN = 50, 10
FEWEST = 6  # sounds, for neighbours of the fifth order
TEST_ROW, TRAIN_ROW = "real test split", "real training split"


@dataclass(frozen=True)
class SetScores:
    """Measures of one set of sounds.

    Attributes:
        sounds: that were described.
        asked: that there are.
        values: measure -> value; None where it has none.
        memorization: distances to training clips; None without a training split.
        reasons: why a sound was left out, by name.
        silent: names of silent sounds.
        nearest: name of the nearest training clip by file; empty without names.
    """

    sounds: int
    asked: int
    values: Mapping[str, float | None]
    memorization: Memorization | None
    reasons: Mapping[str, str]
    silent: tuple[str, ...] = ()
    nearest: Mapping[str, str] | None = None


@dataclass(frozen=True)
class RealSets:
    """What generated sounds are compared with.

    Attributes:
        test: the split that no model saw.
        train: the split that models learned from; None when unknown.
        classes: values of the judge's label in the order of its probabilities; empty without a judge.
    """

    test: Described
    train: Described | None
    classes: tuple[str, ...] = ()


def score_sets(real: RealSets, systems: Mapping[str, Described], seed: int) -> dict[str, SetScores]:
    """Returns the measures of the real test split, of a part of the training split, and of every system.

    Args:
        real: the two splits.
        systems: generated sounds by system.
        seed: of the draw of training clips, and of k-means.

    Raises:
        InputError: features that do not fit one another.
    """
    scores = {TEST_ROW: _test_row(real)}
    if real.train is not None:
        count = max((len(each.names) for each in systems.values()), default=len(real.test.names))
        scores[TRAIN_ROW] = _train_row(real, real.train, count, seed)
    return scores | {name: _row(real, each, seed) for name, each in systems.items()}


def _row(real: RealSets, made: Described, seed: int) -> SetScores:
    values = _of_itself(real, made) | _against_test(real, made)
    found = None
    nearest: Mapping[str, str] = {}
    if real.train is not None:
        values |= _bins(real.train, made, seed)
        found = memorization(real.train.features, real.test.features, made.features)
        nearest = {
            name: real.train.names[number] for name, number in zip(made.names, found.nearest, strict=True)
        }
    asked = len(made.names) + len(made.reasons)
    return SetScores(len(made.names), asked, values, found, made.reasons, made.silent, nearest)


def _test_row(real: RealSets) -> SetScores:
    values = _of_itself(real, real.test)
    if real.test.probabilities is not None:
        values["am"] = am_score(real.test.probabilities, real.test.probabilities)
    found = None
    if real.train is not None:
        values |= _bins(real.train, real.test, seed=0)
        found = memorization(real.train.features, real.test.features, real.test.features)
    return SetScores(len(real.test.names), len(real.test.names), values, found, real.test.reasons)


def _train_row(real: RealSets, train: Described, count: int, seed: int) -> SetScores:
    """Measures some training clips; their nearest neighbours are other training clips."""
    rows = np.random.default_rng(seed).permutation(len(train.names))[:count]
    part = train.part(np.sort(rows))
    values = _of_itself(real, part) | _against_test(real, part)
    found = None
    if len(train.names) > 1:
        distances, nearest = nearest_distances(train.features, train.features, themselves=True)
        among = memorization(train.features, real.test.features, real.test.features)
        near = float((distances < np.percentile(among.test_distances, 5)).mean())
        found = Memorization(distances, nearest, among.test_distances, near, float("nan"))
    return SetScores(len(part.names), len(part.names), values, found, train.reasons)


def _of_itself(real: RealSets, made: Described) -> dict[str, float | None]:
    """Returns what needs no other set than the test split's spread and the classes."""
    known = made.classes if bool((made.classes != "").all()) else None
    spread, usual = diversity(made.features, known), diversity(real.test.features, _known(real.test, known))
    values: dict[str, float | None] = {"diversity": spread / usual if spread is not None and usual else None}
    if made.probabilities is not None:
        values["inception"] = inception_score(made.probabilities)
        values["modified_inception"] = modified_inception_score(made.probabilities)
        if known is not None and real.classes:
            guesses = np.array(real.classes)[made.probabilities.argmax(1)]
            # A sound that cannot be read is not recognised.
            values["accuracy"] = float((guesses == known).sum() / (len(known) + len(made.reasons)))
    return values


def _known(test: Described, classes: np.ndarray | None) -> np.ndarray | None:
    return None if classes is None or bool((test.classes == "").any()) else test.classes


def _against_test(real: RealSets, made: Described) -> dict[str, float | None]:
    test = real.test
    values: dict[str, float | None] = {"frechet": None, "kernel": None}
    if min(len(test.names), len(made.names)) >= 2:
        values["frechet"] = frechet_distance(test.features, made.features)
        values["kernel"] = kernel_distance(test.features, made.features)
    if min(len(test.names), len(made.names)) >= FEWEST:
        found = manifolds(test.features, made.features)
        values |= {name: getattr(found, name) for name in ("precision", "recall", "density", "coverage")}
    if test.probabilities is not None and made.probabilities is not None:
        values["am"] = am_score(test.probabilities, made.probabilities)
    return values


def _bins(train: Described, made: Described, seed: int) -> dict[str, float | None]:
    """Returns NDB/K with K so small that a bin expects at least SOUNDS_PER_BIN sounds."""
    bins = min(MOST_BINS, len(made.names) // SOUNDS_PER_BIN, len(train.names) // SOUNDS_PER_BIN)
    if bins < 2:
        return {"ndb": None, "bins": None}
    return {"ndb": bin_test(train.features, made.features, bins, seed).share, "bins": float(bins)}
