"""The two SC09 protocols: each by its own definition, and named so that they cannot be mixed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from audiodiff.errors import InputError
from audiodiff.evaluation.distributions.frechet import frechet_distance
from audiodiff.evaluation.distributions.inception import inception_score, modified_inception_score
from audiodiff.evaluation.sc09 import PROTOCOLS, Heard, diffwave_scores, find_protocol, sashimi_scores


def heard(seed: int, rows: int, sharpness: float = 3.0) -> Heard:
    generator = np.random.default_rng(seed)
    scores = np.exp(sharpness * generator.normal(size=(rows, 10)))
    return Heard(generator.normal(size=(rows, 6)), scores / scores.sum(1, keepdims=True))


def test_sashimi_scores_are_those_of_its_published_code() -> None:
    """Restated from the description of that code: scipy's entropy down the columns, numpy's legacy generator."""
    train, made = heard(0, 300), heard(1, 101)
    found = sashimi_scores(train, made)
    np.random.seed(0)  # noqa: NPY002
    shuffled = made.probabilities[np.random.permutation(101)]  # noqa: NPY002
    first, second = shuffled[:50], shuffled[50:]
    expected = np.exp(entropy(first, np.repeat(second.mean(0)[None], 50, axis=0)).mean())
    assert found["IS"] == pytest.approx(expected)
    np.random.seed(0)  # noqa: NPY002
    divergences = []
    for _ in range(10000):
        one, other = np.random.choice(np.arange(101), size=2, replace=True)  # noqa: NPY002
        divergences.append(entropy(made.probabilities[one], made.probabilities[other]))
    assert found["mIS"] == pytest.approx(np.exp(np.mean(divergences)))
    assert found["FID"] == frechet_distance(train.features, made.features)
    assert "NDB/K" not in found


def test_the_protocols_agree_on_even_classes_and_differ_on_uneven_ones() -> None:
    train = heard(0, 300)
    even = np.eye(10)[np.arange(2000) % 10] * 0.9 + 0.01
    uneven = even[(np.arange(2000) % 10 == 0) | (np.random.default_rng(0).random(2000) < 0.05)]
    for p, tolerance, agree in ((even, 0.05, True), (uneven, 0.05, False)):
        made = Heard(np.random.default_rng(1).normal(size=(len(p), 6)), p / p.sum(1, keepdims=True))
        diffwave, sashimi = diffwave_scores(train, made)["IS"], sashimi_scores(train, made)["IS"]
        assert (abs(diffwave / sashimi - 1) < tolerance) == agree


def test_diffwave_scores_follow_the_formulas_over_all_samples() -> None:
    train, made = heard(0, 300), heard(1, 200)
    found = diffwave_scores(train, made)
    assert found["IS"] == inception_score(made.probabilities)
    assert found["mIS"] == modified_inception_score(made.probabilities)
    assert list(found) == ["FID", "IS", "mIS", "AM", "NDB/K"]
    itself = diffwave_scores(train, train)
    assert itself["FID"] == pytest.approx(0, abs=1e-9)
    assert itself["NDB/K"] == 0
    with pytest.raises(InputError, match="50 bins"):
        diffwave_scores(heard(0, 40), made)


def test_a_score_of_another_number_of_samples_says_so_in_its_name() -> None:
    for name, count in (("diffwave", 1000), ("sashimi", 2048)):
        protocol = find_protocol(name)
        assert protocol.title(count) == f"{PROTOCOLS[name].name} protocol, {count:,} samples"
        assert "not comparable with published rows" in protocol.title(count + 1)
    with pytest.raises(InputError, match="expected one of diffwave, sashimi"):
        find_protocol("wavenet")
