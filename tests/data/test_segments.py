"""Segments are the samples of their files, whatever the cache and the number of workers; collating keeps every item."""

from __future__ import annotations

import pickle
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch

from audiodiff.audio import io
from audiodiff.data.cache import ClipCache, exact_in_16_bits
from audiodiff.data.collate import Item, collate
from audiodiff.data.entries import Entry
from audiodiff.data.manifests import load_cuts
from audiodiff.data.order import SegmentBatchSampler, SegmentRequest, Share, fixed_requests
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, write_corpus
from audiodiff.data.problems import refuse_unreadable
from audiodiff.data.reading import read_entry
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
    assert dataset.lengths.tolist() == [waveforms[cut.id].shape[-1] for cut in cuts]
    for batch in run(SegmentBatchSampler(dataset.lengths, 200, 4, seed=0), 9):
        for request in batch:
            item = dataset[request]
            stop = request.start + request.length
            assert torch.equal(item.waveform, waveforms[item.id][:, request.start : stop])
            assert item.length == request.length
            assert item.labels == {"digit": str(int(item.id[4:])), "speaker": "s"}


def test_the_cache_stays_within_its_budget_and_holds_twice_as_much_of_16_bit_audio(corpus):
    cuts, _, channels = corpus
    dataset = SegmentDataset(cuts, 8000, channels, cache_megabytes=0.005)
    for request in fixed_requests(dataset.lengths, 10):
        dataset[request]
    ends = 2 * channels * dataset.lengths.cumsum()
    assert dataset._cache.clips == (ends <= 5000).sum() > 0
    kept = [clip for clip in range(len(cuts)) if dataset._cache.get(clip, 0, 1) is not None]
    assert kept == list(range(dataset._cache.clips))


def test_the_cache_gives_the_same_floats_whatever_the_encoding(tmp_path):
    generator = torch.Generator().manual_seed(0)
    extremes = torch.tensor([[-1.0, 1 - 2.0**-15, 0.0, 2.0**-15, -(2.0**-15)]])
    noise = torch.rand(1, 300, generator=generator) * 2 - 1
    waveform = torch.cat([extremes, noise], 1)
    for subtype, bytes_per_sample in (("PCM_16", 2), ("PCM_24", 4), ("FLOAT", 4)):
        io.write(tmp_path / "a.wav", waveform, 8000, subtype)
        expected = io.read(tmp_path / "a.wav")[0]
        cache = ClipCache(np.array([305]), 1, 305 * bytes_per_sample, exact_in_16_bits(expected))
        cache.put(0, expected)
        assert torch.equal(cache.get(0, 0, 305), expected)
        assert 0 not in ClipCache(np.array([305]), 1, 305 * bytes_per_sample - 1, exact_in_16_bits(expected))
    in_16_bits = ClipCache(np.array([305]), 1, 1e6, exact_in_16_bits=True)
    in_16_bits.put(0, expected)  # would lose digits: not kept
    assert in_16_bits.get(0, 0, 305) is None


def test_worker_processes_fill_one_cache(corpus):
    cuts, _, channels = corpus
    dataset = SegmentDataset(cuts, 8000, channels, cache_megabytes=1)
    list(islice(training_loader(dataset, SegmentBatchSampler(dataset.lengths, 9, 4, 0), num_workers=2), 6))
    assert all(dataset._cache.get(clip, 0, 1) is not None for clip in range(len(cuts)))


def test_a_dataset_for_a_process_that_was_not_forked_reads_the_same(corpus):
    cuts, _, channels = corpus
    dataset = SegmentDataset(cuts, 8000, channels, ("digit",), cache_megabytes=1)
    copied = pickle.loads(pickle.dumps(dataset))
    for request in fixed_requests(dataset.lengths, 50):
        assert torch.equal(copied[request].waveform, dataset[request].waveform)
        assert torch.equal(copied[request].waveform, dataset[request].waveform)  # kept now
    assert len(pickle.dumps(dataset)) < 20_000  # the lengths travel as a file name


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


def test_another_clip_stands_in_for_one_that_cannot_be_read_and_the_batch_says_so(corpus, tmp_path):
    cuts, waveforms, channels = corpus
    dataset = SegmentDataset(cuts, 8000, channels, ("digit",))
    io.write(tmp_path / "clip05.wav", torch.full((channels, 30), 0.5), 8000)
    item = dataset[SegmentRequest(5, 0, 200)]
    assert item.id != "clip05"
    assert item.labels == {"digit": str(int(item.id[4:]))}
    assert "cut clip05" in item.problems[0]
    assert "30" in item.problems[0]
    windows = waveforms[item.id].unfold(1, item.length, 1)
    assert (windows == item.waveform[:, None]).all(2).all(0).any()
    assert collate([item, dataset[SegmentRequest(3, 0, 20)]]).problems == item.problems


def test_what_stands_in_for_unreadable_clips_is_the_same_with_workers_and_for_any_ranks(corpus, tmp_path):
    cuts, _, channels = corpus
    dataset = SegmentDataset(cuts, 8000, channels, seed=4)
    for name in ("clip05", "clip08"):
        (tmp_path / f"{name}.wav").write_bytes(b"RIFF")

    def updates(workers: int, ranks: int) -> list[set[tuple]]:
        shares = [
            islice(
                training_loader(
                    dataset, SegmentBatchSampler(dataset.lengths, 100, 4, 0, Share(r, ranks)), workers
                ),
                9,
            )
            for r in range(ranks)
        ]
        return [
            {
                (name, tuple(row[0].tolist()), batch.problems)
                for batch in parts
                for name, row in zip(batch.ids, batch.waveform[..., :40], strict=True)
            }
            for parts in zip(*shares, strict=True)
        ]

    alone = updates(0, 1)
    assert any(problems for update in alone for *_, problems in update)
    assert updates(2, 1) == alone
    for whole, parts in zip(alone, updates(0, 2), strict=True):
        assert {row[:2] for row in parts} == {row[:2] for row in whole}


def test_a_corpus_that_cannot_be_read_is_an_error_that_names_files(corpus, tmp_path):
    cuts, _, channels = corpus
    dataset = SegmentDataset(cuts, 8000, channels)
    for cut in cuts:
        (tmp_path / f"{cut.id}.wav").unlink()
    with pytest.raises(InputError, match=r"11 clips cannot be read.*clip05\.wav"):
        dataset[SegmentRequest(5, 0, 200)]


def test_too_much_unreadable_audio_stops_and_each_is_named_once():
    refuse_unreadable(5, 20, ["a"])  # a quarter, but only five
    refuse_unreadable(20, 400, ["a"])  # not more than a twentieth
    with pytest.raises(InputError, match=r"21 of 400 segments could not be read, more than 5%: a; b; mend"):
        refuse_unreadable(21, 400, ["a", "b", "a"])


def test_augmentation_is_keyed_by_epoch_and_clip_and_never_longer_than_asked(corpus):
    cuts, _, channels = corpus

    def longer(waveform: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        return torch.cat([waveform * float(generator.random()), waveform], 1)

    plain = SegmentDataset(cuts, 8000, channels)
    first, again, other = (SegmentDataset(cuts, 8000, channels, augment=longer, seed=s) for s in (1, 1, 2))
    request = SegmentRequest(7, 5, 100)
    gains = {
        float((dataset[r].waveform / plain[request].waveform).median())
        for dataset, r in (
            (first, request),
            (again, request),
            (other, request),
            (first, SegmentRequest(7, 5, 100, epoch=1)),
        )
    }
    assert len({round(gain, 4) for gain in gains}) == 3
    assert first[request].waveform.shape == (channels, 100)
    assert SegmentDataset(cuts, 8000, channels, augment=lambda x, _: x[:, :30])[request].length == 30


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(
    "subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "PCM_U8", "ULAW", "PCM_16 RIFX", "PCM_16 tail"]
)
def test_any_part_of_any_wav_is_what_libsndfile_reads(channels, subtype, tmp_path):
    generator = np.random.default_rng(0)
    integers = generator.integers(-(2**15), 2**15, (700, channels), dtype=np.int16)
    integers[:2] = [[-(2**15)], [2**15 - 1]]
    path = tmp_path / "a.wav"
    endian = "BIG" if "RIFX" in subtype else "FILE"
    soundfile.write(path, integers, 8000, subtype.split()[0], endian, "WAV")
    if "tail" in subtype:  # a chunk before the audio, of odd size
        content = path.read_bytes()
        path.write_bytes(content[:12] + b"note" + (5).to_bytes(4, "little") + b"hello\0" + content[12:])
    expected = io.read(path)[0]
    for rows in (tuple(range(channels)), (channels - 1,)):
        for start, length in ((0, 700), (0, 1), (699, 1), (123, 456)):
            found = read_entry(Entry("a", str(path), 0, 700, 8000, rows, {}), start, length)
            assert torch.equal(found, expected[list(rows), start : start + length])
            assert found.is_contiguous()
