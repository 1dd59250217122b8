"""Numbers in words: against num2words, and against what a reader says."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audiodiff.text import numbers, roman

num2words = pytest.importorskip("num2words").num2words


def bare(words: str) -> str:
    """British words without the "and" and the commas that readers place in different ways."""
    return words.replace(" and ", " ").replace(",", "")


@given(st.one_of(st.integers(0, 10**12), st.integers(0, 9999)))
@example(0)
@example(10**12)
def test_cardinals_and_ordinals_are_those_of_num2words(value: int) -> None:
    assert bare(numbers.cardinal(value)) == bare(num2words(value, lang="en"))
    assert bare(numbers.ordinal(value)) == bare(num2words(value, lang="en", to="ordinal"))


@given(st.integers(1, 10 ** (numbers.LONGEST) - 1))
def test_every_number_with_a_name_keeps_its_last_three_digits(value: int) -> None:
    words = numbers.cardinal(value)
    assert words.endswith(numbers.cardinal(value % 1000) if value % 1000 else words.split()[-1])
    assert bare(words) == bare(num2words(value, lang="en"))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1066, "ten sixty-six"),
        (1800, "eighteen hundred"),
        (1805, "eighteen oh five"),
        (1984, "nineteen eighty-four"),
        (2000, "two thousand"),
        (2005, "two thousand five"),
        (2024, "twenty twenty-four"),
        (606, "six oh six"),
        (323, "three twenty-three"),
    ],
)
def test_years_are_read_in_pairs(value: int, words: str) -> None:
    assert numbers.year(value) == words


@given(st.integers(1010, 9999).filter(lambda value: value % 1000 >= 10))
def test_pairs_say_both_halves_of_a_year(value: int) -> None:
    first, last = divmod(value, 100)
    words = numbers.year(value)
    if last:
        assert words.startswith(numbers.cardinal(first))
        assert words.endswith(numbers.cardinal(last))
    else:
        assert words == f"{numbers.cardinal(first)} hundred"


@given(st.text("0123456789", min_size=1, max_size=60))
def test_digits_and_long_numbers_lose_no_digit(text: str) -> None:
    names = numbers.digits(text).split()
    assert "".join(str(numbers.digits("0123456789").split().index(name)) for name in names) == text
    if len(text) > numbers.LONGEST:
        assert numbers.whole(text) == numbers.digits(text)


@given(st.integers(1, 39))
def test_roman_numerals_have_their_value(value: int) -> None:
    numeral = "X" * (value // 10) + ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")[value % 10]
    assert roman.value(numeral) == value


def test_fractions_and_decimals() -> None:
    assert numbers.fraction(1, 2) == "one half"
    assert numbers.fraction(3, 4) == "three quarters"
    assert numbers.fraction(2, 3) == "two thirds"
    assert numbers.fraction(5, 144) == "five over one hundred forty-four"
    assert numbers.decimal("6.75") == "six point seven five"
    assert numbers.decimal(".05") == "point zero five"
    assert numbers.decimal("0.5") == "zero point five"
