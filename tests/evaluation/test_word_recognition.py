"""Recognising sequences of words: the cutting is the best of all, and real words are cut where they end."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.evaluation.judge import Judge, judge_mel
from audiodiff.evaluation.word_recognition import (
    LONGEST_SECONDS,
    PAUSE,
    WORD_SECONDS,
    WRONG_CUT,
    WordRecognizer,
    best_cutting,
    cut_places,
    possible_segments,
    spoken_part,
)
from audiodiff.evaluation.word_training import Spoken, extended, labelled_segments

RATE = 8000
QUIET = 1e-4


def spoken(data_dir: Path, names: list[str], pause_seconds: float = 0.1) -> Spoken:
    """Real clips with pauses of faint noise before, between and after them."""
    generator = np.random.default_rng(0)
    parts, spans, place = [], [], 0
    for name in [*names, None]:
        pause = QUIET * generator.standard_normal(round(pause_seconds * RATE))
        parts.append(torch.from_numpy(pause).float())
        place += len(pause)
        if name is not None:
            clip = io.read(data_dir / "fsdd" / "recordings" / f"{name}.flac")[0][0]
            first, last = spoken_part(clip.numpy(), RATE)
            spans.append((place + first, place + last))
            parts.append(clip)
            place += len(clip)
    digits = tuple(name.partition("_")[0] for name in names)
    return Spoken(torch.cat(parts), digits, tuple(spans))


@pytest.mark.parametrize("seed", range(10))
def test_the_cutting_is_the_best_of_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    places = 7
    pairs = [
        (i, j) for i, j in itertools.combinations(range(places), 2) if j == i + 1 or generator.random() < 0.6
    ]
    scores = generator.normal(size=len(pairs))
    by_pair = dict(zip(pairs, scores, strict=True))
    sums = []
    for size in range(places - 1):
        for inner in itertools.combinations(range(1, places - 1), size):
            path = list(itertools.pairwise([0, *inner, places - 1]))
            if all(pair in by_pair for pair in path):
                sums.append(sum(by_pair[pair] for pair in path))
    found = best_cutting(places, pairs, scores)
    assert [pairs[n][0] for n in found] == [0, *(pairs[n][1] for n in found[:-1])]
    assert pairs[found[-1]][1] == places - 1
    assert scores[found].sum() == pytest.approx(max(sums))


@pytest.mark.parametrize("pause", [0.03, 0.15])
@pytest.mark.parametrize("speaker", ["theo", "jackson"])
def test_every_pause_between_real_words_has_a_place_to_cut(
    data_dir: Path, speaker: str, pause: float
) -> None:
    said = spoken(data_dir, [f"{digit}_{speaker}_1" for digit in (3, 1, 4, 9, 6)], pause)
    places = cut_places(said.waveform.numpy(), RATE)
    for (_, end), (start, _) in itertools.pairwise(said.spans):
        assert ((places > end - 0.06 * RATE) & (places < start + 0.06 * RATE)).any()


@pytest.mark.parametrize("kind", ["tone", "silence", "click", "word"])
def test_any_waveform_can_be_cut_from_its_beginning_to_its_end(kind: str, data_dir: Path) -> None:
    time = np.arange(5 * RATE) / RATE
    waveform = {
        "tone": 0.1 * np.sin(2 * np.pi * 200 * time),
        "silence": np.zeros(5 * RATE),
        "click": np.ones(1),
        "word": spoken(data_dir, ["7_theo_1"]).waveform.numpy(),
    }[kind]
    places = cut_places(waveform, RATE)
    assert places[0] == 0
    assert places[-1] == len(waveform)
    assert (np.diff(places) > 0).all()
    assert np.diff(places).max() <= LONGEST_SECONDS * RATE
    assert set(itertools.pairwise(range(len(places)))) <= set(possible_segments(places, RATE))


def test_where_a_word_lies_does_not_depend_on_its_level_or_the_pauses(data_dir: Path) -> None:
    said = spoken(data_dir, ["7_theo_1"], 0.2)
    ((start, end),) = said.spans
    found = spoken_part(0.25 * said.waveform.numpy(), RATE)
    assert found == pytest.approx((start, end), abs=0.03 * RATE)


def test_segments_are_labelled_by_the_words_that_they_hold(data_dir: Path) -> None:
    said = spoken(data_dir, ["3_theo_1", "1_theo_1", "4_theo_1"], 0.15)
    segments = labelled_segments(said, RATE)
    middles = [0, *((a[1] + b[0]) // 2 for a, b in itertools.pairwise(said.spans)), len(said.waveform)]
    for word, (start, end) in zip(said.words, itertools.pairwise(middles), strict=True):
        near = [name for a, b, name in segments if abs(a - start) < 0.1 * RATE and abs(b - end) < 0.1 * RATE]
        assert word in near
    names = {name for _, _, name in segments}
    assert names == {*said.words, PAUSE, WRONG_CUT}
    whole = [name for a, b, name in segments if a == 0 and b >= said.spans[1][1]]
    assert set(whole) == {WRONG_CUT}


def test_a_judge_keeps_what_it_knows_when_it_learns_two_classes_more() -> None:
    torch.manual_seed(0)
    judge = Judge("digit", ("one", "two", "three"), judge_mel(RATE)).eval()
    taught = extended(judge).eval()
    waveform, lengths = torch.randn(2, RATE), torch.tensor([RATE, RATE // 2])
    assert taught.names == ("one", "two", "three", PAUSE, WRONG_CUT)
    assert torch.equal(taught(waveform, lengths)[:, :3], judge(waveform, lengths))
    with pytest.raises(InputError, match="recogniser already"):
        extended(taught)


def test_a_judge_of_single_words_is_refused_as_a_recogniser() -> None:
    with pytest.raises(InputError, match="audiodiff recognizer"):
        WordRecognizer(Judge("digit", ("one", "two"), judge_mel(RATE)))


def test_what_is_no_waveform_is_refused() -> None:
    judge = Judge("digit", ("one", "two", PAUSE, WRONG_CUT), judge_mel(RATE)).eval()
    judge.facts[WORD_SECONDS] = 0.4
    recognizer = WordRecognizer(judge)
    for wrong in (torch.zeros(0), torch.zeros(2, 100), torch.tensor([0.0, torch.nan])):
        with pytest.raises(InputError, match="waveform 0"):
            recognizer.recognize([wrong])
