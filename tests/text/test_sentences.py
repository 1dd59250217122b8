"""Sentences: nothing is lost, no part is too long, and full stops that end nothing end nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiodiff.errors import InputError
from audiodiff.text.sentences import sentences

TEXTS = st.lists(
    st.sampled_from(
        [
            "Mr.",
            "word",
            "Word",
            "3.5",
            "No.",
            '"so."',
            "(yes!)",
            "...",
            "!",
            "e.g.",
            "a;",
            "b,",
            "\n\n",
            "and",
        ]
    )
    | st.text(max_size=12)
).map(" ".join)


def solid(text: str) -> str:
    return "".join(text.split())


@given(TEXTS, st.integers(1, 60))
def test_parts_are_the_text_again_and_none_is_too_long(text: str, longest: int) -> None:
    try:
        parts = sentences(text, longest)
    except InputError:
        return
    assert solid("".join(parts)) == solid(text)
    assert all(0 < len(part) <= longest and part == part.strip() for part in parts)
    if max(map(len, text.split())) <= longest:  # no word is cut that fits
        assert " ".join(parts).split() == text.split()


@given(TEXTS)
def test_a_part_is_split_no_further(text: str) -> None:
    try:
        parts = sentences(text, 10_000)
    except InputError:
        return
    assert all(sentences(part, 10_000) == [part] for part in parts)


@pytest.mark.parametrize(
    "parts",
    [
        ["Mr. Roe of St. James paid $3.50.", '"Really?" he asked.', "No!"],
        ["Wait... what?", "He went to Smith & Co., e.g. by bus."],
        ["See No. 5 in the U.S. Army list.", "J. F. Kennedy came."],
        ["It was I.", "Then it rained."],
        ["He said no.", "Then (or so it seemed.) he left!?", "“Good.”", "Fine…", "End"],
        ["At 5 p.m. the bell rang.", "On Jan. 5 it did not."],
        ["no sentence end at all"],
    ],
)
def test_sentences_end_where_a_reader_ends_them(parts: list[str]) -> None:
    assert sentences(" ".join(parts)) == parts


def test_an_empty_line_ends_a_sentence() -> None:
    assert sentences("A title\n\nThe text\ngoes on") == ["A title", "The text goes on"]


def test_long_sentences_are_cut_at_the_best_place_that_fits() -> None:
    assert sentences("one two, three four; five six and seven", 25) == [
        "one two, three four;",
        "five six and seven",
    ]
    assert sentences("one two three, four five six seven", 20) == ["one two three,", "four five six seven"]
    assert sentences("one two three and four five", 22) == ["one two three", "and four five"]
    assert sentences("word " * 30, 24) == ["word word word word word"[:24].rsplit(" ", 0)[0]] * 6
    assert sentences("a" * 25, 10) == ["a" * 10, "a" * 10, "a" * 5]


def test_a_million_characters_without_an_end_are_split_in_a_moment() -> None:
    parts = sentences("word " * 200_000, 200)
    assert max(map(len, parts)) <= 200
    assert len(parts) == 5000


@pytest.mark.parametrize(
    ("text", "longest", "message"), [("", 10, "empty"), ("a", 0, "at least 1"), ("\0", 9, "U")]
)
def test_bad_input_is_refused(text: str, longest: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sentences(text, longest)
