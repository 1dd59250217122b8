"""Laws of the augmentations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from audiodiff.audio import io
from audiodiff.data.augmentation import (
    Chain,
    Gain,
    Noise,
    Polarity,
    Resample,
    Reverb,
    Sometimes,
    Speed,
    SyntheticReverb,
    decaying_noise,
)
from audiodiff.data.augmenting import Augmentation
from audiodiff.errors import InputError
from audiodiff.recipes_folder import recipes_folder
from tests.data.waveforms import RATE, key, peak_frequency, random_waveform, sine

DATA = {
    "sample_rate": RATE,
    "labels": {"pitch": {"low": 21, "high": 108}, "loudness": {"low": -60.0, "high": 0.0}},
}
NAMES = sorted(file.stem for file in (recipes_folder() / "augmentation").glob("*.yaml"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with noises at two rates, one of them stereo and one shorter than the segments, in a folder below."""
    folder: Path = tmp_path_factory.mktemp("sounds")
    generator = torch.Generator().manual_seed(0)
    for name, channels, length, rate in (("long", 1, 9000, RATE), ("below/stereo", 2, 700, 2 * RATE)):
        waveform = 0.1 * torch.randn(channels, length, generator=generator)
        io.write(folder / f"{name}.wav", waveform, rate, subtype="FLOAT")
    return folder


def recipe(name: str, sounds: Path) -> Augmentation:
    """The augmentation of a recipe file, on every segment."""
    text = yaml.safe_load((recipes_folder() / "augmentation" / f"{name}.yaml").read_text())
    node = text.get("augmentation", text)
    if "source" in node:
        node["source"] = str(sounds)
    config = OmegaConf.create({"data": DATA, "node": node})
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    made: Augmentation = instantiate(resolved["node"], _convert_="all")
    return made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 2, 3, 100, 4001])
def test_any_length_and_any_level_stay_finite_and_within_full_scale(
    name: str, length: int, sounds: Path
) -> None:
    augmentation = recipe(name, sounds)
    for number in range(5):
        for loud in (random_waveform(length, 2), 9 * random_waveform(length, 2).clamp(-0.11, 0.11)):
            before = loud.clone()
            changed = augmentation(loud, key(number))
            assert changed.shape[0] == 2
            assert changed.shape[1] >= 1
            assert changed.dtype == torch.float32
            assert changed.isfinite().all()
            assert changed.abs().max() <= 1 + 1e-6
            assert torch.equal(loud, before), "the given waveform was changed"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_key_gives_the_same_bits_and_another_key_others(name: str, sounds: Path) -> None:
    waveform = random_waveform(4000)
    one, same, other = (recipe(name, sounds)(waveform, key(*numbers)) for numbers in ((7, 1), (7, 1), (7, 2)))
    assert torch.equal(one, same)
    if name != "polarity":
        assert one.shape != other.shape or not torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_silence_stays_silence(name: str, sounds: Path) -> None:
    assert not recipe(name, sounds)(torch.zeros(1, 1000), key(0)).any()


@pytest.mark.parametrize("decibels", [-20.0, 0.0, 12.0])
def test_gain_is_exact(decibels: float) -> None:
    waveform = random_waveform(500).clamp(-0.2, 0.2)
    changed = Gain(decibels, decibels)(waveform, key(0))
    torch.testing.assert_close(changed, waveform * 10 ** (decibels / 20), rtol=1e-6, atol=0)


def test_gain_beyond_full_scale_is_scaled_back_not_clipped() -> None:
    waveform = random_waveform(500)
    torch.testing.assert_close(
        Gain(60, 60)(waveform, key(0)), waveform / waveform.abs().max(), rtol=1e-6, atol=0
    )


def test_gains_fill_their_range() -> None:
    waveform = torch.full((1, 1), 1e-3)
    drawn = [20 * float(np.log10(1e3 * Gain(-6, 6)(waveform, key(n)).item())) for n in range(200)]
    assert -6 <= min(drawn) < -5.5
    assert 5.5 < max(drawn) <= 6 + 1e-5


def test_polarity_turns_the_sign() -> None:
    waveform = random_waveform(50)
    assert torch.equal(Polarity()(waveform, key(0)), -waveform)


def test_sometimes_is_as_often_as_it_says() -> None:
    waveform = random_waveform(5)
    turned = sum(
        bool(Sometimes(Polarity(), 0.3)(waveform, key(n))[0, 0] != waveform[0, 0]) for n in range(500)
    )
    assert 110 < turned < 190
    assert torch.equal(Sometimes(Polarity(), 0.0)(waveform, key(0)), waveform)
    assert torch.equal(Sometimes(Polarity(), 1.0)(waveform, key(0)), -waveform)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.1, 2.0])
def test_speed_changes_length_and_pitch_by_the_factor(factor: float) -> None:
    changed = Speed(factor, factor)(sine(440), key(0))
    assert changed.shape[-1] == round(RATE / factor)
    assert peak_frequency(changed) == pytest.approx(440 * factor, rel=1e-3)


def test_resampling_keeps_what_is_below_half_the_lower_rate_and_nothing_above() -> None:
    low, high = sine(500), sine(3000)
    narrowed = Resample(RATE, 4000, 4000)(low + high, key(0))
    middle = slice(500, -500)
    assert narrowed.shape == low.shape
    torch.testing.assert_close(narrowed[:, middle], low[:, middle], rtol=0, atol=1e-3)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
@pytest.mark.parametrize("length", [50, 3000, 20000])
def test_noise_has_the_ratio_asked_for(snr_db: float, length: int, sounds: Path) -> None:
    waveform = 0.01 * random_waveform(length, 2)
    for number in range(4):
        added = Noise(str(sounds), RATE, snr_db, snr_db)(waveform, key(number)).double() - waveform
        assert torch.equal(added[0].float() != 0, added[1].float() != 0)
        ratio = 10 * torch.log10(waveform.double().square().mean() / added.square().mean())
        assert float(ratio) == pytest.approx(snr_db, abs=0.1)


def test_noise_that_leaves_full_scale_keeps_its_ratio(sounds: Path) -> None:
    waveform = sine(440) * 1.9
    noisy = Noise(str(sounds), RATE, 0, 0)(waveform, key(3)).double()
    assert float(noisy.abs().max()) == pytest.approx(1, abs=1e-6)
    scale = float((noisy * waveform).sum() / waveform.double().square().sum())  # noise and sine: uncorrelated
    noise = noisy - scale * waveform
    ratio = 10 * torch.log10((scale * waveform).double().square().mean() / noise.square().mean())
    assert float(ratio) == pytest.approx(0, abs=0.5)


def test_reverb_of_a_single_click_is_the_sound_itself_without_delay(tmp_path: Path) -> None:
    click = torch.zeros(1, 300)
    click[0, 120] = 0.7
    io.write(tmp_path / "click.wav", click, RATE, subtype="FLOAT")
    waveform = random_waveform(1000)
    for wet in (0.0, 0.4, 1.0):
        changed = Reverb(str(tmp_path), RATE, wet, wet)(waveform, key(0))
        torch.testing.assert_close(changed, waveform, rtol=1e-5, atol=1e-7)


def test_reverb_convolves_with_the_response(tmp_path: Path) -> None:
    response = torch.zeros(1, 50)
    response[0, 3], response[0, 13] = 0.8, -0.4
    io.write(tmp_path / "response.wav", response, RATE, subtype="FLOAT")
    waveform = random_waveform(1000)
    expected = waveform.clone()
    expected[:, 10:] -= 0.5 * waveform[:, :-10]
    expected *= waveform.norm() / expected.norm()
    changed = Reverb(str(tmp_path), RATE, 1, 1)(waveform, key(0))
    torch.testing.assert_close(changed, expected, rtol=1e-5, atol=1e-6)


def test_synthetic_reverb_falls_by_60_db_in_its_time() -> None:
    tails = torch.stack([decaying_noise(0.5, RATE, key(n)) for n in range(300)])
    energy = 10 * torch.log10(tails[:, 1:].square().mean(0))
    times = torch.arange(1, len(energy) + 1, dtype=torch.float64) / RATE
    slope = float(torch.cov(torch.stack([times, energy]))[0, 1] / times.var())
    assert slope * 0.5 == pytest.approx(-60, abs=0.5)
    torch.testing.assert_close(tails[:, 1:].square().sum(1), torch.ones(300, dtype=torch.float64))


def test_a_chain_runs_in_its_order() -> None:
    waveform = random_waveform(500)
    louder, softer = Gain(40, 40), Gain(-40, -40)
    scaled_back = Chain([louder, softer])(waveform, key(0))
    assert float(scaled_back.abs().max()) == pytest.approx(0.01, rel=1e-5)
    torch.testing.assert_close(Chain([softer, louder])(waveform, key(0)), waveform, rtol=1e-5, atol=0)


WRONG: list[tuple[str, Any]] = [
    ("Gain", lambda: Gain(6, -6)),
    ("Speed", lambda: Speed(0.4, 1)),
    ("Speed", lambda: Speed(1, 2.1)),
    ("Resample", lambda: Resample(RATE, 4000, 16000)),
    ("probability", lambda: Sometimes(Polarity(), 1.5)),
    ("shares", lambda: SyntheticReverb(RATE, lowest_wet=-0.1)),
    ("seconds", lambda: SyntheticReverb(RATE, lowest_seconds=0)),
    ("Gain", lambda: Gain(float("nan"), 0)),
]


@pytest.mark.parametrize(("words", "make"), WRONG)
def test_what_cannot_be_meant_is_refused(words: str, make: Any) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_a_folder_without_audio_and_a_manifest_that_is_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no audio file"):
        Noise(str(tmp_path), RATE)
    with pytest.raises(InputError, match="no such file"):
        Reverb(str(tmp_path / "noise.jsonl.gz"), RATE)
