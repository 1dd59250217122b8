"""What training draws for a clip depends on the seed, the update and the clip's position in it, and on nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from audiodiff.data.order import Share
from audiodiff.diffusion.schedules import linear
from audiodiff.diffusion.times import StratifiedTime
from audiodiff.training import draws
from audiodiff.training.draws import ItemNoise, drop_labels
from audiodiff.types import Batch


def test_noise_of_an_item_is_the_same_alone_and_in_a_batch_of_longer_ones() -> None:
    together = ItemNoise(3, draws.NOISE, (5, 0), range(4), 50)(torch.zeros(4, 2, 50))
    alone = ItemNoise(3, draws.NOISE, (5, 0), [2], 50)(torch.zeros(1, 2, 37))
    assert torch.equal(alone[0], together[2, :, :37])


def test_noise_differs_by_seed_purpose_update_rollback_and_position() -> None:
    keys = [
        (3, draws.NOISE, (5, 0), 2),
        (4, draws.NOISE, (5, 0), 2),
        (3, draws.VALIDATION_NOISE, (5, 0), 2),
        (3, draws.NOISE, (6, 0), 2),
        (3, draws.NOISE, (5, 1), 2),
        (3, draws.NOISE, (5, 0), 3),
    ]
    drawn = {
        float(ItemNoise(seed, purpose, numbers, [position], 9)(torch.zeros(1, 1, 9)).sum())
        for seed, purpose, numbers, position in keys
    }
    assert len(drawn) == len(keys)


def test_noise_is_standard_normal() -> None:
    noise = ItemNoise(0, draws.NOISE, (0, 0), range(50), 400)(torch.zeros(50, 4, 400))
    assert float(noise.mean()) == pytest.approx(0, abs=4 / noise.numel() ** 0.5)
    assert float(noise.var()) == pytest.approx(1, abs=4 * (2 / noise.numel()) ** 0.5)


@pytest.mark.parametrize(("ranks", "passes"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_every_stratum_of_the_whole_update_is_drawn_once(ranks: int, passes: int) -> None:
    clips = 12
    times = StratifiedTime()(clips, linear(1e-4, 0.02, 10), draws.generator("cpu", 7, draws.TIMES, 3, 0))
    shares = [(Share(rank, ranks, passes), part) for rank in range(ranks) for part in range(passes)]
    together = torch.cat([times[list(share.positions(clips, part))] for share, part in shares])
    assert sorted(((1 - together) * clips).floor().long().tolist()) == list(range(clips))


def test_generators_differ_by_purpose_and_number() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    drawn = {
        float(torch.rand(1, generator=draws.generator("cpu", *numbers), dtype=torch.float64))
        for numbers in keys
    }
    assert len(drawn) == len(keys)


def test_labels_are_dropped_all_or_singly_at_the_given_rates() -> None:
    size = 20000
    labels = {"digit": ("one",) * size, "speaker": ("theo",) * size}
    batch = Batch(None, torch.ones(size, dtype=torch.int64), labels)
    chances = torch.rand(size, 3, generator=torch.Generator().manual_seed(0))
    dropped = drop_labels(batch, 0.1, chances).labels
    pairs = list(zip(dropped["digit"], dropped["speaker"], strict=True))
    # All labels: 0.1 + 0.1 / 4; one of the two: 0.1 / 4 each. Four standard deviations of a share of 20000.
    assert pairs.count(("", "")) / size == pytest.approx(0.125, abs=0.01)
    assert pairs.count(("", "theo")) / size == pytest.approx(0.025, abs=0.005)
    assert pairs.count(("one", "")) / size == pytest.approx(0.025, abs=0.005)


def test_no_label_is_dropped_at_rate_zero() -> None:
    batch = Batch(None, torch.ones(3, dtype=torch.int64), {"digit": ("one", "two", "six")})
    assert drop_labels(batch, 0.0, torch.zeros(3, 2)) == replace(batch)
