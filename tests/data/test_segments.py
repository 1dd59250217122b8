"""Segments are the samples of their files, whatever the cache and the number of workers; collating keeps every item."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from audiodiff.audio import io
from audiodiff.data.collate import Item, collate
from audiodiff.data.manifests import load_cuts
from audiodiff.data.order import SegmentBatchSampler, SegmentRequest, fixed_requests
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, write_corpus
from audiodiff.data.segments import SegmentDataset, training_loader
from audiodiff.errors import InputError


def run(sampler: SegmentBatchSampler, batches: int) -> list[list[SegmentRequest]]:
    return list(islice(sampler, batches))


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
