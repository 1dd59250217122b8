"""Checkpoints of lmnt's WaveGrad (github.com/lmnt-com/wavegrad, Apache-2.0) as a WaveGrad.

The layers are this library's own under other names; features change their rate by repetition, and the noise
encoding has a scale of 1 where the paper says 5000. The project trains with the absolute error at levels drawn
uniformly between neighbours in a table of 1000 betas, samples with the posterior variance, clamps to [-1, 1]
after each step, and published no short schedule. Its released checkpoint, wavegrad-24kHz.pt, is of 24 kHz; the
rate is read from a checkpoint's `params`, and is the project's default of 22.05 kHz for a file of weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from audiodiff.audio.mel import LogMel, preset
from audiodiff.errors import InputError
from audiodiff.interop import (
    Names,
    concatenate,
    load_weights,
    read_checkpoint,
    require_names,
    require_tensors,
)
from audiodiff.networks.wavegrad import Blocks, WaveGrad

MEL_PRESET = "lmnt_wavegrad_22k128"
LICENCE = "Apache-2.0"

# What is fixed in the project's code and no tensor shows.
FACTORS = (5, 5, 3, 2, 2)
UP_DILATIONS = (*((1, 2, 1, 2),) * 2, *((1, 2, 4, 8),) * 3)
ENCODING_SCALE = 1.0

# The project's own defaults, for files that hold weights alone.
DEFAULT_PARAMS: Mapping[str, Any] = {
    "noise_schedule": tuple(np.linspace(1e-6, 0.01, 1000).tolist()),
    "sample_rate": 22050,
}


@dataclass(frozen=True)
class LmntWaveGrad:
    """An imported model: the network and how the project trains and samples it.

    Attributes:
        network: predicts the noise.
        betas: training schedule, and the only one for sampling.
        sample_rate: Hz.
        mel_preset: name of the log-mel that the network was trained with; `mel` has it at the sample rate.
        clip: bounds to which samples are clamped after every step.
        noise_label: what the network is told of t.
        licence: of the project's code and weights.
    """

    network: WaveGrad
    betas: tuple[float, ...]
    sample_rate: int
    mel_preset: str = MEL_PRESET
    clip: tuple[float, float] = (-1.0, 1.0)
    noise_label: str = "Alpha"
    licence: str = LICENCE

    def mel(self) -> LogMel:
        """Returns the log-mel that the network was trained with, at the model's own sample rate."""
        definition = preset(self.mel_preset).definition()
        return LogMel.from_definition(definition | {"sample_rate": self.sample_rate})


def load(path: Path | str, params: Mapping[str, Any] | None = None) -> LmntWaveGrad:
    """Reads a checkpoint: the project's `.pt`, or its weights as `.safetensors`.

    Args:
        path: the file.
        params: values under the project's own names that take the place of those in the checkpoint, which
            take the place of the project's defaults: noise_schedule, sample_rate, hop_samples. Others are
            not read.

    Raises:
        InputError: no checkpoint, parameters missing, unknown or of another shape, or a hop length in the
            params that is not the network's.
    """
    content = read_checkpoint(path)
    state = require_tensors(content.get("model", content), path)
    merged = {**DEFAULT_PARAMS, **content.get("params", {}), **(params or {})}
    names = parameter_names()
    require_names(state, names, path)
    network = build_network(state)
    if int(merged.get("hop_samples", network.hop_length)) != network.hop_length:
        raise InputError(
            f"{path}: params say hop_samples {merged['hop_samples']}, the network makes {network.hop_length} "
            "samples of a frame"
        )
    load_weights(network, concatenate(state, names), path)
    return LmntWaveGrad(
        network=network,
        betas=tuple(float(beta) for beta in merged["noise_schedule"]),
        sample_rate=int(merged["sample_rate"]),
    )


def parameter_names() -> Names:
    """Returns for each parameter of our network the project's name."""
    modules = {"first": "downsample.0", "local": "first_conv", "last": "last_conv"}
    for n in range(len(FACTORS)):
        modules |= {
            f"films.{n}.input": f"film.{n}.input_conv",
            f"films.{n}.output": f"film.{n}.output_conv",
            f"up.{n}.shortcut": f"upsample.{n}.block1",
        }
        for conv, theirs in enumerate(("block2.0", "block2.1", "block3.0", "block3.1")):
            modules[f"up.{n}.convs.{conv}"] = f"upsample.{n}.{theirs}"
    for n in range(len(FACTORS) - 1):
        modules[f"down.{n}.shortcut"] = f"downsample.{n + 1}.residual_dense"
        for conv in range(3):
            modules[f"down.{n}.convs.{conv}"] = f"downsample.{n + 1}.conv.{conv}"
    return {
        f"{ours}.{kind}": (f"{theirs}.{kind}",)
        for ours, theirs in modules.items()
        for kind in ("weight", "bias")
    }


def build_network(state: Mapping[str, Tensor]) -> WaveGrad:
    """Returns a fresh network of the sizes that the project's tensors have."""
    sample_channels, audio_channels, _ = state["downsample.0.weight"].shape
    frame_channels, n_mels, _ = state["first_conv.weight"].shape
    blocks = Blocks(
        factors=FACTORS,
        frame_channels=frame_channels,
        up_channels=tuple(state[f"upsample.{n}.block1.bias"].numel() for n in range(len(FACTORS))),
        up_dilations=UP_DILATIONS,
        sample_channels=sample_channels,
        down_channels=tuple(
            state[f"downsample.{n}.residual_dense.bias"].numel() for n in range(1, len(FACTORS))
        ),
        down_dilations=(1, 2, 4),
        interpolate=False,
        encoding_scale=ENCODING_SCALE,
    )
    return WaveGrad(blocks, audio_channels, local_features=n_mels)
