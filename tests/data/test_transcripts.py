"""Clips with texts come whole, each with the tokens of its own text; those that cannot be learnt from are counted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from audiodiff.audio import io
from audiodiff.data.manifests import Manifest, load_cuts
from audiodiff.data.order import SegmentBatchSampler, fixed_requests
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, write_corpus
from audiodiff.data.segments import SegmentDataset, training_loader
from audiodiff.data.shar import write_shar
from audiodiff.data.shards import open_clips
from audiodiff.data.transcripts import NO_TEXT, TOO_DENSE, TOO_LONG, UNREADABLE, Limits, TranscribedClips
from audiodiff.errors import InputError

RATE = 8000
TEXTS = ["ab", "", "a very long text", "b", "???", "abba", None, "bab"]
LIMITS = Limits(700, lambda samples: samples // 64, {"speaker": ["one"]})


def read(texts: Sequence[str]) -> list[list[int] | None]:
    """Letters by number; a text of no letters cannot be read."""
    return [[ord(c) - 96 for c in text if c.isalpha()] or None for text in texts]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Clips of 500 to 850 samples, the last one too long."""
    clips = []
    for number, text in enumerate(TEXTS):
        waveform = torch.rand(1, 500 + 50 * number, generator=torch.Generator().manual_seed(number)) - 0.5
        io.write(tmp_path / f"c{number}.wav", waveform, RATE)
        speaker = "one" if number % 2 else "two"
        clips.append(Clip(f"c{number}", tmp_path / f"c{number}.wav", "train", speaker, text))
    write_corpus(Listing("texts", tmp_path, clips, "all train"), tmp_path / "out", PrepareOptions())
    return tmp_path / "out"


@pytest.fixture
def manifest(corpus: Path) -> Manifest:
    return load_cuts(corpus / "train.jsonl.gz")


def test_clips_that_cannot_be_learnt_from_are_left_out_and_counted(manifest: Manifest) -> None:
    clips = TranscribedClips(manifest, read, LIMITS)
    assert [clips.entry(number).id for number in range(len(clips))] == ["c0", "c3"]
    assert clips.left_out == {NO_TEXT: 1, UNREADABLE: 1, TOO_LONG: 3, TOO_DENSE: 1}
    assert sum(clips.left_out.values()) == len(TEXTS) - len(clips)
    assert clips.summary.cuts == len(clips)
    assert clips.lengths.tolist() == [500, 650]


def test_each_reason_is_said(manifest: Manifest) -> None:
    limits = Limits(840, LIMITS.frames, LIMITS.labels)
    clips = TranscribedClips(manifest, read, limits)
    assert clips.left_out == {NO_TEXT: 2, UNREADABLE: 1, TOO_LONG: 1, TOO_DENSE: 1}
    assert clips.describe() == (
        "5 of 8 clips left out: 1 longer than data.segment_seconds, 1 with a text that cannot be read, "
        "1 with more tokens than frames, 2 without a text; clips with another speaker than the model knows, "
        "taken for any: 1"
    )


def test_a_clip_comes_whole_with_its_own_tokens_and_an_unknown_speaker_is_any(manifest: Manifest) -> None:
    clips = TranscribedClips(manifest, read, Limits(10_000, LIMITS.frames, LIMITS.labels))
    dataset = SegmentDataset(clips, RATE, 1, ("speaker",))
    said = {}
    sampler = SegmentBatchSampler(dataset.lengths, 10_000, 3, seed=1)
    for batch in islice(training_loader(dataset, sampler, num_workers=0), 4):
        assert batch.tokens is not None
        assert batch.token_counts is not None
        for row, name in enumerate(batch.ids):
            number = int(name[1:])
            assert int(batch.lengths[row]) == 500 + 50 * number
            assert batch.labels["speaker"][row] == ("one" if number % 2 else "")
            said[name] = batch.tokens[row, : batch.token_counts[row]].tolist()
    assert said == {f"c{n}": read([TEXTS[n] or ""])[0] for n in (0, 3, 5, 7)}


def test_a_clip_that_stands_in_for_another_says_its_own_text(manifest: Manifest) -> None:
    clips = TranscribedClips(manifest, read, Limits(10_000, LIMITS.frames, {}))
    Path(clips.entry(0).source).write_bytes(b"no audio")
    dataset = SegmentDataset(clips, RATE)
    item = dataset[fixed_requests(dataset.lengths, 10_000)[0]]
    assert item.problems
    number = int(item.id[1:])
    assert item.tokens is not None
    assert item.tokens.tolist() == read([TEXTS[number] or ""])[0]
    assert item.length == 500 + 50 * number


def test_texts_of_shards_are_those_of_the_manifest(corpus: Path, manifest: Manifest) -> None:
    write_shar(corpus, 3)
    limits = Limits(10_000, LIMITS.frames, {})
    sharded = TranscribedClips(open_clips(corpus / "shar", "train"), read, limits)
    plain = TranscribedClips(manifest, read, limits)
    one, other = SegmentDataset(sharded, RATE), SegmentDataset(plain, RATE)
    assert sharded.shards is not None
    order = sharded.shards.permutation(np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(len(plain)))
    found = {item.id: item for item in (other[request] for request in fixed_requests(other.lengths, 10_000))}
    for request in fixed_requests(one.lengths, 10_000):
        item = one[request]
        assert torch.equal(item.waveform, found[item.id].waveform)
        expected = found[item.id].tokens
        assert item.tokens is not None
        assert expected is not None
        assert torch.equal(item.tokens, expected)


def test_a_corpus_without_texts_is_refused(manifest: Manifest) -> None:
    with pytest.raises(InputError, match=r"none of 8 clips.*longer than data\.segment_seconds"):
        TranscribedClips(manifest, read, Limits(10, LIMITS.frames, {}))
