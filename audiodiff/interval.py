"""Label values: a list of names, or an interval of numbers (a pitch, a loudness).

A recipe writes either under `data.labels`: `class: [kick, snare]`, or `loudness: { low: -60, high: 0, step: 3 }`. A
clip carries its number as text, like any label; a model that was trained on an interval takes every number within it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, overload

from audiodiff.errors import InputError


class Interval(Sequence[str]):
    """Numbers from low to high, written as text; as a sequence, those that lie whole steps above low.

    Attributes:
        low: smallest number.
        high: largest number.
        step: between the numbers that stand for the interval where all are listed or made.
    """

    def __init__(self, low: float, high: float, step: float = 1.0) -> None:
        """Checks the bounds.

        Raises:
            InputError: bounds or step that are no finite numbers, low not below high, a step that is not positive.
        """
        if not all(isinstance(each, (int, float)) and math.isfinite(each) for each in (low, high, step)):
            raise InputError(f"interval: got low {low!r}, high {high!r}, step {step!r}, expected numbers")
        if not low < high or not step > 0:
            raise InputError(
                f"interval: got {low} to {high} by {step}, expected low < high and a step above 0"
            )
        self.low, self.high, self.step = float(low), float(high), float(step)

    def __repr__(self) -> str:
        return f"Interval({self.low:g}, {self.high:g}, {self.step:g})"

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Interval) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash((self.low, self.high, self.step))

    def __len__(self) -> int:
        # A step that divides the interval but for rounding reaches its end.
        return math.floor((self.high - self.low) / self.step * (1 + 1e-12) + 1e-9) + 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        """Returns one number as text, or several."""
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return f"{self.low + index % len(self) * self.step:g}"

    def __contains__(self, text: object) -> bool:
        """Whether a text is a number of the interval."""
        number = _number(text)
        return number is not None and self.low <= number <= self.high

    def part(self, name: str, text: str) -> Interval:
        """Returns the part that a text means: low:high or low:high:step.

        Raises:
            InputError: it means none, or one that reaches outside.
        """
        numbers = [_number(each) for each in text.split(":")]
        if len(numbers) not in (2, 3) or None in numbers:
            raise InputError(f"{name}={text}: expected {name}=LOW:HIGH or {name}=LOW:HIGH:STEP")
        low, high, step = [*(each for each in numbers if each is not None), self.step][:3]
        if low < self.low or high > self.high:
            raise InputError(f"{name}={text}: this model knows {name} from {self}")
        return Interval(low, high, step)

    def number(self, name: str, text: str) -> float:
        """Returns the number that a text means.

        Raises:
            InputError: it is none, or lies outside.
        """
        number = _number(text)
        if number is None or not self.low <= number <= self.high:
            raise InputError(f"{name} {text!r}: this model expects a number from {self}")
        return number


# What stands under one name of `data.labels`, as a model knows it.
LabelValues = tuple[str, ...] | Interval


def label_values(name: str, node: Sequence[Any] | Mapping[str, Any] | Interval) -> LabelValues:
    """Returns the values of one label name as a recipe writes them.

    Raises:
        InputError: a mapping that is no interval.
    """
    if isinstance(node, Interval):
        return node
    if not isinstance(node, Mapping):
        return tuple(str(value) for value in node)
    if not {"low", "high"} <= set(node) <= {"low", "high", "step"}:
        raise InputError(
            f"label {name!r}: got the keys {', '.join(map(str, node)) or 'none'}, expected a list of values or "
            "low, high and step of an interval"
        )
    return Interval(**{str(key): value for key, value in node.items()})


def listed(values: Sequence[str]) -> str:
    """Returns values in words: their list, or where an interval begins and ends."""
    return str(values) if isinstance(values, Interval) else ", ".join(values)


def choices(values: Sequence[str]) -> str:
    """Returns what may be chosen: "one of a, b", or "a number from 0 to 1"."""
    return f"a number from {values}" if isinstance(values, Interval) else f"one of {', '.join(values)}"


def _number(text: object) -> float | None:
    try:
        number = float(str(text))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
