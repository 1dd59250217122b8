"""Griffin-Lim: its mel is the mel given, by seed and whatever the batch, as good as its yardstick."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor

from audiodiff.audio import io
from audiodiff.audio.griffin_lim import GriffinLim
from audiodiff.audio.mel import LogMel, preset
from audiodiff.audio.mel_conversion import non_negative
from audiodiff.errors import InputError
from audiodiff.evaluation.metrics.f0_rmse import f0_rmse
from audiodiff.evaluation.metrics.pesq_wb import pesq_wb
from audiodiff.evaluation.metrics.stoi import stoi
from tests.tiny import MEL, MEL_VARIANTS


def speech(data_dir: Path) -> Tensor:
    return io.read(data_dir / "fsdd/recordings/7_theo_3.flac")[0]


@pytest.mark.parametrize("name", MEL_VARIANTS)
def test_mel_of_the_result_is_the_mel_given(name: str, data_dir: Path) -> None:
    log_mel = LogMel.from_definition(MEL | MEL_VARIANTS[name])
    waveform = speech(data_dir)
    mel = log_mel(waveform)
    lengths = torch.tensor([waveform.shape[-1]])

    def error(iterations: int) -> float:
        made = log_mel(GriffinLim(log_mel, iterations)(mel, lengths))
        amplitude = [log_mel.magnitude(x) ** (1 / log_mel.power) for x in (mel, made)]
        return float((amplitude[0] - amplitude[1]).norm() / amplitude[0].norm())

    assert error(60) < 0.2
    assert error(60) < error(0) / 2


@pytest.mark.parametrize("framing", ["center", "same"])
def test_result_stands_where_the_recording_stood(framing: str) -> None:
    """A click comes back at its own sample, so neither framing shifts the time axis."""
    log_mel = LogMel.from_definition(MEL | {"framing": framing})
    waveform = torch.zeros(1, 4096)
    waveform[0, 2000:2004] = 0.9
    made = GriffinLim(log_mel)(log_mel(waveform), torch.tensor([4096]))[0].double()
    centre = float((made.square() * torch.arange(4096)).sum() / made.square().sum())
    assert centre == pytest.approx(2001.5, abs=8)


def test_pitch_survives() -> None:
    log_mel = LogMel.from_definition(MEL | {"n_fft": 512, "win_length": 512, "n_mels": 80})
    time = torch.arange(8000) / 8000
    tone = (
        sum(torch.sin(2 * torch.pi * 180 * n * time) / n for n in range(1, 15))
        * 0.2
        * torch.hann_window(8000)
    )
    made = GriffinLim(log_mel)(log_mel(tone[None]), torch.tensor([8000]))
    assert f0_rmse(tone.numpy(), made[0].numpy(), 8000) < 50  # half a semitone


def test_same_seed_same_waveform(data_dir: Path) -> None:
    log_mel = LogMel.from_definition(MEL)
    mel, vocoder = log_mel(speech(data_dir)), GriffinLim(log_mel, 5)
    assert torch.equal(vocoder(mel, seed=1), vocoder(mel, seed=1))
    assert not torch.equal(vocoder(mel, seed=1), vocoder(mel, seed=2))


def test_item_is_the_same_alone_and_padded_in_a_batch(data_dir: Path) -> None:
    log_mel = LogMel.from_definition(MEL)
    short, long = speech(data_dir)[:, :1500], speech(data_dir)[:, :2200]
    mels = [log_mel(x) for x in (short, long)]
    padded = torch.nn.functional.pad(
        mels[0], (0, mels[1].shape[-1] - mels[0].shape[-1]), value=log_mel.floor_value
    )
    vocoder = GriffinLim(log_mel, 10)
    together = vocoder(torch.cat([padded, mels[1]]), torch.tensor([1500, 2200]))
    alone = vocoder(mels[0], torch.tensor([1500]))
    assert together.shape == (2, 2200)
    torch.testing.assert_close(together[0, :1500], alone[0])
    assert not together[0, 1500:].any()


@pytest.mark.parametrize("framing", ["center", "same"])
def test_without_lengths_there_are_hop_length_samples_a_frame(framing: str, data_dir: Path) -> None:
    log_mel = LogMel.from_definition(MEL | {"framing": framing})
    mel = log_mel(speech(data_dir))
    assert GriffinLim(log_mel, 1)(mel).shape == (1, mel.shape[-1] * log_mel.hop_length)


def test_silence_stays_silent() -> None:
    log_mel = LogMel.from_definition(MEL)
    assert GriffinLim(log_mel)(log_mel(torch.zeros(1, 4000))).abs().max() < 1e-3


def test_what_does_not_fit_is_refused(data_dir: Path) -> None:
    log_mel = LogMel.from_definition(MEL)
    mel = log_mel(speech(data_dir))
    with pytest.raises(InputError, match="40 bands"):
        GriffinLim(log_mel)(mel[:, :20])
    for lengths in ([0], [10**6], [100, 100]):
        with pytest.raises(InputError, match="lengths"):
            GriffinLim(log_mel)(mel, torch.tensor(lengths))
    with pytest.raises(InputError, match="iterations"):
        GriffinLim(log_mel, -1)


def test_scores_as_the_yardstick_on_the_published_mels(data_dir: Path, fixtures_dir: Path) -> None:
    expected = json.loads((fixtures_dir / "philsyn_vocoder/yardstick.json").read_text())[
        "griffin_lim_60it_nnls"
    ]
    log_mel = preset("tacotron2_22k80")
    rows = []
    for path in sorted((fixtures_dir / "philsyn_vocoder/published").glob("*.mel.npy")):
        recording, rate = io.read(
            data_dir / "ljspeech_excerpt/LJSpeech-1.1/wavs" / path.name.replace(".mel.npy", ".wav")
        )
        mel = torch.from_numpy(np.load(path)).reshape(1, log_mel.n_mels, -1)
        made = GriffinLim(log_mel)(mel, torch.tensor([recording.shape[-1]]))
        pair = recording[0].numpy(), made[0].numpy()
        distance = float((log_mel(made) - mel).abs().mean())
        rows.append((pesq_wb(*pair, rate), stoi(*pair, rate), distance))
    assert rows
    pesq, intelligibility, distance = np.mean(rows, axis=0)
    # The yardstick is a mean over more clips than have a published mel.
    assert pesq == pytest.approx(expected["pesq_wb"], abs=0.3)
    assert intelligibility == pytest.approx(expected["stoi"], abs=0.01)
    assert distance == pytest.approx(expected["log_mel_l1"], abs=0.02)


@pytest.mark.parametrize("name", ["tacotron2_22k80", "mel_8k40", "vocos_24k100"])
def test_linear_spectrum_meets_the_bands_in_a_fixed_number_of_iterations(name: str, data_dir: Path) -> None:
    log_mel = preset(name)
    waveform, _ = io.read(data_dir / "fsdd/recordings/7_theo_3.flac", log_mel.sample_rate)
    bands = log_mel.magnitude(log_mel(waveform)[0])

    def residual(iterations: int) -> float:
        spectrum = non_negative(log_mel.filterbank, bands, iterations)
        assert bool((spectrum >= 0).all())
        return float((log_mel.filterbank @ spectrum - bands).norm() / bands.norm())

    assert residual(50) < 1e-3 < residual(0)
    assert residual(50) < residual(5) < residual(1) < residual(0)


def test_linear_spectrum_of_any_mel_takes_as_long_as_of_speech_and_fits_as_the_exact_solution() -> None:
    """A mel of noise, on which a solver that waits for convergence works for minutes."""
    log_mel = LogMel.from_definition(MEL)
    bands = torch.randn(log_mel.n_mels, 20, generator=torch.Generator().manual_seed(0)).mul(3).exp()
    filterbank = log_mel.filterbank
    made = non_negative(filterbank, bands, 3000)
    exact = np.stack([nnls(filterbank.double().numpy(), column.double().numpy())[0] for column in bands.T], 1)
    errors = [
        float((filterbank.double() @ torch.as_tensor(x).double() - bands.double()).norm() / bands.norm())
        for x in (made, exact)
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
