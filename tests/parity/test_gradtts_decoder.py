"""The mel U-Net with Grad-TTS's weights gives Grad-TTS's numbers: score, reverse process and loss.

Sizes, rates of the noise and step counts are read from the fixtures' own files. Tolerances are those of their
README. The reverse process and the loss stand here as the project's own formulas, around our network.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiodiff.audio.mel import preset
from audiodiff.diffusion.continuous import VPSDE
from audiodiff.diffusion.denoiser import Denoiser, Time
from audiodiff.diffusion.parameterizations import score
from audiodiff.diffusion.priors import color, whiten
from audiodiff.diffusion.samplers import GradTTSEuler, Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.interop import gradtts
from audiodiff.interop.gradtts import GradTTSDecoder
from audiodiff.networks.mel_unet import MelUNet
from audiodiff.types import Condition

FORWARD = 1e-5
TRAJECTORY = 1e-4
FLOAT64 = 1e-9
ESTIMATORS = {
    "estimator_io": "weights.safetensors",
    "multispeaker_estimator_io": "multispeaker_estimator_weights.safetensors",
}


@pytest.fixture(scope="module")
def folder(fixtures_dir: Path) -> Path:
    return fixtures_dir / "gradtts"


def arrays(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as content:
        tensors = {key: torch.from_numpy(content[key]) for key in content.files if key != "meta_json"}
        return tensors, json.loads(str(content["meta_json"])) if "meta_json" in content.files else {}


def load(folder: Path, weights: str = "weights.safetensors") -> GradTTSDecoder:
    # The fixtures' items have different lengths, and the project's numbers depend on the padding.
    config = json.loads((folder / "config.json").read_text())
    return gradtts.load_decoder(folder / weights, config, counts_padding=True)


def condition(data: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Condition:
    speaker = data.get("spk")
    return Condition(
        local=data["mu"].to(dtype),
        vector=None if speaker is None else speaker.to(dtype),
        frames=data["mask"][:, 0].sum(-1).long(),
    )


def assert_close(actual: Tensor, expected: Tensor, relative: float, what: str) -> None:
    """Compares at a tolerance relative to the largest reference value."""
    assert actual.shape == expected.shape, what
    largest = expected.double().abs().max()
    error = (actual.double() - expected.double()).abs().max()
    assert error <= relative * largest, f"{what}: error {error:.3g}, largest value {largest:.3g}"


def rate(t: Tensor, meta: dict[str, Any]) -> Tensor:
    """beta(t), linear."""
    return meta["beta_min"] + (meta["beta_max"] - meta["beta_min"]) * t


def integral(t: Tensor, meta: dict[str, Any]) -> Tensor:
    """The integral of beta from 0 to t."""
    return meta["beta_min"] * t + (meta["beta_max"] - meta["beta_min"]) * t**2 / 2


@pytest.mark.parametrize("name", ESTIMATORS)
@torch.no_grad()
def test_network_gives_the_projects_score(folder: Path, name: str) -> None:
    data, _ = arrays(folder / f"{name}.npz")
    output = load(folder, ESTIMATORS[name]).network(data["x"], data["t"], condition(data))
    assert_close(output, data["output"], FORWARD, name)


@torch.no_grad()
def test_network_in_float64_gives_the_projects_float64_score(folder: Path) -> None:
    data, _ = arrays(folder / "estimator_io.npz")
    network = load(folder).network.double()
    output = network(data["x"].double(), data["t"].double(), condition(data, torch.float64))
    torch.testing.assert_close(output, data["output_float64"], rtol=0, atol=FLOAT64)


@torch.no_grad()
def test_an_item_of_full_length_has_the_projects_score_without_counting_the_padding(folder: Path) -> None:
    data, _ = arrays(folder / "estimator_io.npz")
    full = data["mask"][:, 0].all(-1)
    assert full.any()
    network = gradtts.load_decoder(folder / "weights.safetensors").network
    output = network(data["x"], data["t"], condition(data))
    assert_close(output[full], data["output"][full], FORWARD, "full items")


def reverse(
    network: MelUNet, data: dict[str, Tensor], meta: dict[str, Any], noise: Tensor | None
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Popov et al. 2021, eq. 5 (noise given) or 6: Euler steps at the middle of each of N intervals."""
    steps, mask = meta["n_timesteps"], data["mask"]
    predict = network.bind(condition(data))
    x, states, scores = data["z"] * mask, [], []
    for n in range(steps):
        t = torch.full((len(x),), 1 - (n + 0.5) / steps)
        beta = rate(t, meta)[:, None, None] / steps
        score = predict(x, t)
        states.append(x)
        scores.append(score)
        if noise is None:
            change = (data["mu"] - x - score) / 2 * beta
        else:
            change = ((data["mu"] - x) / 2 - score) * beta + noise[n] * beta.sqrt()
        x = (x - change) * mask
    return x, states, scores


@pytest.mark.parametrize("name", ["reverse_ode", "reverse_stoc"])
@torch.no_grad()
def test_reverse_process_gives_the_projects_trajectory(folder: Path, name: str) -> None:
    data, meta = arrays(folder / f"{name}.npz")
    result, states, scores = reverse(load(folder).network, data, meta, data.get("noise"))
    assert (name == "reverse_stoc") == ("noise" in data)
    for row, n in enumerate(range(0, meta["n_timesteps"], 5)):
        assert_close(scores[n], data["score_every5"][row], TRAJECTORY, f"{name}: score at step {n}")
        assert_close(states[n], data["xt_every5"][row], TRAJECTORY, f"{name}: state at step {n}")
    assert_close(result, data["output"], TRAJECTORY, name)


@pytest.mark.parametrize("name", ["reverse_ode", "reverse_stoc"])
@torch.no_grad()
def test_sampler_with_prior_and_schedule_gives_the_projects_result(folder: Path, name: str) -> None:
    data, meta = arrays(folder / f"{name}.npz")
    noise, mask = data.get("noise"), data["mask"]
    told = replace(condition(data), prior_mean=data["mu"])
    schedule = VPSDE(meta["beta_min"], meta["beta_max"])
    denoiser = Denoiser(load(folder).network, schedule, score, Time())
    sampler = Sampler(GradTTSEuler(stochastic=noise is not None), UniformGrid(meta["n_timesteps"]))
    # Their step subtracts the noise where ours adds it.
    drawn = torch.zeros(0) if noise is None else -noise
    result = color(
        sampler(denoiser.bind(told), schedule, whiten(data["z"], told), lambda step, draw: drawn[step - 1]),
        told,
    )
    assert_close(result * mask, data["output"] * mask, TRAJECTORY, name)


@torch.no_grad()
def test_forward_process_and_loss_are_the_projects(folder: Path) -> None:
    data, _ = arrays(folder / "loss_t.npz")
    decoder = load(folder)
    total = integral(data["t"], {"beta_min": decoder.beta_min, "beta_max": decoder.beta_max})[:, None, None]
    alpha, sigma = (-total / 2).exp(), (1 - (-total).exp()).sqrt()
    mask, mean = data["mask"], data["mu"]
    x_t = (mean + alpha * (data["x0"] - mean) + sigma * data["noise"]) * mask
    assert_close(x_t, data["xt"], FORWARD, "x_t")
    score = decoder.network(x_t, data["t"], condition(data))
    loss = ((sigma * score + data["noise"] * mask) ** 2).sum() / (mask.sum() * mean.shape[1])
    assert_close(loss, data["loss"], FORWARD, "loss")


def test_facts_are_the_projects(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    decoder = gradtts.load_decoder(folder / "weights.safetensors")
    assert (decoder.beta_min, decoder.beta_max) == (config["beta_min"], config["beta_max"])
    assert decoder.network.dialect.time_scale == config["pe_scale"]
    assert decoder.network.width == config["dec_dim"]
    assert decoder.network.n_mels == config["n_feats"] == preset(decoder.mel_preset).n_mels
    assert decoder.speakers is None
    old = gradtts.load_decoder(folder / "weights.safetensors", {"pe_scale": 1})
    assert old.network.dialect.time_scale == 1


def test_speakers_are_read_beside_a_decoder_that_takes_them(folder: Path, tmp_path: Path) -> None:
    _, meta = arrays(folder / "multispeaker_estimator_io.npz")
    estimator = load_file(folder / ESTIMATORS["multispeaker_estimator_io"])
    table = torch.randn(meta["n_spks"], meta["spk_emb_dim"])
    state = {f"decoder.estimator.{key}": value for key, value in estimator.items()}
    save_file(
        state | {"spk_emb.weight": table, "encoder.emb.weight": torch.ones(1)}, tmp_path / "m.safetensors"
    )
    decoder = gradtts.load_decoder(tmp_path / "m.safetensors")
    assert decoder.speakers is not None
    assert torch.equal(decoder.speakers, table)
    assert decoder.network.condition_features.vector_features == meta["spk_emb_dim"]
    save_file(state | {"spk_emb.weight": table[:, 1:].contiguous()}, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"spk_emb\.weight is .* 64 features a speaker"):
        gradtts.load_decoder(tmp_path / "m.safetensors")


def test_missing_and_unknown_parameters_are_all_named(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    missing = ("final_conv.bias", "downs.1.0.res_conv.weight", "mid_attn.fn.g")
    for name in missing:
        del weights[f"decoder.estimator.{name}"]
    weights["decoder.estimator.surplus.weight"] = torch.zeros(1)
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(InputError) as caught:
        gradtts.load_decoder(tmp_path / "weights.safetensors")
    for name in (*missing, "surplus.weight"):
        assert name in str(caught.value)


def test_parameter_of_another_shape_is_named(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    weights["decoder.estimator.downs.0.1.mlp.1.bias"] = torch.zeros(2)
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"down\.0\.second\.time\.bias"):
        gradtts.load_decoder(tmp_path / "weights.safetensors")


def test_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"input_projection.weight": torch.zeros(4, 1, 1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"unexpected: input_projection\.weight"):
        gradtts.load_decoder(tmp_path / "other.safetensors")
