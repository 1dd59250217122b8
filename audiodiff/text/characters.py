"""Characters of a text: what is tidied before reading, what replaces what a model does not know, and what was lost.

Nothing vanishes unsaid: every replacement and every omission is counted in `Changes`. Control characters and halves of
surrogate pairs are no text at all and are refused; formatting characters (bidirectional marks, zero-width spaces) are
left out; a letter that a table lacks is tried in lower case, under its replacements below, and without its accents
(Unicode's compatibility decomposition, NFKD), in this order.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from audiodiff.errors import InputError

_QUOTES = dict.fromkeys("‘’‚‛′ʼ´`", "'") | dict.fromkeys("“”„‟″«»", '"')
_DASHES = dict.fromkeys("‐‑‒", "-") | dict.fromkeys("–—―", "-") | {"−": "-", "­": ""}
REPLACEMENTS: Mapping[str, str] = {
    **_QUOTES,
    **_DASHES,
    "'": "",
    **dict.fromkeys("[{⟨", "("),
    **dict.fromkeys("]}⟩", ")"),
    **dict.fromkeys("/\\|_~*^<>=+•·", " "),
    "…": "...",
    "¿": "",
    "¡": "",
    "ß": "ss",
    "æ": "ae",
    "œ": "oe",
    "ø": "o",
    "ł": "l",
    "đ": "d",
    "ð": "d",
    "þ": "th",
    "ı": "i",
}
"""What stands for a character that a table lacks."""

_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>|<[!?][^<>]*>")
_SHOWN = 10


@dataclass(frozen=True)
class Changes:
    """What a text lost on its way to the symbols of a model.

    Attributes:
        replaced: how often a character (first) was read as others (second).
        dropped: how often a character was left out.
    """

    replaced: Mapping[tuple[str, str], int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Changes) -> Changes:
        """Returns the changes of both."""
        return Changes(
            dict(Counter(self.replaced) + Counter(other.replaced)),
            dict(Counter(self.dropped) + Counter(other.dropped)),
        )

    def __bool__(self) -> bool:
        """Whether anything was changed."""
        return bool(self.replaced or self.dropped)

    def __str__(self) -> str:
        """Says by name and count what was replaced and what was left out."""
        replaced = [
            f"{count} x {named(was)} as {_shown(now)}" for (was, now), count in sorted(self.replaced.items())
        ]
        dropped = [f"{count} x {named(was)}" for was, count in sorted(self.dropped.items())]
        parts = [
            f"{what} {_list(each)}" for what, each in (("read", replaced), ("left out", dropped)) if each
        ]
        return "; ".join(parts) or "nothing changed"


def tidy(text: str) -> tuple[str, Changes]:
    """Returns the text composed (NFC), on one line, in ASCII digits and without formatting characters.

    Raises:
        InputError: no text, nothing in it, markup, control characters or surrogates.
    """
    check(text)
    pieces: list[str] = []
    replaced: Counter[tuple[str, str]] = Counter()
    dropped: Counter[str] = Counter()
    for character in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(character)
        if character.isspace():
            pieces.append(" ")
        elif kind == "Cf":
            dropped[character] += 1
        elif (digits := _ascii_digits(character, kind)) is not None:
            replaced[character, digits] += 1
            pieces.append(digits)
        else:
            pieces.append(character)
    plain = " ".join("".join(pieces).split())
    if not plain:
        raise InputError(f"text: nothing of it can be seen: {counted(dropped)}; expected letters or digits")
    return plain, Changes(dict(replaced), dict(dropped))


def check(text: object) -> None:
    """Refuses what is not plain text.

    Raises:
        InputError: no text, nothing in it, markup, control characters or surrogates.
    """
    if not isinstance(text, str):
        raise InputError(f"text: got {type(text).__name__}, expected text (str)")
    if not text.strip():
        raise InputError("text: is empty, expected at least one letter or digit")
    refused = Counter(c for c in text if unicodedata.category(c) in ("Cc", "Cs") and not c.isspace())
    if refused:
        raise InputError(
            f"text: got characters that are no text: {counted(refused)}; "
            "expected plain text in UTF-8: remove them or read the file in its own encoding"
        )
    markup = _MARKUP.findall(text)
    if markup:
        tags = ", ".join(tag[:40] for tag in markup[:_SHOWN])
        raise InputError(f"text: markup is not read; got {tags}; give plain text without tags")


def fit(text: str, known: Callable[[str], bool]) -> tuple[str, Changes]:
    """Returns the text in the characters that are known, and what it took.

    Args:
        text: any text.
        known: whether a character may stand as it is.
    """
    pieces: list[str] = []
    replaced: Counter[tuple[str, str]] = Counter()
    dropped: Counter[str] = Counter()
    for character in text:
        if known(character):
            pieces.append(character)
            continue
        other = _equivalent(character, known)
        if other is None:
            dropped[character] += 1
            continue
        pieces.append(other)
        if other != character.lower():
            replaced[character, other] += 1
    return "".join(pieces), Changes(dict(replaced), dict(dropped))


def counted(characters: Mapping[str, int]) -> str:
    """Returns how often which characters stood somewhere: "2 x '\u65e5' (CJK UNIFIED IDEOGRAPH-65E5)"."""
    return _list([f"{count} x {named(character)}" for character, count in sorted(characters.items())])


def named(character: str) -> str:
    """Returns the character with its Unicode name: "'é' (LATIN SMALL LETTER E WITH ACUTE)"."""
    code = f"U+{ord(character):04X}"
    name = unicodedata.name(character, "")
    if character.isprintable():
        return f"{character!r} ({name or code})"
    return f"{code} ({name})" if name else code


def _ascii_digits(character: str, kind: str) -> str | None:
    """Returns the digits 0-9 of one of another script or in a circle; None for anything else."""
    if kind == "Nd" and not character.isascii():
        return str(unicodedata.decimal(character))
    if kind == "No" and character not in "²³":
        plain = unicodedata.normalize("NFKC", character)
        return plain if re.fullmatch("[0-9]+", plain) else None
    return None


def _equivalent(character: str, known: Callable[[str], bool]) -> str | None:
    """Returns known characters for an unknown one, None if there are none."""
    lower = character.lower()
    plain = "".join(c for c in unicodedata.normalize("NFKD", lower) if not unicodedata.combining(c))
    pieces = "".join(REPLACEMENTS.get(c, c) for c in plain)
    candidates = [
        lower,
        *([REPLACEMENTS[lower]] if lower in REPLACEMENTS else []),
        *filter(None, (plain, pieces)),
    ]
    fitting = (other for other in candidates if other != character and all(map(known, other)))
    return next(fitting, None)


def _shown(text: str) -> str:
    return repr(text) if text else "nothing"


def _list(parts: list[str]) -> str:
    more = f" and {len(parts) - _SHOWN} more kinds" if len(parts) > _SHOWN else ""
    return ", ".join(parts[:_SHOWN]) + more
