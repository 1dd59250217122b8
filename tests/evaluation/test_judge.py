"""The judge: what may not change its verdict, how it learns, saves and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from audiodiff.data.manifests import load_cuts
from audiodiff.data.segments import read_cut
from audiodiff.errors import InputError
from audiodiff.evaluation.judge import Judge, judge_mel
from audiodiff.evaluation.judge_training import (
    JudgeTraining,
    augment,
    class_numbers,
    confusion,
    spread,
    train_judge,
)
from audiodiff.evaluation.pictures import confusion_picture


@pytest.fixture(scope="module")
def clips(mini: Path) -> list[Tensor]:
    return [read_cut(cut, 0, cut.num_samples) for cut in load_cuts(mini / "test.jsonl.gz")]


def test_it_recognises_clips_that_it_never_heard(judge: Judge) -> None:
    assert judge.facts["test_accuracy"] > 0.9
    assert np.trace(judge.facts["test_confusion"]) == judge.facts["test_accuracy"] * judge.facts["test_clips"]


def test_verdict_is_the_same_alone_and_in_a_batch(judge: Judge, clips: list[Tensor]) -> None:
    some = sorted(clips, key=lambda clip: clip.shape[-1])
    some = [some[0], some[-1], some[len(some) // 2]]
    alone = torch.cat([judge.predict([clip]) for clip in some])
    torch.testing.assert_close(judge.predict(some), alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(judge.describe(some), torch.cat([judge.describe([clip]) for clip in some]))


@pytest.mark.parametrize("gain", [0.01, 3.0])
def test_verdict_does_not_depend_on_the_level(gain: float, judge: Judge, clips: list[Tensor]) -> None:
    louder = judge.predict([gain * clip for clip in clips[:8]])
    torch.testing.assert_close(louder, judge.predict(clips[:8]), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("length", [1, 5, 80, 500])
def test_any_length_has_a_verdict(length: int, judge: Judge) -> None:
    for waveform in (torch.zeros(length), torch.full((1, length), 0.5)):
        probabilities = judge.predict([waveform])
        assert probabilities.shape == (1, len(judge.names))
        assert float(probabilities.sum()) == pytest.approx(1, abs=1e-5)


def test_slightly_noisy_clips_are_recognised_as_well(judge: Judge, mini: Path, clips: list[Tensor]) -> None:
    truth = class_numbers(load_cuts(mini / "test.jsonl.gz"), judge.label, judge.names)
    generator = torch.Generator().manual_seed(0)
    noisy = [
        clip + 0.03 * clip.square().mean().sqrt() * torch.randn(clip.shape, generator=generator)
        for clip in clips
    ]
    right = (judge.predict(noisy).argmax(-1) == truth).double().mean()
    assert right >= judge.facts["test_accuracy"] - 0.05


def test_same_seed_same_judge_and_no_other_random_number_moves(mini: Path) -> None:
    train, dev = (load_cuts(mini / f"{split}.jsonl.gz") for split in ("train", "dev"))
    options = JudgeTraining(updates=2, batch_size=8)
    before = torch.get_rng_state()
    first, again, other = (train_judge(train, dev, "sound", seed, options) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    weights = [torch.cat([value.flatten() for value in made.parameters()]) for made in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_saved_and_loaded_it_judges_alike(judge: Judge, clips: list[Tensor], tmp_path: Path) -> None:
    judge.save(tmp_path / "judge")
    judge.save(tmp_path / "judge")  # over an older one
    loaded = Judge.load(tmp_path / "judge")
    assert torch.equal(loaded.predict(clips[:5]), judge.predict(clips[:5]))
    assert (loaded.label, loaded.names, loaded.facts) == (judge.label, judge.names, judge.facts)
    assert loaded.log_mel.definition() == judge.log_mel.definition()


def test_a_folder_with_other_things_is_not_replaced(judge: Judge, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no judge"):
        judge.save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_what_is_no_judge_is_refused(judge: Judge, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="audiodiff judge"):
        Judge.load(tmp_path / "nowhere")
    judge.save(tmp_path / "judge")
    weights = tmp_path / "judge" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        Judge.load(tmp_path / "judge")
    judge.save(tmp_path / "judge")
    (tmp_path / "judge" / "config.json").write_text('{"label": "sound"}')
    with pytest.raises(InputError, match="damaged"):
        Judge.load(tmp_path / "judge")


def test_labels_that_cannot_be_learnt_are_refused(mini: Path) -> None:
    train, dev = (load_cuts(mini / f"{split}.jsonl.gz") for split in ("train", "dev"))
    few = JudgeTraining(updates=1)
    with pytest.raises(InputError, match="no label 'colour'"):
        train_judge(train, dev, "colour", 0, few)
    name = train[0].supervisions[0].custom["sound"]
    one = [cut for cut in train if cut.supervisions[0].custom["sound"] == name]
    with pytest.raises(InputError, match="do not occur in training"):
        train_judge(one, dev, "sound", 0, few)
    with pytest.raises(InputError, match="at least two"):
        train_judge(one, one, "sound", 0, few)


@pytest.mark.parametrize("waveform", [torch.zeros(0), torch.zeros(2, 100), torch.full((50,), float("nan"))])
def test_waveforms_that_cannot_be_judged_are_refused(waveform: Tensor, judge: Judge) -> None:
    with pytest.raises(InputError, match="waveform 1"):
        judge.predict([torch.ones(100), waveform])


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_mel_of_every_rate_covers_the_whole_band(rate: int) -> None:
    log_mel = judge_mel(rate)
    assert (log_mel.filterbank.sum(1) > 0).all()
    assert log_mel(torch.randn(1, rate)).shape[-1] == pytest.approx(100, abs=2)


def test_augmentation_moves_each_clip_whole_and_leaves_the_rest_silent_or_noisy() -> None:
    lengths = torch.tensor([400, 700, 1000, 50])
    waveform = torch.zeros(4, 1000)
    for row, length in zip(waveform, lengths, strict=True):
        row[:length] = torch.linspace(0.2, 0.9, int(length))
    moved, longer = augment(waveform, lengths, 8000, torch.Generator().manual_seed(0))
    again, _ = augment(waveform, lengths, 8000, torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)
    assert (longer >= lengths).all()
    clean = 0
    for row, length, end in zip(moved, lengths, longer, strict=True):
        assert not row[end:].any()
        start = int((row > 0.1).nonzero()[0])
        if not row[:start].any():
            clean += 1
            torch.testing.assert_close(row[start : start + length], torch.linspace(0.2, 0.9, int(length)))
    assert clean > 0


def test_spread_is_zero_for_one_sound_and_grows_with_difference() -> None:
    features, classes = torch.randn(6, 4), torch.tensor([0, 0, 0, 1, 1, 1])
    assert spread(features[:1].repeat(6, 1), classes) == pytest.approx(0, abs=1e-6)
    small, large = spread(features, classes), spread(3 * features, classes)
    assert small is not None
    assert large == pytest.approx(3 * small, rel=1e-5)
    assert spread(features[:2], torch.tensor([0, 1])) is None


def test_confusion_counts_truth_in_rows(tmp_path: Path) -> None:
    matrix = confusion(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 2, 1, 2]), 3)
    assert matrix.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    confusion_picture(matrix, ["a", "b", "c"], tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="confusion matrix"):
        confusion_picture(matrix, ["a", "b"], tmp_path / "wrong.png")
