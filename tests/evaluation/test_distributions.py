"""Measures of sets: closed forms, hand-made examples, laws. Other code computes them in test_measure_table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import entropy

from audiodiff.errors import InputError
from audiodiff.evaluation.distributions import matrices
from audiodiff.evaluation.distributions.bins import bin_test, proportions_differ
from audiodiff.evaluation.distributions.frechet import (
    class_frechet_distance,
    frechet_distance,
    gaussian_distance,
)
from audiodiff.evaluation.distributions.inception import am_score, inception_score, modified_inception_score
from audiodiff.evaluation.distributions.kernel import kernel_distance
from audiodiff.evaluation.distributions.manifold import manifolds, radii
from audiodiff.evaluation.distributions.neighbours import diversity, memorization, nearest_distances


def normal(seed: int, rows: int, columns: int = 5, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return mean + scale * np.random.default_rng(seed).normal(size=(rows, columns))


def probabilities(seed: int, rows: int, classes: int = 10, sharpness: float = 3.0) -> np.ndarray:
    scores = np.exp(sharpness * np.random.default_rng(seed).normal(size=(rows, classes)))
    return scores / scores.sum(1, keepdims=True)


def mixed(seed: int, rows: int, columns: int) -> np.ndarray:
    """Correlated features of very different scales."""
    mixing = np.random.default_rng(99).normal(size=(columns, columns)) * np.logspace(-1, 1, columns)
    return normal(seed, rows, columns) @ mixing


def test_frechet_of_gaussians_that_commute_has_its_closed_form() -> None:
    means, deviations = (
        np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 0.0]]),
        np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 0.5]]),
    )
    covariances = [np.diag(deviation**2) for deviation in deviations]
    expected = np.square(means[0] - means[1]).sum() + np.square(deviations[0] - deviations[1]).sum()
    assert gaussian_distance(means[0], covariances[0], means[1], covariances[1]) == pytest.approx(
        expected, rel=1e-12
    )


def test_frechet_is_exact_where_covariances_are_singular() -> None:
    direction = np.array([[3.0, 4.0, 0.0]])
    real, made = normal(0, 50, 1) @ direction, normal(1, 60, 1, mean=1.0, scale=2.0) @ direction
    along = [features @ direction[0] / 5 for features in (real, made)]
    expected = (along[0].mean() - along[1].mean()) ** 2 + (along[0].std(ddof=1) - along[1].std(ddof=1)) ** 2
    assert frechet_distance(real, made) == pytest.approx(expected, rel=1e-6)
    few = normal(2, 4, 20)  # fewer sounds than features
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_distances_are_symmetric_grow_with_the_shift_and_ignore_the_order(
    distance: Callable[[np.ndarray, np.ndarray], float],
) -> None:
    real, made = normal(0, 80), normal(1, 90)
    assert distance(real, made) == pytest.approx(distance(made, real), rel=1e-9)
    assert distance(real, made) == pytest.approx(distance(real[::-1], made[::-1]), rel=1e-9)
    centred = made - made.mean(0) + real.mean(0)
    shifted = [distance(real, centred + shift) for shift in (0.0, 2.0, 4.0, 8.0)]
    assert shifted == sorted(shifted)


def test_frechet_shrinks_as_one_over_the_count_and_kernel_distance_is_unbiased() -> None:
    def mean_of(distance: Callable[[np.ndarray, np.ndarray], float], count: int) -> tuple[float, float]:
        found = [distance(normal(2 * s, count), normal(2 * s + 1, count)) for s in range(100)]
        return float(np.mean(found)), float(np.std(found) / 10)

    (small, _), (large, _) = mean_of(frechet_distance, 50), mean_of(frechet_distance, 200)
    assert small / large == pytest.approx(4, rel=0.2)
    for count in (10, 100):
        mean, error = mean_of(kernel_distance, count)
        assert abs(mean) < 3 * error


SETS: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "frechet": frechet_distance,
    "kernel": kernel_distance,
    "inception": lambda real, made: inception_score(shares(made)),
    "modified inception": lambda real, made: modified_inception_score(shares(made)),
    "AM": lambda real, made: am_score(shares(real), shares(made)),
    "bins": lambda real, made: bin_test(real, made, 5, 0).share,
    "manifolds": lambda real, made: list(vars(manifolds(real, made)).values()),
    "neighbours": lambda real, made: memorization(real, real, made).ratio,
    "diversity": lambda real, made: diversity(made),
}


def shares(features: np.ndarray) -> np.ndarray:
    scores = np.exp(features)
    return scores / scores.sum(1, keepdims=True)


@pytest.mark.parametrize("name", SETS)
def test_order_of_the_sounds_does_not_matter(name: str) -> None:
    real, made = normal(0, 60), normal(1, 50, mean=0.4)
    shuffled = np.random.default_rng(2).permutation(made)
    assert SETS[name](real, shuffled) == pytest.approx(SETS[name](real, made), rel=1e-9)


@pytest.mark.parametrize("name", ["frechet", "kernel", "manifolds"])
def test_more_noise_in_the_features_scores_worse(name: str) -> None:
    real, made = normal(0, 200), normal(1, 200)
    noise = np.random.default_rng(2).normal(size=made.shape)
    found = [np.asarray(SETS[name](real, made + level * noise)) for level in (0.0, 1.0, 3.0)]
    if name == "manifolds":  # precision, density and coverage; noise makes wide balls, which raise no recall
        found = [-each[[0, 2, 3]] for each in found]
    assert (np.diff(found, axis=0) > 0).all(), found


def test_measures_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from audiodiff.evaluation.distributions import kernel

    real, made = normal(0, 40), normal(1, 30, mean=0.5)
    whole = kernel_distance(real, made), manifolds(real, made), nearest_distances(made, real)
    for module in (matrices, kernel):
        monkeypatch.setattr(module, "PIECE", 100)
    assert kernel_distance(real, made) == pytest.approx(whole[0], rel=1e-10)
    assert manifolds(real, made) == whole[1]
    assert np.array_equal(nearest_distances(made, real), whole[2])


def test_class_distance_needs_a_class_with_two_sounds_on_either_side() -> None:
    with pytest.raises(InputError, match="no class has two"):
        class_frechet_distance(normal(0, 60), np.arange(60) % 3, normal(1, 40), np.arange(40) % 3 + 10)


def test_inception_scores_have_their_exact_values_at_the_extremes() -> None:
    sure, unsure = np.eye(10)[np.arange(100) % 10], np.full((100, 10), 0.1)
    assert inception_score(sure) == pytest.approx(10)
    assert inception_score(np.eye(10)[np.zeros(50, int)]) == pytest.approx(1)
    assert inception_score(unsure) == pytest.approx(1)
    assert modified_inception_score(unsure) == pytest.approx(1)
    assert am_score(sure, sure) == pytest.approx(0, abs=1e-9)
    assert am_score(sure, unsure) == pytest.approx(np.log(10))
    # Two sure classes of ten that are equally frequent in the real set: KL(uniform || p) is infinite but for the floor.
    assert am_score(np.full((5, 2), 0.5), np.array([[0.9, 0.1], [0.1, 0.9]])) == pytest.approx(
        entropy([0.9, 0.1])
    )


def test_a_collapsed_generator_has_a_low_modified_inception_score() -> None:
    varied = probabilities(0, 200)
    assert modified_inception_score(varied[:1].repeat(200, 0)) == pytest.approx(1)
    assert modified_inception_score(varied) > 10


def test_bins_differ_where_a_mode_is_missing_and_about_one_in_twenty_by_chance() -> None:
    centres = 20 * np.eye(8)
    real = normal(0, 800, 8) + centres.repeat(100, 0)
    assert bin_test(real, real, 8, 0).share == 0
    # The test is two-sided at 5 %.
    chance = [
        bin_test(
            real, normal(s, 400, 8) + centres[np.random.default_rng(s).integers(8, size=400)], 8, 0
        ).share
        for s in range(1, 60)
    ]
    assert 0.02 <= np.mean(chance) <= 0.09
    collapsed = bin_test(real, normal(1, 400, 8) + centres[:2].repeat(200, 0), 8, 0)
    assert collapsed.share == 1
    assert collapsed.real.sum() == pytest.approx(1)
    assert collapsed.made.sum() == pytest.approx(1)


def test_bins_that_are_empty_or_hold_everything_in_both_sets_do_not_differ() -> None:
    assert not proportions_differ(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 10, 10).any()


def test_manifolds_of_copies_of_far_sounds_and_of_one_repeated() -> None:
    real = normal(0, 60)
    copies = manifolds(real, real)
    assert (copies.precision, copies.recall, copies.coverage) == (1, 1, 1)
    far = manifolds(real, real + 100)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    repeated = manifolds(real, real[:1].repeat(60, 0))
    assert repeated.precision == 1
    assert repeated.recall < 0.1
    assert repeated.coverage < 0.5


def test_one_outlier_raises_precision_but_not_density() -> None:
    """Naeem et al. 2020, section 3.1."""
    real = np.concatenate([normal(0, 100, 2), [[30.0, 30.0]]])
    noise = np.random.default_rng(1).uniform(5, 30, size=(100, 2))
    found = manifolds(real, noise)
    assert found.precision > 0.9
    assert found.density < 0.5


def test_coverage_of_equal_distributions_has_its_expectation() -> None:
    """Naeem et al. 2020, lemma 2: 1 - (N-1)...(N-k) / ((M+N-1)...(M+N-k))."""
    real_count, made_count, k = 60, 40, 5
    below = [(real_count - i) / (made_count + real_count - i) for i in range(1, k + 1)]
    found = [manifolds(normal(2 * s, 60), normal(2 * s + 1, 40)).coverage for s in range(60)]
    assert np.mean(found) == pytest.approx(1 - np.prod(below), abs=3 * np.std(found) / np.sqrt(60))


def test_a_radius_is_the_distance_to_another_sound() -> None:
    real = normal(0, 70)
    np.testing.assert_allclose(radii(real, 1), nearest_distances(real, real, themselves=True)[0])


def test_copies_of_training_clips_are_found_out_and_new_sounds_are_not() -> None:
    train, test = normal(0, 1000), normal(1, 1000)
    copies = memorization(train, test, train[:50] + 1e-3 * normal(2, 50))
    assert copies.ratio < 0.01
    assert copies.near_share == 1
    assert copies.p_value < 1e-10
    assert np.array_equal(copies.nearest, np.arange(50))
    new = memorization(train, test, normal(3, 1000))
    assert new.ratio == pytest.approx(1, abs=0.1)
    assert new.near_share == pytest.approx(0.05, abs=0.03)
    assert new.p_value > 0.01


def test_diversity_is_the_mean_distance_within_a_class() -> None:
    features = np.array([[0.0], [2.0], [10.0], [11.0], [50.0]])
    assert diversity(features[:4], np.array(["a", "a", "b", "b"])) == pytest.approx(1.5)
    assert diversity(features[:2]) == pytest.approx(2)
    assert diversity(features[:1].repeat(3, 0)) == 0
    assert diversity(features[4:]) is None
    assert diversity(features[:2], np.array(["a", "b"])) is None


def test_what_is_no_set_of_sounds_is_refused() -> None:
    good = normal(0, 20)
    for bad, message in (
        (good[0], "expected \\[N, D\\]"),
        (good[:1], "at least 2"),
        (np.where(good > 1, np.nan, good), "NaN"),
        (good[:, :3], "same features"),
    ):
        with pytest.raises(InputError, match=message):
            frechet_distance(good, bad)
    for bad in (good, np.full((3, 4), 0.5), np.array([[1.5, -0.5]])):
        with pytest.raises(InputError, match="sum to 1"):
            inception_score(bad)
    with pytest.raises(InputError, match="use one classifier"):
        am_score(probabilities(0, 5, 3), probabilities(0, 5, 4))
    with pytest.raises(InputError, match="bins"):
        bin_test(good, good, 21, 0)
