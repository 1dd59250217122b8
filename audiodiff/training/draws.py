"""What training draws: every number is keyed by (seed, purpose, update, position of the clip within the update).

The noise, the time and the dropped labels of a clip are therefore the same however the clips of an update are shared
over processes and backward passes, and a run can go on anywhere. Times and labels are drawn for the whole update, of
which each pass takes its positions: so a stratified density is stratified over all of it. The noise of a clip has its
own generator, and is drawn for the longest clip there is and cut, for what a generator gives depends on how much it is
asked for. Only dropout, which layers draw from the global generator, is keyed by (seed, update, rank, pass).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from audiodiff.types import Batch

# What a generator is for; one key never serves two purposes.
NOISE, TIMES, LABELS, DROPOUT, VALIDATION_NOISE, VALIDATION_TIMES, WINDOWS = range(7)


def key(seed: int, purpose: int, *numbers: int) -> int:
    """Returns a seed of a generator, in [0, 2^63), that depends on the numbers alone."""
    state = np.random.SeedSequence([seed, purpose, *numbers]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def generator(device: torch.device | str, seed: int, purpose: int, *numbers: int) -> torch.Generator:
    """Returns a generator on a device that depends on the numbers alone.

    Args:
        device: where it draws; other kinds of device give other numbers.
        seed: of the run.
        purpose: one of this module's constants.
        numbers: for example the update and the count of rollbacks.
    """
    return torch.Generator(device).manual_seed(key(seed, purpose, *numbers))


@dataclass(frozen=True)
class ItemNoise:
    """Standard normal noise of a batch's items, each from a generator of its own.

    Attributes:
        seed: of the run.
        purpose: NOISE or VALIDATION_NOISE.
        numbers: what else all items share, for example (update, rollbacks).
        positions: one number per item, which together with the rest is its key.
        longest: positions F for which noise is drawn, at least those of any batch.
    """

    seed: int
    purpose: int
    numbers: tuple[int, ...]
    positions: Sequence[int]
    longest: int

    def __call__(self, clean: Tensor) -> Tensor:
        """Returns noise for clean [B, C, F], F at most `longest`, on its device and in its precision."""
        channels, frames = clean.shape[1:]
        source = torch.Generator(clean.device)
        rows = []
        for position in self.positions:
            source.manual_seed(key(self.seed, self.purpose, *self.numbers, position))
            drawn = torch.randn(
                channels, max(self.longest, frames), generator=source, device=clean.device, dtype=clean.dtype
            )
            rows.append(drawn[:, :frames])
        return torch.stack(rows)


def drop_labels(batch: Batch, probability: float, chances: Tensor) -> Batch:
    """Returns the batch with labels made empty, so that the model also learns what "any" means.

    With `probability` an item loses all labels, and with the same probability again each one with even chance:
    the model hears every subset, as `--label` without `--speaker` and guidance need.

    Args:
        batch: B items.
        probability: see above.
        chances: [B, 1 + labels], uniform in [0, 1).
    """
    if not batch.labels or probability == 0:
        return batch
    rows = chances.tolist()
    labels = {
        name: tuple(
            "" if row[0] < probability or (row[0] < 2 * probability and row[column] < 0.5) else value
            for row, value in zip(rows, values, strict=True)
        )
        for column, (name, values) in enumerate(batch.labels.items(), start=1)
    }
    return replace(batch, labels=labels)
