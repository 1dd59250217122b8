"""Checkpoints of the DiffWave first author's code as a WaveNet.

github.com/philsyn/DiffWave-Vocoder and DiffWave-unconditional (MIT). What differs from this library's
defaults: frequencies of the step embedding fall from 1 to 10^-4; every residual layer has a mel upsampler of
its own; weights are stored in weight-norm form, w = g v / |v|, and are multiplied out here; residual and skip
outputs are two convolutions, joined here. The code samples all steps with the posterior variance, unclamped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

MEL_PRESET = "tacotron2_22k80"
LICENCE = "MIT"
EMBEDDING_EXPONENT = -4.0

# What a configuration without trainset_config leaves open: SC09 for an unconditional model.
DEFAULT_UNCONDITIONAL_RATE = 16000
SEGMENT_LENGTH = 16000

_BLOCKS = "residual_layer.residual_blocks."
# Fields of our mel definition and what the project calls them.
_MEL_FIELDS: Mapping[str, tuple[str, type]] = {
    "sample_rate": ("sampling_rate", int),
    "n_fft": ("filter_length", int),
    "win_length": ("win_length", int),
    "hop_length": ("hop_length", int),
    "f_min": ("mel_fmin", float),
    "f_max": ("mel_fmax", float),
}
_NAMES: Mapping[str, tuple[str, ...]] = {
    "input_projection": ("init_conv.0.conv",),
    "embedding.first": ("residual_layer.fc_t1",),
    "embedding.second": ("residual_layer.fc_t2",),
    "skip_projection": ("final_conv.0.conv",),
    "output_projection": ("final_conv.2.conv",),
}
_LAYER_NAMES = {
    "dilated": ("dilated_conv_layer.conv",),
    "step_projection": ("fc_t",),
    "output_projection": ("res_conv", "skip_conv"),
}
_CONDITIONED_LAYER_NAMES = _LAYER_NAMES | {"local_projection": ("mel_conv.conv",)}


@dataclass(frozen=True)
class PhilsynDiffWave:
    """An imported model: the network and how the project trains it.

    Attributes:
        network: predicts the noise.
        betas: training schedule, which is also the sampling schedule.
        mel_preset: name of the log-mel that the network was trained with, None if it is unconditional.
        sample_rate: Hz.
        mel_changes: fields in which the log-mel of this model differs from the preset; `mel` has them all.
        segment_length: samples of a training segment.
        noise_label: what the network is told of t.
        licence: of the project's code and weights.
    """

    network: WaveNet
    betas: tuple[float, ...]
    mel_preset: str | None
    sample_rate: int
    mel_changes: Mapping[str, float] = field(default_factory=dict)
    segment_length: int = SEGMENT_LENGTH
    noise_label: str = "StepIndex"
    licence: str = LICENCE

    def mel(self) -> LogMel | None:
        """Returns the log-mel that the network was trained with, None if it is unconditional."""
        if self.mel_preset is None:
            return None
        return LogMel.from_definition(preset(self.mel_preset).definition() | dict(self.mel_changes))


def load(
    path: Path | str, config: Path | str | None = None, embedding_in_residual: bool = True
) -> PhilsynDiffWave:
    """Reads a checkpoint `<iteration>.pkl` and the configuration it was trained with.

    Args:
        path: the checkpoint.
        config: the project's JSON file; None for `config.json` beside the checkpoint.
        embedding_in_residual: True for weights made with the published code, whose in-place addition lets
            the step embedding into the residual path (weights trained so give static noise without it).
            False for weights made with a fork that corrected the line.

    Raises:
        InputError: no checkpoint, parameters missing, unknown or of another shape, or a configuration
            without dilation cycle or diffusion schedule.
    """
    content = read_checkpoint(path)
    state = fold_weight_norm(require_tensors(content.get("model_state_dict", content), path))
    names = parameter_names(state)
    require_names(state, names, path)
    dilation_cycle, betas, trainset = _read_config(
        Path(path).parent / "config.json" if config is None else Path(config)
    )
    network = build_network(state, dilation_cycle, embedding_in_residual)
    load_weights(network, concatenate(state, names), path)
    preset_name, changes = (MEL_PRESET, _mel_changes(trainset, network)) if network.upsamplers else (None, {})
    default_rate = DEFAULT_UNCONDITIONAL_RATE if preset_name is None else preset(preset_name).sample_rate
    return PhilsynDiffWave(
        network=network,
        betas=betas,
        mel_preset=preset_name,
        sample_rate=int(trainset.get("sampling_rate", default_rate)),
        mel_changes=changes,
        segment_length=int(trainset.get("segment_length", SEGMENT_LENGTH)),
    )


def _mel_changes(trainset: Mapping[str, Any], network: WaveNet) -> dict[str, float]:
    """Returns what the configuration and the network say of the mel."""
    given = {ours: kind(trainset[key]) for ours, (key, kind) in _MEL_FIELDS.items() if key in trainset}
    bands = network.condition_shape.local_features
    return {"hop_length": network.hop_length, "n_mels": bands} | given if bands else given


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the state with every pair weight_g, weight_v replaced by weight = g v / |v|.

    The norm runs over all axes but the first (Salimans and Kingma 2016, eq. 2). Half a pair stays as it is.
    """
    folded = dict(state)
    for key in state:
        base = key.removesuffix("_v")
        if base.endswith(".weight") and f"{base}_g" in folded and f"{base}_v" in folded:
            direction, length = folded.pop(f"{base}_v"), folded.pop(f"{base}_g")
            norm = direction.flatten(1).norm(dim=1).view(length.shape)
            folded[base] = direction * (length / norm)
    return folded


def parameter_names(state: Mapping[str, Tensor]) -> Names:
    """Returns for each parameter of our network the project's names, for the layers found in the state.

    Args:
        state: parameters under the project's names, weight norm folded.
    """
    modules: dict[str, tuple[str, ...]] = dict(_NAMES)
    layers = count_layers(state, _BLOCKS)
    stages = max((count_layers(state, f"{_BLOCKS}{n}.upsample_conv2d.") for n in range(layers)), default=0)
    for n in range(layers):
        for ours, theirs in (_CONDITIONED_LAYER_NAMES if stages else _LAYER_NAMES).items():
            modules[f"layers.{n}.{ours}"] = tuple(f"{_BLOCKS}{n}.{name}" for name in theirs)
        for j in range(stages):
            modules[f"upsamplers.{n}.stages.{j}"] = (f"{_BLOCKS}{n}.upsample_conv2d.{j}",)
    return {
        f"{ours}.{kind}": tuple(f"{name}.{kind}" for name in theirs)
        for ours, theirs in modules.items()
        for kind in ("weight", "bias")
    }


def build_network(state: Mapping[str, Tensor], dilation_cycle: int, embedding_in_residual: bool) -> WaveNet:
    """Returns a fresh network of the sizes that the project's tensors have.

    Args:
        state: parameters under the project's names, weight norm folded.
        dilation_cycle: layers after which the dilation starts again at 1.
        embedding_in_residual: see `load`.
    """
    channels, audio_channels, _ = state["init_conv.0.conv.weight"].shape
    hidden_dim, dim = state["residual_layer.fc_t1.weight"].shape
    mel = state.get(f"{_BLOCKS}0.mel_conv.conv.weight")
    stages = count_layers(state, f"{_BLOCKS}0.upsample_conv2d.")
    widths = [state[f"{_BLOCKS}0.upsample_conv2d.{j}.weight"].shape[-1] for j in range(stages)]
    return WaveNet(
        residual_layers=count_layers(state, _BLOCKS),
        residual_channels=channels,
        skip_channels=state["final_conv.0.conv.weight"].shape[0],
        dilation_cycle=dilation_cycle,
        audio_channels=audio_channels,
        embedding=NoiseEmbedding(
            dim,
            hidden_dim,
            out_dim=state["residual_layer.fc_t2.weight"].shape[0],
            exponent=EMBEDDING_EXPONENT,
            in_residual=embedding_in_residual,
        ),
        condition=ConditionShape(
            local_features=None if mel is None else mel.shape[1],
            upsample_factors=tuple(math.ceil(width / 2) for width in widths),
            shared_upsampler=False,
        ),
    )


def _read_config(path: Path) -> tuple[int, tuple[float, ...], dict[str, Any]]:
    """Returns the dilation cycle, the betas and the trainset_config of the project's configuration."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        diffusion = content["diffusion_config"]
        dilation_cycle = int(content["wavenet_config"]["dilation_cycle"])
        ends = float(diffusion["beta_0"]), float(diffusion["beta_T"])
        steps = int(diffusion["T"])
        trainset = dict(content.get("trainset_config", {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: got {type(error).__name__} ({error}), expected the checkpoint's configuration with "
            "wavenet_config.dilation_cycle and diffusion_config.T, beta_0, beta_T; name it with `config`"
        ) from error
    return dilation_cycle, tuple(torch.linspace(*ends, steps, dtype=torch.float64).tolist()), trainset
