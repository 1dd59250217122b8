"""The presets reproduce the mels that other projects' own feature code computed from the same samples.

Bands are compared where the arithmetic is linear, each frame against its loudest band: float32 transforms
carry rounding of about 1e-7 of a frame's largest coefficient into every band. In the logarithm that same
rounding reaches 1e-3 in bands 80 dB below the loudest (ParallelWaveGAN uses float64 transforms, Tacotron 2
convolutions), so the logarithms get that much there, and 1e-5 on average.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.audio.mel import LogMel, preset

# Array in fixtures/mel -> preset. BigVGAN's 22 kHz mel is HiFi-GAN's.
PRESET_OF = {
    "hifigan_22k80": "hifigan_22k80",
    "hifigan_22k80_fmaxNone": "hifigan_22k80_fmax_none",
    "bigvgan_22k80": "hifigan_22k80",
    "bigvgan_24k100": "bigvgan_24k100",
    "bigvgan_44k128_512x": "bigvgan_44k128",
    "tacotron2_22k80": "tacotron2_22k80",
    "pwg_ljspeech_v1_log10": "pwg_22k80_log10",
    "pwg_ln": "pwg_22k80_ln",
    "pwg_24k_fft2048_hop300_win1200_log10": "pwg_24k80",
    "lmnt_diffwave": "lmnt_diffwave_22k80",
    "lmnt_wavegrad": "lmnt_wavegrad_22k128",
    "vocos_24k100": "vocos_24k100",
}


def assert_same_mel(mel: LogMel, waveform: Tensor, reference: np.ndarray, what: str) -> None:
    computed = mel(waveform)
    expected = mel.check(reference if reference.shape[0] == mel.n_mels else reference.T, what)
    assert computed.shape == expected.shape, what
    ours, theirs = mel.magnitude(computed), mel.magnitude(expected)
    frame_error = ((ours - theirs).abs() / theirs.amax(1, keepdim=True)).max()
    assert frame_error <= 2e-5, f"{what}: {frame_error:.1e} of the frame's loudest band"
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.max(), what
    unit = {"e": 1.0, "10": np.log10(np.e), "db20": 20 * np.log10(np.e)}[mel.log_base] * mel.scale
    log_error = (computed - expected).abs() / unit  # in natural logarithm, whatever the convention
    assert log_error.max() <= 2e-3, f"{what}: {log_error.max():.1e}"
    assert log_error.mean() <= 1e-5, f"{what}: {log_error.mean():.1e}"


def clips(fixtures_dir: Path) -> list[Path]:
    files = sorted((fixtures_dir / "mel").glob("clip*.npz"))
    assert files, "the fixtures have no mel/clip*.npz"
    return files


def test_presets_reproduce_every_stored_mel(fixtures_dir: Path) -> None:
    for file in clips(fixtures_dir):
        with np.load(file, allow_pickle=False) as stored:
            waveform = torch.from_numpy(stored["audio_int16"].astype(np.float32) / 32768)[None]
            names = set(stored.files) - {"audio_int16", "meta_json"}
            assert names <= set(PRESET_OF), f"{file.name}: no preset for {names - set(PRESET_OF)}"
            for name in sorted(names):
                assert_same_mel(preset(PRESET_OF[name]), waveform, stored[name], f"{file.name}: {name}")


@pytest.mark.parametrize(
    ("project", "name"), [("lmnt_diffwave", "lmnt_diffwave_22k80"), ("lmnt_wavegrad", "lmnt_wavegrad_22k128")]
)
def test_lmnt_preprocessing_of_the_clips_it_names(
    fixtures_dir: Path, data_dir: Path, project: str, name: str
) -> None:
    with np.load(fixtures_dir / project / "mel.npz", allow_pickle=False) as stored:
        for number, clip in enumerate(json.loads(str(stored["meta_json"]))["clips"], start=1):
            waveform, _ = io.read(data_dir / "ljspeech_excerpt/LJSpeech-1.1/wavs" / clip)
            assert_same_mel(preset(name), waveform, stored[f"spectrogram_{number}"], f"{project}: {clip}")


def test_published_mels_of_the_diffwave_authors_are_tacotron2_mels(
    fixtures_dir: Path, data_dir: Path
) -> None:
    files = sorted((fixtures_dir / "philsyn_vocoder" / "published").glob("*.mel.npy"))
    assert files
    for file in files:
        clip = file.name.removesuffix(".mel.npy") + ".wav"
        waveform, _ = io.read(data_dir / "ljspeech_excerpt/LJSpeech-1.1/wavs" / clip)
        reference = np.load(file, allow_pickle=False)
        assert_same_mel(preset("tacotron2_22k80"), waveform, reference, file.name)


def test_only_the_right_preset_reproduces_a_mel(fixtures_dir: Path) -> None:
    with np.load(clips(fixtures_dir)[0], allow_pickle=False) as stored:
        waveform = torch.from_numpy(stored["audio_int16"].astype(np.float32) / 32768)[None]
        with pytest.raises(AssertionError):
            assert_same_mel(preset("hifigan_22k80_fmax_none"), waveform, stored["hifigan_22k80"], "wrong")
        with pytest.raises(AssertionError):
            assert_same_mel(preset("hifigan_22k80"), waveform[:, 64:], stored["hifigan_22k80"], "shifted")
