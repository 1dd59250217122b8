"""The vocoder's contract, and vocoding files of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import audiodiff
from audiodiff.audio.mel import preset
from audiodiff.errors import InputError
from audiodiff.synthesis.resynthesis import read_mel, vocode_files
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler
from audiodiff.synthesis.vocoder import Vocoder
from tests.tiny import save_random_model


@pytest.fixture(scope="module", params=["convnext", "wavenet"])
def vocoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vocoder:
    overrides = ["experiment=fsdd_vocoder", "size=tiny"]
    if request.param == "wavenet":
        overrides += ["model=wavenet", "schedule=diffwave_base", "upsample_factors=[8,8]", "~frames"]
    folder = save_random_model(tmp_path_factory.mktemp("vocoder"), *overrides)
    loaded = audiodiff.Vocoder.load(folder)
    loaded.sampler = choose_sampler(loaded.model.recipe, SamplerChoice("ddim", steps=3))
    conditioner = next(part for part in loaded.model.modules() if hasattr(part, "log_mel"))
    conditioner.mean.fill_(-6.0)
    conditioner.std.fill_(2.0)
    return loaded


def noise(seconds: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(1, round(8000 * seconds), generator=generator)


def test_waveform_has_one_hop_per_frame(vocoder: Vocoder) -> None:
    mel = vocoder.log_mel(noise(0.2))
    waveform = vocoder(mel)
    assert waveform.shape == (1, mel.shape[-1] * 64)
    assert bool(waveform.isfinite().all())


def test_numpy_and_one_item_without_batch_axis_are_the_same(vocoder: Vocoder) -> None:
    mel = vocoder.log_mel(noise(0.2))
    expected = vocoder(mel)
    assert torch.equal(vocoder(mel[0]), expected)
    assert torch.equal(vocoder(mel.numpy()), expected)


def test_item_is_the_same_alone_and_padded_in_a_batch(vocoder: Vocoder) -> None:
    long, short = vocoder.log_mel(noise(0.3)), vocoder.log_mel(noise(0.2, seed=1))
    padding = short[..., -1:].expand(-1, -1, long.shape[-1] - short.shape[-1])
    both = (
        torch.cat([short, long])
        if padding.numel() == 0
        else torch.cat([torch.cat([short, padding], -1), long])
    )
    lengths = [short.shape[-1] * 64 - 64, long.shape[-1] * 64 - 64]
    batch = vocoder(both, lengths)
    alone = vocoder(short, lengths[:1])
    scale = float(alone.abs().max())
    assert float((batch[0, : lengths[0]] - alone[0]).abs().max()) < 1e-5 * scale
    assert float(batch[0, lengths[0] :].abs().max()) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mel: mel.transpose(1, 2), "exchange the last two"),
        (lambda mel: mel[:, :20], "40 bands"),
        (lambda mel: mel[..., :0], "no frames"),
        (lambda mel: mel * torch.nan, "NaN"),
        (lambda mel: mel * 20 / torch.log(torch.tensor(10.0)), "decibels"),
        (lambda mel: mel.exp(), "without a logarithm|0..1"),
        (lambda mel: mel[0, 0], "shape"),
    ],
)
def test_mel_that_breaks_the_contract_is_refused(vocoder: Vocoder, change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        vocoder(change(vocoder.log_mel(noise(0.2))))


def test_mel_far_from_the_training_level_is_refused(vocoder: Vocoder) -> None:
    conditioner = next(part for part in vocoder.model.modules() if hasattr(part, "log_mel"))
    mel = vocoder.log_mel(noise(0.2))
    before = conditioner.std.clone()
    conditioner.std.fill_(0.1)
    try:
        with pytest.raises(InputError, match="standard deviations"):
            vocoder(mel)
    finally:
        conditioner.std.copy_(before)


@pytest.mark.parametrize("lengths", [[0], [10**6], [100, 100]])
def test_lengths_that_do_not_fit_the_mel_are_refused(vocoder: Vocoder, lengths: list[int]) -> None:
    with pytest.raises(InputError, match="lengths"):
        vocoder(vocoder.log_mel(noise(0.2)), lengths)


def test_model_without_a_mel_is_no_vocoder(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "digits", "experiment=fsdd_digits", "size=tiny")
    with pytest.raises(InputError, match="synthesize"):
        audiodiff.Vocoder.load(folder)


def vocode(vocoder: Vocoder, inputs: list[Path], out: Path) -> list:
    return vocode_files(vocoder, Path("model"), [str(path) for path in inputs], out, {}, 0, "test")


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"),
    [
        (8000, 1, "PCM_16"),
        (44100, 2, "PCM_24"),
        (16000, 5, "FLOAT"),
        (96000, 1, "PCM_U8"),
        (11025, 2, "PCM_16"),
    ],
)
def test_audio_of_any_rate_and_channels_keeps_its_duration_and_channels(
    vocoder: Vocoder, tmp_path: Path, rate: int, channels: int, subtype: str
) -> None:
    samples = 0.1 * np.random.default_rng(0).standard_normal((rate // 5, channels))
    soundfile.write(tmp_path / "in.wav", samples, rate, subtype=subtype)
    vocode(vocoder, [tmp_path / "in.wav"], tmp_path / "out")
    info = soundfile.info(tmp_path / "out" / "in.wav")
    assert (info.samplerate, info.channels, info.frames) == (8000, channels, 1600)


def test_real_recording_is_vocoded_with_its_reference_recorded(
    vocoder: Vocoder, data_dir: Path, tmp_path: Path
) -> None:
    clip = sorted((data_dir / "fsdd" / "recordings").glob("*.flac"))[0]
    vocode(vocoder, [clip], tmp_path)
    content = json.loads((tmp_path / "samples.json").read_text())
    assert content["files"][0]["reference"] == str(clip.resolve())
    assert soundfile.info(tmp_path / f"{clip.stem}.wav").frames == soundfile.info(clip).frames


def test_mel_files_of_every_kind_give_the_same_audio(vocoder: Vocoder, tmp_path: Path) -> None:
    mel = vocoder.log_mel(noise(0.2))[0]
    np.save(tmp_path / "a.npy", mel.numpy())
    np.savez(tmp_path / "b.npz", mel=mel.numpy(), other=np.zeros(3))
    torch.save(mel, tmp_path / "c.pt")
    vocode(vocoder, [tmp_path], tmp_path / "out")
    first, *rest = (soundfile.read(tmp_path / "out" / f"{name}.wav")[0] for name in "abc")
    assert all(np.array_equal(first, other) for other in rest)


def test_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"mel": Attack()}, tmp_path / "bad.pt")
    np.save(tmp_path / "bad.npy", np.array([Attack()], dtype=object), allow_pickle=True)
    for name in ("bad.pt", "bad.npy"):
        with pytest.raises(InputError, match="no pickle"):
            read_mel(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_several_arrays_without_one_named_mel_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", first=np.zeros(3), second=np.zeros(3))
    with pytest.raises(InputError, match="first, second"):
        read_mel(tmp_path / "two.npz")


def test_two_inputs_of_one_name_are_refused_before_any_work(vocoder: Vocoder, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "x.wav", np.zeros(800), 8000)
    with pytest.raises(InputError, match=r"twice.*x\.wav"):
        vocode(vocoder, [tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mel_of_another_project_is_told_by_its_definition(vocoder: Vocoder) -> None:
    assert any("sample_rate" in line for line in vocoder.log_mel.difference(preset("hifigan_22k80")))
