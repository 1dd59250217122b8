"""Moving a waveform to its mel: nearer with every round, still the same signal where it was right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.audio.mel import LogMel
from audiodiff.errors import InputError
from audiodiff.synthesis.mel_consistency import match_mel
from tests.tiny import MEL, MEL_VARIANTS


def speech(data_dir: Path) -> Tensor:
    return io.read(data_dir / "fsdd/recordings/7_theo_3.flac")[0][0]


def noisy(waveform: Tensor) -> Tensor:
    noise = torch.randn(waveform.shape, generator=torch.Generator().manual_seed(0))
    return 0.5 * waveform + 0.05 * noise


@pytest.mark.parametrize("name", MEL_VARIANTS)
def test_mel_comes_nearer_with_more_iterations(name: str, data_dir: Path) -> None:
    log_mel = LogMel.from_definition(MEL | MEL_VARIANTS[name])
    waveform = speech(data_dir)
    mel = log_mel(waveform[None])[0]

    def error(iterations: int) -> float:
        made = log_mel(match_mel(noisy(waveform), mel, log_mel, iterations)[None])[0]
        return float((made - mel).abs().mean() / (mel.max() - log_mel.floor_value))

    errors = [error(iterations) for iterations in (0, 3, 30)]
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.7 * errors[1]


def test_waveform_that_has_its_mel_already_stays(data_dir: Path) -> None:
    log_mel = LogMel.from_definition(MEL)
    waveform = speech(data_dir)
    mel = log_mel(waveform[None])[0]
    inside = slice(256, -256)  # the mel's reflected ends are no signal that a waveform can have
    moved = match_mel(waveform, mel, log_mel, 20)
    assert moved.shape == waveform.shape
    error = (moved - waveform)[inside].norm() / waveform[inside].norm()
    assert float(error) < 0.02


def test_no_iterations_return_the_waveform(data_dir: Path) -> None:
    log_mel = LogMel.from_definition(MEL)
    waveform = speech(data_dir)
    assert torch.equal(match_mel(waveform, log_mel(waveform[None])[0], log_mel, 0), waveform)


def test_mel_of_less_frames_and_negative_iterations_are_refused(data_dir: Path) -> None:
    log_mel = LogMel.from_definition(MEL)
    waveform = speech(data_dir)
    mel = log_mel(waveform[None])[0]
    with pytest.raises(InputError, match="frames"):
        match_mel(waveform, mel[:, :-1], log_mel, 5)
    with pytest.raises(InputError, match="-1"):
        match_mel(waveform, mel, log_mel, -1)
