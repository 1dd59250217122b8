"""What the sounds of each system cost, as columns beside their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from audiodiff.errors import InputError
from audiodiff.synthesis.cost import Cost
from audiodiff.synthesis.samples import COST, RECORD

HARDWARE = "sounds made on"  # heading of what is no number


@dataclass(frozen=True)
class Column:
    """One number of a cost.

    Attributes:
        key: of it.
        name: heading, with its unit.
        definition: what it is.
        value: the number, None where it is not known.
    """

    key: str
    name: str
    definition: str
    value: Callable[[Cost], float | None]


COLUMNS = (
    Column(
        "real_time_factor", "real-time factor ↓",
        "Seconds of work per second of audio, without loading the model and writing files; below 1 is faster than "
        "real time. Channels are counted one by one.",
        lambda cost: cost.real_time_factor,
    ),
    Column(
        "evaluations", "network evaluations ↓",
        "How often each sound passes through a denoising network, guidance counted.",
        lambda cost: cost.evaluations,
    ),
    Column(
        "multiply_adds", "multiply-adds per s (G) ↓",
        "In 10^9 per second of audio: matrix products, convolutions and attention of all evaluations, of what "
        "prepares the condition and of what decodes; Fourier transforms are not counted.",
        lambda cost: cost.multiply_adds / 1e9,
    ),
    Column(
        "parameters", "parameters (M) ↓", "Numbers in all models that ran, in 10^6.", lambda cost: cost.parameters / 1e6
    ),
    Column(
        "peak_memory", "peak memory (MB) ↓",
        "The most that the process held, the libraries and the weights with it, in 10^6 bytes; on an accelerator what "
        "it held there.",
        lambda cost: None if cost.peak_memory_bytes is None else cost.peak_memory_bytes / 1e6,
    ),
)  # fmt: skip
HEADINGS = [*(column.name for column in COLUMNS), HARDWARE]


def cost_of(record: Mapping[str, Any], named: object) -> Cost | None:
    """Returns the cost in the content of a samples.json, None where it has none.

    Args:
        record: the content.
        named: the folder, for the message.

    Raises:
        InputError: a cost that is none.
    """
    try:
        return None if record.get(COST) is None else Cost.from_record(record[COST])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{named}/{RECORD}: its cost is damaged ({type(error).__name__}: {error}); make the sounds again"
        ) from error


def joined_cost(records: Sequence[Mapping[str, Any]], named: object) -> Mapping[str, Any] | None:
    """Returns the cost of several folders together, for a record; None where one lacks it or their means differ."""
    costs = [cost_of(record, named) for record in records]
    try:
        return reduce(add, [cost for cost in costs if cost is not None]).record() if all(costs) else None
    except ValueError:
        return None


def cost_cells(cost: Cost | None) -> list[str]:
    """Returns the cells of a row under HEADINGS."""
    if cost is None:
        return ["n/a"] * len(HEADINGS)
    values = [column.value(cost) for column in COLUMNS]
    return ["n/a" if value is None else in_digits(value) for value in values] + [cost.hardware]


def beside(
    headings: list[str], rows: Sequence[list[str]], costs: Mapping[str, Cost]
) -> tuple[list[str], list[list[str]]]:
    """Returns headings and rows, a system's name first, with what its sounds cost; as they were where none is known."""
    if not costs:
        return headings, list(rows)
    return [*headings, *HEADINGS], [[*row, *cost_cells(costs.get(row[0]))] for row in rows]


def in_digits(value: float) -> str:
    """Returns a number in three digits, more only where they stand before the point."""
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def definitions() -> list[str]:
    """Returns one line for each column."""
    return [f"- **{column.name.rstrip(' ↓')}**: {column.definition}" for column in COLUMNS]
