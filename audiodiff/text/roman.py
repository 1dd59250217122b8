"""Roman numerals of rulers and of parts: "George III" is "George the third", "World War II" "World War two".

Only I, V and X, up to 39. After a capitalised word a numeral of several letters is read; a single I, V or X is more
often a pronoun or an initial, and counts only after the name of a ruler or a part, and not before another name.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from audiodiff.text.numbers import cardinal, ordinal

_RULERS = (
    "Alexander Alfonso Catherine Charles Christian Clement Darius Edward Elizabeth Ferdinand Francis Frederick George "
    "Gregory Gustav Haakon Henry Innocent Ivan James John Joseph Leo Leopold Louis Mary Napoleon Nebuchadnezzar "
    "Nicholas Otto Paul Peter Philip Pius Rameses Richard Sargon Umberto Urban Victor Wilhelm William Xerxes"
)
_PARTS = (
    "Act Appendix Article Book Canto Chapter Division Figure Grade Level Part Phase Scene Schedule Section Series "
    "Table Title Type Vol. Volume War"
)
_SEVERAL = r"(?:X{1,3}(?:I[XV]|VI{0,3}|I{1,3}|V)|X{2,3}|I[XV]|VI{1,3}|I{2,3})"
_SINGLE = r"[IVX]"
_END = r"\b(?![-.]\w)"
_VALUES = {"I": 1, "V": 5, "X": 10}


def value(numeral: str) -> int:
    """Returns the value of a numeral of I, V and X."""
    values = [_VALUES[letter] for letter in numeral]
    after = [*values[1:], 0]
    return sum(-this if this < following else this for this, following in zip(values, after, strict=True))


def _names(words: str) -> str:
    return "(?:" + "|".join(map(re.escape, words.split())) + ")"


def _part(match: re.Match[str]) -> str:
    return f"{match['name']} {cardinal(value(match['numeral']))}"


def _ruler(match: re.Match[str]) -> str:
    return f"{match['name']} the {ordinal(value(match['numeral']))}"


# An old-fashioned full stop after the numeral is left out where the sentence clearly goes on.
_STOP = r"(?:\.(?=[,;:]| [a-z]))?"
RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(rf"\b(?P<name>{_names(_PARTS)}) (?P<numeral>{_SEVERAL}|{_SINGLE}){_END}"), _part),
    (re.compile(rf"\b(?P<name>[A-Z][a-z]+) (?P<numeral>{_SEVERAL}){_END}{_STOP}"), _ruler),
    (
        re.compile(
            rf"\b(?P<name>{_names(_RULERS)}) (?P<numeral>{_SINGLE})(?=[.,;:)]|['’]s|$){_END}(?!\. [A-Z]){_STOP}"
        ),
        _ruler,
    ),
)
