"""Conditioner: Batch -> Condition, and the condition that says nothing.

Absence is said in the Batch, not by a flag: a label that is missing or empty means "any", and is what
training drops to and guidance steers away from.

What lies in time may be known in two ways: a recording shows when each token of its text is spoken, without one
it is predicted. Such a conditioner has two doors, `align` for training and its call for synthesis (Popov et al. 2021,
"Grad-TTS", section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from audiodiff.types import Batch, Condition


class Conditioner(Protocol):
    """The contract of everything that makes conditions."""

    def __call__(self, batch: Batch) -> Condition:
        """Returns what the network is told of the batch; `frames` only where the conditioner predicts them."""
        ...

    def null(self, batch: Batch) -> Condition:
        """Returns the condition with every droppable part absent, for classifier-free guidance."""
        ...


@runtime_checkable
class Aligning(Protocol):
    """A conditioner that learns from recordings when what it is told happens."""

    def align(self, batch: Batch, clean: Tensor, frames: Tensor) -> tuple[Condition, Mapping[str, Tensor]]:
        """Returns the condition as the recordings show it, and the conditioner's own losses by name.

        Args:
            batch: what the conditioner is told.
            clean: [B, C, F], the recordings as the representation gives them, whole.
            frames: [B] int64, frames of each item.
        """
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

    def align(self, batch: Batch, clean: Tensor, frames: Tensor) -> tuple[Condition, Mapping[str, Tensor]]:
        """Returns one condition with the fields of all parts, and the losses of those that align."""
        aligned = [
            part.align(batch, clean, frames) if isinstance(part, Aligning) else (part(batch), {})
            for part in self.parts
        ]
        losses = {name: loss for _, own in aligned for name, loss in own.items()}
        return _merge([condition for condition, _ in aligned]), losses

    def null(self, batch: Batch) -> Condition:
        """Returns one condition with the null of every part."""
        return _merge([part.null(batch) for part in self.parts])  # type: ignore[operator]


def _merge(conditions: Sequence[Condition]) -> Condition:
    merged = Condition()
    for condition in conditions:
        for name in ("local", "vector", "frames", "prior_mean", "prior_std"):
            value = getattr(condition, name)
            if value is None:
                continue
            if getattr(merged, name) is not None:
                raise ValueError(f"two conditioners fill condition.{name}")
            merged = replace(merged, **{name: value})
    return merged
