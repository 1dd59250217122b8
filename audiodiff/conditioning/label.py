"""Labels by name (digit, speaker, loudness) -> one learned vector per item.

Each label name has a table with one row per value and one row for "any"; a name whose values are an interval of numbers
has a function of the number in its place, which knows what lies between the numbers that it has seen:

    number v -> p = 2 (v - low) / (high - low) - 1 -> [p, sin(2^k pi p / 2), cos(2^k pi p / 2)] -> two layers

(the features of Tancik et al. 2020, "Fourier features", arXiv 2006.10739, eq. 5, with frequencies an octave apart up
to one that tells neighbouring steps apart).
The vectors of all names add up to condition.vector, the shared label embedding of Kong et al. 2021, section 5.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from audiodiff.errors import InputError
from audiodiff.interval import Interval, LabelValues, choices, label_values
from audiodiff.types import Batch, Condition

_HIDDEN = 128


class IntervalTable(nn.Module):
    """A number of an interval -> a vector; its place counts steps above the lower end."""

    def __init__(self, interval: Interval, features: int) -> None:
        """Builds the function and the vector of "any".

        Args:
            interval: of the numbers.
            features: D of the vectors.
        """
        super().__init__()
        self.last = len(interval)  # the place of "any", as in a table
        self.scale = 2 * interval.step / (interval.high - interval.low)
        # The finest wave repeats with every one to two steps.
        self.octaves = math.ceil(math.log2(max(2, len(interval) - 1))) + 1
        self.layers = nn.Sequential(
            nn.Linear(1 + 2 * self.octaves, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, features)
        )
        self.any = nn.Parameter(torch.randn(features))

    def forward(self, places: Tensor) -> Tensor:
        """Returns [B, D] for places [B] in steps above low, of which len(interval) means any."""
        position = (places * self.scale - 1).to(self.any.dtype)[:, None]
        angles = position * (math.pi / 2 * 2.0 ** torch.arange(self.octaves, device=position.device))
        known = self.layers(torch.cat([position, angles.sin(), angles.cos()], 1))
        return torch.where((places == self.last)[:, None], self.any, known)


class Labels(nn.Module):
    """Conditioner for any number of label names."""

    def __init__(self, values: Mapping[str, Sequence[Any] | Mapping[str, Any]], features: int) -> None:
        """Builds one table per name.

        Args:
            values: for each label name its values in a fixed order, or low, high and step of an interval of numbers.
            features: D of condition.vector.

        Raises:
            InputError: no name, a name that a table cannot have, a value twice, or no proper interval.
        """
        super().__init__()
        if not values:
            raise InputError("labels: got no label name, expected at least one such as digit: [zero, one]")
        self.values: dict[str, LabelValues] = {
            name: label_values(name, node) for name, node in values.items()
        }
        for name, table in self.values.items():
            # The name becomes part of the weights' names, where dots and attributes of the container clash.
            if not name or "." in name or hasattr(nn.ModuleDict(), name):
                raise InputError(f"label name {name!r} cannot be used; choose another, such as {name}_label")
            if not isinstance(table, Interval) and len(set(table)) != len(table):
                raise InputError(f"label {name!r}: a value is listed twice in {', '.join(table)}")
        self.tables = nn.ModuleDict({name: _table(table, features) for name, table in self.values.items()})

    def forward(self, batch: Batch) -> Condition:
        """Returns condition.vector [B, features]; a name that the batch lacks, or an empty value, means any.

        Raises:
            InputError: the batch has a label name or value that this model was not trained with, or not one
                value per item.
        """
        unknown = [name for name in batch.labels if name not in self.values]
        if unknown:
            raise InputError(
                f"label {unknown[0]!r} is unknown to this model; it knows {', '.join(self.values)}"
            )
        for name, labels in batch.labels.items():
            if len(labels) != batch.size:
                raise InputError(f"label {name!r}: got {len(labels)} values for {batch.size} items")
        rows = [self._rows(name, batch.labels.get(name, ("",) * batch.size)) for name in self.values]
        return self.of_rows(torch.stack(rows, 1))

    def of_rows(self, rows: Tensor) -> Condition:
        """Returns condition.vector for rows [B, label names] of the tables.

        The row after a list's values, or after the whole steps of an interval, is "any"; a number of an interval may
        lie between two steps.
        """
        return Condition(vector=self._embed(rows.unbind(1)))

    def null(self, batch: Batch) -> Condition:
        """Returns the vector of "any" for every name."""
        return Condition(vector=self._embed([self._rows(name, ("",) * batch.size) for name in self.values]))

    def _rows(self, name: str, labels: Sequence[str]) -> Tensor:
        table = self.values[name]
        places = [float(len(table)) if not label else _place(name, table, label) for label in labels]
        return torch.tensor(places, dtype=torch.float64)

    def _embed(self, rows: Sequence[Tensor]) -> Tensor:
        vectors = []
        for table, row in zip(self.tables.values(), rows, strict=True):
            device = next(table.parameters()).device
            vectors.append(
                table(row.long().to(device) if isinstance(table, nn.Embedding) else row.float().to(device))
            )
        return torch.stack(vectors).sum(0)


def _table(values: LabelValues, features: int) -> nn.Module:
    if isinstance(values, Interval):
        return IntervalTable(values, features)
    return nn.Embedding(len(values) + 1, features)


def _place(name: str, values: LabelValues, label: str) -> float:
    """Returns the row of a value; between rows where a number lies between two steps.

    Raises:
        InputError: a value that is unknown, or outside the interval.
    """
    if isinstance(values, Interval):
        return (values.number(name, label) - values.low) / values.step
    if label not in values:
        raise InputError(f"{name} {label!r} is unknown to this model; choose {choices(values)}")
    return float(values.index(label))
