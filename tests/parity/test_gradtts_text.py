"""The text encoder with Grad-TTS' weights gives Grad-TTS' numbers: means, durations, alignments, losses.

Alignments are compared exactly, numbers at the tolerances of the fixtures' README. Sizes are read from the
files. Together with the decoder it gives the project's third loss and its synthesis.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiodiff.conditioning.alignment import durations_to_alignment, monotonic_alignment
from audiodiff.conditioning.text import TextEncoder
from audiodiff.conditioning.text_alignment import (
    align_by_durations,
    align_to_speech,
    log_prior,
    predicted_durations,
)
from audiodiff.errors import InputError
from audiodiff.interop import gradtts, gradtts_text
from audiodiff.interop.gradtts import GradTTSDecoder
from audiodiff.types import Condition

FORWARD = 1e-5
TRAJECTORY = 1e-4
EARLIEST = 1e-5  # the project draws no t nearer to 0 or 1


@pytest.fixture(scope="module")
def folder(fixtures_dir: Path) -> Path:
    return fixtures_dir / "gradtts"


@pytest.fixture(scope="module")
def config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


@pytest.fixture(scope="module")
def encoder(folder: Path, config: dict[str, Any]) -> TextEncoder:
    return gradtts_text.load(folder / "weights.safetensors", config).eval()


@pytest.fixture(scope="module")
def decoder(folder: Path, config: dict[str, Any]) -> GradTTSDecoder:
    return gradtts.load_decoder(folder / "weights.safetensors", config, counts_padding=True)


def arrays(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as content:
        tensors = {key: torch.from_numpy(content[key]) for key in content.files if key != "meta_json"}
        return tensors, json.loads(str(content["meta_json"]))


def assert_close(actual: Tensor, expected: Tensor, relative: float, what: str) -> None:
    """Compares at a tolerance relative to the largest reference value."""
    assert actual.shape == expected.shape, what
    largest = expected.double().abs().max()
    error = (actual.double() - expected.double()).abs().max()
    assert error <= relative * largest, f"{what}: error {error:.3g}, largest value {largest:.3g}"


def test_alignment_search_finds_the_projects_paths(folder: Path) -> None:
    data, meta = arrays(folder / "mas.npz")
    for case in range(meta["cases"]):
        mask = data[f"mask_{case}"].long()
        tokens, frames = mask.amax(2).sum(1), mask.amax(1).sum(1)
        path = monotonic_alignment(data[f"value_{case}"], tokens, frames)
        assert torch.equal(path, data[f"path_{case}"].float()), f"case {case}"


def test_durations_give_the_projects_path(folder: Path) -> None:
    data, _ = arrays(folder / "mas.npz")
    frames = data["duration_mask"].amax(1).sum(1).long()
    path = durations_to_alignment(data["duration"], frames)
    expected = data["duration_path"]
    assert torch.equal(path, expected[..., : path.shape[2]])
    assert not expected[..., path.shape[2] :].any()


def test_sizes_of_the_model_are_imported(encoder: TextEncoder, config: dict[str, Any]) -> None:
    first = encoder.layers[0]
    assert encoder.embedding.num_embeddings == config["n_vocab"]
    assert encoder.embedding.embedding_dim == config["n_enc_channels"]
    assert encoder.mean.out_features == config["n_feats"]
    assert encoder.speaker_features is None
    assert len(encoder.layers) == config["n_enc_layers"]
    assert first.attention.heads == config["n_heads"]
    assert first.attention.window == config["window_size"]
    assert first.attention.dropout.p == first.dropout.p == config["enc_dropout"]
    assert first.expand.kernel_size == (config["enc_kernel"],)
    assert first.expand.out_channels == config["filter_channels"]
    assert encoder.durations.first.out_channels == config["filter_channels_dp"]


@torch.no_grad()
def test_encoder_gives_the_projects_means_and_log_durations(folder: Path, encoder: TextEncoder) -> None:
    data, _ = arrays(folder / "full_loss.npz")
    encoded = encoder(data["x"], data["x_lengths"])
    assert_close(encoded.mean, data["mu_x"], FORWARD, "mu_x")
    assert_close(encoded.log_durations[:, None], data["logw"], FORWARD, "logw")


@torch.no_grad()
def test_speech_is_aligned_as_the_project_does(folder: Path, encoder: TextEncoder) -> None:
    data, _ = arrays(folder / "full_loss.npz")
    encoded = encoder(data["x"], data["x_lengths"])
    alignment = monotonic_alignment(log_prior(encoded.mean, data["y"]), encoded.tokens, data["y_lengths"])
    assert torch.equal(alignment, data["attn"].float())


@torch.no_grad()
def test_duration_and_prior_losses_are_the_projects(folder: Path, encoder: TextEncoder) -> None:
    data, _ = arrays(folder / "full_loss.npz")
    encoded = encoder(data["x"], data["x_lengths"])
    prior_mean, losses = align_to_speech(encoded, data["y"], data["y_lengths"])
    assert_close(losses["duration"], data["dur_loss"], FORWARD, "duration loss")
    assert_close(losses["prior"], data["prior_loss"], FORWARD, "prior loss")
    assert_close(prior_mean, data["mu_x"] @ data["attn"].float(), FORWARD, "prior mean")


@torch.no_grad()
def test_predicted_durations_are_the_projects(folder: Path, encoder: TextEncoder) -> None:
    data, meta = arrays(folder / "synth.npz")
    encoded = encoder(data["x"], data["x_lengths"])
    durations = predicted_durations(encoded.log_durations, encoded.tokens, meta["length_scale"])
    expected = data["attn"][:, 0].float()
    path = durations_to_alignment(durations, expected.amax(1).sum(1).long())
    assert torch.equal(path, expected[..., : path.shape[2]])


@torch.no_grad()
def test_text_is_spoken_as_the_project_does(folder: Path, encoder: TextEncoder) -> None:
    data, meta = arrays(folder / "synth.npz")
    prior_mean, frames = align_by_durations(encoder(data["x"], data["x_lengths"]), meta["length_scale"])
    assert torch.equal(frames, data["attn"][:, 0].long().amax(1).sum(1))
    assert_close(prior_mean, data["encoder_outputs"], FORWARD, "encoder_outputs")


@torch.no_grad()
def test_diffusion_loss_over_aligned_text_is_the_projects(
    folder: Path, encoder: TextEncoder, decoder: GradTTSDecoder
) -> None:
    data, _ = arrays(folder / "full_loss.npz")
    clean, frames = data["y"], data["y_lengths"]
    prior_mean, _ = align_to_speech(encoder(data["x"], data["x_lengths"]), clean, frames)
    t = data["t_uniform"].clamp(EARLIEST, 1 - EARLIEST)
    integral = decoder.beta_min * t + 0.5 * (decoder.beta_max - decoder.beta_min) * t**2
    alpha = (-0.5 * integral).exp()[:, None, None]
    sigma = (1 - (-integral).exp()).sqrt()[:, None, None]
    condition = Condition(local=prior_mean, frames=frames)
    mask = condition.mask(clean)
    assert mask is not None
    x_t = (alpha * clean + (1 - alpha) * prior_mean + sigma * data["noise"]) * mask
    score = decoder.network(x_t, t, condition)
    error = (sigma * score + data["noise"] * mask).square().sum() / (mask.sum() * clean.shape[1])
    assert_close(error, data["diff_loss"], FORWARD, "diffusion loss")


@torch.no_grad()
def test_synthesis_of_text_is_the_projects(
    folder: Path, encoder: TextEncoder, decoder: GradTTSDecoder
) -> None:
    data, meta = arrays(folder / "synth.npz")
    prior_mean, frames = align_by_durations(encoder(data["x"], data["x_lengths"]), meta["length_scale"])
    condition = Condition(local=prior_mean, frames=frames)
    mask = condition.mask(prior_mean)
    assert mask is not None
    noise = data["noise"][
        ..., : prior_mean.shape[2]
    ]  # drawn for a whole number of the decoder's coarsest steps
    x_t = (prior_mean + noise / meta["temperature"]) * mask
    score = decoder.network.bind(condition)
    for n in range(meta["n_timesteps"]):
        t = torch.full((len(x_t),), 1 - (n + 0.5) / meta["n_timesteps"])
        beta = meta["beta_min"] + (meta["beta_max"] - meta["beta_min"]) * t[:, None, None]
        x_t = (x_t - 0.5 * (prior_mean - x_t - score(x_t, t)) * beta / meta["n_timesteps"]) * mask
    assert_close(x_t, data["decoder_outputs"], TRAJECTORY, "decoder_outputs")


def test_checkpoint_of_another_project_is_refused(fixtures_dir: Path) -> None:
    with pytest.raises(InputError, match=r"got no parameters encoder\.\*, expected a checkpoint of Grad-TTS"):
        gradtts_text.load(fixtures_dir / "lmnt_diffwave" / "small_weights.safetensors")


@pytest.mark.parametrize("prefix", ["proj_m.weight", "encoder.attn_layers."])
def test_missing_parameters_are_named(folder: Path, tmp_path: Path, prefix: str) -> None:
    weights = load_file(folder / "weights.safetensors")
    kept = {key: value for key, value in weights.items() if not key.startswith(f"encoder.{prefix}")}
    save_file(kept, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=f"missing: .*{prefix}"):
        gradtts_text.load(tmp_path / "weights.safetensors")


def test_parameters_of_another_shape_are_named(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    weights["encoder.proj_w.norm_1.gamma"] = torch.ones(3)
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"durations.first_norm.weight is \[3\], expected"):
        gradtts_text.load(tmp_path / "weights.safetensors")
