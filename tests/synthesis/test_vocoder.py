"""The vocoder's contract, and vocoding files of every kind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import audiodiff
from audiodiff.audio.mel import preset
from audiodiff.errors import InputError
from audiodiff.synthesis.finishing import Finish, SilenceGate
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


def test_frames_first_is_told_by_the_bands_or_by_layout(vocoder: Vocoder) -> None:
    mel = vocoder.log_mel(noise(0.2))
    expected = vocoder(mel)
    assert torch.equal(vocoder(mel.transpose(1, 2)), expected)
    assert torch.equal(vocoder(mel[0].T.numpy()), expected)


def test_as_many_frames_as_bands_are_refused_unless_the_layout_is_told(vocoder: Vocoder) -> None:
    mel = vocoder.log_mel(noise(1))[..., :40]
    with pytest.raises(InputError, match=r'layout="bands_first".*layout="frames_first"'):
        vocoder(mel)
    told = {
        layout: Vocoder(vocoder.model, vocoder.sampler, layout=layout)
        for layout in ("bands_first", "frames_first")
    }
    assert torch.equal(told["bands_first"](mel), told["frames_first"](mel.transpose(1, 2)))
    with pytest.raises(InputError, match="frames_first"):
        told["frames_first"](mel[..., :20])
    with pytest.raises(InputError, match="choose one of bands_first, frames_first"):
        Vocoder(vocoder.model, layout="mel_first")


def test_silence_in_the_mel_is_silence_in_the_audio_and_sound_stays(vocoder: Vocoder) -> None:
    sound = noise(0.3)
    mel = vocoder.log_mel(torch.cat([sound, torch.zeros(1, 2000), sound], dim=1))
    plain = Vocoder(vocoder.model, vocoder.sampler, finish=Finish(silence_margin_db=None))
    muted, sampled = vocoder(mel), plain(mel)
    silent = slice(2400 + 256, 2400 + 2000 - 256)
    assert float(muted[0, silent].abs().max()) == 0
    assert float(sampled[0, silent].abs().max()) > 0
    assert torch.equal(muted[0, :2400], sampled[0, :2400])


def test_pieces_are_muted_as_the_whole(vocoder: Vocoder) -> None:
    log_mel = vocoder.log_mel
    mel = log_mel(torch.cat([noise(0.1), torch.zeros(1, 900), noise(0.1), torch.zeros(1, 700)], dim=1))[0]
    waveform = torch.randn(mel.shape[1] * 64, generator=torch.Generator().manual_seed(0))
    whole = SilenceGate(log_mel, 1.0)
    whole.hear(mel)
    gate = SilenceGate(log_mel, 1.0)

    def pieces():
        for chunk, piece in zip(mel.split(3, dim=1), waveform.split(3 * 64), strict=True):
            gate.hear(chunk)
            yield piece

    assert torch.equal(torch.cat(list(gate.over(pieces()))), waveform * whole.gain(0, waveform.shape[0]))


def test_bias_removal_lowers_the_models_own_sound_and_is_deterministic(vocoder: Vocoder) -> None:
    silent = vocoder.log_mel(torch.zeros(1, 4000))
    level = {}
    for strength in (0.0, 1.0, 2.0):
        finish = Finish(bias_removal=strength, silence_margin_db=None)
        loud = Vocoder(vocoder.model, vocoder.sampler, mel_iterations=0, finish=finish)
        made = loud(silent)
        assert torch.equal(made, loud(silent))
        level[strength] = float(made.square().mean())
    assert level[2.0] < level[1.0] < level[0.0] / 2


def test_temperature_and_seed_change_the_audio_and_repeat_it(vocoder: Vocoder) -> None:
    mel = vocoder.log_mel(noise(0.1))
    cool = Vocoder(vocoder.model, dataclasses.replace(vocoder.sampler, temperature=1.5))
    assert torch.equal(cool(mel, seed=3), cool(mel, seed=3))
    assert not torch.equal(cool(mel, seed=3), vocoder(mel, seed=3))
    assert not torch.equal(vocoder(mel, seed=4), vocoder(mel, seed=3))


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_any_number_of_steps_samples(vocoder: Vocoder, steps: int) -> None:
    sampler = choose_sampler(vocoder.model.recipe, SamplerChoice("ddim", steps=steps))
    assert bool(Vocoder(vocoder.model, sampler)(vocoder.log_mel(noise(0.05))).isfinite().all())


def test_one_frame_and_infinite_values(vocoder: Vocoder) -> None:
    mel = vocoder.log_mel(noise(0.2))
    assert vocoder(mel[..., :1]).shape == (1, 64)
    with pytest.raises(InputError, match="infinite"):
        vocoder(mel / 0.0)


@pytest.mark.parametrize("wrong", [{"bias_removal": -1.0}, {"silence_margin_db": float("nan")}])
def test_impossible_finishes_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match=r"bias removal|silence margin"):
        Finish(**wrong)


def test_a_searched_grid_is_what_so_many_steps_take(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", "experiment=fsdd_vocoder", "size=tiny")
    config = folder / "config.yaml"
    node = "{times: [1.0, 0.5, 0.25, 0.1], sampler: {_target_: audiodiff.diffusion.samplers.Sampler, "
    step = "step: {_target_: audiodiff.diffusion.samplers.DDIM}}}"
    config.write_text(config.read_text() + f"searched_grids: {{'4': {node}{step}}}\n")
    found = Vocoder.load(folder, choice=SamplerChoice(steps=4), temperature=1.2)
    assert found.sampler.times(found.model.denoiser.schedule).tolist() == [1.0, 0.5, 0.25, 0.1, 0.0]
    assert found.sampler.temperature == 1.2
