"""A front-end's tokens stand for symbols of its table, nothing is lost unsaid, and a recipe rebuilds it."""

from __future__ import annotations

import dataclasses
import re
import string
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from audiodiff.errors import InputError
from audiodiff.instantiation import instantiate
from audiodiff.text.characters import Changes, fit, tidy
from audiodiff.text.front_end import Reading, TextFrontEnd
from audiodiff.text.languages import LANGUAGES
from audiodiff.text.symbols import IPA, PAD, graphemes

ENGLISH = TextFrontEnd()


def read(front_end: TextFrontEnd, text: str) -> Reading | None:
    try:
        return front_end.read(text)
    except InputError:
        return None


@given(st.text(max_size=100), st.booleans())
def test_tokens_stand_for_the_symbols_and_back(text: str, blank: bool) -> None:
    front_end = TextFrontEnd(blank=blank)
    reading = read(front_end, text)
    if reading:
        assert set(reading.symbols) <= set(front_end.symbols) - {PAD}
        assert all(0 <= token < front_end.vocabulary for token in reading.tokens)
        assert front_end.text(reading.tokens) == reading.symbols
        assert len(reading.tokens) == (2 * len(reading.symbols) + 1 if blank else len(reading.symbols))


@given(st.text(max_size=60))
def test_every_character_is_kept_or_replaced_or_reported(text: str) -> None:
    known = set(graphemes())
    words, changes = fit(text, known.__contains__)
    gone = [c for c in text if c not in known and c.lower() not in known]
    reported = sum(changes.dropped.values()) + sum(changes.replaced.values())
    assert set(words) <= known
    assert reported >= sum(1 for c in gone if len(c.lower()) == 1)
    for character in changes.dropped:
        assert unicodedata.name(character, f"U+{ord(character):04X}") in str(Changes(dropped={character: 1}))


@given(
    st.text(string.ascii_letters + " ,.;:!?'\"()-", min_size=1).filter(
        lambda text: any(map(str.isalpha, text))
    )
)
def test_plain_english_loses_nothing(text: str) -> None:
    reading = read(ENGLISH, text)
    assert reading is not None
    assert not reading.changes


def test_the_blank_stands_around_every_symbol() -> None:
    plain, spaced = ENGLISH.tokens("ab c"), TextFrontEnd(blank=True).tokens("ab c")
    assert spaced[1::2] == plain
    assert set(spaced[0::2]) == {0}
    assert 0 not in plain


def test_replacements_and_omissions_are_named() -> None:
    reading = ENGLISH.read("“Café”—nai\u0308ve 😀日 [x_y]\u202e²")
    assert reading.symbols == '"cafe"-naive (x y) squared'
    assert reading.changes.dropped == {"😀": 1, "日": 1, "\u202e": 1}
    assert reading.changes.replaced[("é", "e")] == 1
    for name in ("GRINNING FACE", "CJK UNIFIED IDEOGRAPH-65E5", "RIGHT-TO-LEFT OVERRIDE", "EM DASH", "'é'"):
        assert name in str(reading.changes)


def test_tokens_warn_of_what_they_leave_out() -> None:
    with pytest.warns(UserWarning, match=r"left out 2 x '😀' \(GRINNING FACE\)"):
        assert ENGLISH.tokens("a 😀😀 b") == ENGLISH.tokens("a b")


@pytest.mark.parametrize("text", ["😀", "...?!", "Привет", "日本語", "\u0301", "—"])
def test_a_text_of_which_nothing_can_be_said_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="can say nothing"):
        ENGLISH.read(text)


def test_a_text_that_cannot_be_seen_is_refused() -> None:
    with pytest.raises(InputError, match=r"can be seen: 1 x U\+200B \(ZERO WIDTH SPACE\), 1 x U\+202E"):
        ENGLISH.read("\u202e \u200b")


def test_ten_thousand_characters_are_read() -> None:
    text = "The 5 boxing wizards jump quickly. " * 300
    assert len(ENGLISH.tokens(text)) > 10_000


def test_tidy_composes_and_counts_what_cannot_be_seen() -> None:
    assert tidy("e\u0301 \n\t\u00a0x\u200b\u200e\ufeff٣") == (
        "é x3",
        Changes({("٣", "3"): 1}, {"\u200b": 1, "\u200e": 1, "\ufeff": 1}),
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_its_letters_in_its_table(language: str) -> None:
    front_end = TextFrontEnd(language)
    letters = LANGUAGES[language].letters
    assert front_end.read(letters).symbols == letters
    assert len(set(IPA)) == len(IPA)


def test_a_recipe_node_builds_the_same_front_end() -> None:
    front_end = TextFrontEnd("de", "graphemes", "_ abc", blank=True)
    node = {"_target_": "audiodiff.text.front_end.TextFrontEnd", **dataclasses.asdict(front_end)}
    assert instantiate(node) == front_end
    assert instantiate(node).tokens("ab c") == front_end.tokens("ab c")


@pytest.mark.parametrize(
    "target",
    ["phonemes.Phonemizer", "phonemes.phonemizer", "front_end.phonemizer", "front_end.TextFrontEnd.read"],
)
def test_a_recipe_builds_nothing_of_text_that_writes(target: str) -> None:
    with pytest.raises(InputError, match=r"is refused|does not exist"):
        instantiate({"_target_": f"audiodiff.text.{target}"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"language": "xx"}, "expected one of en"),
        ({"kind": "arpabet"}, "expected one of graphemes, phonemes"),
        ({"symbols": "abc"}, "expected '_' first"),
        ({"symbols": "_aba"}, r"\['a'\] stand there several times"),
        ({"symbols": ["_", "a"]}, "expected text"),
        ({"symbols": "_a", "blank": "yes"}, "true or false"),
    ],
)
def test_a_wrong_table_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextFrontEnd(**fields)  # type: ignore[arg-type]


def test_ids_that_the_table_lacks_are_refused() -> None:
    with pytest.raises(InputError, match=r"got \[-1, 999\], expected ids from 0"):
        ENGLISH.text([1, 999, -1])


def test_graphemes_need_no_package_beyond_the_core() -> None:
    code = (
        "import sys; from audiodiff.text.front_end import TextFrontEnd; TextFrontEnd().tokens('In 1805.');"
        "print([m for m in ('torch', 'num2words', 'phonemizer') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_the_page_on_text_says_what_happens(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "text.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python run\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(code, "text.md", "exec"), {})
    assert "GRINNING FACE" in capsys.readouterr().out
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert instantiate(yaml.safe_load(recipe)["text"]) == TextFrontEnd(blank=True)
    assert all(f"`{language}`" in page for language in LANGUAGES)
