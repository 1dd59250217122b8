"""Word errors: equal to every alignment tried, and the laws of an edit distance."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiodiff.errors import InputError
from audiodiff.evaluation.word_errors import WordErrors, pooled, rate_interval, word_errors

words = st.lists(st.sampled_from(["one", "two", "three"]), max_size=6)
some = st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=6)


def fewest(said: tuple[str, ...], heard: tuple[str, ...]) -> int:
    """The edit distance by its definition on what is left of both."""

    @cache
    def rest(i: int, j: int) -> int:
        if i == len(said) or j == len(heard):
            return len(said) - i + len(heard) - j
        if said[i] == heard[j]:
            return rest(i + 1, j + 1)
        return 1 + min(rest(i + 1, j + 1), rest(i + 1, j), rest(i, j + 1))

    return rest(0, 0)


@given(some, words)
def test_the_errors_are_the_fewest_that_explain_what_was_heard(said: list[str], heard: list[str]) -> None:
    errors = word_errors(said, heard)
    assert errors.total == fewest(tuple(said), tuple(heard))
    assert errors.words == len(said)
    assert len(said) - errors.deletions + errors.insertions == len(heard)


@given(some, some)
def test_who_speaks_and_who_hears_exchange_deletions_and_insertions(
    first: list[str], second: list[str]
) -> None:
    there, back = word_errors(first, second), word_errors(second, first)
    assert (there.substitutions, there.deletions, there.insertions) == (
        back.substitutions,
        back.insertions,
        back.deletions,
    )


@pytest.mark.parametrize(
    ("heard", "kinds"),
    [
        ("three one four", (0, 0, 0)),
        ("three nine four", (1, 0, 0)),
        ("three four", (0, 1, 0)),
        ("three one one four", (0, 0, 1)),
        ("", (0, 3, 0)),
        ("one four three", (0, 1, 1)),
    ],
)
def test_each_kind_of_error_is_counted(heard: str, kinds: tuple[int, int, int]) -> None:
    errors = word_errors(["three", "one", "four"], heard.split())
    assert (errors.substitutions, errors.deletions, errors.insertions) == kinds


def test_the_pooled_rate_weighs_texts_by_their_words() -> None:
    errors = [WordErrors(1, 0, 0, 1), WordErrors(0, 0, 0, 9)]
    assert pooled(errors).rate == pytest.approx(0.1)


def test_the_interval_of_equal_texts_is_their_rate() -> None:
    assert rate_interval([WordErrors(1, 0, 0, 4)] * 20, seed=0) == (0.25, 0.25)


def test_the_interval_covers_the_rate_as_often_as_it_says() -> None:
    import numpy as np

    generator, truth, covered = np.random.default_rng(0), 0.2, 0
    for trial in range(200):
        errors = [WordErrors(int(generator.binomial(4, truth)), 0, 0, 4) for _ in range(60)]
        low, high = rate_interval(errors, seed=trial)
        covered += low <= truth <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_text_without_words_is_refused() -> None:
    with pytest.raises(InputError, match="without words"):
        word_errors([], ["one"])
