"""Normalisation: what a reader says of what is written; reading twice changes nothing; only InputError is raised."""

from __future__ import annotations

import gzip
import re
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiodiff.errors import InputError
from audiodiff.text.english import spell_numbers
from audiodiff.text.languages import LANGUAGES
from audiodiff.text.normalization import normalize

PIECES = (
    "Mr.", "Dr.", "St.", "Co.", "Jr.", "No.", "Nos.", "etc.", "Jan.", "George", "Charles", "II.", "III",
    "IV", "I.", "V.", "p.m.", "B.C.", "'60s", "1930s", "£", "$", "%", "&", "#", "-", "–", "1/2", "½",
    "12:30", "C2766", "m²", '5\'10"', "°", "1st", "22nd", "1,000", "1.5", ".38-caliber", "+44", "555-1234",
    "133-A", "11/22/1963", "km/h", "lb.", "ft", "January", "Box", "Section",
)  # fmt: skip
WRITTEN = st.lists(
    st.one_of(
        st.text(string.printable, max_size=8),
        st.sampled_from(PIECES),
        st.integers(0, 10**13).map(str),
        st.decimals(0, 10**6, places=2).map(str),
    ),
    min_size=1,
    max_size=8,
).map(lambda parts: " ".join(parts))


def read(text: str) -> str | None:
    try:
        return normalize(text)
    except InputError:
        return None


@settings(max_examples=300)
@given(WRITTEN)
def test_no_digit_is_left_and_reading_twice_changes_nothing(text: str) -> None:
    words = read(text)
    if words:
        assert not re.search("[0-9]", words)
        assert normalize(words) == words


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_reason(text: str) -> None:
    for language in ("en", "de"):
        try:
            words = normalize(text, language)
        except InputError as error:
            words = str(error)
        assert words or not text.strip()


@given(st.integers(0, 10**12))
def test_numbers_with_and_without_commas_are_read_alike(value: int) -> None:
    if not 1010 <= value <= 2099:  # a year without, an amount with
        assert normalize(f"{value:,} of them") == normalize(f"{value} of them")


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("In 1805, 1308 prisoners", "In eighteen oh five, one thousand three hundred eight prisoners"),
        ("the 1930s, the '60s and 1900s", "the nineteen thirties, the sixties and nineteen hundreds"),
        ("on June 13, 323 B.C., he", "on June thirteen, three twenty-three B C, he"),
        ("on 1963-11-22", "on November twenty-two, nineteen sixty-three"),
        ("11/22/1963 or 22/11/1963", " or ".join(["November twenty-two, nineteen sixty-three"] * 2)),
        ("on the 2nd, 23rd and 100th", "on the second, twenty-third and one hundredth"),
        ("at 12:30 p.m. or 9:05 a.m.", "at twelve thirty p m or nine oh five a m."),
        ("at 9:00, at 1:30-2:00 p.m. today", "at nine o'clock, at one thirty to two p m today"),
        ("$19.95, £1.01 and £285,950", "nineteen dollars, ninety-five cents, one pound, one penny and two hundred "
         "eighty-five thousand, nine hundred fifty pounds"),
        ("€2 million, $1.5m, 20¢ or $0.05", "two million euros, one point five million dollars, twenty cents or five "
         "cents"),
        ("1/2, 3 1/2 and ¾ of it", "one half, three and a half and three quarters of it"),
        ("5 ft, 1 lb., 20 °C, 5%, 100 km/h", "five feet, one pound, twenty degrees Celsius, five percent, one hundred "
         "kilometers per hour"),
        ("a 10 ft pole, 6'2\" tall", "a ten feet pole, six foot two tall"),
        ("rifle C2766, VC836 or B52", "rifle C two seven six six, V C eight three six or B fifty-two"),
        ("call 555-1234", "call five five five, one two three four"),
        ("agent 007", "agent zero zero seven"),
        ("Box 2915, No. 77, No. 143-A, #1", "Box two nine one five, Number seventy-seven, Number one forty-three A, "
         "number one"),
        ("pages 12–15, 1914-1918", "pages twelve to fifteen, nineteen fourteen to nineteen eighteen"),
        ("-5 degrees, 2+2=4", "minus five degrees, two plus two equals four"),
        ("a .38-caliber, 6.5-millimeter", "a thirty-eight-caliber, six point five-millimeter"),
        ("Charles II., a king", "Charles the second, a king"),
        ("Henry VIII's war, World War II", "Henry the eighth's war, World War two"),
        ("James I ran, as I said", "James I ran, as I said"),
        ("Mr. and Mrs. J. F. Roe Jr.", "Mister and Missus J F Roe Junior."),
        ("Dr. Roe, 5 Elm St., near St. Paul", "Doctor Roe, five Elm Street, near Saint Paul"),
        ("Lt. Col. Roe, Esq., of Roe & Co. said", "Lieutenant Colonel Roe, Esquire, of Roe and Company said"),
        ("Gov. Connally, Gen. Walker, the Hon. A. Bee", "Governor Connally, General Walker, the Honorable A Bee"),
        ("Jan. 5 and 5 Feb. 1999", "January five and five February nineteen ninety-nine"),
        ("Vol. 2, pp. 3-4, i.e. there", "Volume two, pages three to four, that is there"),
        ("the U.S. Army", "the U S Army"),
        ("versions 1.2.3 of ١٢", "versions one point two point three of twelve"),
    ],
)  # fmt: skip
def test_english_is_read_as_a_reader_says_it(written: str, spoken: str) -> None:
    assert normalize(written) == spoken


@pytest.mark.parametrize(
    ("language", "written", "spoken"),
    [
        ("de", "21 % & 3,5", "einundzwanzig Prozent und drei Komma fünf"),
        ("fr", "1 984 et 80 %", "mille neuf cent quatre-vingt-quatre et quatre-vingts pour cent"),
        ("es", "1.234 casas", "mil doscientos treinta y cuatro casas"),
        ("ru", "5 и 007", "пять и ноль ноль семь"),
        ("en-gb", "No. 5", "Number five"),
    ],
)
def test_other_languages_read_numbers(language: str, written: str, spoken: str) -> None:
    pytest.importorskip("num2words")
    assert normalize(written, language) == spoken


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_reads_every_kind_of_number(language: str) -> None:
    pytest.importorskip("num2words")
    for number in ("0", "7", "21", "1984", "0,5", "3.14", "999999999999999999", "1" * 40, "0123"):
        words = normalize(f"a {number} b", language)
        assert not re.search("[0-9]", words), f"{number}: {words}"
        assert len(words) > 4


def test_an_unknown_language_is_told_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"got 'xx', expected one of en, en-gb, .*uk"):
        normalize("a", "xx")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("a\x00b", r"1 x U\+0000"),
        ("a\x1bb\x07", r"1 x U\+0007, 1 x U\+001B"),
        ("a\ud800", r"U\+D800"),
        ('<break time="1s"/> so', r'<break time="1s"/>'),
        ("<speak>so</speak>", "<speak>, </speak>"),
        (None, "got NoneType"),
        (b"so", "got bytes"),
    ],
)
def test_what_is_no_plain_text_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        normalize(text)


@pytest.mark.parametrize(
    "piece",
    ["a", "1", "1,", "1-", "Mr. ", "a.", "9 Aa ", "' ", "1:", "$1 ", "1/", "I", "£", "(", "1. ", "No. ", "½"],
)
def test_long_repetitions_are_read_in_a_second(piece: str) -> None:
    read(piece * (10_000 // len(piece)) + "x")  # a pattern that looks back over all of it would take minutes


def test_lj_speech_is_read_as_its_transcripts_say(data_dir: Path) -> None:
    with gzip.open(data_dir / "ljspeech_text" / "metadata.csv.gz", "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("|") for line in file if line.strip()]
    assert len(lines) == 13100
    agree = [" ".join(spell_numbers(raw).split()) == " ".join(spoken.split()) for _, raw, spoken in lines]
    changed = [" ".join(raw.split()) != " ".join(spoken.split()) for _, raw, spoken in lines]
    held_out = slice(1, None, 2)  # lines that the rules were written without
    assert sum(agree[held_out]) / len(agree[held_out]) > 0.99
    both = [same for same, new in zip(agree[held_out], changed[held_out], strict=True) if new]
    assert sum(both) / len(both) > 0.92
