"""Conditioner: Batch -> Condition, and the condition that says nothing.

Absence is said in the Batch, not by a flag: a label that is missing or empty means "any", and is what
training drops to and guidance steers away from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from torch import nn

from audiodiff.types import Batch, Condition


class Conditioner(Protocol):
    """The contract of everything that makes conditions."""

    def __call__(self, batch: Batch) -> Condition:
        """Returns what the network is told of the batch; `frames` is left to the model."""
        ...

    def null(self, batch: Batch) -> Condition:
        """Returns the condition with every droppable part absent, for classifier-free guidance."""
        ...


class Unconditional(nn.Module):
    """Tells the network nothing."""

    def forward(self, batch: Batch) -> Condition:
        """Returns an empty condition."""
        return Condition()

    def null(self, batch: Batch) -> Condition:
        """Returns an empty condition."""
        return Condition()


class Joint(nn.Module):
    """Several conditioners that fill different fields, for example a mel and a speaker."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        """Joins the parts; two of them may not fill the same field."""
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, batch: Batch) -> Condition:
        """Returns one condition with the fields of all parts."""
        return _merge([part(batch) for part in self.parts])

    def null(self, batch: Batch) -> Condition:
        """Returns one condition with the null of every part."""
        return _merge([part.null(batch) for part in self.parts])  # type: ignore[operator]


def _merge(conditions: Sequence[Condition]) -> Condition:
    merged = Condition()
    for condition in conditions:
        for name in ("local", "vector", "prior_mean", "prior_std"):
            value = getattr(condition, name)
            if value is None:
                continue
            if getattr(merged, name) is not None:
                raise ValueError(f"two conditioners fill condition.{name}")
            merged = replace(merged, **{name: value})
    return merged
