"""Sequences are their clips one after another, drawn from (seed, epoch, number) alone; held-out orders stay apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise

import pytest
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.data.manifests import load_cuts
from audiodiff.data.order import SegmentBatchSampler, SegmentRequest, fixed_requests
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, write_corpus
from audiodiff.data.segments import SegmentDataset, training_loader
from audiodiff.data.sequences import ClipSequences, Sequencing, is_held_out
from audiodiff.errors import InputError
from tests.conftest import ROOT

RATE = 8000
WORDS = [f"w{number}" for number in range(10)]
SPEAKERS = ["ann", "bob", "cid"]
HOW = Sequencing("word", "speaker", 3, (0.005, 0.02), 90, 2400, held_out=False)


def tokens(text: str) -> Tensor:
    return torch.tensor([int(word[1:]) for word in text.split()])


def value(speaker: str, word: str, take: int) -> float:
    """Level of a clip, different for each."""
    return round(0.1 + 0.2 * SPEAKERS.index(speaker) + 0.01 * int(word[1:]) + 0.002 * take, 4)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> SegmentDataset:
    """Two takes of each word of each speaker: alternating samples of one level, all of another length."""
    folder = tmp_path_factory.mktemp("words")
    listed = []
    for speaker in SPEAKERS:
        for word in WORDS:
            for take in range(2):
                name = f"{speaker}-{word}-{take}"
                length = 400 + 10 * int(word[1:]) + take
                waveform = value(speaker, word, take) * (1 - 2.0 * (torch.arange(length) % 2))[None]
                io.write(folder / f"{name}.wav", waveform, RATE, "FLOAT")
                listed.append(Clip(name, folder / f"{name}.wav", "train", speaker, labels={"word": word}))
    write_corpus(Listing("words", folder, listed, "all train"), folder / "out", PrepareOptions())
    return SegmentDataset(load_cuts(folder / "out" / "train.jsonl.gz"), RATE, 1, ("word", "speaker"), 1)


def sequences(clips: SegmentDataset, how: Sequencing = HOW, seed: int = 0) -> ClipSequences:
    return ClipSequences(clips, how, tokens, seed)


def test_a_sequence_is_its_clips_in_order_between_quiet_pauses_and_says_their_words(
    clips: SegmentDataset,
) -> None:
    made = sequences(clips)
    for number in range(0, 90, 7):
        plan, item = made.plan(number), made[SegmentRequest(number, 0, 1)]
        assert item.tokens is not None
        assert item.tokens.tolist() == [int(word[1:]) for word in plan.words]
        assert item.labels == {"speaker": plan.shared}
        at = 0
        for clip, pause in zip(plan.clips, plan.pauses[:-1], strict=True):
            at += pause
            entry = clips.clips.entry(clip)
            assert entry.labels["speaker"] == plan.shared
            whole = clips[SegmentRequest(clip, 0, entry.length)].waveform
            assert torch.equal(item.waveform[:, at : at + entry.length], whole)
            at += entry.length
        assert item.length == at + plan.pauses[-1] == item.waveform.shape[1]
        assert [clips.clips.entry(clip).labels["word"] for clip in plan.clips] == list(plan.words)
        assert all(40 <= pause <= 160 for pause in plan.pauses)
        quietest = min(abs(float(clips[SegmentRequest(c, 0, 100)].waveform[0, 0])) for c in plan.clips)
        before = item.waveform[0, : plan.pauses[0]]
        assert 0.5 * quietest < float(before.square().mean().sqrt()) < 1.5 * quietest


def test_what_is_drawn_depends_on_seed_epoch_and_number_alone(clips: SegmentDataset) -> None:
    made = sequences(clips)
    one = made[SegmentRequest(40, 0, 1, 3)]
    again = sequences(clips)[SegmentRequest(40, 7, 99, 3)]
    assert torch.equal(one.waveform, again.waveform)
    others = [made.plan(40, 4), made.plan(43, 3), sequences(clips, seed=1).plan(40, 3)]
    assert all(other != made.plan(40, 3) for other in others)


def test_there_are_as_many_of_each_speaker_and_number_of_words(clips: SegmentDataset) -> None:
    plans = [sequences(clips).plan(number) for number in range(90)]
    counts = {(speaker, count): 0 for speaker in SPEAKERS for count in (1, 2, 3)}
    for plan in plans:
        counts[plan.shared, len(plan.words)] += 1
    assert set(counts.values()) == {10}


def test_training_and_the_other_splits_never_make_the_same_order(clips: SegmentDataset) -> None:
    apart = replace(HOW, held_out=True)
    for how in (HOW, apart):
        made = sequences(clips, how)
        plans = [made.plan(number, epoch) for number in range(90) for epoch in range(3)]
        assert all(
            is_held_out(plan.shared, plan.words) == how.held_out for plan in plans if len(plan.words) > 1
        )
    share = sum(is_held_out(s, [a, b]) for s in SPEAKERS for a in WORDS for b in WORDS) / 300
    assert 0.05 < share < 0.15


def test_no_sequence_is_longer_than_the_longest_and_lengths_rise_with_the_words(
    clips: SegmentDataset,
) -> None:
    made = sequences(clips, replace(HOW, longest=1650))
    assert made.lengths.max() == 1650
    assert all(made[request].length <= 1650 for request in fixed_requests(made.lengths, 1650))
    assert all(a <= b for a, b in pairwise(made.lengths[::3][:3]))


def test_the_loader_batches_sequences_the_same_with_workers(clips: SegmentDataset) -> None:
    made = sequences(clips)
    sampler = SegmentBatchSampler(made.lengths, HOW.longest, 4, seed=2)
    for one, other in zip(
        islice(training_loader(made, sampler, 0), 3),
        islice(training_loader(made, sampler, 1), 3),
        strict=True,
    ):
        assert one.ids == other.ids
        assert one.waveform is not None
        assert other.waveform is not None
        assert one.tokens is not None
        assert other.tokens is not None
        assert torch.equal(one.waveform, other.waveform)
        assert torch.equal(one.tokens, other.tokens)


def test_sequences_that_cannot_be_made_are_refused(clips: SegmentDataset) -> None:
    with pytest.raises(InputError, match=r"raise data\.segment_seconds"):
        sequences(clips, replace(HOW, longest=450)).plan(6)
    with pytest.raises(InputError, match="pauses of 0 <= shortest"):
        replace(HOW, pause_seconds=(0.2, 0.1))
    with pytest.raises(InputError, match="no label 'digit'"):
        sequences(clips, replace(HOW, of="digit"))


@pytest.mark.parametrize("speaker", ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"])
def test_the_recipe_speaks_orders_that_training_never_makes(speaker: str) -> None:
    lines = (ROOT / f"egs/fsdd/spoken_numbers/texts/{speaker}.txt").read_text().splitlines()
    texts = [line.split() for line in lines]
    assert [len(words) for words in texts] == [count for count in range(1, 7) for _ in range(5)]
    assert all(is_held_out(speaker, words) for words in texts if len(words) > 1)
