"""Names of English units and currencies behind their signs: "lb" is one pound, many pounds; "$" dollars and cents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Unit(NamedTuple):
    """A unit's names for one of it and for any other number."""

    one: str
    many: str


class Currency(NamedTuple):
    """Names of a currency's unit and of its hundredth."""

    one: str
    many: str
    cent: str
    cents: str


SCALES = "thousand|million|billion|trillion"
SHORT_SCALES: Mapping[str, str] = {
    "k": "thousand",
    "K": "thousand",
    "m": "million",
    "M": "million",
    "bn": "billion",
}
CURRENCIES: Mapping[str, Currency] = {
    "$": Currency("dollar", "dollars", "cent", "cents"),
    "£": Currency("pound", "pounds", "penny", "pence"),
    "€": Currency("euro", "euros", "cent", "cents"),
    "¥": Currency("yen", "yen", "sen", "sen"),
    "₹": Currency("rupee", "rupees", "paisa", "paise"),
}
_LENGTHS = {
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "km": "kilometer",
    "yd": "yard",
    "yds": "yard",
}
_WEIGHTS = {"mg": "milligram", "g": "gram", "kg": "kilogram", "oz": "ounce", "lb": "pound", "lbs": "pound"}
_VOLUMES = {
    "ml": "milliliter",
    "mL": "milliliter",
    "l": "liter",
    "L": "liter",
    "gal": "gallon",
    "qt": "quart",
}
_TIMES = {
    "ms": "millisecond",
    "s": "second",
    "sec": "second",
    "secs": "second",
    "min": "minute",
    "mins": "minute",
    "hr": "hour",
    "hrs": "hour",
    "yr": "year",
    "yrs": "year",
}
_OTHERS = {"V": "volt", "kV": "kilovolt", "W": "watt", "kW": "kilowatt", "MW": "megawatt", "dB": "decibel"}
_DATA = {"KB": "kilobyte", "kB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte"}
_REGULAR = {**_LENGTHS, **_WEIGHTS, **_VOLUMES, **_TIMES, **_OTHERS, **_DATA, "¢": "cent", "°": "degree"}
_IRREGULAR = {
    "%": Unit("percent", "percent"),
    "ft": Unit("foot", "feet"),
    "in.": Unit("inch", "inches"),
    "Hz": Unit("hertz", "hertz"),
    "kHz": Unit("kilohertz", "kilohertz"),
    "MHz": Unit("megahertz", "megahertz"),
    "GHz": Unit("gigahertz", "gigahertz"),
    "mph": Unit("mile per hour", "miles per hour"),
    "km/h": Unit("kilometer per hour", "kilometers per hour"),
    "m/s": Unit("meter per second", "meters per second"),
    "m²": Unit("square meter", "square meters"),
    "km²": Unit("square kilometer", "square kilometers"),
    "m³": Unit("cubic meter", "cubic meters"),
    "°C": Unit("degree Celsius", "degrees Celsius"),
    "°F": Unit("degree Fahrenheit", "degrees Fahrenheit"),
}
_DOTTED = {
    f"{unit}.": name
    for unit, name in _REGULAR.items()
    if unit in ("lb", "lbs", "oz", "sec", "min", "hr", "hrs")
}
UNITS: Mapping[str, Unit] = {
    **{unit: Unit(name, f"{name}s") for unit, name in {**_REGULAR, **_DOTTED}.items()},
    **_IRREGULAR,
    "ft.": _IRREGULAR["ft"],
}
