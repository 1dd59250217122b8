"""The WaveGrad network with lmnt's weights gives lmnt's numbers: forward, schedule, sampling and training.

What the small model of the fixtures folder was run on lies beside its weights; the full-size model's weights are
rebuilt from the shapes and the seed that the folder names. Tolerances are those of the fixtures' README.
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
from safetensors.torch import load_file
from torch import Tensor

from audiodiff.diffusion.constraints import Clip
from audiodiff.diffusion.denoiser import Alpha, Denoiser
from audiodiff.diffusion.objectives import MeanAbsoluteError
from audiodiff.diffusion.parameterizations import epsilon
from audiodiff.diffusion.samplers import Ancestral, Sampler
from audiodiff.diffusion.schedules import BetaTable, linear
from audiodiff.diffusion.times import TableGrid
from audiodiff.errors import InputError
from audiodiff.interop import lmnt_wavegrad
from audiodiff.interop.lmnt_wavegrad import LmntWaveGrad
from audiodiff.networks.wavegrad import noise_level_encoding
from audiodiff.types import Condition

FORWARD = 1e-5
TRAJECTORY = 1e-4
FLOAT64 = 1e-9
UPDATE = 1e-2  # of the distance that a parameter can have moved
STRAY = 1e-3  # share of the entries of one parameter whose gradient may be nothing but rounding


@pytest.fixture(scope="module")
def folder(fixtures_dir: Path) -> Path:
    return fixtures_dir / "lmnt_wavegrad"


@pytest.fixture
def small(folder: Path) -> LmntWaveGrad:
    return lmnt_wavegrad.load(folder / "small_weights.safetensors")


def arrays(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as content:
        tensors = {key: torch.from_numpy(content[key]) for key in content.files if key != "meta_json"}
        meta = json.loads(str(content["meta_json"])) if "meta_json" in content.files else {}
        return tensors, meta


def condition(data: dict[str, Tensor]) -> Condition:
    mel = data["spectrogram"]
    return Condition(local=mel if mel.dim() == 3 else mel[None])


def assert_close(actual: Tensor, expected: Tensor, relative: float, what: str) -> None:
    """Compares at a tolerance relative to the largest reference value."""
    assert actual.shape == expected.shape, what
    largest = expected.double().abs().max()
    error = (actual.double() - expected.double()).abs().max()
    assert error <= relative * largest, f"{what}: error {error:.3g}, largest value {largest:.3g}"


@torch.no_grad()
def test_network_gives_lmnts_output(folder: Path, small: LmntWaveGrad) -> None:
    data, _ = arrays(folder / "small_io.npz")
    output = small.network(data["audio"][:, None], data["noise_scale"], condition(data))
    assert_close(output, data["output"], FORWARD, "output")


@torch.no_grad()
def test_network_in_float64_gives_lmnts_float64_output(folder: Path, small: LmntWaveGrad) -> None:
    data, _ = arrays(folder / "small_io.npz")
    data = {key: value.double() for key, value in data.items()}
    output = small.network.double()(data["audio"][:, None], data["noise_scale"], condition(data))
    torch.testing.assert_close(output, data["output_float64"], rtol=0, atol=FLOAT64)


def test_noise_encoding_of_the_first_film_is_lmnts(folder: Path, small: LmntWaveGrad) -> None:
    data, _ = arrays(folder / "small_io.npz")
    dim = data["film0_encoding"].shape[1]
    encoding = noise_level_encoding(data["noise_scale"], dim, small.network.blocks.encoding_scale)
    assert_close(encoding, data["film0_encoding"], 1e-6, "encoding")


def rebuilt(folder: Path, seed: int) -> dict[str, Tensor]:
    """The full-size model's weights, by the rule in the fixtures' README."""
    shapes = json.loads((folder / "base_state_dict_shapes.json").read_text())
    weights = {}
    for key, shape in shapes.items():
        random = np.random.RandomState((zlib.crc32(key.encode()) ^ seed) & 0xFFFFFFFF)
        scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.05
        weights[key] = torch.from_numpy((random.standard_normal(shape) * scale).astype(np.float32))
    return weights


@torch.no_grad()
def test_full_size_network_gives_lmnts_output(folder: Path, tmp_path: Path) -> None:
    data, meta = arrays(folder / "base_io.npz")
    torch.save({"model": rebuilt(folder, meta["seed"]), "params": {}}, tmp_path / "weights.pt")
    network = lmnt_wavegrad.load(tmp_path / "weights.pt").network
    output = network(data["audio"][:, None], data["noise_scale"], condition(data))
    assert_close(output, data["output"], FORWARD, "output")


def test_schedule_is_lmnts(folder: Path, small: LmntWaveGrad) -> None:
    data, _ = arrays(folder / "schedule.npz")
    torch.testing.assert_close(BetaTable(small.betas).betas, data["training_beta"], rtol=1e-12, atol=0)
    paper = linear(1e-6, 0.01, 1000).betas  # Chen et al. 2021
    torch.testing.assert_close(paper, data["training_beta"], rtol=1e-12, atol=0)
    schedule = BetaTable(small.betas)
    rows = torch.arange(schedule.steps + 1, dtype=torch.float64) / schedule.steps
    assert_close(Alpha()(schedule, rows), data["learner_noise_level"], 1e-6, "learner_noise_level")
    assert_close(Alpha()(schedule, rows[1:]), data["sample_noise_scale"], 1e-6, "sample_noise_scale")
    six = BetaTable(data["six_beta"].tolist())
    assert_close(six.alpha_bars.sqrt(), data["six_noise_scale"], 1e-6, "six_noise_scale")


def sampled_with(
    small: LmntWaveGrad, betas: list[float], data: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the result, and what the network saw and was told at every step, as the project orders them."""
    schedule = BetaTable(betas)
    denoise = Denoiser(small.network, schedule, epsilon, Alpha()).bind(condition(data))
    noise = data["noise"][:, :, None]
    inputs: list[Tensor] = []
    levels: list[Tensor] = []

    def recording(x: Tensor, t: Tensor) -> Tensor:
        inputs.append(x[:, 0])
        levels.append(Alpha()(schedule, t))
        return denoise(x, t)

    sampler = Sampler(Ancestral(), TableGrid())
    output = sampler(recording, schedule, noise[0], lambda step, draw: noise[step], Clip(*small.clip))
    return output[:, 0], torch.stack(inputs), torch.stack(levels)


@torch.no_grad()
def test_six_steps_with_recorded_noise_give_lmnts_trajectory(folder: Path, small: LmntWaveGrad) -> None:
    data, meta = arrays(folder / "small_sample6.npz")
    output, inputs, levels = sampled_with(small, meta["noise_schedule"], data)
    assert_close(levels, data["noise_scale"], 1e-6, "noise_scale")
    assert_close(inputs, data["x_in"], TRAJECTORY, "x_in")
    assert_close(output, data["output"], TRAJECTORY, "output")


@torch.no_grad()
def test_predicted_noise_at_every_sampling_step_is_lmnts(folder: Path, small: LmntWaveGrad) -> None:
    data, _ = arrays(folder / "small_sample6.npz")
    network = small.network.bind(condition(data))
    for x, level, expected in zip(data["x_in"], data["noise_scale"], data["eps"], strict=True):
        output = network(x[:, None], level.expand(len(x)))
        assert_close(output[:, 0], expected, FORWARD, f"at noise scale {level}")


@torch.no_grad()
def test_fifty_steps_with_recorded_noise_give_lmnts_output(folder: Path, small: LmntWaveGrad) -> None:
    data, _ = arrays(folder / "small_sample50.npz")
    output, _, _ = sampled_with(small, data["noise_schedule"].tolist(), data)
    assert_close(output, data["output"], TRAJECTORY, "output")


def test_training_steps_are_lmnts(folder: Path, small: LmntWaveGrad) -> None:
    data, meta = arrays(folder / "small_train3.npz")
    assert meta["loss"].startswith("L1")
    schedule = BetaTable(small.betas)
    network = small.network
    denoiser = Denoiser(network, schedule, epsilon, Alpha())
    optimizer = getattr(torch.optim, meta["optimizer"])(network.parameters(), lr=meta["lr"])
    for update in range(len(data["s"])):
        # Levels are uniform between two neighbours of the table, where alpha is linear in t.
        t = (data["s"][update].double() - 1 + data["u"][update].double()) / schedule.steps
        noise, clean = data["noise"][update][:, None], data["audio"][:, None]
        loss = MeanAbsoluteError()(denoiser, clean, condition(data), noise, t).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), meta["max_grad_norm"])
        optimizer.step()
        assert loss.item() == pytest.approx(data["loss"][update].item(), rel=FORWARD)
        assert norm.item() == pytest.approx(data["grad_norm"][update].item(), rel=FORWARD)
    assert_trained(network, data, reach=meta["lr"] * len(data["s"]))


def assert_trained(network: torch.nn.Module, data: dict[str, Tensor], reach: float) -> None:
    """Compares parameters after training; `reach` is how far Adam can have moved one."""
    after = {key.removeprefix("after3:"): value for key, value in data.items() if key.startswith("after3:")}
    ours_of = {theirs: ours for ours, (theirs,) in lmnt_wavegrad.parameter_names().items()}
    trained = network.state_dict()
    assert after
    for theirs, expected in after.items():
        error = (trained[ours_of[theirs]] - expected).abs()
        # Adam divides a gradient by its own size: where much of it is rounding, so is the update.
        allowed = FORWARD * expected.abs().max() + UPDATE * reach
        assert (error > allowed).double().mean() <= STRAY, theirs
        assert error.max() <= 2 * reach, theirs


def test_checkpoint_says_its_own_sample_rate_and_schedule(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "small_weights.safetensors")
    # The released file is of 24 kHz; a file of weights alone is taken for the project's default.
    params = {"sample_rate": 24000, "noise_schedule": [0.1, 0.2], "hop_samples": 300}
    content = {"step": 7, "model": weights, "optimizer": {}, "params": params, "scaler": {}}
    torch.save(content, tmp_path / "weights.pt")
    imported = lmnt_wavegrad.load(tmp_path / "weights.pt")
    assert (imported.sample_rate, imported.betas) == (24000, (0.1, 0.2))
    mel = imported.mel()
    assert (mel.sample_rate, mel.f_max, mel.hop_length) == (24000, None, imported.network.hop_length)
    assert lmnt_wavegrad.load(tmp_path / "weights.pt", {"sample_rate": 16000}).sample_rate == 16000
    alone = lmnt_wavegrad.load(folder / "small_weights.safetensors")
    assert alone.sample_rate == 22050
    assert alone.mel().n_mels == alone.network.local_features


def test_missing_and_unknown_parameters_are_all_named(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "small_weights.safetensors")
    del weights["last_conv.bias"], weights["upsample.0.block2.1.weight"]
    weights["surplus.weight"] = torch.zeros(1)
    torch.save({"model": weights}, tmp_path / "weights.pt")
    with pytest.raises(InputError) as caught:
        lmnt_wavegrad.load(tmp_path / "weights.pt")
    for name in ("last_conv.bias", "upsample.0.block2.1.weight", "surplus.weight"):
        assert name in str(caught.value)


def test_parameter_of_another_shape_is_named(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "small_weights.safetensors")
    weights["film.2.output_conv.bias"] = torch.zeros(2)
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"films\.2\.output\.bias"):
        lmnt_wavegrad.load(tmp_path / "weights.pt")


def test_hop_length_that_the_network_does_not_make_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="hop_samples 256"):
        lmnt_wavegrad.load(folder / "small_weights.safetensors", {"hop_samples": 256})
