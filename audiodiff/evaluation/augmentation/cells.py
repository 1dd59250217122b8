"""What is to be generated: cells of equal labels, how many sounds of each, and the labels that are drawn.

A class is a value of the first name; the combinations with the other names share its sounds as evenly as whole numbers
allow. Labels of the model that are neither spread nor fixed, and the length, are those of a real training clip that
has as much of the cell's labels as any has; which one is drawn by seed and item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audiodiff.data.entries import Entry
from audiodiff.errors import InputError
from audiodiff.interval import Interval
from audiodiff.synthesis.generation import label_sets

_LISTED = 10


@dataclass(frozen=True)
class Cell:
    """Sounds with the same labels.

    Attributes:
        labels: that are spread or fixed.
        wanted: sounds to keep.
    """

    labels: Mapping[str, str]
    wanted: int


@dataclass(frozen=True)
class Drawn:
    """What one sound is asked to be.

    Attributes:
        item: number of its noise.
        cell: number of its cell.
        labels: one value of every label name of the model.
        samples: length, at the corpus' rate.
    """

    item: int
    cell: int
    labels: Mapping[str, str]
    samples: int


def spread_names(
    known: Mapping[str, Sequence[str]], wanted: Sequence[str], each: Sequence[str], judged: str | None
) -> list[str]:
    """Returns the label names of which every value is made, the class first.

    Args:
        known: the model's label names and values.
        wanted: "value" or "name=value", the same for all sounds.
        each: as asked for; empty: all names with a list of values that are not fixed.
        judged: label of the judge, which is then the class; None without one.
    """
    if each:
        return list(each)
    fixed = label_sets(known, wanted, [], 1)[0]
    names = [name for name, values in known.items() if not isinstance(values, Interval) and name not in fixed]
    return sorted(names, key=lambda name: name != judged)  # a stable sort: the model's order otherwise


def cells_of(
    known: Mapping[str, Sequence[str]], wanted: Sequence[str], each: Sequence[str], per_class: int
) -> list[Cell]:
    """Returns the cells in the order of the model's values, with per_class sounds for each value of each[0].

    Raises:
        InputError: less than one sound a class, or labels that the model does not know.
    """
    if per_class < 1:
        raise InputError(f"--per-class: got {per_class}, expected at least 1")
    sets = label_sets(known, wanted, each, 1)
    classes = list(dict.fromkeys(labels[each[0]] for labels in sets)) if each else [""]
    share = len(sets) // len(classes)  # cells of a class
    cells = []
    for number, labels in enumerate(sets):
        row, column = divmod(number, share)
        # What is left over goes to other cells in every class, so that the other names are even, too.
        extra = (column - row) % share < per_class % share
        cells.append(Cell(labels, per_class // share + extra))
    return cells


class Draw:
    """Draws what a cell leaves open from the real training clips."""

    def __init__(
        self, real: Sequence[Entry], known: Mapping[str, Sequence[str]], cells: Sequence[Cell], seed: int
    ) -> None:
        """Finds the clips that each cell may draw from.

        Args:
            real: training clips, none of them generated.
            known: the model's label names and values.
            cells: what is to be made.
            seed: of the draws.

        Raises:
            InputError: a cell's value that no training clip has, or no clip whose other labels the model knows.
        """
        _check_values(real, known, cells)
        self._real, self._known, self._cells, self._seed = real, known, cells, seed
        opened = [name for name in known if name not in cells[0].labels]
        usable = [
            number
            for number, entry in enumerate(real)
            if all(entry.labels[name] in known[name] for name in opened)
        ]
        if not usable:
            raise InputError(
                f"labels {', '.join(opened)}: no training clip has values that this model knows; fix them with --label"
            )
        self._rows = [_nearest_rows(real, usable, cell.labels) for cell in cells]

    def __call__(self, item: int, samples: int | None) -> Drawn:
        """Returns what sound number `item` is asked to be; item % number of cells is its cell.

        Args:
            item: number of its noise.
            samples: its length, None for that of the clip that is drawn.
        """
        number = item % len(self._cells)
        rows = self._rows[number]
        entry = self._real[rows[int(np.random.default_rng((self._seed, item)).integers(len(rows)))]]
        labels = {name: self._cells[number].labels.get(name, entry.labels[name]) for name in self._known}
        return Drawn(item, number, labels, entry.length if samples is None else samples)


def implied_labels(
    real: Sequence[Entry], known: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, dict[str, str]]]:
    """Returns labels of the corpus that one label of the model determines: a digit its text, a speaker the gender.

    Args:
        real: training clips.
        known: the model's label names and values.

    Returns:
        Name -> (name of the label that determines it, its value by that label's value).
    """
    found = {}
    others = sorted({name for entry in real for name in entry.labels} - set(known))
    for other in others:
        for name, values in known.items():
            if isinstance(values, Interval):
                continue
            pairs = {(entry.labels[name], entry.labels.get(other)) for entry in real}
            table = {value: text for value, text in pairs if text is not None}
            # As many pairs as clips: every clip has its own value, which says nothing of a new one.
            if len(table) == len(pairs) and len(pairs) < len(real):
                found[other] = (name, table)
                break
    return found


def _check_values(real: Sequence[Entry], known: Mapping[str, Sequence[str]], cells: Sequence[Cell]) -> None:
    for name in cells[0].labels:
        if isinstance(known[name], Interval):
            continue
        there = {entry.labels[name] for entry in real}
        lacking = sorted({cell.labels[name] for cell in cells} - there)
        if lacking:
            raise InputError(
                f"label {name!r}: no training clip of this corpus has {', '.join(lacking[:_LISTED])}; it has "
                f"{', '.join(sorted(there)[:_LISTED])}; name one with --label {name}=VALUE"
            )


def _nearest_rows(real: Sequence[Entry], usable: Sequence[int], labels: Mapping[str, str]) -> list[int]:
    """Returns the clips that share most labels with a cell."""
    shared = [sum(real[row].labels[name] == value for name, value in labels.items()) for row in usable]
    most = max(shared)
    return [row for row, count in zip(usable, shared, strict=True) if count == most]
