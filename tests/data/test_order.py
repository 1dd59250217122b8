"""Laws of the order of training: resumable, a partition over ranks and passes, every clip once per epoch."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiodiff.data.order import SegmentBatchSampler, SegmentRequest, Share, fixed_requests
from audiodiff.errors import InputError

clip_lengths = st.lists(st.integers(1, 400), min_size=1, max_size=70)
sizes = st.integers(1, 9)
seeds = st.integers(0, 5)


def run(sampler: SegmentBatchSampler, batches: int) -> list[list[SegmentRequest]]:
    return list(islice(sampler, batches))


@settings(max_examples=60, deadline=None)
@given(clip_lengths, sizes, seeds, st.integers(0, 40))
def test_resuming_at_any_update_continues_the_same_run(lengths, batch_size, seed, start):
    whole = run(SegmentBatchSampler(lengths, 100, batch_size, seed), start + 6)
    resumed = run(SegmentBatchSampler(lengths, 100, batch_size, seed, start=start), 6)
    assert resumed == whole[start:]


@settings(max_examples=60, deadline=None)
@given(clip_lengths, sizes, seeds, st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_ranks_and_passes_partition_the_clips_of_an_update(lengths, size, seed, world_size, passes, start):
    clips = size * world_size * passes
    shares = [
        run(
            SegmentBatchSampler(lengths, 100, clips, seed, Share(rank, world_size, passes), start), 6 * passes
        )
        for rank in range(world_size)
    ]
    alone = run(SegmentBatchSampler(lengths, 100, clips, seed, start=start), 6)
    for number, whole in enumerate(alone):
        parts = [share[number * passes + part] for share in shares for part in range(passes)]
        assert [len(part) for part in parts] == [size] * (world_size * passes)
        assert sorted((r for part in parts for r in part), key=repr) == sorted(whole, key=repr)


@given(sizes, st.integers(1, 4), st.integers(1, 3))
def test_positions_say_which_clips_of_the_update_a_pass_has(size, world_size, passes):
    clips = size * world_size * passes
    lengths = list(range(1, 200))
    whole = SegmentBatchSampler(lengths, 100, clips, 0).batch(3)
    for rank in range(world_size):
        share = Share(rank, world_size, passes)
        sampler = SegmentBatchSampler(lengths, 100, clips, 0, share)
        for part in range(passes):
            assert sampler.batch(3, part) == [whole[place] for place in share.positions(clips, part)]


@settings(max_examples=60, deadline=None)
@given(clip_lengths, sizes, seeds)
def test_each_epoch_covers_each_clip_exactly_once(lengths, batch_size, seed):
    epochs, clips = 3, len(lengths)
    batches = -(-epochs * clips // batch_size)
    stream = [
        r.index for batch in run(SegmentBatchSampler(lengths, 100, batch_size, seed), batches) for r in batch
    ]
    for epoch in range(epochs):
        assert sorted(stream[epoch * clips : (epoch + 1) * clips]) == list(range(clips))


@settings(max_examples=40, deadline=None)
@given(clip_lengths, sizes, seeds)
def test_crops_lie_inside_their_clip_and_short_clips_are_whole(lengths, batch_size, seed):
    for batch in run(SegmentBatchSampler(lengths, 100, batch_size, seed), 10):
        for request in batch:
            assert request.length == min(lengths[request.index], 100)
            assert 0 <= request.start <= lengths[request.index] - request.length


def test_crop_starts_are_uniform_over_the_possible_range():
    sampler = SegmentBatchSampler([103] * 50, 100, 10, seed=1)
    starts = torch.tensor([request.start for batch in run(sampler, 400) for request in batch])
    counts = torch.bincount(starts, minlength=4).double()
    assert counts.shape == (4,)
    # Chi-square with 3 degrees of freedom: 16.3 is its 99.9 % point.
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 16.3


def test_crops_and_order_differ_between_epochs_and_seeds():
    def epoch(seed: int, start: int) -> list[SegmentRequest]:
        sampler = SegmentBatchSampler([5000] * 40, 100, 10, seed, start=start)
        return [request for batch in run(sampler, 4) for request in batch]

    first, second, other = epoch(0, 0), epoch(0, 4), epoch(1, 0)
    for left, right in ((first, second), (first, other)):
        assert [r.index for r in left] != [r.index for r in right]
        assert sorted((r.index, r.start) for r in left) != sorted((r.index, r.start) for r in right)


def test_batches_pad_far_less_than_batches_in_random_order():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, 1000, (2000,), generator=generator).tolist()

    def padding(batches: list[list[int]]) -> float:
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches) / sum(map(sum, batches))

    ours = [[r.length for r in batch] for batch in run(SegmentBatchSampler(lengths, 1000, 16, 0), 125)]
    shuffled = torch.randperm(2000, generator=generator).tolist()
    random = [[lengths[i] for i in shuffled[at : at + 16]] for at in range(0, 2000, 16)]
    assert padding(ours) < 0.2 * padding(random)


def test_memory_does_not_grow_with_the_batches_drawn():
    sampler = SegmentBatchSampler([50] * 1000, 100, 16, 0)
    run(sampler, 70)
    before = sum(array.nbytes for _, array in (sampler._permutation, sampler._window))
    run(sampler, 700)
    assert sum(array.nbytes for _, array in (sampler._permutation, sampler._window)) <= before


def test_fixed_requests_are_centred_and_whole_for_short_clips():
    requests = fixed_requests([30, 100, 161], 100)
    assert list(requests) == [
        SegmentRequest(0, 0, 30),
        SegmentRequest(1, 0, 100),
        SegmentRequest(2, 30, 100),
    ]
    assert requests[::2] == [requests[0], requests[-1]]
    with pytest.raises(IndexError):
        requests[3]


@pytest.mark.parametrize(
    "change",
    [
        {"lengths": []},
        {"lengths": [3, 0]},
        {"segment_length": 0},
        {"clips": 0},
        {"clips": 3},
        {"share": Share(2, 2)},
        {"share": Share(0, 1, 0)},
        {"start": -1},
        {"seed": -1},
    ],
)
def test_a_sampler_of_nonsense_is_refused(change):
    fine = {"lengths": [3], "segment_length": 2, "clips": 2, "seed": 0, "share": Share(0, 2)}
    assert SegmentBatchSampler(**fine)
    with pytest.raises(InputError):
        SegmentBatchSampler(**{**fine, **change})
