"""Times that several processes draw together are stratified over all of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from audiodiff.diffusion.schedules import linear
from audiodiff.diffusion.times import StratifiedTime
from audiodiff.training.loop import shared_times


def times_of(rank: int, ranks: int, number: int = 3, size: int = 4) -> torch.Tensor:
    run = SimpleNamespace(
        accelerator=SimpleNamespace(num_processes=ranks, process_index=rank, device=torch.device("cpu")),
        settings={"seed": 7},
        density=StratifiedTime(),
        model=SimpleNamespace(denoiser=SimpleNamespace(schedule=linear(1e-4, 0.02, 10))),
    )
    return shared_times(run, number, size, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_stratum_of_the_whole_batch_is_drawn_once(ranks: int) -> None:
    together = torch.cat([times_of(rank, ranks) for rank in range(ranks)])
    strata = ((1 - together) * 4 * ranks).floor().long()
    assert sorted(strata.tolist()) == list(range(4 * ranks))


def test_other_batches_get_other_times() -> None:
    assert not torch.equal(times_of(0, 2, number=3), times_of(0, 2, number=4))
