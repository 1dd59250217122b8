"""Gains that a label follows: the label is what is measured, bounds, peaks, clips without the label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiodiff.audio.loudness import loudness_db
from audiodiff.data.augmentation import Sometimes
from audiodiff.data.augmenting import augmented
from audiodiff.data.loudness_augmentation import LabelledGain
from audiodiff.errors import InputError

RATE = 8000


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
