"""Text as it is written -> text as it is read: numbers, money, dates, units and abbreviations in words.

English is read by rules (`english`, `abbreviations`); of other languages numbers, percent signs and "&" are read, by
num2words (an optional dependency, nothing is downloaded). What is read already stays: reading twice changes nothing.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from decimal import Decimal

from audiodiff.errors import InputError
from audiodiff.text.abbreviations import expand_words, spell_letters
from audiodiff.text.characters import tidy
from audiodiff.text.english import spell_numbers
from audiodiff.text.languages import Language, language_of

_LONGEST = 18
"""Most digits that num2words reads in every language of the list."""


def normalize(text: str, language: str = "en") -> str:
    """Returns the text as it is read, on one line.

    Args:
        text: as it is written; case, punctuation and characters of other scripts stay as they are.
        language: a name of `languages.LANGUAGES`.

    Raises:
        InputError: an unknown language, no text, an empty one, markup or control characters, or a language that
            needs num2words where it is not installed.
    """
    spoken = language_of(language)
    plain, _ = tidy(text)
    if spoken.numbers is None:
        read = spell_letters(spell_numbers(expand_words(plain)))
    else:
        read = _spell_with_library(plain, spoken)
    return " ".join(read.split())


def _spell_with_library(text: str, language: Language) -> str:
    """Returns the text with its numbers spelt by num2words."""
    text = re.sub(r" ?& ?", f" {language.conjunction} ", text)
    text = re.sub(r"(?<=[0-9]) ?%", f" {language.percent}", text)
    if not re.search("[0-9]", text):
        return text
    spell = _num2words()
    point = re.escape(language.point)
    group = r"[. ]" if language.point == "," else ","
    number = rf"(?P<whole>[0-9]{{1,3}}(?:{group}[0-9]{{3}})+(?![0-9])|[0-9]+)(?:{point}(?P<part>[0-9]+))?"
    return re.sub(number, lambda match: _apart(match, _words(match, spell, language.numbers)), text)


def _words(match: re.Match[str], spell: Callable[..., str], name: str | None) -> str:
    """Returns a number in words; one too long for the library digit by digit, as one that starts with zeros."""
    whole, part = re.sub("[^0-9]", "", match["whole"]), match["part"]
    if len(whole) > _LONGEST or len(part or "") > _LONGEST or (len(whole) > 1 and whole[0] == "0"):
        return " ".join(spell(int(digit), lang=name) for digit in whole + (part or ""))
    if part is None:
        return spell(int(whole), lang=name)
    return spell(Decimal(f"{whole}.{part}"), lang=name)


def _apart(match: re.Match[str], words: str) -> str:
    """Returns the words with a space where the number touched a letter."""
    before = match.string[match.start() - 1 : match.start()] if match.start() else ""
    after = match.string[match.end() : match.end() + 1]
    return f"{' ' if before.isalpha() else ''}{words}{' ' if after.isalpha() else ''}"


def _num2words() -> Callable[..., str]:
    try:
        spell: Callable[..., str] = importlib.import_module("num2words").num2words
    except ImportError as error:
        raise InputError(
            "numbers of languages other than English need num2words; install it: pip install 'audiodiff[tts]'"
        ) from error
    return spell
