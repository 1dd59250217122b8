"""Conversion between mel definitions: exact where promised, refused by name elsewhere, approximate on request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.audio.mel import LogMel, preset
from audiodiff.audio.mel_conversion import approximate, limits, obstacles
from audiodiff.audio.mel_input import bands_first
from audiodiff.errors import InputError

OURS = preset("tacotron2_22k80")


def changed(**change: object) -> LogMel:
    return LogMel.from_definition(OURS.definition() | change)


@pytest.fixture(scope="module")
def speech(data_dir: Path) -> Tensor:
    return io.read(data_dir / "ljspeech_excerpt/LJSpeech-1.1/wavs/LJ001-0002.wav")[0]


@pytest.mark.parametrize(
    "source",
    [
        {"log_base": "10"},
        {"log_base": "db20"},
        {"log_base": "db20", "scale": 0.01, "offset": 1.0},
        {"mel_norm": None},
        {"window_normalized": True, "floor": 1e-9},
        {"floor": 1e-10},
        {"floor": 1e-10, "floor_mode": "add"},
        {"power": 1, "mel_norm": None, "log_base": "10", "floor": 1e-9, "offset": 3.0, "scale": 0.2},
    ],
)
def test_pointwise_differences_convert_exactly_on_real_speech(source: dict, speech: Tensor) -> None:
    theirs = changed(**source)
    assert obstacles(theirs, OURS) == []
    torch.testing.assert_close(theirs.convert(theirs(speech), OURS), OURS(speech), atol=5e-5, rtol=0)


def test_a_higher_floor_is_exact_above_it_and_says_so(speech: Tensor) -> None:
    high = changed(floor=1e-3)
    wanted, got = OURS(speech), high.convert(high(speech), OURS)
    above = wanted > np.log(1e-3) + 1e-4
    assert 0.1 < float(above.float().mean()) < 1
    torch.testing.assert_close(got[above], wanted[above], atol=5e-5, rtol=0)
    assert "floor is higher" in limits(high, OURS)[0]
    assert limits(OURS, high) == []


def test_a_clip_is_lossy_where_it_bites_and_says_so(speech: Tensor) -> None:
    clipped = changed(clip_low=-6.0, clip_high=-1.0)
    wanted, got = OURS(speech), clipped.convert(clipped(speech), OURS)
    inside = (wanted > -6.0) & (wanted < -1.0)
    torch.testing.assert_close(got[inside], wanted[inside], atol=5e-5, rtol=0)
    assert sum("clipped" in line for line in limits(clipped, OURS)) == 2


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"sample_rate": 24000}, "sample_rate: 24000, expected 22050"),
        ({"hop_length": 300}, "hop_length: 300, expected 256"),
        ({"framing": "same"}, "framing: same, expected center"),
        ({"f_max": None}, "f_max: 11025.0, expected 8000.0"),
        ({"mel_scale": "htk"}, "mel_scale: htk, expected slaney"),
        ({"power": 2}, "power: 2, expected 1"),
        ({"n_mels": 100}, "n_mels: 100, expected 80"),
        ({"pad_mode": "constant"}, "pad_mode: constant, expected reflect"),
    ],
)
def test_what_no_pointwise_map_bridges_is_refused_by_name(source: dict, field: str) -> None:
    theirs = changed(**source)
    with pytest.raises(InputError, match=field):
        theirs.convert(torch.zeros(1, theirs.n_mels, 5), OURS)
    assert field in approximate(theirs, OURS).bridged


@pytest.mark.parametrize(
    ("name", "mean_db"),
    [("espnet_22k80", 2.5), ("coqui_22k80", 1.5), ("hifigan_22k80", 1.2), ("nemo_22k80", 0.2)],
)
def test_the_approximate_adapter_comes_as_near_as_the_page_says(
    name: str, mean_db: float, speech: Tensor
) -> None:
    theirs = preset(name)
    made, wanted = approximate(theirs, OURS)(theirs(speech)), OURS(speech)
    frames = min(made.shape[-1], wanted.shape[-1])
    assert abs(made.shape[-1] - wanted.shape[-1]) <= 1
    error = (made[..., :frames] - wanted[..., :frames]).abs() / OURS.decibel
    assert float(error.mean()) < mean_db


def test_the_approximate_adapter_without_differences_changes_nothing(speech: Tensor) -> None:
    same = approximate(OURS, OURS)
    assert same.bridged == ()
    assert torch.equal(same(OURS(speech)), OURS(speech))


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_layout_is_told_or_detected_and_never_guessed(kind: str) -> None:
    mel: Tensor | np.ndarray = torch.arange(2 * 3 * 5.0).view(2, 3, 5)
    mel = mel.numpy() if kind == "array" else mel
    assert bands_first(mel, 3, None, "mel").shape == (2, 3, 5)
    assert bands_first(mel, 5, None, "mel").shape == (2, 5, 3)
    assert bands_first(mel, 5, "frames_first", "mel").shape == (2, 5, 3)
    assert bands_first(mel, 7, None, "mel").shape == (2, 3, 5)  # left to the check of the shape
    with pytest.raises(InputError, match="as many frames as bands"):
        bands_first(mel[:, :, :3], 3, None, "mel")
    assert bands_first(mel[:, :, :3], 3, "bands_first", "mel").shape == (2, 3, 3)
    with pytest.raises(InputError, match="expected 3 bands on the last axis"):
        bands_first(mel, 3, "frames_first", "mel")


def assert_client(name: str, waveform: Tensor, reference: np.ndarray) -> None:
    """Bands are compared where the arithmetic is linear, as in tests/parity/test_mel.py."""
    log_mel = preset(name)
    ours, theirs = (log_mel.magnitude(mel) for mel in (log_mel(waveform), log_mel.check(reference)))
    assert ours.shape == theirs.shape
    assert float(((ours - theirs).abs() / theirs.amax(1, keepdim=True)).max()) <= 2e-5


def test_speecht5_preset_is_the_feature_extractors(speech: Tensor, data_dir: Path) -> None:
    transformers = pytest.importorskip("transformers")
    waveform = io.read(data_dir / "ljspeech_excerpt/LJSpeech-1.1/wavs/LJ001-0002.wav", 16000)[0]
    extractor = transformers.SpeechT5FeatureExtractor()
    made = extractor(audio_target=waveform[0].numpy(), sampling_rate=16000)["input_values"][0]
    assert_client("speecht5_16k80", waveform, np.ascontiguousarray(np.asarray(made).T))


def test_tacotron2_preset_is_torchaudios(speech: Tensor) -> None:
    torchaudio = pytest.importorskip("torchaudio")
    made = torchaudio.transforms.MelSpectrogram(
        22050, 1024, hop_length=256, f_min=0, f_max=8000, n_mels=80, power=1, norm="slaney", mel_scale="slaney"
    )(speech).clamp_min(1e-5).log()  # fmt: skip
    assert_client("tacotron2_22k80", speech, made.numpy())


@pytest.mark.usefixtures("speechbrain_alone")
def test_tacotron2_preset_is_speechbrains(speech: Tensor) -> None:
    pytest.importorskip("speechbrain")
    from speechbrain.lobes.models.Tacotron2 import mel_spectrogram

    theirs = mel_spectrogram(
        22050, 256, 1024, 1024, 80, 0.0, 8000.0, 1, False, "slaney", "slaney", True, speech[0]
    )
    assert_client("tacotron2_22k80", speech, theirs.numpy())


def test_espnet_preset_is_its_log_mel_fbank(speech: Tensor) -> None:
    module = pytest.importorskip("espnet2.tts.feats_extract.log_mel_fbank")
    made, _ = module.LogMelFbank(22050, 1024, 1024, 256, fmin=80, fmax=7600, n_mels=80)(speech)
    assert_client("espnet_22k80", speech, made[0].T.contiguous().numpy())


def test_coqui_preset_is_its_audio_processor(speech: Tensor) -> None:
    audio = pytest.importorskip("TTS.utils.audio")
    configs = pytest.importorskip("TTS.tts.configs.glow_tts_config")
    processor = audio.AudioProcessor(configs.GlowTTSConfig().audio)
    assert_client("coqui_22k80", speech, processor.melspectrogram(speech[0].numpy()).astype(np.float32))
