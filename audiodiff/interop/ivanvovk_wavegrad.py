"""Checkpoints of ivanvovk's WaveGrad (github.com/ivanvovk/WaveGrad, BSD-3-Clause) as a WaveGrad.

Features change their rate by linear interpolation, shift and scale of a FiLM layer are two convolutions (here
one), and the noise encoding has the paper's scale of 5000. The project trains with the absolute error at levels
drawn uniformly between neighbours in a table of 1000 betas, and samples with the posterior variance on a short
table from a file of its own, clamping the clean estimate to [-1, 1] within each step. It computes its sampling
tables in float32, where 1 - alpha-bar of its first beta, 1e-6, has one digit: its last step comes out 1.3 % quieter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio.mel import LogMel, preset
from audiodiff.diffusion.schedules import linear
from audiodiff.diffusion.times import FAST_SCHEDULES
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
from audiodiff.networks.wavegrad import Blocks, WaveGrad

MEL_PRESET = "ivanvovk_22k80"
LICENCE = "BSD-3-Clause"
ENCODING_SCALE = 5000.0

# The project's configs/default.json, as far as tensor shapes do not show it.
DEFAULT_CONFIG: Mapping[str, Mapping[str, Any]] = {
    "model_config": {
        "factors": (5, 5, 3, 2, 2),
        "upsampling_dilations": (*((1, 2, 1, 2),) * 2, *((1, 2, 4, 8),) * 3),
        "downsampling_dilations": ((1, 2, 4),) * 4,
    },
    "data_config": {},  # as in the preset
    "training_config": {"training_noise_schedule": {"n_iter": 1000, "betas_range": (1e-6, 0.01)}},
}

# Buffers of whichever schedule was set when the checkpoint was written: the one for its test samples.
_BUFFERS = frozenset(
    {
        *("betas", "alphas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod"),
        *("sqrt_recip_alphas_cumprod", "sqrt_alphas_cumprod_m1", "posterior_log_variance_clipped"),
        *("posterior_mean_coef1", "posterior_mean_coef2"),
    }
)
_MEL_FIELDS = ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "f_min", "f_max")
_UP_CONVS = (
    "first_block_main_branch.upsampling.2",
    "first_block_main_branch.modulation.convolution",
    "second_block_main_branch.modulation_0.convolution",
    "second_block_main_branch.modulation_1.convolution",
)


@dataclass(frozen=True)
class IvanvovkWaveGrad:
    """An imported model: the network and how the project trains and samples it.

    Attributes:
        network: predicts the noise.
        betas: training schedule.
        fast_betas: short schedule for sampling, aligned to the training schedule by equal alpha.
        sample_rate: Hz.
        mel_preset: name of the log-mel of the project's own configuration.
        mel_changes: fields in which the log-mel of this model differs from the preset; `mel` has them all.
        clip_clean: bounds to which the clean estimate is clamped within every step.
        noise_label: what the network is told of t.
        licence: of the project's code and weights.
    """

    network: WaveGrad
    betas: tuple[float, ...]
    fast_betas: tuple[float, ...]
    sample_rate: int
    mel_preset: str = MEL_PRESET
    mel_changes: Mapping[str, float] = field(default_factory=dict)
    clip_clean: tuple[float, float] = (-1.0, 1.0)
    noise_label: str = "Alpha"
    licence: str = LICENCE

    def mel(self) -> LogMel:
        """Returns the log-mel that the network was trained with."""
        return LogMel.from_definition(preset(self.mel_preset).definition() | dict(self.mel_changes))


def load(
    path: Path | str, config: Mapping[str, Any] | None = None, schedule: Path | str | None = None
) -> IvanvovkWaveGrad:
    """Reads a checkpoint of the project, or its weights as `.safetensors`.

    Args:
        path: the file.
        config: content of the `config.json` that the project writes beside its checkpoints, None for its
            default. Read are factors and dilations, data_config, and training_noise_schedule.
        schedule: a `.pt` file with betas for sampling, see `read_schedule`; None for the released six.

    Raises:
        InputError: no checkpoint, parameters missing, unknown or of another shape, factors that do not make
            the hop length, a schedule that is none, or dilations that differ from one D block to the next.
    """
    content = read_checkpoint(path)
    state = require_tensors(content.get("model", content), path)
    state = {key: value for key, value in state.items() if key not in _BUFFERS}
    names = parameter_names(state)
    require_names(state, names, path)
    merged = {part: {**values, **(config or {}).get(part, {})} for part, values in DEFAULT_CONFIG.items()}
    network = build_network(state, merged["model_config"])
    load_weights(network, concatenate(state, names), path)
    training = merged["training_config"]["training_noise_schedule"]
    low, high = training["betas_range"]
    changes = {name: value for name, value in merged["data_config"].items() if name in _MEL_FIELDS}
    imported = IvanvovkWaveGrad(
        network=network,
        betas=tuple(linear(low, high, int(training["n_iter"])).betas.tolist()),
        fast_betas=FAST_SCHEDULES["wavegrad-6"] if schedule is None else read_schedule(schedule),
        sample_rate=int(changes.get("sample_rate", preset(MEL_PRESET).sample_rate)),
        mel_changes=changes,
    )
    _check_mel(imported, path)
    return imported


def read_schedule(path: Path | str) -> tuple[float, ...]:
    """Reads betas for sampling: one of the project's `schedules/*.pt`, or a `.npy` as lmnt's search writes it.

    Raises:
        InputError: the file is absent or damaged, holds something else, or a number that is no beta: the
            released file for 1000 steps has a negative one.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a noise schedule")
    try:
        content = (
            np.load(path, allow_pickle=False)
            if path.suffix == ".npy"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        betas = tuple(float(beta) for beta in content)
    except Exception as error:  # what a damaged or foreign file raises depends on the byte it breaks at
        raise InputError(f"{path}: not a noise schedule, expected a list or tensor of betas") from error
    wrong = [f"{beta:.4g} in row {row}" for row, beta in enumerate(betas, start=1) if not 0 < beta < 1]
    if wrong or not betas:
        raise InputError(f"{path}: got {', '.join(wrong[:3]) or 'no betas'}, expected betas between 0 and 1")
    return betas


def parameter_names(state: Mapping[str, Tensor]) -> Names:
    """Returns for each parameter of our network the project's names, for the blocks found in the state."""
    modules: dict[str, tuple[str, ...]] = {
        "first": ("dblock_preconv",),
        "local": ("ublock_preconv",),
        "last": ("ublock_postconv",),
    }
    for n in range(count_layers(state, "nn.films.")):
        modules[f"films.{n}.input"] = (f"films.{n}.signal_conv.0",)
        modules[f"films.{n}.output"] = (f"films.{n}.shift_conv", f"films.{n}.scale_conv")
    for n in range(count_layers(state, "nn.dblocks.")):
        modules[f"down.{n}.shortcut"] = (f"dblocks.{n}.residual_branch.0",)
        for conv in range(count_layers(state, f"nn.dblocks.{n}.main_branch.") - 1):
            modules[f"down.{n}.convs.{conv}"] = (f"dblocks.{n}.main_branch.{conv + 1}.convolution",)
    for n in range(count_layers(state, "nn.ublocks.")):
        modules[f"up.{n}.shortcut"] = (f"ublocks.{n}.first_block_residual_branch.0",)
        for conv, theirs in enumerate(_UP_CONVS):
            modules[f"up.{n}.convs.{conv}"] = (f"ublocks.{n}.{theirs}",)
    return {
        f"{ours}.{kind}": tuple(f"nn.{name}.conv1d.{kind}" for name in theirs)
        for ours, theirs in modules.items()
        for kind in ("weight", "bias")
    }


def build_network(state: Mapping[str, Tensor], model_config: Mapping[str, Any]) -> WaveGrad:
    """Returns a fresh network of the sizes that the project's tensors have.

    Raises:
        InputError: the configuration does not fit the tensors, or D blocks differ in their dilations.
    """
    sample_channels, audio_channels, _ = state["nn.dblock_preconv.conv1d.weight"].shape
    frame_channels, n_mels, _ = state["nn.ublock_preconv.conv1d.weight"].shape
    shortcuts = "nn.{}.{}.{}_branch.0.conv1d.bias"
    down_dilations = [tuple(dilations) for dilations in model_config["downsampling_dilations"]]
    if len(set(down_dilations)) != 1:
        raise InputError(f"downsampling_dilations: got {down_dilations}, expected the same in every block")
    blocks = Blocks(
        factors=tuple(model_config["factors"]),
        frame_channels=frame_channels,
        up_channels=tuple(
            state[shortcuts.format("ublocks", n, "first_block_residual")].numel()
            for n in range(count_layers(state, "nn.ublocks."))
        ),
        up_dilations=tuple(tuple(dilations) for dilations in model_config["upsampling_dilations"]),
        sample_channels=sample_channels,
        down_channels=tuple(
            state[shortcuts.format("dblocks", n, "residual")].numel()
            for n in range(count_layers(state, "nn.dblocks."))
        ),
        down_dilations=down_dilations[0],
        interpolate=True,
        encoding_scale=ENCODING_SCALE,
    )
    return WaveGrad(blocks, audio_channels, local_features=n_mels)


def _check_mel(imported: IvanvovkWaveGrad, path: Path | str) -> None:
    mel, network = imported.mel(), imported.network
    if (mel.hop_length, mel.n_mels) != (network.hop_length, network.local_features):
        raise InputError(
            f"{path}: the configuration has {mel.n_mels} bands every {mel.hop_length} samples, the network hears "
            f"{network.local_features} bands every {network.hop_length}; give the config.json of this checkpoint"
        )
