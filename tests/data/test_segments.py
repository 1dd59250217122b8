"""Laws of the segment sampler: resumable, a partition over ranks, every clip once per epoch."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiodiff.audio import io
from audiodiff.data.collate import Item, collate
from audiodiff.data.manifests import load_cuts
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, write_corpus
from audiodiff.data.segments import (
    SegmentBatchSampler,
    SegmentDataset,
    SegmentRequest,
    fixed_requests,
    training_loader,
)
from audiodiff.errors import InputError

clip_lengths = st.lists(st.integers(1, 400), min_size=1, max_size=70)
sizes = st.integers(1, 9)
seeds = st.integers(0, 5)


def run(sampler: SegmentBatchSampler, batches: int) -> list[list[SegmentRequest]]:
    return list(islice(sampler, batches))


@settings(max_examples=60, deadline=None)
@given(clip_lengths, sizes, seeds, st.integers(0, 40))
def test_resuming_at_any_batch_continues_the_same_run(lengths, batch_size, seed, start):
    whole = run(SegmentBatchSampler(lengths, 100, batch_size, seed), start + 6)
    resumed = run(SegmentBatchSampler(lengths, 100, batch_size, seed, start_batch=start), 6)
    assert resumed == whole[start:]


@settings(max_examples=60, deadline=None)
@given(clip_lengths, sizes, seeds, st.integers(1, 4))
def test_ranks_partition_every_global_batch(lengths, batch_size, seed, world_size):
    shares = [
        run(SegmentBatchSampler(lengths, 100, batch_size, seed, rank, world_size), 12)
        for rank in range(world_size)
    ]
    alone = run(SegmentBatchSampler(lengths, 100, batch_size * world_size, seed), 12)
    for batch, *parts in zip(alone, *shares, strict=True):
        assert [len(part) for part in parts] == [batch_size] * world_size
        together = [request for part in parts for request in part]
        assert sorted(together, key=repr) == sorted(batch, key=repr)


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
        sampler = SegmentBatchSampler([5000] * 40, 100, 10, seed, start_batch=start)
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
    assert fixed_requests([30, 100, 161], 100) == [
        SegmentRequest(0, 0, 30),
        SegmentRequest(1, 0, 100),
        SegmentRequest(2, 30, 100),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"lengths": []},
        {"lengths": [3, 0]},
        {"segment_length": 0},
        {"batch_size": 0},
        {"rank": 2},
        {"start_batch": -1},
        {"seed": -1},
    ],
)
def test_a_sampler_of_nonsense_is_refused(change):
    fine = {"lengths": [3], "segment_length": 2, "batch_size": 1, "seed": 0, "rank": 0, "world_size": 2}
    with pytest.raises(InputError):
        SegmentBatchSampler(**{**fine, **change})


def test_collate_pads_with_zeros_and_keeps_every_item():
    items = [
        Item(torch.full((2, length), float(length)), length, {"digit": str(length)}, f"clip{length}")
        for length in (3, 7, 5)
    ]
    batch = collate(items)
    assert batch.waveform.shape == (3, 2, 7)
    assert batch.lengths.tolist() == [3, 7, 5]
    assert batch.lengths.dtype == torch.int64
    assert batch.labels == {"digit": ("3", "7", "5")}
    assert batch.ids == ("clip3", "clip7", "clip5")
    for row, item in zip(batch.waveform, items, strict=True):
        assert torch.equal(row[:, : item.length], item.waveform)
        assert not row[:, item.length :].any()


def test_collate_refuses_items_that_do_not_match():
    mono, stereo = torch.ones(1, 4), torch.ones(2, 4)
    with pytest.raises(ValueError, match="channels"):
        collate([Item(mono, 4, {}, "a"), Item(stereo, 4, {}, "b")])
    with pytest.raises(ValueError, match="labels"):
        collate([Item(mono, 4, {}, "a"), Item(mono, 4, {"digit": "1"}, "b")])
    with pytest.raises(ValueError, match="no items"):
        collate([])


@pytest.fixture(params=[1, 2])
def corpus(request, tmp_path):
    """Cuts of noise clips of 40 to 640 samples, mono and stereo, and their waveforms."""
    generator = torch.Generator().manual_seed(0)
    waveforms, clips = {}, []
    for number in range(12):
        name = f"clip{number:02d}"
        waveform = torch.rand(request.param, 40 + 50 * number, generator=generator) * 1.6 - 0.8
        io.write(tmp_path / f"{name}.wav", waveform, 8000)
        waveforms[name] = io.read(tmp_path / f"{name}.wav")[0]
        clips.append(Clip(name, tmp_path / f"{name}.wav", "train", "s", labels={"digit": str(number)}))
    write_corpus(Listing("noise", tmp_path, clips, "all train"), tmp_path / "out", PrepareOptions())
    return load_cuts(tmp_path / "out" / "train.jsonl.gz"), waveforms, request.param


@pytest.mark.parametrize("cache_megabytes", [0, 0.005, 1])
def test_segments_are_the_samples_of_the_file_whatever_the_cache(corpus, cache_megabytes):
    cuts, waveforms, channels = corpus
    dataset = SegmentDataset(cuts, 8000, channels, ("digit", "speaker"), cache_megabytes)
    assert dataset.lengths == [waveforms[cut.id].shape[-1] for cut in cuts]
    for batch in run(SegmentBatchSampler(dataset.lengths, 200, 4, seed=0), 9):
        for request in batch:
            item = dataset[request]
            stop = request.start + request.length
            assert torch.equal(item.waveform, waveforms[item.id][:, request.start : stop])
            assert item.length == request.length
            assert item.labels == {"digit": str(int(item.id[4:])), "speaker": "s"}


def test_the_cache_stays_within_its_budget(corpus):
    cuts, _, channels = corpus
    dataset = SegmentDataset(cuts, 8000, channels, cache_megabytes=0.005)
    for request in fixed_requests(dataset.lengths, 10):
        dataset[request]
    kept = sum(waveform.numel() * 4 for waveform in dataset._cache.values())
    assert 0 < kept <= 5000


def test_a_cut_inside_a_longer_recording_gives_its_own_samples(corpus):
    cuts, waveforms, channels = corpus
    part = cuts[-1].truncate(offset=100 / 8000, duration=300 / 8000)
    dataset = SegmentDataset([part], 8000, channels)
    expected = waveforms[cuts[-1].id][:, 120:220]
    assert torch.equal(dataset[SegmentRequest(0, 20, 100)].waveform, expected)


def test_the_loader_gives_the_same_batches_with_and_without_workers(corpus):
    cuts, _, channels = corpus
    dataset = SegmentDataset(cuts, 8000, channels, ("digit",), cache_megabytes=1)
    sampler = SegmentBatchSampler(dataset.lengths, 200, 5, seed=3)
    state = torch.get_rng_state()
    direct = list(islice(training_loader(dataset, sampler, num_workers=0), 7))
    parallel = list(islice(training_loader(dataset, sampler, num_workers=2), 7))
    assert torch.equal(torch.get_rng_state(), state)
    for left, right in zip(direct, parallel, strict=True):
        assert torch.equal(left.waveform, right.waveform)
        assert torch.equal(left.lengths, right.lengths)
        assert (left.ids, left.labels) == (right.ids, right.labels)


def test_a_dataset_says_how_to_mend_a_wrong_rate_or_channel_count(corpus):
    cuts, _, channels = corpus
    with pytest.raises(InputError, match=r"cut clip00: sample rate 8000 Hz, model needs 22050 Hz.*22050"):
        SegmentDataset(cuts, 22050, channels)
    with pytest.raises(InputError, match=f"{channels} channels, model needs {3 - channels}"):
        SegmentDataset(cuts, 8000, 3 - channels)
    with pytest.raises(InputError, match=r"no label 'mood'.*digit"):
        SegmentDataset(cuts, 8000, channels, ("mood",))
    with pytest.raises(InputError, match="no cuts"):
        SegmentDataset([], 8000, channels)


def test_audio_that_changed_after_prepare_is_an_error_not_a_short_segment(corpus, tmp_path):
    cuts, _, channels = corpus
    dataset = SegmentDataset(cuts, 8000, channels)
    io.write(tmp_path / "clip05.wav", torch.full((channels, 30), 0.5), 8000)
    with pytest.raises(InputError, match="clip05"):
        dataset[SegmentRequest(5, 0, 200)]
