"""Languages that a text front-end reads, by name: how numbers are written and spelt, letters, and espeak-ng's voice.

English numbers are read by rules of this package; those of other languages by num2words (LGPL), which knows their
cardinals. Phonemes of all come from espeak-ng. Letters are the lower-case ones beyond punctuation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from audiodiff.errors import InputError


@dataclass(frozen=True)
class Language:
    """What is known of a language.

    Attributes:
        voice: name of espeak-ng's voice.
        letters: of its alphabet, in lower case.
        script: first word of the Unicode names of its letters.
        point: between whole and fraction of a number.
        numbers: name in num2words; None where this package reads numbers itself.
        percent: how "%" is read.
        conjunction: how "&" is read.
    """

    voice: str
    letters: str
    script: str = "LATIN"
    point: str = ","
    numbers: str | None = None
    percent: str = "percent"
    conjunction: str = "and"


_LATIN = "abcdefghijklmnopqrstuvwxyz"
_RUSSIAN = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
_UKRAINIAN = "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя"


def _latin(voice: str, letters: str, percent: str, conjunction: str) -> Language:
    return Language(voice, _LATIN + letters, numbers=voice, percent=percent, conjunction=conjunction)


LANGUAGES: Mapping[str, Language] = {
    "en": Language("en-us", _LATIN, point="."),
    "en-gb": Language("en-gb", _LATIN, point="."),
    "cs": _latin("cs", "áčďéěíňóřšťúůýž", "procent", "a"),
    "da": _latin("da", "æøå", "procent", "og"),
    "de": _latin("de", "äöüß", "Prozent", "und"),
    "es": _latin("es", "áéíñóúü", "por ciento", "y"),
    "fi": _latin("fi", "äöå", "prosenttia", "ja"),
    "fr": Language("fr-fr", _LATIN + "àâæçéèêëîïôœùûüÿ", numbers="fr", percent="pour cent", conjunction="et"),
    "hu": _latin("hu", "áéíóöőúüű", "százalék", "és"),
    "it": _latin("it", "àèéìíòóùú", "per cento", "e"),
    "nl": _latin("nl", "áéëïóöü", "procent", "en"),
    "no": Language("nb", _LATIN + "æøåéò", numbers="no", percent="prosent", conjunction="og"),
    "pl": _latin("pl", "ąćęłńóśźż", "procent", "i"),
    "pt": _latin("pt", "áâãàçéêíóôõú", "por cento", "e"),
    "ro": _latin("ro", "ăâîșț", "la sută", "și"),
    "ru": Language("ru", _RUSSIAN, "CYRILLIC", numbers="ru", percent="процентов", conjunction="и"),
    "sv": _latin("sv", "åäöé", "procent", "och"),
    "uk": Language("uk", _UKRAINIAN, "CYRILLIC", numbers="uk", percent="відсотків", conjunction="та"),
}


def language_of(name: str) -> Language:
    """Returns what is known of the language.

    Raises:
        InputError: a name that is not in the list.
    """
    if name not in LANGUAGES:
        raise InputError(f"language: got {name!r}, expected one of {', '.join(LANGUAGES)}")
    return LANGUAGES[name]
