"""Checkpoints of lmnt's DiffWave (github.com/lmnt-com/diffwave, Apache-2.0) as a WaveNet.

What differs from this library's network: the gate is sigmoid(first half) * tanh(second half), so the two
halves of the convolutions before it change places. The project trains with the absolute error on a table of
50 betas, samples with the posterior variance, and clamps to [-1, 1] after each step. Its checkpoint carries
its `params`; only what tensor shapes cannot show is taken from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio.mel import LogMel, preset
from audiodiff.errors import InputError
from audiodiff.interop import (
    Names,
    concatenate,
    count_layers,
    load_weights,
    read_checkpoint,
    require_names,
    require_tensors,
)
from audiodiff.networks.wavenet import ConditionShape, NoiseEmbedding, WaveNet

MEL_PRESET = "lmnt_diffwave_22k80"
LICENCE = "Apache-2.0"

# The project's own defaults, for files that hold weights alone.
DEFAULT_PARAMS: Mapping[str, Any] = {
    "dilation_cycle_length": 10,
    "noise_schedule": tuple(np.linspace(1e-4, 0.05, 50).tolist()),
    "inference_noise_schedule": (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5),
    "sample_rate": 22050,
    "n_fft": 1024,
    "audio_len": 5 * 22050,
}

_NAMES = {
    "input_projection": "input_projection",
    "embedding.first": "diffusion_embedding.projection1",
    "embedding.second": "diffusion_embedding.projection2",
    "skip_projection": "skip_projection",
    "output_projection": "output_projection",
}
_UPSAMPLER_NAMES = {
    "upsamplers.0.stages.0": "spectrogram_upsampler.conv1",
    "upsamplers.0.stages.1": "spectrogram_upsampler.conv2",
}
_LAYER_NAMES = {
    "dilated": "dilated_conv",
    "step_projection": "diffusion_projection",
    "output_projection": "output_projection",
}
_CONDITIONED_LAYER_NAMES = _LAYER_NAMES | {"local_projection": "conditioner_projection"}


@dataclass(frozen=True)
class LmntDiffWave:
    """An imported model: the network and how the project trains and samples it.

    Attributes:
        network: predicts the noise.
        betas: training schedule.
        fast_betas: short schedule for sampling, aligned to the training schedule by equal alpha.
        sample_rate: Hz.
        mel_preset: name of the log-mel that the network was trained with, None if it is unconditional.
        mel_changes: fields in which the log-mel of this model differs from the preset; `mel` has them all.
        audio_length: samples that an unconditional model was trained on.
        clip: bounds to which samples are clamped after every step.
        noise_label: what the network is told of t.
        licence: of the project's code and weights.
    """

    network: WaveNet
    betas: tuple[float, ...]
    fast_betas: tuple[float, ...]
    sample_rate: int
    mel_preset: str | None
    mel_changes: Mapping[str, float] = field(default_factory=dict)
    audio_length: int = 5 * 22050
    clip: tuple[float, float] = (-1.0, 1.0)
    noise_label: str = "StepIndex"
    licence: str = LICENCE

    def mel(self) -> LogMel | None:
        """Returns the log-mel that the network was trained with, None if it is unconditional."""
        if self.mel_preset is None:
            return None
        return LogMel.from_definition(preset(self.mel_preset).definition() | dict(self.mel_changes))


def load(path: Path | str, params: Mapping[str, Any] | None = None) -> LmntDiffWave:
    """Reads a checkpoint: the project's `.pt`, or its weights as `.safetensors`.

    Args:
        path: the file.
        params: values under the project's own names that take the place of those in the checkpoint, which
            take the place of the project's defaults: dilation_cycle_length, noise_schedule,
            inference_noise_schedule, sample_rate, n_fft, hop_samples, audio_len. Others are not read.

    Raises:
        InputError: no checkpoint, parameters missing, unknown or of another shape, or a hop length in the
            params that is not the upsampler's.
    """
    content = read_checkpoint(path)
    state = require_tensors(content.get("model", content), path)
    merged = {**DEFAULT_PARAMS, **content.get("params", {}), **(params or {})}
    names = parameter_names(state)
    require_names(state, names, path)
    network = build_network(state, int(merged["dilation_cycle_length"]))
    if network.upsamplers and int(merged.get("hop_samples", network.hop_length)) != network.hop_length:
        raise InputError(
            f"{path}: params say hop_samples {merged['hop_samples']}, the upsampler makes "
            f"{network.hop_length} samples of a frame"
        )
    load_weights(network, convert(state, names), path)
    return LmntDiffWave(
        network=network,
        betas=tuple(float(beta) for beta in merged["noise_schedule"]),
        fast_betas=tuple(float(beta) for beta in merged["inference_noise_schedule"]),
        sample_rate=int(merged["sample_rate"]),
        mel_preset=MEL_PRESET if network.upsamplers else None,
        mel_changes=_mel_changes(merged, network),
        audio_length=int(merged["audio_len"] or DEFAULT_PARAMS["audio_len"]),
    )


def _mel_changes(params: Mapping[str, Any], network: WaveNet) -> dict[str, int]:
    """Returns what the project's params say of the mel; its window is four hops long."""
    if network.condition_shape.local_features is None:
        return {}
    return {
        "sample_rate": int(params["sample_rate"]),
        "n_fft": int(params["n_fft"]),
        "win_length": 4 * network.hop_length,
        "hop_length": network.hop_length,
        "n_mels": network.condition_shape.local_features,
    }


def parameter_names(state: Mapping[str, Tensor]) -> Names:
    """Returns for each parameter of our network the project's name, for the layers found in the state."""
    conditioned = any(key.startswith("spectrogram_upsampler.") for key in state)
    modules = _NAMES | (_UPSAMPLER_NAMES if conditioned else {})
    for n in range(count_layers(state, "residual_layers.")):
        for ours, theirs in (_CONDITIONED_LAYER_NAMES if conditioned else _LAYER_NAMES).items():
            modules[f"layers.{n}.{ours}"] = f"residual_layers.{n}.{theirs}"
    return {
        f"{ours}.{kind}": (f"{theirs}.{kind}",)
        for ours, theirs in modules.items()
        for kind in ("weight", "bias")
    }


def convert(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Returns the parameters under our names, with the two halves of every gate exchanged."""
    return {
        key: _exchange_halves(tensor) if ".dilated." in key or ".local_projection." in key else tensor
        for key, tensor in concatenate(state, names).items()
    }


def build_network(state: Mapping[str, Tensor], dilation_cycle: int) -> WaveNet:
    """Returns a fresh network of the sizes that the project's tensors have."""
    channels, audio_channels, _ = state["input_projection.weight"].shape
    hidden_dim, dim = state["diffusion_embedding.projection1.weight"].shape
    mel = state.get("residual_layers.0.conditioner_projection.weight")
    stages = [state[f"{key}.weight"] for key in _UPSAMPLER_NAMES.values()] if mel is not None else []
    return WaveNet(
        residual_layers=count_layers(state, "residual_layers."),
        residual_channels=channels,
        skip_channels=state["skip_projection.weight"].shape[0],
        dilation_cycle=dilation_cycle,
        audio_channels=audio_channels,
        embedding=NoiseEmbedding(
            dim, hidden_dim, out_dim=state["diffusion_embedding.projection2.weight"].shape[0]
        ),
        condition=ConditionShape(
            local_features=None if mel is None else mel.shape[1],
            upsample_factors=tuple(math.ceil(stage.shape[-1] / 2) for stage in stages),
        ),
    )


def _exchange_halves(tensor: Tensor) -> Tensor:
    first, second = tensor.chunk(2)
    return torch.cat([second, first])
