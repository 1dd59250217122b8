"""English words for numbers: cardinals, ordinals, years, digits, decimals and fractions.

American reading without "and" (as LJ Speech is read): 6,439 is "six thousand, four hundred thirty-nine". A comma stands
where a reader takes breath: after every thousands group but before a remainder below one hundred, and not below 2,000.
Years and numbers of things are read in pairs of digits: 1805 is "eighteen oh five", No. 143 is "one forty-three".
"""

from __future__ import annotations

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = (
    "", "thousand", "million", "billion", "trillion", "quadrillion", "quintillion", "sextillion", "septillion",
    "octillion", "nonillion", "decillion",
)  # fmt: skip
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
LONGEST = 3 * len(_SCALES)
"""Most digits of a number that has a name; longer ones are read digit by digit."""


def cardinal(value: int) -> str:
    """Returns a number from 0 to 10^36 - 1 in words: 1308 is "one thousand three hundred eight"."""
    if value < 1000:
        return _below_thousand(value)
    groups: list[str] = []
    rest, position = value // 1000, 1
    while rest:
        rest, group = divmod(rest, 1000)
        if group:
            groups.insert(0, f"{_below_thousand(group)} {_SCALES[position]}")
        position += 1
    separator = " " if value < 2000 else ", "
    last = value % 1000
    words = separator.join(groups)
    return words if last == 0 else words + (separator if last >= 100 else " ") + _below_thousand(last)


def ordinal(value: int) -> str:
    """Returns the number's place in words: 22 is "twenty-second"."""
    words = cardinal(value)
    start = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[start:]
    if last in _ORDINALS:
        last = _ORDINALS[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return words[:start] + last


def year(value: int) -> str:
    """Returns a year from 100 to 9999 in words: 1805 is "eighteen oh five", 2005 "two thousand five"."""
    if value % 1000 < 10:
        return cardinal(value)
    return in_pairs(value)


def in_pairs(value: int) -> str:
    """Returns a number of up to four digits as a house or an exhibit is called: 143 is "one forty-three"."""
    first, last = divmod(value, 100)
    if first == 0:
        return cardinal(last)
    if last == 0:
        return cardinal(value) if first % 10 == 0 else f"{cardinal(first)} hundred"
    return f"{cardinal(first)} {'oh ' if last < 10 else ''}{cardinal(last)}"


def decade(value: int) -> str:
    """Returns the plural of a year: 1930 is "nineteen thirties"."""
    return plural(year(value) if value >= 100 else cardinal(value))


def digits(text: str) -> str:
    """Returns the digits of a text one by one: "2915" is "two nine one five"."""
    return " ".join(_ONES[int(digit)] for digit in text)


def whole(text: str) -> str:
    """Returns digits, commas between them or not, as a cardinal; too long ones and those after a zero one by one."""
    plain = text.replace(",", "")
    if len(plain) > LONGEST or (len(plain) > 1 and plain[0] == "0"):
        return digits(plain)
    return cardinal(int(plain))


def decimal(text: str) -> str:
    """Returns a number that may have a point: "6.75" is "six point seven five"."""
    before, point, after = text.partition(".")
    words = "zero" if before == "0" else whole(before) if before else ""
    return f"{words} point {digits(after)}".strip() if point else words


def fraction(numerator: int, denominator: int) -> str:
    """Returns a fraction in words: 3/4 is "three quarters", 5/144 "five over one hundred forty-four"."""
    if denominator > 100 or denominator < 2:
        return f"{cardinal(numerator)} over {cardinal(denominator)}"
    name = {2: "half", 4: "quarter"}.get(denominator) or ordinal(denominator)
    return f"{cardinal(numerator)} {name if numerator == 1 else plural(name)}"


def plural(words: str) -> str:
    """Returns the plural of a number word: "sixty" -> "sixties", "half" -> "halves"."""
    if words.endswith("half"):
        return words[:-1] + "ves"
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith("x") else "s")


def _below_thousand(value: int) -> str:
    hundreds, rest = divmod(value, 100)
    if hundreds:
        return f"{_ONES[hundreds]} hundred" + (f" {_below_thousand(rest)}" if rest else "")
    if rest < 20:
        return _ONES[rest]
    tens, ones = divmod(rest, 10)
    return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
