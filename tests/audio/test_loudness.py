"""Laws of the one definition of loudness."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from audiodiff.audio.loudness import LOWEST_DB, loudness_db
from audiodiff.errors import InputError

RATE = 8000


def noise(length: int, channels: int = 1) -> Tensor:
    return 0.1 * torch.randn(channels, length, generator=torch.Generator().manual_seed(length))


def test_square_and_sine_have_their_exact_levels() -> None:
    sine = torch.sin(2 * torch.pi * 400 * torch.arange(RATE) / RATE)  # 20 whole periods in 50 ms
    assert loudness_db(sine.sign() + (sine == 0), RATE) == pytest.approx(0, abs=1e-9)
    assert loudness_db(sine, RATE) == pytest.approx(20 * math.log10(math.sqrt(0.5)), abs=1e-3)


@pytest.mark.parametrize("length", [1, 399, 400, 401, 5000])
def test_a_gain_moves_it_by_its_decibels_and_silence_around_the_sound_does_not(length: int) -> None:
    waveform = noise(length)
    level = loudness_db(waveform, RATE)
    assert loudness_db(waveform / 2, RATE) == pytest.approx(level - 20 * math.log10(2), abs=1e-6)
    for before, after in ((0, 3000), (700, 0), (123, 4567)):
        padded = torch.nn.functional.pad(waveform, (before, after))
        assert loudness_db(padded, RATE) == pytest.approx(level, abs=1e-6)


def test_it_is_the_loudest_window_of_all() -> None:
    waveform = noise(3000, channels=2)
    windows = waveform.double().square().mean(0).unfold(0, 400, 1).mean(1)
    assert loudness_db(waveform, RATE) == pytest.approx(10 * math.log10(float(windows.max())), abs=1e-9)


def test_a_long_ring_is_as_loud_as_a_short_one() -> None:
    times = torch.arange(2 * RATE) / RATE
    short, long = (torch.exp(-times / decay) * torch.sin(2 * torch.pi * 400 * times) for decay in (0.3, 1.0))
    assert abs(loudness_db(short, RATE) - loudness_db(long, RATE)) < 1
    assert abs(float(short.square().mean().log10() - long.square().mean().log10())) > 0.5


def test_the_power_of_channels_is_averaged() -> None:
    waveform = noise(2000)
    assert loudness_db(waveform.expand(2, -1), RATE) == pytest.approx(loudness_db(waveform[0], RATE))
    one_side = torch.cat([waveform, torch.zeros_like(waveform)])
    assert loudness_db(one_side, RATE) == pytest.approx(loudness_db(waveform, RATE) - 10 * math.log10(2))


def test_silence_has_the_lowest_level_and_no_sound_none() -> None:
    assert loudness_db(torch.zeros(1, 9), RATE) == LOWEST_DB
    for wrong in (torch.zeros(1, 0), torch.tensor([0.0, math.nan])):
        with pytest.raises(InputError, match="loudness"):
            loudness_db(wrong, RATE)
