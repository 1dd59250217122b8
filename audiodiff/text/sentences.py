"""A long text -> sentences, and sentences -> parts that are short enough to be synthesised at once.

A sentence ends at a full stop, exclamation or question mark or ellipsis, with the quotes and brackets that close after
it, before white space; not after an abbreviation or an initial, nor where the next word starts in lower case. An empty
line ends one too. A sentence that is too long is cut after the last clause mark that fits, else at a conjunction, else
at a space, else within the word.
"""

from __future__ import annotations

import re

from audiodiff.errors import InputError
from audiodiff.text.abbreviations import ENDINGS, MONTHS, NUMBERED, TITLES
from audiodiff.text.characters import check

_END = re.compile(r"(?P<mark>[.!?…]+)[\"'”’»)\]]*(?=\s)|\n\s*\n")
_NEVER_LAST = {word.lower() for word in (*TITLES, *NUMBERED)} | {
    "no",
    "nos",
    "e.g",
    "i.e",
    "cf",
    "approx",
    "vs",
}
_SELDOM_LAST = {word.lower() for word in (*ENDINGS, *MONTHS)}
# After "U.S." a capital is more often a name's than a sentence's, but for these.
_STARTERS = {
    "A", "After", "An", "And", "As", "At", "But", "By", "For", "From", "He", "Her", "His", "How", "I", "If", "In", "It",
    "Its", "My", "No", "Now", "On", "Our", "She", "So", "That", "The", "Then", "There", "These", "They", "This",
    "Those", "To", "We", "What", "When", "Where", "Who", "Why", "With", "Yes", "You",
}  # fmt: skip
_LETTERS = re.compile(r"(?:[A-Z]\.)+[A-Z]")
_WORD_BEFORE = re.compile(r"([^\s\"'“”‘’(\[]+)$")
_NEXT = re.compile(r"\s*[\"'“”‘’«(\[]*(\w*)(\S?)")
_CLAUSES = (
    re.compile(r"[;:—–][\"'”’»)\]]*\s|[.!?…]+[\"'”’»)\]]*\s"),
    re.compile(r"[,][\"'”’»)\]]*\s"),
    re.compile(r"\s(?=(?:and|or|but|nor|because|which|that|who|when|while|where|if|with)\s)"),
    re.compile(r"\s"),
)
_LEAST = 0.3


def sentences(text: str, longest: int = 300) -> list[str]:
    """Returns the text in parts, each without white space around it; joined by spaces they are the text again.

    Args:
        text: as it is written, or normalised.
        longest: most characters of a part.

    Raises:
        InputError: no text, nothing in it, or a length below 1.
    """
    check(text)
    if longest < 1:
        raise InputError(f"longest part of a text: got {longest} characters, expected at least 1")
    parts: list[str] = []
    start = 0
    for end in [*_ends(text), len(text)]:
        sentence = " ".join(text[start:end].split())
        start = end
        while len(sentence) > longest:
            cut = _cut(sentence, longest)
            parts.append(sentence[:cut].strip())
            sentence = sentence[cut:].strip()
        if sentence:
            parts.append(sentence)
    return [part for part in parts if part]


def _ends(text: str) -> list[int]:
    """Returns the places behind every sentence but the last."""
    return [match.end() for match in _END.finditer(text) if match["mark"] is None or _is_end(text, match)]


def _is_end(text: str, match: re.Match[str]) -> bool:
    following = _NEXT.match(text, match.end())
    start = following[1] or following[2] if following else ""
    first = start[:1]
    if first.islower():
        return False
    if match["mark"] != ".":
        return True
    before = _WORD_BEFORE.search(text, max(0, match.start() - 40), match.start())
    word = before[1] if before else ""
    if len(word) == 1 and word.isupper() and word != "I":
        return False
    if _LETTERS.fullmatch(word) and first.isupper():
        return start in _STARTERS
    if word.lower() in _NEVER_LAST:
        # "No. 5" is a number, "He said no. Then" an end.
        return word.lower() in ("no", "nos", "art", "p", "ed", "sec") and not first.isdigit()
    return not (word.lower() in _SELDOM_LAST and first.isdigit())


def _cut(sentence: str, longest: int) -> int:
    """Returns where to cut a sentence that is too long, at most `longest`."""
    for marks in _CLAUSES:
        ends = [match.end() for match in marks.finditer(sentence, 0, longest + 1)]
        fitting = [end for end in ends if len(sentence[:end].rstrip()) <= longest and end >= _LEAST * longest]
        if fitting:
            return fitting[-1]
    return longest
