"""English abbreviations in a text -> the words that a reader says: "Dr." is "Doctor", "Elm St." "Elm Street".

Two passes around the reading of numbers: words first, while digits still tell that "Jan." is a month and "p." a page;
then letters said one by one ("p.m." is "p m", "D. V. Harkness" "D V Harkness"). The full stop of an abbreviation that
ends the text stays as the sentence's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

TITLES: Mapping[str, str] = {
    "Mr": "Mister",
    "Mrs": "Missus",
    "Ms": "Miz",
    "Messrs": "Messieurs",
    "Dr": "Doctor",
    "Drs": "Doctors",
    "Prof": "Professor",
    "Rev": "Reverend",
    "Hon": "Honorable",
    "Gov": "Governor",
    "Gen": "General",
    "Lt": "Lieutenant",
    "Col": "Colonel",
    "Capt": "Captain",
    "Cmdr": "Commander",
    "Adm": "Admiral",
    "Maj": "Major",
    "Sgt": "Sergeant",
    "Cpl": "Corporal",
    "Pvt": "Private",
    "Sen": "Senator",
    "Pres": "President",
    "Supt": "Superintendent",
    "Insp": "Inspector",
    "St": "Saint",
    "Ft": "Fort",
    "Mt": "Mount",
}
"""Before a name; the full stop never ends a sentence there."""
ENDINGS: Mapping[str, str] = {
    "Co": "Company",
    "Corp": "Corporation",
    "Inc": "Incorporated",
    "Ltd": "Limited",
    "Bros": "Brothers",
    "Dept": "Department",
    "Esq": "Esquire",
    "Jr": "Junior",
    "Sr": "Senior",
    "Ave": "Avenue",
    "Blvd": "Boulevard",
    "Rd": "Road",
    "etc": "et cetera",
    "vs": "versus",
    "approx": "approximately",
    "cf": "compare",
}
"""After a name or between words; at the end of a text the full stop stays."""
_STREETS = {"St": "Street", "Dr": "Drive"}
MONTHS: Mapping[str, str] = {
    "Jan": "January",
    "Feb": "February",
    "Mar": "March",
    "Apr": "April",
    "Jun": "June",
    "Jul": "July",
    "Aug": "August",
    "Sep": "September",
    "Sept": "September",
    "Oct": "October",
    "Nov": "November",
    "Dec": "December",
}
NUMBERED: Mapping[str, str] = {
    "vol": "volume",
    "ch": "chapter",
    "chap": "chapter",
    "fig": "figure",
    "sec": "section",
    "pp": "pages",
    "p": "page",
    "art": "article",
    "ed": "edition",
}
"""Before a number."""
_LATIN: Mapping[str, str] = {"e.g.": "for example", "i.e.": "that is"}


def _any(words: Mapping[str, str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_STREET = re.compile(
    rf"(?P<name>\b[A-Z][a-z]+|[0-9](?:st|nd|rd|th)) (?P<word>{_any(_STREETS)})(?P<stop>\.)(?! [A-Z])"
)
_TITLE = re.compile(rf"\b(?P<word>{_any(TITLES)})\. ?(?=[A-Z])")
_ALONE = re.compile(r"\b(?P<word>Mr|Mrs|Ms|Messrs|Drs?|St)\.")
_ENDING = re.compile(rf"\b(?P<word>{_any(ENDINGS)})(?P<stop>\.)")
_MONTH = re.compile(rf"\b(?P<word>{_any(MONTHS)})\.(?=,? ?[0-9])|(?<=[0-9] )(?P<after>{_any(MONTHS)})\.")
_NUMBERED = re.compile(rf"\b(?P<word>{_any(NUMBERED)})\. ?(?=[0-9])", re.IGNORECASE)
_LATINS = re.compile(r"\b(?P<word>e\.g\.|i\.e\.)")
_LETTERS = re.compile(r"(?<![\w.])(?:[^\W\d_]\.){2,}")
_INITIAL = re.compile(r"(?<![\w'.])(?P<letter>[A-HJ-Z])\.(?= [A-Z])")
_CLOSING = re.compile(r"[\"')\]”’]*$")


def expand_words(text: str) -> str:
    """Returns the text with abbreviated words in full, where digits are still digits."""
    text = _STREET.sub(lambda m: f"{m['name']} {_STREETS[m['word']]}{_stop(m)}", text)
    text = _TITLE.sub(lambda m: f"{TITLES[m['word']]} ", text)
    text = _ALONE.sub(lambda m: f"{'Street' if m['word'] == 'St' else TITLES[m['word']]}{_stop(m)}", text)
    text = _MONTH.sub(lambda m: MONTHS[m["word"] or m["after"]], text)
    text = _NUMBERED.sub(_numbered, text)
    text = _LATINS.sub(lambda m: _LATIN[m["word"]], text)
    return _ENDING.sub(lambda m: f"{ENDINGS[m['word']]}{_stop(m)}", text)


def spell_letters(text: str) -> str:
    """Returns the text with dotted letters apart and without their full stops."""
    text = _LETTERS.sub(lambda m: " ".join(m[0].split(".")).strip() + _stop(m), text)
    return _INITIAL.sub(r"\g<letter>", text)


def _numbered(match: re.Match[str]) -> str:
    full = NUMBERED[match["word"].lower()]
    return f"{full.capitalize() if match['word'][0].isupper() else full} "


def _stop(match: re.Match[str]) -> str:
    """Returns the full stop if the text ends here."""
    return "." if _CLOSING.match(match.string, match.end()) else ""
