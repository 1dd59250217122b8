"""What training draws: every generator is keyed by (seed, purpose, number, rank), so that a run can go on anywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator

from audiodiff.types import Batch

TRAINING, VALIDATION, TIMES = 0, 1, 2  # what a generator is for; one key never serves two purposes


def generator(
    seed: int, purpose: int, number: int, accelerator: Accelerator, rank: int | None = None
) -> torch.Generator:
    """Returns a generator on the run's device that depends on the numbers alone.

    Args:
        seed: of the run.
        purpose: TRAINING, VALIDATION or TIMES.
        number: of the batch.
        accelerator: gives device and rank.
        rank: None for this process's own.
    """
    rank = accelerator.process_index if rank is None else rank
    key = np.random.SeedSequence([seed, purpose, number, rank]).generate_state(1, np.uint64)
    return torch.Generator(accelerator.device).manual_seed(int(key[0] >> np.uint64(1)))


def drop_labels(batch: Batch, probability: float, generator: torch.Generator) -> Batch:
    """Returns the batch with labels made empty, so that the model also learns what "any" means.

    With `probability` an item loses all labels, and with the same probability again each one with even chance:
    the model hears every subset, as `--label` without `--speaker` and guidance need.
    """
    if not batch.labels or probability == 0:
        return batch
    draws = torch.rand(
        batch.size, 1 + len(batch.labels), generator=generator, device=generator.device
    ).tolist()
    labels = {
        name: tuple(
            "" if row[0] < probability or (row[0] < 2 * probability and row[column] < 0.5) else value
            for row, value in zip(draws, values, strict=True)
        )
        for column, (name, values) in enumerate(batch.labels.items(), start=1)
    }
    return replace(batch, labels=labels)
