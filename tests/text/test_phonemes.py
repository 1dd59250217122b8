"""Phonemes by espeak-ng: punctuation stays, the table holds them all, and what was made once is read again."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiodiff.errors import InputError
from audiodiff.text import phonemes
from audiodiff.text.front_end import TextFrontEnd
from audiodiff.text.languages import LANGUAGES
from audiodiff.text.phonemes import Phonemizer
from audiodiff.text.symbols import IPA

SAYING = {
    "en": "The quick, brown fox; it was 12:30 (or so).",
    "cs": "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "da": "Rødgrød med fløde, tak!",
    "de": "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "fr": "Voix ambiguë d'un cœur qui, au zéphyr, préfère les jattes de kiwis.",
    "pl": "Zażółć gęślą jaźń.",
    "ru": "Съешь ещё этих мягких французских булок.",
    "uk": "Щастям б'єш жук їх глицю в фон й ґедзь пріч.",
}


@pytest.fixture(scope="module")
def english() -> Phonemizer:
    return started("en")


def started(language: str, cache: Path | None = None) -> Phonemizer:
    """A phonemizer; the test is skipped where the optional libraries are absent."""
    pytest.importorskip("phonemizer")
    pytest.importorskip("num2words")
    try:
        return Phonemizer(language, cache)
    except InputError as error:
        pytest.skip(str(error))


def test_words_are_phonemised_and_punctuation_stays(english: Phonemizer) -> None:
    assert english("Hello, world -- don't stop; (really)?") == "həlˈoʊ, wˈɜːld -- dˈoʊnt stˈɑːp; (ɹˈiəli)?"
    assert english("...!") == "...!"
    assert english("") == ""


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("abcdeéfg ,.;:'-!\"()", max_size=30), max_size=5))
def test_marks_between_words_keep_their_number_and_order(english: Phonemizer, texts: list[str]) -> None:
    def marks(text: str) -> str:
        return "".join(c for c in text if c in ',.;:!"()')

    assert [marks(said) for said in english.many(texts)] == [marks(text) for text in texts]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_speaks_in_symbols_of_the_table(language: str) -> None:
    started(language)
    front_end = TextFrontEnd(language, "phonemes")
    letters = LANGUAGES[language].letters
    reading = front_end.read(SAYING.get(language, "") + " " + " ".join(letters) + f" {letters}. 21")
    assert not reading.changes.dropped, str(reading.changes)
    assert set(reading.symbols) <= set(IPA)
    assert front_end.text(reading.tokens) == reading.symbols


def test_other_scripts_and_emoji_do_not_reach_the_voice() -> None:
    started("en")
    reading = TextFrontEnd("en", "phonemes").read("so 日本 😀 Привет")
    assert reading.symbols == TextFrontEnd("en", "phonemes").read("so").symbols
    assert sum(reading.changes.dropped.values()) == 9


def test_what_was_phonemised_is_read_from_the_cache(tmp_path: Path) -> None:
    first = started("en", tmp_path).many(["Hello, world.", "Again."])
    files = sorted(tmp_path.rglob("*.json"))
    assert len(files) == 3
    assert "espeak-ng" in files[0].relative_to(tmp_path).parts[0]
    for file in files:  # a mark that only the cache can have made
        file.write_text(json.dumps({key: value + "|" for key, value in json.loads(file.read_text()).items()}))
    assert started("en", tmp_path).many(["Hello, world.", "Again."]) == [
        first[0].replace(",", "|,").replace(".", "|."),
        first[1].replace(".", "|."),
    ]
    assert started("en-gb", tmp_path)("Again.") != first[1] + "|"


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    started("en", tmp_path)("Hello")
    (file,) = tmp_path.rglob("*.json")
    for content in ("{", "[]", '{"a": 1}'):
        file.write_text(content)
        with pytest.raises(InputError, match=f"{file.name}: .*remove it"):
            started("en", tmp_path)("Hello")


def test_processes_that_share_a_cache_leave_it_whole(tmp_path: Path) -> None:
    alone = started("en")
    code = (
        "import sys, pathlib; from audiodiff.text.phonemes import Phonemizer;"
        "p = Phonemizer('en', pathlib.Path(sys.argv[1]));"
        "[p(f'word {a}{b}') for a in 'abcdefgh' for b in 'aeiou']"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    files = list(tmp_path.rglob("*"))
    assert not [file for file in files if file.name.endswith(".part")]
    kept = {}
    for file in files:
        if file.suffix == ".json":
            kept |= json.loads(file.read_text())
    assert kept
    assert all(alone(piece) == said for piece, said in kept.items())


def test_a_missing_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "phonemizer.backend", None)
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(InputError, match=r"not installed: pip install 'audiodiff\[tts\]'"):
        Phonemizer("en")
    with pytest.raises(InputError, match=r"need num2words; install it: pip install 'audiodiff\[tts\]'"):
        TextFrontEnd("de").read("5 Uhr")


def test_a_missing_espeak_says_how_to_install_it(tmp_path: Path) -> None:
    pytest.importorskip("phonemizer")
    code = (
        "from audiodiff.errors import InputError\nfrom audiodiff.text.phonemes import Phonemizer\n"
        "try: Phonemizer('en')\nexcept InputError as error: print(error)"
    )
    environment = {"PHONEMIZER_ESPEAK_LIBRARY": str(tmp_path / "none.so"), "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=Path.cwd()
    )
    assert "apt install espeak-ng" in result.stdout, result.stderr


def test_one_process_starts_a_voice_once() -> None:
    started("en")
    assert phonemes.phonemizer("en") is phonemes.phonemizer("en")
    assert importlib.import_module("phonemizer") is not None


def test_the_cache_has_a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert phonemes.default_cache() == tmp_path / "audiodiff" / "phonemes"
