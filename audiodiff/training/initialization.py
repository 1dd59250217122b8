"""Starts a training from another model's weights, and freezes parts of it.

What has the same name and shape is taken. Label tables are matched by value: known values keep their rows,
new ones begin as "any". A weight that fits nowhere is counted and named, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from audiodiff.conditioning.label import Labels
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, load


@dataclass(frozen=True)
class Taken:
    """What an initialization did.

    Attributes:
        same: names taken as they were.
        extended: label tables of which some rows are new.
        new: names that the other model lacks, or has in another shape.
        left: names that only the other model has.
    """

    same: tuple[str, ...]
    extended: tuple[str, ...]
    new: tuple[str, ...]
    left: tuple[str, ...]

    def describe(self, folder: str | Path) -> str:
        """Returns one line for people."""
        line = f"{len(self.same)} weights from {folder}"
        for word, names in (("extended", self.extended), ("new", self.new), ("left out", self.left)):
            if names:
                line += f"; {len(names)} {word}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        return line


def initialize(model: AudioDiffusion, folder: str | Path) -> Taken:
    """Copies the weights and statistics of a saved model into `model`.

    Raises:
        InputError: no model there, another sample rate or representation, or nothing that fits.
    """
    source = load(folder)
    if source.sample_rate != model.sample_rate:
        raise InputError(
            f"init {folder}: a model of {source.sample_rate} Hz for audio of {model.sample_rate} Hz; what it learned "
            f"lies at other frequencies, so prepare the corpus at {source.sample_rate} Hz, or train without init"
        )
    theirs, ours = source.state_dict(), model.state_dict()
    tables = _tables(model, source)
    same = [
        name
        for name in ours
        if name in theirs and name not in tables and ours[name].shape == theirs[name].shape
    ]
    if not any(name.startswith("denoiser.") for name in same):
        raise InputError(
            f"init {folder}: no weight of its network fits this recipe; choose the same model and size"
        )
    with torch.no_grad():
        for name in same:
            ours[name].copy_(theirs[name])
        for name, rows in tables.items():
            ours[name].copy_(rows)
    known = {*same, *tables}
    new, left = (sorted(set(names) - known) for names in (ours, theirs))
    return Taken(tuple(same), tuple(tables), tuple(new), tuple(left))


def freeze(model: nn.Module, parts: Sequence[str]) -> int:
    """Takes every parameter under the named parts out of training and returns how many numbers that are.

    Raises:
        InputError: a name that is no part of the model, or nothing left to train.
    """
    names = dict(model.named_modules()) | dict(model.named_parameters())
    for part in parts:
        if part not in names:
            choices = ", ".join(name for name in names if name and name.count(".") < 2)
            raise InputError(
                f"training.freeze: {part!r} is no part of this model; choose from {choices}, or below"
            )
        names[part].requires_grad_(False)
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("training.freeze: nothing is left to train")
    return frozen


def _tables(model: AudioDiffusion, source: AudioDiffusion) -> dict[str, Tensor]:
    """Returns the label tables that change, with the source's rows for the values that it knows."""
    known = {name: part for name, part in source.named_modules() if isinstance(part, Labels)}
    found = {}
    for name, part in model.named_modules():
        if not isinstance(part, Labels) or name not in known:
            continue
        for label, values in part.values.items():
            before = known[name].values.get(label)
            if before is None or before == values:
                continue
            rows, ours = (_rows(labels, label) for labels in (known[name], part))
            if rows.shape[1] != ours.shape[1]:
                continue
            index = [before.index(value) if value in before else len(before) for value in (*values, None)]
            found[f"{name}.tables.{label}.weight"] = rows[index].detach().clone()
    return found


def _rows(labels: Labels, name: str) -> Tensor:
    """Returns the table [values + 1, features] of a label name; the last row is "any"."""
    table = labels.tables[name]
    assert isinstance(table, nn.Embedding)
    return table.weight
