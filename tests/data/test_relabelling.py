"""Augmentations that move a label along: the label is what is measured; bounds, peaks, clips without the label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from audiodiff.audio.loudness import loudness_db
from audiodiff.data.augmentation import Chain, Gain, Sometimes, Speed
from audiodiff.data.augmenting import augmented
from audiodiff.data.relabelling import LabelledGain, Transpose
from audiodiff.errors import InputError
from tests.data.waveforms import RATE, key, peak_frequency, random_waveform, sine


def stroke(peak: float = 0.3) -> torch.Tensor:
    noise = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    decayed = noise * torch.exp(-torch.arange(2000) / 300)
    return peak * decayed / decayed.abs().max()


@pytest.mark.parametrize("decibels", [-30.0, -6.0, 0.0, 6.0, 30.0])
def test_the_label_is_the_loudness_that_is_measured_also_where_the_peak_is_in_the_way(
    decibels: float,
) -> None:
    labels = {"loudness": f"{loudness_db(stroke(), RATE):.2f}", "class": "kick"}
    gain = LabelledGain(decibels, decibels)
    louder, moved = augmented(gain, stroke(), labels, np.random.default_rng(0))
    assert float(moved["loudness"]) == pytest.approx(loudness_db(louder, RATE), abs=0.02)
    assert float(louder.abs().max()) <= 1 + 1e-6
    assert moved["class"] == "kick"


def test_levels_stay_within_their_bounds() -> None:
    gain = LabelledGain(-100, 100, lowest_level=-40, highest_level=-20)
    moved = [
        float(gain.with_labels(stroke(0.01), {"loudness": "-30"}, np.random.default_rng(n))[1]["loudness"])
        for n in range(50)
    ]
    assert min(moved) == -40
    assert max(moved) == -20


def test_clips_without_the_label_and_silence_are_taken() -> None:
    generator = np.random.default_rng(0)
    louder, moved = augmented(Sometimes(LabelledGain(6, 6), 1.0), stroke(), {"class": "kick"}, generator)
    torch.testing.assert_close(louder, stroke() * 10**0.3)
    assert moved == {"class": "kick"}
    assert not LabelledGain()(torch.zeros(1, 9), generator).any()


def test_a_label_that_is_no_number_and_bounds_out_of_order_are_refused() -> None:
    with pytest.raises(InputError, match="label loudness is 'loud'"):
        LabelledGain().with_labels(stroke(), {"loudness": "loud"}, np.random.default_rng(0))
    for wrong in ({"lowest_db": 13.0}, {"lowest_level": 1.0}):
        with pytest.raises(InputError, match="LabelledGain"):
            LabelledGain(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("semitones", [-12.0, -1.5, 0.0, 1.3, 12.0])
def test_transposing_moves_pitch_and_label_by_the_same_semitones(semitones: float) -> None:
    waveform = sine(440)
    labels = {"pitch": "69", "layer": "3"}
    changed, moved = Transpose(semitones, semitones).with_labels(waveform, labels, key(0))
    heard = 69 + 12 * np.log2(peak_frequency(changed) / 440)
    assert float(moved["pitch"]) == pytest.approx(heard, abs=0.01)
    assert float(moved["pitch"]) == pytest.approx(69 + semitones, abs=0.01)
    assert moved["layer"] == "3"
    assert labels == {"pitch": "69", "layer": "3"}, "the given labels were changed"


def test_transpositions_fill_their_range_and_leave_no_label_outside_the_keyboard() -> None:
    transpose = Transpose(-2, 2, "pitch", 21, 108)
    for pitch, low, high in ((60, 58, 62), (21, 21, 23), (107.5, 105.5, 108)):
        labels = {"pitch": f"{pitch}"}
        moved = [
            float(transpose.with_labels(random_waveform(100), labels, key(n))[1]["pitch"]) for n in range(300)
        ]
        assert low <= min(moved) < low + 0.1
        assert high - 0.1 < max(moved) <= high


def test_transpositions_by_whole_semitones_give_keys_and_nothing_between() -> None:
    transpose = Transpose(-2, 2, "pitch", 21, 108, step_semitones=1)
    for pitch, keys in ((60, {58, 59, 60, 61, 62}), (21, {21, 22, 23})):
        moved = [
            float(transpose.with_labels(random_waveform(100), {"pitch": f"{pitch}"}, key(n))[1]["pitch"])
            for n in range(100)
        ]
        assert {round(each) for each in moved} == keys
        assert all(abs(each - round(each)) < 0.01 for each in moved)


def test_with_the_recorded_pitches_every_key_sounds_as_the_nearest_of_them_and_as_no_other() -> None:
    recorded = [21, 24, 27, 33, 36]  # 30 is missing
    transpose = Transpose(-3, 3, "pitch", 21, 37, 1, recorded)
    reached = {
        pitch: {
            transpose.with_labels(random_waveform(100), {"pitch": f"{pitch}"}, key(n))[1]["pitch"]
            for n in range(100)
        }
        for pitch in recorded
    }
    assert reached == {
        21: {"21", "22"},
        24: {"23", "24", "25"},
        27: {"26", "27", "28", "29", "30"},  # 30 is as near to 33, and goes to the lower one
        33: {"31", "32", "33", "34"},
        36: {"35", "36", "37"},
    }


def test_labels_come_through_chains_and_chance_and_stay_with_all_others() -> None:
    labels = {"pitch": "60"}
    up = Transpose(1, 1)
    twice = Chain([up, Gain(-6, -6), Sometimes(up, 1.0), Sometimes(up, 0.0)])
    waveform = random_waveform(4000)
    changed, moved = augmented(twice, waveform, labels, key(0))
    assert float(moved["pitch"]) == pytest.approx(62, abs=0.02)
    assert torch.equal(changed, twice(waveform, key(0)))
    assert augmented(Speed(0.9, 0.9), waveform, labels, key(0))[1] == labels


def test_a_pitch_that_is_no_number_or_off_the_keyboard_is_refused() -> None:
    for text in ("a4", "nan", "20", ""):
        with pytest.raises(InputError, match="label pitch is"):
            Transpose(-1, 1, "pitch", 21, 108).with_labels(random_waveform(9), {"pitch": text}, key(0))


WRONG: list[tuple[str, Any]] = [
    ("Transpose: semitones", lambda: Transpose(-13, 1)),
    ("Transpose: step_semitones", lambda: Transpose(-1, 1, step_semitones=-1)),
    ("Transpose: pitches", lambda: Transpose(-1, 1, "pitch", 60, 50)),
    ("Transpose: recorded", lambda: Transpose(-1, 1, recorded=[60])),
]


@pytest.mark.parametrize(("words", "make"), WRONG)
def test_transpositions_that_cannot_be_meant_are_refused(words: str, make: Any) -> None:
    with pytest.raises(InputError, match=words):
        make()
