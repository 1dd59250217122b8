"""Laws of the mel definition, and a plain numpy transcription of it for every field."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from audiodiff.audio import io
from audiodiff.audio import mel as mel_module
from audiodiff.audio.mel import LogMel, preset
from audiodiff.errors import InputError

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "features"
PRESETS = sorted(file.stem for file in RECIPES.glob("*.yaml"))
SMALL = {"sample_rate": 8000, "n_fft": 128, "win_length": 100, "hop_length": 32, "n_mels": 10}


def noise(batch: int, length: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(batch, length, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def clip(data_dir: Path) -> Callable[[int], Tensor]:
    """Returns a real clip [1, T] at any rate."""
    path = data_dir / "ljspeech_excerpt/LJSpeech-1.1/wavs/LJ001-0002.wav"
    return lambda sample_rate: io.read(path, sample_rate=sample_rate)[0]


def transcription(mel: LogMel, waveform: np.ndarray) -> np.ndarray:
    """The definition as its docstring reads, float64, one frame at a time: [T] -> [n_mels, F]."""
    x = np.clip(waveform, -1, 1) if mel.clamp_waveform else waveform
    left = mel.n_fft // 2 if mel.framing == "center" else (mel.n_fft - mel.hop_length) // 2
    right = mel.n_fft // 2 if mel.framing == "center" else mel.n_fft - mel.hop_length - left
    padded = np.pad(x, (left, right), mode=mel.pad_mode)  # type: ignore[call-overload]
    period = mel.win_length if mel.window_periodic else mel.win_length - 1
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(mel.win_length) / period)
    window = np.zeros(mel.n_fft)
    begin = (mel.n_fft - mel.win_length) // 2
    window[begin : begin + mel.win_length] = hann / (np.linalg.norm(hann) if mel.window_normalized else 1)
    starts = range(0, len(padded) - mel.n_fft + 1, mel.hop_length)
    spectra = np.stack([np.fft.rfft(window * padded[start : start + mel.n_fft]) for start in starts], axis=1)
    energy = np.abs(spectra) ** 2
    if mel.magnitude_epsilon_mode == "add":
        energy = energy + mel.magnitude_epsilon
    else:
        energy = np.maximum(energy, mel.magnitude_epsilon)
    bands = mel.filterbank.double().numpy() @ (np.sqrt(energy) if mel.power == 1 else energy)
    floored = np.maximum(bands, mel.floor) if mel.floor_mode == "clamp" else bands + mel.floor
    log = {"e": np.log, "10": np.log10, "db20": lambda v: 20 * np.log10(v)}[mel.log_base](floored)
    return np.clip(mel.scale * log + mel.offset, mel.clip_low, mel.clip_high)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"framing": "same"},
        {"framing": "same", "hop_length": 25},
        {"pad_mode": "constant"},
        {"window_periodic": False},
        {"window_normalized": True},
        {"power": 2},
        {"magnitude_epsilon": 1e-2},
        {"magnitude_epsilon": 1e-2, "magnitude_epsilon_mode": "clamp"},
        {"magnitude_epsilon": 1e-2, "power": 2},
        {"log_base": "10"},
        {"log_base": 10},
        {"log_base": "db20"},
        {"floor": 0.01, "floor_mode": "add"},
        {"floor": 0.05},
        {"scale": 0.25, "offset": 3.0},
        {"clip_low": -6.0, "clip_high": -4.0},
        {"clip_low": -5.0},
        {"clamp_waveform": True},
        {"f_min": 300.0, "f_max": 3000.0, "mel_scale": "htk", "mel_norm": None},
    ],
)
def test_every_field_does_what_its_docstring_says(changed: dict) -> None:
    mel = LogMel(**(SMALL | changed))
    waveform = noise(2, 1000) * 20  # beyond +-1 now and then
    got = mel(waveform)
    for item in range(2):
        expected = transcription(mel, waveform[item].double().numpy())
        np.testing.assert_allclose(got[item].numpy(), expected, atol=1e-5, rtol=1e-5)
    if changed:
        assert mel.difference(LogMel(**SMALL))


@pytest.mark.parametrize("framing", ["center", "same"])
@pytest.mark.parametrize("length", [1, 2, 3, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000, 2999, 3000])
def test_any_length_gives_the_promised_frames_and_reflects_as_numpy_does(framing: str, length: int) -> None:
    mel = LogMel(**SMALL, framing=framing)
    waveform = noise(2, length)
    got = mel(waveform)
    assert got.shape == (2, mel.n_mels, mel.frames(length))
    assert mel.frames(length) == length // 32 + (framing == "center")
    assert mel.samples(mel.frames(length)) == 32 * mel.frames(length)
    if mel.frames(length):
        expected = transcription(mel, waveform[1].double().numpy())
        np.testing.assert_allclose(got[1].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("name", PRESETS)
def test_frames_counts_what_forward_produces_for_sampled_lengths(name: str) -> None:
    mel = preset(name)
    for length in np.random.default_rng(0).integers(1, 3001, size=12).tolist():
        assert mel(noise(1, length)).shape == (1, mel.n_mels, mel.frames(length))


@pytest.mark.parametrize("name", PRESETS)
def test_twice_the_amplitude_adds_one_constant_to_the_log(name: str) -> None:
    mel = preset(name)
    unit = {"e": 1.0, "10": np.log10(np.e), "db20": 20 * np.log10(np.e)}[mel.log_base]
    waveform = noise(1, 8000)
    once, twice = mel(waveform), mel(2 * waveform)
    step = mel.scale * unit * mel.power * np.log(2)
    # magnitude_epsilon, where there is one, lies 60 dB below
    torch.testing.assert_close(twice - once, torch.full_like(once, step), atol=1e-3 * step, rtol=0)


@pytest.mark.parametrize("floor_mode", ["clamp", "add"])
@pytest.mark.parametrize("log_base", ["e", "10", "db20"])
def test_magnitude_inverts_the_logarithm_above_the_floor(log_base: str, floor_mode: str) -> None:
    mel = LogMel(**SMALL, log_base=log_base, floor=1e-3, floor_mode=floor_mode, scale=0.3, offset=1.7)
    magnitude = torch.logspace(-2.5, 1, 10 * 7).view(1, 10, 7)
    torch.testing.assert_close(mel.magnitude(mel.from_magnitude(magnitude)), magnitude, atol=1e-6, rtol=1e-5)
    silent = mel.magnitude(mel.from_magnitude(torch.zeros(1, 10, 1)))
    torch.testing.assert_close(
        silent, torch.full_like(silent, 1e-3 if floor_mode == "clamp" else 0), atol=1e-6, rtol=0
    )


def test_definitions_that_differ_after_the_filterbank_convert_pointwise(
    clip: Callable[[int], Tensor],
) -> None:
    source, target = preset("pwg_22k80_log10"), preset("pwg_22k80_ln")
    waveform = clip(22050)
    converted = target.from_magnitude(source.magnitude(source(waveform)))
    torch.testing.assert_close(converted, target(waveform), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", PRESETS)
def test_silence_has_the_floor_value_and_a_finite_gradient(name: str) -> None:
    mel = preset(name)
    silence = torch.zeros(1, 4000, requires_grad=True)
    spectrogram = mel(silence)
    assert float(spectrogram.detach().min()) == pytest.approx(mel.floor_value, abs=1e-5)
    spectrogram.sum().backward()
    assert silence.grad is not None
    assert torch.isfinite(silence.grad).all()


def test_gradient_agrees_with_a_finite_difference() -> None:
    mel = LogMel(**SMALL)
    waveform = noise(1, 700).requires_grad_()
    direction = noise(1, 700, seed=1)
    (gradient,) = torch.autograd.grad(mel(waveform).sum(), waveform)
    with torch.no_grad():
        slope = (mel(waveform + 1e-3 * direction).sum() - mel(waveform - 1e-3 * direction).sum()) / 2e-3
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-2, atol=1e-2)


def test_items_are_analysed_alone_as_in_a_batch_and_with_a_channel_axis() -> None:
    mel = preset("hifigan_22k80")
    waveform = noise(3, 5000)
    batch = mel(waveform)
    torch.testing.assert_close(mel(waveform[:, None]), batch, atol=0, rtol=0)
    for item in range(3):
        torch.testing.assert_close(mel(waveform[item : item + 1])[0], batch[item], atol=1e-4, rtol=0)


def test_neither_half_precision_nor_autocast_rounds_the_definition() -> None:
    waveform = noise(1, 5000)
    expected = preset("hifigan_22k80")(waveform)
    torch.testing.assert_close(preset("hifigan_22k80").half()(waveform), expected, atol=0, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(preset("hifigan_22k80")(waveform), expected, atol=0, rtol=0)
    assert preset("hifigan_22k80").state_dict() == {}


@pytest.mark.parametrize("name", PRESETS)
def test_filterbank_is_the_one_torchaudio_computes(name: str) -> None:
    mel = preset(name)
    theirs = melscale_fbanks(
        mel.n_fft // 2 + 1, mel.f_min, mel.f_max or mel.sample_rate / 2, mel.n_mels, mel.sample_rate,
        norm=mel.mel_norm, mel_scale=mel.mel_scale,
    ).T  # fmt: skip
    assert mel.filterbank.dtype == torch.float32
    # torchaudio computes the edges in float32, which moves the weights of narrow htk bands by 1e-5.
    torch.testing.assert_close(mel.filterbank, theirs, atol=2e-5 * float(theirs.max()), rtol=0)
    assert (mel.filterbank.sum(1) > 0).all()


@pytest.mark.parametrize("name", PRESETS)
def test_definition_survives_json_and_hydra(name: str) -> None:
    mel = preset(name)
    again = LogMel.from_definition(json.loads(json.dumps(mel.definition())))
    built = instantiate(OmegaConf.load(RECIPES / f"{name}.yaml"))
    assert isinstance(built, LogMel)
    for other in (again, built):
        assert other.definition() == mel.definition()
        assert mel.difference(other) == []
    waveform = noise(1, 3000)
    torch.testing.assert_close(again(waveform), mel(waveform), atol=0, rtol=0)


def test_recipes_state_every_field_so_that_each_can_be_overridden() -> None:
    for name in PRESETS:
        keys = set(OmegaConf.load(RECIPES / f"{name}.yaml")) - {"_target_"}
        assert keys == set(preset(name).definition()), name


def test_every_two_presets_differ() -> None:
    for one, other in pairwise(PRESETS):
        assert preset(one).difference(preset(other)), (one, other)


def test_difference_names_the_other_value_first_and_the_expected_one_second() -> None:
    ours = preset("tacotron2_22k80")
    theirs = LogMel.from_definition(ours.definition() | {"hop_length": 300, "log_base": "10"})
    assert ours.difference(theirs) == ["hop_length: 300, expected 256", "log_base: 10, expected e"]
    nyquist = LogMel.from_definition(preset("vocos_24k100").definition() | {"f_max": 12000.0})
    assert preset("vocos_24k100").difference(nyquist) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hop_length": 0}, "hop_length is 0, expected a positive whole number"),
        ({"n_fft": 128.0}, "n_fft is 128.0, expected a positive whole number"),
        ({"n_fft": 127}, "n_fft is 127, expected an even number"),
        ({"win_length": 200}, r"win_length is 200, expected 2 to n_fft \(128\)"),
        ({"hop_length": 101}, r"hop_length is 101, expected at most win_length \(100\)"),
        ({"mel_scale": "bark"}, "mel_scale is 'bark', expected one of 'slaney', 'htk'"),
        ({"mel_norm": "none"}, "mel_norm is 'none', expected one of 'slaney', None"),
        ({"power": 3}, "power is 3, expected one of 1, 2"),
        ({"framing": "left"}, "framing is 'left', expected one of 'center', 'same'"),
        ({"log_base": 2}, "log_base is '2', expected one of 'e', '10', 'db20'"),
        ({"f_max": 4001}, "expected 0 <= f_min < f_max <= sample_rate / 2"),
        ({"f_min": 4000.0}, "expected 0 <= f_min < f_max <= sample_rate / 2"),
        ({"floor": 0.0}, "floor is 0.0, expected above 0"),
        ({"floor": "1e-5"}, "floor is '1e-5', expected a number"),
        ({"offset": float("nan")}, "offset is nan, expected a number"),
        ({"scale": 0}, "scale is 0, expected above 0"),
        ({"magnitude_epsilon": -1.0}, "magnitude_epsilon is -1.0, expected 0 or more"),
        ({"clip_low": 1.0, "clip_high": 0.0}, "clip_low is 1.0, expected below clip_high"),
        ({"window_periodic": 1}, "window_periodic is 1, expected true or false"),
        ({"hop": 64}, "unknown hop; expected sample_rate, n_fft"),
    ],
)
def test_impossible_definitions_are_refused_with_what_is_possible(changed: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LogMel.from_definition(SMALL | changed)


def test_incomplete_definitions_and_unknown_presets_list_what_is_needed() -> None:
    with pytest.raises(InputError, match="n_fft, n_mels missing"):
        LogMel.from_definition({key: SMALL[key] for key in ("sample_rate", "win_length", "hop_length")})
    with pytest.raises(
        InputError, match=r"no mel preset 'hifi'; expected one of .*hifigan_22k80, .*vocos_24k100"
    ):
        preset("hifi")


def test_a_wheel_finds_the_recipes_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "audiodiff" / "recipes" / "features"
    inside.mkdir(parents=True)
    (inside / "installed.yaml").write_text((RECIPES / "mel_8k40.yaml").read_text())
    monkeypatch.setattr(mel_module, "__file__", str(tmp_path / "audiodiff" / "audio" / "mel.py"))
    assert preset("installed").n_mels == preset("installed").filterbank.shape[0]


def test_waveforms_of_wrong_shape_or_type_are_refused() -> None:
    mel = LogMel(**SMALL)
    for bad, message in (
        (torch.zeros(100), r"shape \(100,\), expected \[B, T\] or \[B, 1, T\]"),
        (torch.zeros(1, 2, 100), r"shape \(1, 2, 100\)"),
        (torch.zeros(1, 0), r"shape \(1, 0\)"),
        (torch.zeros(1, 100, dtype=torch.int16), "torch.int16, expected floating point"),
    ):
        with pytest.raises(InputError, match=message):
            mel(bad)


@pytest.mark.parametrize("name", PRESETS)
def test_check_accepts_its_own_mels_of_speech_noise_and_silence(
    name: str, clip: Callable[[int], Tensor]
) -> None:
    mel = preset(name)
    speech = clip(mel.sample_rate)
    square = torch.where(torch.arange(9000) % 100 < 50, 1.0, -1.0)[None]
    white = torch.rand(1, 9000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    impulse = torch.zeros(1, 9000).index_fill_(1, torch.tensor([4500]), 1.0)
    for waveform in (speech, 0.001 * speech, square, white, white.sign(), impulse, torch.zeros(1, 9000)):
        spectrogram = mel(waveform)
        torch.testing.assert_close(mel.check(spectrogram), spectrogram, atol=0, rtol=0)
        mel.check(spectrogram[:, :, -1:])  # one frame, as a stream gives them


def test_check_takes_arrays_and_adds_the_batch_axis() -> None:
    mel = LogMel(**SMALL)
    spectrogram = mel(noise(1, 1000))
    frozen = spectrogram[0].double().numpy()
    frozen.setflags(write=False)
    for given in (frozen, spectrogram[0], spectrogram.double(), frozen.astype(">f4")):
        checked = mel.check(given)
        assert checked.dtype == torch.float32
        torch.testing.assert_close(checked, spectrogram, atol=0, rtol=0)


def test_check_names_what_is_wrong_with_the_shape() -> None:
    mel = LogMel(**SMALL)
    good = mel(noise(1, 1000))
    broken = good.clone()
    broken[0, 0, :3] = torch.nan
    for bad, message in (
        (good.mT, r"speech.npy: shape \(1, 32, 10\), expected 10 bands.*looks like \[B, F, n_mels\]"),
        (good[0].T.numpy(), r"shape \(32, 10\).*exchange the last two dimensions"),
        (good[:, :8], r"shape \(1, 8, 32\), expected 10 bands.*analyse with this model"),
        (good[:, :, :0], r"shape \(1, 10, 0\) has no frames"),
        (good[0, 0], r"shape \(32,\), expected \[B, 10, F\] or \[10, F\]"),
        (good[None], r"shape \(1, 1, 10, 32\), expected"),
        (broken, "3 of 320 values are NaN or infinite"),
        (good.int(), "torch.int32, expected a floating point"),
        (np.zeros((10, 3), dtype=np.int64), "int64, expected a floating point"),
        ([1.0], "list, expected a floating point"),
    ):
        with pytest.raises(InputError, match=message):
            mel.check(bad, name="speech.npy")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "given", "guess"),
    [
        ("tacotron2_22k80", {"log_base": "db20"}, r"decibels \(20 log10\)"),
        ("tacotron2_22k80", "lmnt_diffwave_22k80", "a mel scaled to 0..1"),
        ("hifigan_22k80", "lmnt_diffwave_22k80", "a mel scaled to 0..1"),
        ("pwg_22k80_log10", {"log_base": "e", "floor": 1e-10}, r"a natural logarithm \(ln\)"),
        ("pwg_22k80_log10", "tacotron2_22k80", r"a natural logarithm \(ln\)"),
        ("lmnt_diffwave_22k80", "tacotron2_22k80", r"a natural logarithm \(ln\)"),
        ("lmnt_diffwave_22k80", "pwg_22k80_log10", "log10"),
        (
            "lmnt_diffwave_22k80",
            {"scale": 1.0, "offset": 0.0, "clip_low": None, "clip_high": None},
            "decibels",
        ),
        ("tacotron2_22k80", {"floor": 1e-10}, "another floor"),
    ],
)
def test_check_guesses_the_convention_of_a_real_clip_with_silence(
    model: str, given: str | dict, guess: str, clip: Callable[[int], Tensor]
) -> None:
    ours = preset(model)
    theirs = preset(given) if isinstance(given, str) else LogMel.from_definition(ours.definition() | given)
    spectrogram = theirs(torch.cat([torch.zeros(1, 3000), clip(22050)], dim=1))
    with pytest.raises(InputError, match=f"values from .* expected between .*this looks like {guess}"):
        ours.check(spectrogram)


def test_check_recognises_linear_magnitudes_standardized_mels_and_int16_audio(
    clip: Callable[[int], Tensor],
) -> None:
    mel = preset("tacotron2_22k80")
    spectrogram = mel(clip(22050))
    standardized = (spectrogram - spectrogram.mean()) / spectrogram.std() * 8
    for bad, guess in (
        (100 * mel.magnitude(spectrogram), "linear magnitudes without a logarithm"),
        (standardized, "a mel normalized to mean 0"),
        (mel(32768 * clip(22050)), r"audio that was not scaled to \[-1, 1\]"),
    ):
        with pytest.raises(InputError, match=guess):
            mel.check(bad)
