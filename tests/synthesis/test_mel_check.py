"""Mels of real speech made in every usual wrong way: the check names what was done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from audiodiff.audio import io
from audiodiff.audio.mel import LogMel, preset
from audiodiff.cli.app import app
from audiodiff.errors import InputError
from audiodiff.synthesis.mel_check import RIGHT, TURNED, Statistics, definitions, examine, floor_of
from audiodiff.synthesis.mel_recognition import recognise
from tests.tiny import save_random_model

OURS = preset("tacotron2_22k80")
ZERO_ONE = {"log_base": "db20", "scale": 0.01, "offset": 0.8, "clip_low": 0.0, "clip_high": 1.0}
SYMMETRIC = {"log_base": "db20", "scale": 0.08, "offset": 2.4, "clip_low": -4.0, "clip_high": 4.0}

# What was done -> (how, what the first verdict must say, share of the clips of which it must).
MISTAKES = {
    "nothing": ({}, RIGHT, 1.0),
    "log10": ({"log_base": "10"}, "log10 instead of ln", 1.0),
    "decibels": ({"log_base": "db20"}, "decibels (20 log10)", 1.0),
    "0..1": (ZERO_ONE, "scaled to 0..1", 1.0),
    "+-4": (SYMMETRIC, "scaled to -4..4", 0.9),
    "no norm": ({"mel_norm": None}, "mel_norm None", 1.0),
    "htk": ({"mel_scale": "htk"}, "mel_scale htk", 0.8),
    "power": ({"power": 2}, "power 2", 1.0),
    "window": ({"window_normalized": True}, "window_normalized True", 1.0),
    "80-7600": ({"f_min": 80.0, "f_max": 7600.0}, "7600", 0.6),
    "f_max": ({"f_max": None}, "f_max 11025", 0.6),
}


def changed(change: dict) -> LogMel:
    return LogMel.from_definition(OURS.definition() | change)


@pytest.fixture(scope="module")
def clips(data_dir: Path) -> list[Tensor]:
    files = sorted((data_dir / "ljspeech_excerpt/LJSpeech-1.1/wavs").glob("*.wav"))
    return [io.read(file)[0][:, : 4 * 22050] for file in files]


@pytest.fixture(scope="module")
def statistics(clips: list[Tensor]) -> Statistics:
    mel = torch.cat([OURS(clip)[0] for clip in clips[::4]], dim=1)
    return Statistics(mel.mean(1), mel.std(1))


@pytest.fixture(scope="module")
def others() -> list[tuple[str, LogMel]]:
    return list(definitions(OURS))


@pytest.mark.parametrize("name", MISTAKES)
def test_the_likeliest_mistake_is_the_one_that_was_made(
    name: str, clips: list[Tensor], statistics: Statistics, others: list[tuple[str, LogMel]]
) -> None:
    change, words, share = MISTAKES[name]
    theirs = changed(change)
    named = [examine(theirs(clip)[0], OURS, statistics, others)[0].mistake for clip in clips[2::8]]
    assert len(named) >= 10
    assert np.mean([words in mistake for mistake in named]) >= share, named


def test_mistakes_that_are_no_definition_are_named_too(
    clips: list[Tensor], statistics: Statistics, others: list[tuple[str, LogMel]]
) -> None:
    for clip in clips[2::16]:
        mel = OURS(clip)[0]
        standardized = (mel - mel.mean(1, keepdim=True)) / mel.std(1, keepdim=True)
        for bad, words in (
            (OURS.magnitude(mel), "linear"),
            (standardized, "normalized to mean 0"),
            (OURS(32768 * clip)[0], "16-bit"),
            (mel.T, TURNED),
            (mel[:, :80].T, TURNED),
        ):
            assert words in examine(bad, OURS, statistics, others)[0].mistake
        lower = changed({"floor": 1e-10})(torch.nn.functional.pad(clip, (0, 4410)))[0]
        assert "a lower floor" in examine(lower, OURS, statistics, others)[0].mistake


def test_the_mend_that_is_printed_mends(clips: list[Tensor], statistics: Statistics) -> None:
    class Hearing:
        log_mel = OURS

    mel = changed({"log_base": "10"})(clips[2])
    (line, *_) = [verdict.mend for verdict in examine(mel[0], OURS, statistics)]
    scope = {"mel": mel, "LogMel": LogMel, "vocoder": Hearing}
    exec(line, scope)
    torch.testing.assert_close(scope["mel"], OURS(clips[2]), atol=5e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hop_length": 300}, "hop_length: 300, expected 256"),
        ({"framing": "same"}, "framing: same"),
        ({"mel_scale": "htk"}, "mel_scale: htk"),
        ({"f_max": None}, "f_max: 11025.0"),
        ({"floor": 1e-7}, "floor: 1e-07"),
        ({"win_length": 512}, "win_length: 512"),
    ],
)
def test_beside_its_audio_the_definition_is_known(change: dict, words: str, clips: list[Tensor]) -> None:
    clip = torch.nn.functional.pad(clips[3], (0, 5000))
    best = recognise(changed(change)(clip)[0], clip, 22050, OURS)[0]
    assert words in best.name
    assert best.error_db < 0.01
    assert best.frames == 0


def test_foreign_presets_are_known_by_name_and_other_audio_is_refused(clips: list[Tensor]) -> None:
    clip = clips[3]
    assert recognise(preset("lmnt_diffwave_22k80")(clip)[0], clip, 22050, OURS)[0].name.startswith(
        "lmnt_diffwave"
    )
    with pytest.raises(InputError, match="is this the audio"):
        recognise(OURS(clip)[0], clip[:, :11025], 22050, OURS)


def test_what_is_no_mel_of_so_many_bands_is_refused(statistics: Statistics) -> None:
    for bad, message in ((torch.zeros(70, 9), "expected"), (torch.full((80, 9), torch.nan), "NaN")):
        with pytest.raises(InputError, match=message):
            examine(bad, OURS, statistics, [])


def test_many_values_at_the_lowest_are_a_floor() -> None:
    assert floor_of(torch.tensor([[-3.0, -3.0, 1.0, 2.0]])) == -3.0
    assert floor_of(torch.linspace(0, 1, 1000)) is None


def test_the_command_names_the_mistake_and_draws(data_dir: Path, tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", "experiment=fsdd_vocoder", "size=tiny")
    from audiodiff.model import load

    clip = data_dir / "fsdd/recordings/7_theo_3.flac"
    waveform = io.read(clip)[0]
    log_mel = preset("mel_8k40")
    model = load(folder)
    model.conditioner.mean.copy_(log_mel(waveform)[0].mean(1))
    model.conditioner.std.copy_(log_mel(waveform)[0].std(1))
    model.save(tmp_path / "trained", model.recipe, {}, "# test\n")
    theirs = LogMel.from_definition(log_mel.definition() | {"log_base": "10"})
    np.save(tmp_path / "mel.npy", theirs(waveform).numpy())
    run = CliRunner()

    def check(*words: str) -> str:
        picture = ["--out", str(tmp_path / "check.png")]
        result = run.invoke(
            app, ["check-mel", str(tmp_path / "trained"), *words, *picture], catch_exceptions=False
        )
        assert result.exit_code == 0
        return result.output

    assert "likeliest mistake: log10 instead of ln" in check(str(tmp_path / "mel.npy"))
    assert "made by: log_base: 10, expected e" in check(str(tmp_path / "mel.npy"), "--audio", str(clip))
    assert RIGHT in check(str(clip))
    assert (tmp_path / "check.png").read_bytes().startswith(b"\x89PNG")
