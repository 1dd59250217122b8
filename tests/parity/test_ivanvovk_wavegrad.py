"""The WaveGrad network with ivanvovk's weights gives ivanvovk's numbers: forward, sampling and mel.

numbers/ivanvovk_wavegrad.npz was made by running that project's own model, sampler and mel (commit 721c37c, torch
on one CPU thread) on random inputs and on weights that `rebuilt` makes again from names, shapes and a seed. The
sampled states are in float64, with the project's tables in float64 too. Its 6-step schedule is the released one.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from audiodiff.audio.mel import preset
from audiodiff.diffusion.constraints import Clip, projected
from audiodiff.diffusion.denoiser import Alpha, Denoiser
from audiodiff.diffusion.parameterizations import epsilon
from audiodiff.diffusion.samplers import Ancestral, Sampler
from audiodiff.diffusion.schedules import BetaTable, linear
from audiodiff.diffusion.times import FAST_SCHEDULES, BetaGrid, TableGrid
from audiodiff.errors import InputError
from audiodiff.interop import ivanvovk_wavegrad
from audiodiff.interop.ivanvovk_wavegrad import IvanvovkWaveGrad, read_schedule
from audiodiff.networks.wavegrad import noise_level_encoding
from audiodiff.types import Condition

NUMBERS = Path(__file__).parent / "numbers" / "ivanvovk_wavegrad.npz"
FORWARD = 1e-5
FLOAT64 = 1e-9


def arrays() -> tuple[dict[str, Tensor], dict[str, Any]]:
    with np.load(NUMBERS, allow_pickle=False) as content:
        tensors = {key: torch.from_numpy(content[key]) for key in content.files if key != "meta_json"}
        return tensors, json.loads(str(content["meta_json"]))


DATA, META = arrays()


def rebuilt() -> dict[str, Tensor]:
    """The weights that the numbers were made with."""
    weights = {}
    for key, shape in META["shapes"].items():
        random = np.random.RandomState((zlib.crc32(key.encode()) ^ META["seed"]) & 0xFFFFFFFF)
        scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.05
        weights[key] = torch.from_numpy((random.standard_normal(shape) * scale).astype(np.float32))
    return weights


def config() -> dict[str, Any]:
    """The configuration of the model, as its `config.json` would have it."""
    factors = META["model_config"]["factors"]
    data = {"sample_rate": 22050, "hop_length": math.prod(factors), "n_mels": DATA["spectrogram"].shape[1]}
    return {"model_config": META["model_config"], "data_config": data}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    # As the project writes it: with the buffers of whichever schedule was set last.
    content = {
        "iteration": 3,
        "model": rebuilt() | {"betas": torch.linspace(1e-6, 0.01, 50)},
        "optimizer": {},
    }
    torch.save(content, tmp_path / "checkpoint_3.pt")
    return tmp_path / "checkpoint_3.pt"


@pytest.fixture
def imported(checkpoint: Path) -> IvanvovkWaveGrad:
    return ivanvovk_wavegrad.load(checkpoint, config())


@torch.no_grad()
def test_network_gives_ivanvovks_output(imported: IvanvovkWaveGrad) -> None:
    condition = Condition(local=DATA["spectrogram"])
    output = imported.network(DATA["audio"][:, None], DATA["noise_scale"], condition)[:, 0]
    error = (output - DATA["output"]).abs().max()
    assert error <= FORWARD * DATA["output"].abs().max()


@torch.no_grad()
def test_network_in_float64_gives_ivanvovks_float64_output(imported: IvanvovkWaveGrad) -> None:
    condition = Condition(local=DATA["spectrogram"].double())
    network = imported.network.double()
    output = network(DATA["audio"][:, None].double(), DATA["noise_scale"].double(), condition)[:, 0]
    torch.testing.assert_close(output, DATA["output_float64"], rtol=0, atol=FLOAT64)


def test_noise_encoding_is_ivanvovks(imported: IvanvovkWaveGrad) -> None:
    expected = DATA["encoding"]
    scale = imported.network.blocks.encoding_scale
    encoding = noise_level_encoding(DATA["noise_scale"], expected.shape[1], scale)
    # Up to one unit in the last place of a phase of 5000 radians.
    torch.testing.assert_close(encoding, expected, rtol=0, atol=scale * 2**-23)


@torch.no_grad()
def test_sampling_with_recorded_noise_gives_ivanvovks_trajectory(imported: IvanvovkWaveGrad) -> None:
    schedule = BetaTable(DATA["betas"].tolist())
    condition = Condition(local=DATA["spectrogram"][:1].double())
    denoise = Denoiser(imported.network.double(), schedule, epsilon, Alpha()).bind(condition)
    noise = DATA["noise"][:, :, None].double()
    states = [noise[0]]

    def recording(x: Tensor, s: Tensor) -> Tensor:
        states.append(x)
        return x

    Sampler(Ancestral(), TableGrid())(
        projected(denoise, Clip(*imported.clip_clean)),
        schedule,
        noise[0],
        lambda step, draw: noise[step],
        recording,
    )
    torch.testing.assert_close(torch.stack(states)[:, :, 0], DATA["states"], rtol=0, atol=1e-7)


@torch.no_grad()
def test_short_schedule_aligned_to_the_training_table_tells_the_same_noise_levels(
    imported: IvanvovkWaveGrad,
) -> None:
    schedule = BetaTable(imported.betas)
    times = BetaGrid(tuple(DATA["betas"].tolist()))(schedule)
    levels = BetaTable(DATA["betas"].tolist()).alpha_bars.sqrt().flip(0)
    torch.testing.assert_close(Alpha()(schedule, times[:-1]), levels, rtol=1e-12, atol=0)


def test_mel_is_ivanvovks() -> None:
    mel = preset(ivanvovk_wavegrad.MEL_PRESET)
    expected = DATA["mel"]
    computed = mel(DATA["mel_audio_int16"].float()[None] / 32768)[0]
    assert computed.shape[1] == expected.shape[1] + 1  # the project leaves out the last frame
    ours, theirs = mel.magnitude(computed[:, :-1]), mel.magnitude(expected)
    # Rounding reaches every band of a frame relative to the loudest.
    assert ((ours - theirs).abs() / theirs.amax(0)).max() <= 2e-5


def test_facts_of_the_default_configuration(imported: IvanvovkWaveGrad) -> None:
    torch.testing.assert_close(
        BetaTable(imported.betas).betas, linear(1e-6, 0.01, 1000).betas, rtol=1e-12, atol=0
    )
    assert imported.sample_rate == 22050
    assert imported.mel().hop_length == imported.network.hop_length
    default = ivanvovk_wavegrad.DEFAULT_CONFIG["model_config"]
    assert preset(imported.mel_preset).hop_length == math.prod(default["factors"])
    released = DATA["betas"]  # the named schedule has its numbers to four digits
    named = torch.tensor(imported.fast_betas, dtype=torch.float64)
    torch.testing.assert_close(named, released, rtol=5e-4, atol=0)
    assert imported.fast_betas == FAST_SCHEDULES["wavegrad-6"]


def test_training_table_is_the_configurations(checkpoint: Path) -> None:
    said = config() | {
        "training_config": {"training_noise_schedule": {"n_iter": 5, "betas_range": [0.1, 0.3]}}
    }
    betas = ivanvovk_wavegrad.load(checkpoint, said).betas
    assert betas == pytest.approx((0.1, 0.15, 0.2, 0.25, 0.3))


@pytest.mark.parametrize("form", ["tensor", "list of tensors", "list of numbers"])
def test_schedule_files_are_read_in_their_order(tmp_path: Path, checkpoint: Path, form: str) -> None:
    betas = [1e-6, 7e-6, 5e-6, 0.06]  # the released one of 12 steps does not rise throughout either
    saved: Any = torch.tensor(betas)
    if form != "tensor":
        saved = list(saved) if form == "list of tensors" else betas
    torch.save(saved, tmp_path / "4iters.pt")
    assert read_schedule(tmp_path / "4iters.pt") == pytest.approx(betas)
    imported = ivanvovk_wavegrad.load(checkpoint, config(), tmp_path / "4iters.pt")
    assert imported.fast_betas == pytest.approx(betas)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (torch.tensor([0.1, -1e-7, 0.2]), r"-1e-07 in row 2"),
        ([], "no betas"),
        ([0.1, 1.0], "1 in row 2"),
        ({"betas": [0.1]}, "not a noise schedule"),
        (torch.tensor(0.1), "not a noise schedule"),
        (torch.ones(2, 2), "not a noise schedule"),
    ],
)
def test_file_that_is_no_schedule_is_refused(tmp_path: Path, saved: Any, message: str) -> None:
    torch.save(saved, tmp_path / "schedule.pt")
    with pytest.raises(InputError, match=message):
        read_schedule(tmp_path / "schedule.pt")


def test_absent_damaged_and_executable_schedules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_schedule(tmp_path / "schedule.pt")
    (tmp_path / "damaged.pt").write_bytes(b"nothing")
    torch.save([Path("code")], tmp_path / "code.pt")
    for name in ("damaged.pt", "code.pt"):
        with pytest.raises(InputError, match="not a noise schedule"):
            read_schedule(tmp_path / name)


def test_missing_and_unknown_parameters_are_all_named(tmp_path: Path) -> None:
    weights = rebuilt()
    del weights["nn.films.1.shift_conv.conv1d.bias"], weights["nn.ublock_postconv.conv1d.weight"]
    weights["nn.surplus.weight"] = torch.zeros(1)
    torch.save({"model": weights}, tmp_path / "weights.pt")
    with pytest.raises(InputError) as caught:
        ivanvovk_wavegrad.load(tmp_path / "weights.pt", config())
    for name in (
        "nn.films.1.shift_conv.conv1d.bias",
        "nn.ublock_postconv.conv1d.weight",
        "nn.surplus.weight",
    ):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("model_config", {"factors": [5, 3]}, "factors"),
        ("model_config", {"downsampling_dilations": [[1, 2, 4], [1, 1, 1]]}, "downsampling_dilations"),
        ("data_config", {"hop_length": 31}, "bands every 31 samples"),
        ("data_config", {"n_mels": 80}, "80 bands every 30 samples"),
        ("data_config", {"f_max": "high"}, "f_max"),
    ],
)
def test_configuration_of_another_model_is_refused(
    checkpoint: Path, part: str, changes: dict[str, Any], message: str
) -> None:
    said = config()
    said[part] = said[part] | changes
    with pytest.raises(InputError, match=message):
        ivanvovk_wavegrad.load(checkpoint, said)
