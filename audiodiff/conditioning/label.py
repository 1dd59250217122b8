"""Labels by name (digit, speaker, instrument) -> one learned vector per item.

Each label name has a table with one row per value and one row for "any". The rows of all names add up to
condition.vector, the shared label embedding of Kong et al. 2021, section 5.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from audiodiff.errors import InputError
from audiodiff.types import Batch, Condition


class Labels(nn.Module):
    """Conditioner for any number of label names."""

    def __init__(self, values: Mapping[str, Sequence[str]], features: int) -> None:
        """Builds one table per name.

        Args:
            values: for each label name its values, in a fixed order.
            features: D of condition.vector.

        Raises:
            InputError: no name, a name that a table cannot have, or a value twice.
        """
        super().__init__()
        if not values:
            raise InputError("labels: got no label name, expected at least one such as digit: [zero, one]")
        self.values = {name: tuple(str(value) for value in table) for name, table in values.items()}
        for name, table in self.values.items():
            # The name becomes part of the weights' names, where dots and attributes of the container clash.
            if not name or "." in name or hasattr(nn.ModuleDict(), name):
                raise InputError(f"label name {name!r} cannot be used; choose another, such as {name}_label")
            if len(set(table)) != len(table):
                raise InputError(f"label {name!r}: a value is listed twice in {', '.join(table)}")
        self.tables = nn.ModuleDict(
            {name: nn.Embedding(len(t) + 1, features) for name, t in self.values.items()}
        )

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
        """Returns condition.vector for rows [B, label names] of the tables; the row after a table's values is "any"."""
        return Condition(vector=self._embed(rows.unbind(1)))

    def null(self, batch: Batch) -> Condition:
        """Returns the vector of "any" for every name."""
        return Condition(vector=self._embed([self._rows(name, ("",) * batch.size) for name in self.values]))

    def _rows(self, name: str, labels: Sequence[str]) -> Tensor:
        table = self.values[name]
        for label in labels:
            if label and label not in table:
                raise InputError(
                    f"{name} {label!r} is unknown to this model; choose one of {', '.join(table)}"
                )
        return torch.tensor([table.index(label) if label else len(table) for label in labels])

    def _embed(self, rows: Sequence[Tensor]) -> Tensor:
        vectors = []
        for table, row in zip(self.tables.values(), rows, strict=True):
            assert isinstance(table, nn.Embedding)
            vectors.append(table(row.to(table.weight.device)))
        return torch.stack(vectors).sum(0)
