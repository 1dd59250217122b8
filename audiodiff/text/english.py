"""English numbers in a text -> words: money, times, dates, years, units, fractions, identifiers, plain numbers.

A list of rules, each a pattern and what it becomes, in the order in which they are tried; what a rule has read holds
no digit any more, so that later ones leave it alone. After the last rule there is no ASCII digit left. Style and
ambiguities follow LJ Speech's normalised transcripts (Ito and Johnson 2017): American, no "and", dates in cardinals.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from audiodiff.text.numbers import (
    cardinal,
    decade,
    decimal,
    digits,
    fraction,
    in_pairs,
    ordinal,
    whole,
    year,
)
from audiodiff.text.roman import RULES as ROMAN_NUMERALS
from audiodiff.text.units import CURRENCIES, SCALES, SHORT_SCALES, UNITS


class Rule(NamedTuple):
    """Where a rule holds and what it makes of it."""

    pattern: re.Pattern[str]
    words: Callable[[re.Match[str]], str]


MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_NUMBER}(?:\.[0-9]+)?|\.[0-9]+)"
_START = r"(?<![\w.])"
_FRACTIONS = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅛": (1, 8), "⅜": (3, 8),
    "⅝": (5, 8), "⅞": (7, 8),
}  # fmt: skip
_STREET = r"(?:[A-Z][a-z]+ )+(?:Street|Avenue|Road|Boulevard|Lane|Drive|Place|Square|St\.|Ave\.|Rd\.|Blvd\.)"
_COUNTED = {"people", "men", "women", "children", "sheep", "feet", "percent", "hundred", "million", "billion"}
_NOT_PLURAL = {
    "was",
    "is",
    "has",
    "as",
    "this",
    "his",
    "its",
    "us",
    "does",
    "thus",
    "perhaps",
    "always",
    "versus",
}
_BEFORE_COUNT = {"were", "are", "than", "contained", "only", "nearly", "exactly", "numbered", "totaling"}


def spell_numbers(text: str) -> str:
    """Returns the text with every number and the signs around numbers in words.

    Args:
        text: English, quotes and dashes of any kind.
    """
    for pattern, words in RULES:
        text = pattern.sub(words, text)
    return text


def _money(match: re.Match[str]) -> str:
    currency = CURRENCIES[match["sign"].removeprefix("US")]
    amount, scale = match["amount"], match["scale"]
    if scale:
        return f"{decimal(amount)} {SHORT_SCALES.get(scale, scale.strip())} {currency.many}"
    units, _, cents = amount.partition(".")
    if cents and len(cents) != 2:
        return f"{decimal(amount)} {currency.many}"
    parts = []
    if not cents or int(units.replace(",", "") or 0):
        parts.append(f"{whole(units)} {currency.one if units == '1' else currency.many}")
    if cents and int(cents):
        parts.append(f"{cardinal(int(cents))} {currency.cent if int(cents) == 1 else currency.cents}")
    return ", ".join(parts) or f"zero {currency.many}"


def _time(match: re.Match[str]) -> str:
    hours, minutes, seconds = match["hours"], match["minutes"], match["seconds"]
    words = cardinal(int(hours))
    if minutes != "00" or seconds:
        words += f" {'oh ' if minutes[0] == '0' else ''}{cardinal(int(minutes))}"
    elif match["half"] is None:
        words += " o'clock" if 1 <= int(hours) <= 12 else " hundred"
    if seconds:
        words += f" and {cardinal(int(seconds))} seconds"
    return words


def _date(match: re.Match[str]) -> str:
    month, day = int(match["month"]), int(match["day"])
    if month > 12 >= day:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return digits_apart(match)
    return f"{MONTHS[month - 1]} {cardinal(day)}, {year(int(match['year']))}"


def digits_apart(match: re.Match[str]) -> str:
    """Returns groups of digits one by one, with a pause between groups: a telephone number."""
    return ", ".join(digits(group) for group in re.findall("[0-9]+", match[0]))


def _unit(match: re.Match[str]) -> str:
    unit, amount = UNITS[match["unit"]], match["amount"]
    return f"{decimal(amount)}{match['gap'] or ' '}{unit.one if amount == '1' or match['gap'] == '-' else unit.many}"


def _feet(match: re.Match[str]) -> str:
    feet, inches = match["feet"], match["inches"]
    words = f"{whole(feet)} {'foot' if feet == '1' or inches else 'feet'}"
    return f"{words} {whole(inches)}" if inches else words


def _numbered(match: re.Match[str]) -> str:
    several = match["mark"] == "Nos."
    return (
        f"{'Numbers' if several else 'Number' if match['mark'] != '#' else 'number'} {_name(match['name'])}"
    )


def _name(name: str) -> str:
    """Returns how a numbered thing is called: 77, 143, V510210, 133-A."""
    plain = re.fullmatch(r"([0-9]+)(?:-?([A-Z]))?", name)
    if plain is None:
        return _identifier(name)
    number, letter = plain[1], plain[2]
    words = in_pairs(int(number)) if 3 <= len(number) <= 4 and number[0] != "0" else whole(number)
    return f"{words} {letter}" if letter else words


def _identifier(name: str) -> str:
    """Returns letters and digits mixed: C2766 is "C two seven six six", B52 "B fifty-two"."""
    words = []
    for run in re.findall(r"[0-9]+|[^\W\d_]+", name):
        if run[0] in "0123456789":
            words.append(digits(run) if len(run) > 2 or run[0] == "0" else cardinal(int(run)))
        else:
            words.append(" ".join(run) if run.isupper() else run)
    return " ".join(words)


def _fraction(match: re.Match[str]) -> str:
    whole_part = match["whole"]
    top, bottom = _FRACTIONS[match["sign"]] if match["sign"] else (int(match["top"]), int(match["bottom"]))
    if bottom == 0:
        return f"{cardinal(top)} over zero"
    words = fraction(top, bottom)
    if whole_part:
        words = f"{whole(whole_part)} and {'a ' + words[4:] if top == 1 else words}"
    return words


def _ordinal(match: re.Match[str]) -> str:
    number = match["number"].replace(",", "")
    return ordinal(int(number)) if len(number) <= 15 else digits(number)


def _decade(match: re.Match[str]) -> str:
    return decade(int(match["short"] or match["long"]))


def _integer(match: re.Match[str]) -> str:
    """Returns a whole number as a year or as an amount, by the words around it."""
    number = match["number"]
    if len(number) == 4 and number[0] in "12" and 1010 <= int(number) <= 2099 and not _is_count(match):
        return year(int(number))
    return whole(number)


def _is_count(match: re.Match[str]) -> bool:
    before = re.search(r"(\w+) $", match.string[max(0, match.start() - 20) : match.start()])
    if before and before[1].lower() == "in":
        return False
    after = re.match(r" ([a-z]+)", match.string[match.end() : match.end() + 30])
    if before and before[1].lower() in _BEFORE_COUNT:
        return True
    if after is None:
        return False
    word = after[1]
    plural_noun = len(word) > 3 and word.endswith("s") and not word.endswith("ss") and word not in _NOT_PLURAL
    return plural_noun or word in _COUNTED


def _point(match: re.Match[str]) -> str:
    """Returns a decimal, or a number of several points (a version, a section)."""
    first, *more = match[0].split(".")
    if len(more) <= 1:
        return decimal(match[0])
    return " point ".join([whole(first), *(whole(part) for part in more)])


def _rule(pattern: str, words: Callable[[re.Match[str]], str] | str) -> Rule:
    if isinstance(words, str):
        text = words
        return Rule(re.compile(pattern), lambda match: match.expand(text))
    return Rule(re.compile(pattern), words)


_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
_SIGN = "|".join(re.escape(sign) for sign in CURRENCIES)
_AMOUNT = rf"(?P<amount>{_DECIMAL})"
RULES: tuple[Rule, ...] = (
    _rule(rf"{_START}(?P<year>[12][0-9]{{3}})-(?P<month>[0-9]{{2}})-(?P<day>[0-9]{{2}})(?![\w-])", _date),
    _rule(rf"{_START}(?P<month>[0-9]{{1,2}})/(?P<day>[0-9]{{1,2}})/(?P<year>[12][0-9]{{3}})(?![\w/])", _date),
    _rule(r"'(?P<short>[0-9]0)(?P<long>)'?s\b", _decade),
    _rule(r"(?<![\w.,])(?P<short>)(?P<long>[12][0-9]{2}0|[2-9]0)'?s\b", _decade),
    # Telephone numbers: groups of digits, the last of four.
    _rule(
        r"(?<![\w.])\+?(?:[0-9]{1,3}[-. ])?\(?[0-9]{3}\)?[-. ][0-9]{3}[-. ][0-9]{4}(?![\w-])", digits_apart
    ),
    _rule(r"(?<![\w.-])[0-9]{3}-[0-9]{4}(?![\w-])", digits_apart),
    _rule(r"(?<![\w.-])[0-9]+(?:-[0-9]+){2,}(?![\w-])", digits_apart),
    _rule(r"(?<=[0-9]:[0-9]{2}) ?[-–—] ?(?=[0-9])", " to "),
    _rule(
        r"(?<![\w:.])(?P<hours>[01]?[0-9]|2[0-4]):(?P<minutes>[0-5][0-9])(?::(?P<seconds>[0-5][0-9]))?(?![\w:])"
        r"(?P<half>(?= ?(?:[ap]\.?m\b|[AP]\.?M\b)))?",
        _time,
    ),
    _rule(r"(?<=[0-9])(?=[ap]\.?m\b)", " "),
    _rule(rf"(?<=[0-9])([%°]?) ?[-–—] ?(?=(?:{_SIGN})?[0-9])", r"\1 to "),
    _rule(
        rf"(?<![\w.-])(?P<sign>(?:US)?(?:{_SIGN})) ?{_AMOUNT}(?P<scale> (?:{SCALES})\b|(?:[mMkK]|bn)\b)?(?![0-9])",
        _money,
    ),
    _rule(
        rf"(?<![\w.])(?:(?P<whole>{_NUMBER}) ?)?(?P<sign>[{''.join(_FRACTIONS)}])(?P<top>)(?P<bottom>)",
        _fraction,
    ),
    _rule(
        rf"(?<![\w./])(?:(?P<whole>{_NUMBER})[ -])?(?P<sign>)(?P<top>[0-9]{{1,3}})[/⁄]"
        r"(?P<bottom>[0-9]{1,3})(?![\w/])",
        _fraction,
    ),
    _rule(r"""(?<![\w.])(?P<feet>[0-9]{1,2})['′] ?(?P<inches>[0-9]{1,2})["″]""", _feet),
    _rule(rf"{_START}{_AMOUNT}(?P<gap>[ -])?(?P<unit>{_UNIT})(?![\w])(?!\.[A-Za-z])", _unit),
    _rule(r" ?²", " squared"),
    _rule(r" ?³", " cubed"),
    _rule(r"(?P<mark>\bNos?\.|№|#) ?(?P<name>[A-Z]*[0-9]+(?:-?[A-Z]\b)?)", _numbered),
    *(Rule(*rule) for rule in ROMAN_NUMERALS),
    _rule(rf"(?<![\w.])(?P<number>{_NUMBER})(?:st|nd|rd|th)\b", _ordinal),
    _rule(
        r"(?<![\w.])\.(?P<bore>[1-9][0-9])(?=[ -](?:cal|[A-Z]|revolver|pistol|rifle))",
        lambda m: whole(m["bore"]),
    ),
    _rule(r"(?P<box>\b[Bb]ox )(?P<number>[0-9]{3,})", lambda m: m["box"] + digits(m["number"])),
    _rule(
        rf"(?<![\w.,])(?P<number>[1-9](?:[1-9][0-9]|[0-9][1-9]))(?= {_STREET})", lambda m: digits(m["number"])
    ),
    _rule(r"(?<![\w.,-])(?P<number>[1-9][0-9]{2})(?= [AB]\.? ?[CD]\b)", lambda m: year(int(m["number"]))),
    _rule(
        r"(?P<before>\b[Ii]n )(?P<number>[1-9][0-9]{2})(?=,(?: |$)| [A-Z]| when\b)",
        lambda m: m["before"] + year(int(m["number"])),
    ),
    _rule(
        r"(?P<what>\b(?:P\.S\.|Exhibit|Flight|Route|Highway|Room|Apartment|Suite|Bus) )"
        r"(?P<name>[0-9]{3,4}(?:-[A-Z]\b)?)"
        r"(?![\w,.]*[0-9])",
        lambda m: m["what"] + _name(m["name"]),
    ),
    _rule(r"(?<![\w.,])[0-9]{1,4}-[A-Z]\b", lambda m: _name(m[0])),
    _rule(r"\b(?=[^\W_]*[0-9])(?=[^\W_]*[^\W\d_])[^\W_]+", lambda m: _identifier(m[0])),
    _rule(r"(?:(?<=^)|(?<=[\s(]))[-−–](?=\.?[0-9])", "minus "),
    _rule(r" ?& ?", " and "),
    _rule(r"±", " plus or minus "),
    _rule(r" ?\+(?= ?[0-9])", " plus "),
    _rule(r"(?<=[0-9]) ?× ?", " times "),
    _rule(r"(?<=[0-9]) ?÷ ?", " divided by "),
    _rule(rf"(?<![0-9.]){_NUMBER}(?:\.[0-9]+)+|(?<![0-9])\.[0-9]+", _point),
    _rule(r"(?P<number>[0-9]{1,3}(?:,[0-9]{3})+)(?!,?[0-9])", lambda m: whole(m["number"])),
    _rule(r"'(?P<number>[0-9]{2})\b", lambda m: f"'{whole(m['number'])}"),
    _rule(r"(?P<number>[0-9]+)", _integer),
    _rule(r" ?[@] ?", " at "),
    _rule(r" ?=+ ?", " equals "),
    _rule(r" ?%", " percent"),
)
