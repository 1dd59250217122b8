"""The scores of unconditional SC09 models, by the two protocols that published tables follow; never mix their rows.

    DiffWave   Kong et al. 2021, Table 2: 1,000 samples. FID to the training set, IS, mIS and AM by their formulas over
               all samples and pairs, NDB/K with K = 50 cells of the training set's features.
    SaShiMi    Goel et al. 2022, appendix C.3, and the code that goes with it: 2,048 samples. FID to the training set;
               IS on half of the samples, where the code takes scipy's entropy down the columns: for every class the
               divergence of its probabilities over samples from uniform, then the plain mean over classes, which is
               the inception score only where all classes are equally frequent; mIS from 10,000 random pairs; AM by its
               formula; no NDB.

Both papers judge by a ResNeXt (98.76 % and 98.08 % on the test set). Here it is a judge that `audiodiff judge` trained,
so that its accuracy belongs beside every number, and numbers of another judge are not comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from audiodiff.errors import InputError
from audiodiff.evaluation.distributions.bins import bin_test
from audiodiff.evaluation.distributions.frechet import frechet_distance
from audiodiff.evaluation.distributions.inception import am_score, inception_score, modified_inception_score
from audiodiff.evaluation.distributions.matrices import probability_matrix

DIFFWAVE_SAMPLES, SASHIMI_SAMPLES = 1000, 2048
DIFFWAVE_BINS = 50
SASHIMI_PAIRS = 10_000
SASHIMI_SEED = 0  # of numpy's legacy generator, as in the code
# Table 2 of the paper, 1,000 samples, the authors' judge: FID, IS, mIS, AM, NDB/K.
DIFFWAVE_TABLE = {
    "DiffWave": (1.287, 5.30, 59.4, 0.636, 0.74),
    "training set": (0.0, 8.48, 281.4, 0.164, 0.0),
    "test set": (0.011, 8.47, 275.2, 0.166, 0.10),
}


@dataclass(frozen=True)
class Heard:
    """What a judge makes of a set of sounds.

    Attributes:
        features: [N, D].
        probabilities: [N, K].
    """

    features: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Protocol:
    """A way to score a set of sounds.

    Attributes:
        name: in tables.
        samples: how many it asks for.
        score: (training set, sounds) -> numbers by name.
    """

    name: str
    samples: int
    score: Callable[[Heard, Heard], Mapping[str, float]]

    def title(self, samples: int) -> str:
        """Returns the name under which scores of so many samples may be reported."""
        if samples == self.samples:
            return f"{self.name} protocol, {samples:,} samples"
        return (
            f"{self.name} protocol but {samples:,} samples for its {self.samples:,}: "
            "not comparable with published rows"
        )


def diffwave_scores(train: Heard, made: Heard) -> dict[str, float]:
    """Returns FID, IS, mIS, AM and NDB/K as DiffWave's Table 2 has them.

    Args:
        train: the whole training set.
        made: the samples.

    Raises:
        InputError: fewer training clips than bins, or features and probabilities that do not fit.
    """
    return {
        "FID": frechet_distance(train.features, made.features),
        "IS": inception_score(made.probabilities),
        "mIS": modified_inception_score(made.probabilities),
        "AM": am_score(train.probabilities, made.probabilities),
        "NDB/K": bin_test(train.features, made.features, DIFFWAVE_BINS, seed=0).share,
    }


def sashimi_scores(train: Heard, made: Heard) -> dict[str, float]:
    """Returns FID, IS, mIS and AM as SaShiMi's evaluation code computes them.

    Args:
        train: the whole training set.
        made: the samples, at least four.

    Raises:
        InputError: features and probabilities that do not fit.
    """
    if len(made.probabilities) < 4:
        raise InputError(
            f"{len(made.probabilities)} samples; the SaShiMi protocol halves them, expected 2,048"
        )
    probabilities = probability_matrix(made.probabilities, "probabilities")
    return {
        "FID": frechet_distance(train.features, made.features),
        "IS": _sashimi_inception(probabilities),
        "mIS": _sashimi_modified_inception(probabilities),
        "AM": am_score(train.probabilities, made.probabilities),
    }


PROTOCOLS = {
    "diffwave": Protocol("DiffWave", DIFFWAVE_SAMPLES, diffwave_scores),
    "sashimi": Protocol("SaShiMi", SASHIMI_SAMPLES, sashimi_scores),
}


def find_protocol(name: str) -> Protocol:
    """Returns a protocol by its name.

    Raises:
        InputError: no such protocol.
    """
    if name not in PROTOCOLS:
        raise InputError(f"SC09 protocol {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def _sashimi_inception(probabilities: np.ndarray) -> float:
    order = np.random.RandomState(SASHIMI_SEED).permutation(len(probabilities))
    half = probabilities[order[: len(order) // 2]]
    shares = half / half.sum(0)
    return float(np.exp((shares * np.log(shares * len(half))).sum(0).mean()))


def _sashimi_modified_inception(probabilities: np.ndarray) -> float:
    random = np.random.RandomState(SASHIMI_SEED)
    # The code draws pair by pair from one generator; one draw of all pairs gives the same numbers.
    one, other = random.choice(len(probabilities), size=(SASHIMI_PAIRS, 2), replace=True).T
    first, second = probabilities[one], probabilities[other]
    return float(np.exp((first * (np.log(first) - np.log(second))).sum(1).mean()))
