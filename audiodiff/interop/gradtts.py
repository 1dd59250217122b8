"""Grad-TTS (github.com/huawei-noah/Speech-Backbones, Grad-TTS, MIT) as a model of this library, or its decoder alone.

The project's checkpoint is the state dict of text encoder (see `gradtts_text`), speaker table and decoder. The
decoder predicts the score of x_t, whose noise is centred on the mean that the text predicts:
x_t = a x_0 + (1 - a) mu + sqrt(1 - a^2) eps, a = exp(-1/2 int_0^t beta), beta linear from 0.05 to 20 (Popov et
al. 2021, eq. 9 and 12). Synthesis starts at mu + eps / temperature and takes Euler steps with the rates in the middle
of each of N equal intervals. Mels are HiFi-GAN's, as they are: not normalised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiodiff.audio.mel import preset
from audiodiff.conditioning.label import Labels
from audiodiff.conditioning.text import TextEncoder
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
from audiodiff.interop.gradtts_text import encoder_node, encoder_state, read_encoder
from audiodiff.model import AudioDiffusion, build, instantiate
from audiodiff.networks.mel_unet import MelUNet

MEL_PRESET = "hifigan_22k80"
LICENCE = "MIT"

# The project's own defaults (params.py), for what tensor shapes cannot show.
DEFAULT_PARAMS: Mapping[str, Any] = {"n_feats": 80, "beta_min": 0.05, "beta_max": 20.0, "pe_scale": 1000}
TEMPERATURE, LENGTH_SCALE, STEPS = 1.5, 0.91, 10  # of the project's inference script
SPEAKER = "speaker"  # name of the label of a model of several; its values are the project's numbers

_ESTIMATOR = "decoder.estimator."
_SPEAKERS = "spk_emb.weight"
_BLOCK_NAMES = {
    "time": "mlp.1",
    "first.conv": "block1.block.0",
    "first.norm": "block1.block.1",
    "second.conv": "block2.block.0",
    "second.norm": "block2.block.1",
}
_NAMES = {
    "time.0": "mlp.0",
    "time.2": "mlp.2",
    "final.conv": "final_block.block.0",
    "final.norm": "final_block.block.1",
    "output": "final_conv",
}


@dataclass(frozen=True)
class GradTTSDecoder:
    """An imported decoder: the network and how the project trains and samples it.

    Attributes:
        network: predicts the score of x_t from x_t, t in [0, 1], the mean as condition.local and the speaker's
            row as condition.vector.
        speakers: [speakers, D], one row each; None for a model of one speaker or a file of the decoder alone.
        beta_min: rate of the noise at t = 0.
        beta_max: rate of the noise at t = 1.
        temperature: divides the noise that synthesis starts from.
        mel_preset: name of the log-mel that the network was trained on.
        licence: of the project's code and weights.
    """

    network: MelUNet
    speakers: Tensor | None
    beta_min: float
    beta_max: float
    temperature: float = TEMPERATURE
    mel_preset: str = MEL_PRESET
    licence: str = LICENCE


def load(
    path: Path | str, params: Mapping[str, Any] | None = None, counts_padding: bool = False
) -> AudioDiffusion:
    """Reads a whole checkpoint, text encoder and decoder, as a model with its recipe, ready to be saved.

    It is told tokens by their number in the project's table of symbols. Of several speakers, "any" is their mean.

    Args:
        path: the project's `.pt`, or its weights as `.safetensors`.
        params: as for `load_decoder`, and enc_dropout.
        counts_padding: as for `load_decoder`.

    Raises:
        InputError: no checkpoint, parameters missing, unknown or of another shape, or sizes that do not fit.
    """
    merged = {**DEFAULT_PARAMS, **(params or {})}
    content = require_tensors(read_checkpoint(path), path)
    text, estimator = encoder_state(content, path), estimator_state(content)
    unknown = [key for key in content if not key.startswith(("encoder.", _ESTIMATOR)) and key != _SPEAKERS]
    if unknown:
        raise InputError(f"{path}: got parameters that Grad-TTS does not have: {', '.join(unknown)}")
    decoder = read_decoder(content, merged, counts_padding, path)
    encoder = read_encoder(text, merged, path)
    network = network_node(estimator, merged, counts_padding)
    model = build(recipe_of(decoder, encoder_node(text, merged), network))
    for part in model.modules():
        if isinstance(part, MelUNet):
            part.load_state_dict(decoder.network.state_dict())
        if isinstance(part, TextEncoder):
            part.load_state_dict(encoder.state_dict())
        if isinstance(part, Labels) and decoder.speakers is not None:
            rows = torch.cat([decoder.speakers, decoder.speakers.mean(0, keepdim=True)])
            part.load_state_dict({f"tables.{SPEAKER}.weight": rows})
    return model.eval()


def recipe_of(decoder: GradTTSDecoder, encoder: dict[str, Any], network: dict[str, Any]) -> dict[str, Any]:
    """Returns the recipe of the whole model, in plain values.

    Args:
        decoder: its facts.
        encoder: recipe node of the text encoder.
        network: recipe node of the score network.
    """
    log_mel = preset(decoder.mel_preset).definition() | {"n_mels": network["n_mels"]}
    features = {"_target_": "audiodiff.audio.mel.LogMel", **log_mel}
    labels = {} if decoder.speakers is None else {SPEAKER: [str(n) for n in range(len(decoder.speakers))]}
    denoiser = {
        "_target_": "audiodiff.diffusion.denoiser.Denoiser",
        "network": network,
        "schedule": {
            "_target_": "audiodiff.diffusion.continuous.VPSDE",
            "beta_min": decoder.beta_min,
            "beta_max": decoder.beta_max,
        },
        "parameterization": {"_target_": "audiodiff.diffusion.parameterizations.score", "_partial_": True},
        "noise_label": {"_target_": "audiodiff.diffusion.denoiser.Time"},
    }
    return {
        "experiment": "gradtts",
        "features": features,
        "model": {
            "_target_": "audiodiff.model.AudioDiffusion",
            "representation": {
                "_target_": "audiodiff.audio.mel_representation.MelRepresentation",
                "log_mel": features,
                "sample_rate": log_mel["sample_rate"],
            },
            "conditioner": conditioner_node(encoder, labels, decoder.speakers),
            "denoiser": denoiser,
        },
        "sampler": {
            "_target_": "audiodiff.diffusion.samplers.Sampler",
            "step": {"_target_": "audiodiff.diffusion.samplers.GradTTSEuler"},
            "grid": {"_target_": "audiodiff.diffusion.times.UniformGrid", "steps": STEPS},
            "temperature": decoder.temperature,
        },
        "training": {"label_drop": 0.0},  # the project never drops the speaker
    }


def conditioner_node(
    encoder: dict[str, Any], labels: Mapping[str, list[str]], speakers: Tensor | None
) -> dict[str, Any]:
    """Returns the recipe node of the text, joined by that of the speaker, whom the decoder alone is told."""
    text = {
        "_target_": "audiodiff.conditioning.text_conditioner.Text",
        "encoder": encoder,
        "length_scale": LENGTH_SCALE,
    }
    if speakers is None:
        return text
    speaker = {
        "_target_": "audiodiff.conditioning.label.Labels",
        "values": dict(labels),
        "features": speakers.shape[1],
    }
    return {"_target_": "audiodiff.conditioning.conditioner.Joint", "parts": [text, speaker]}


def load_decoder(
    path: Path | str, params: Mapping[str, Any] | None = None, counts_padding: bool = False
) -> GradTTSDecoder:
    """Reads the decoder of a checkpoint: the project's `.pt`, or weights as `.safetensors`.

    Args:
        path: the file; text encoder and decoder, or the decoder's score network alone.
        params: values under the project's own names that take the place of its defaults: n_feats, beta_min,
            beta_max, pe_scale (1 for its first release, `grad-tts-old.pt`). Others are not read.
        counts_padding: gives the project's numbers also in a batch of items of different lengths, where they
            depend on the padding; alone in its batch an item has the project's numbers either way.

    Raises:
        InputError: no checkpoint, parameters missing, unknown or of another shape, or sizes that do not fit.
    """
    content = require_tensors(read_checkpoint(path), path)
    return read_decoder(content, {**DEFAULT_PARAMS, **(params or {})}, counts_padding, path)


def read_decoder(
    state: Mapping[str, Tensor], params: Mapping[str, Any], counts_padding: bool, path: Path | str
) -> GradTTSDecoder:
    """Returns the decoder of a checkpoint's tensors; otherwise as `load_decoder`."""
    estimator = estimator_state(state)
    names = parameter_names(estimator)
    require_names(estimator, names, path)
    network: MelUNet = instantiate(network_node(estimator, params, counts_padding))
    load_weights(network, concatenate(estimator, names), path)
    speakers, expected = state.get(_SPEAKERS), network.condition_features.vector_features
    if speakers is not None and (speakers.dim() != 2 or speakers.shape[1] != expected):
        raise InputError(
            f"{path}: {_SPEAKERS} is {list(speakers.shape)}, the decoder takes "
            f"{'no speaker' if expected is None else f'{expected} features a speaker'}"
        )
    return GradTTSDecoder(network, speakers, float(params["beta_min"]), float(params["beta_max"]))


def estimator_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the score network's tensors by their names within it; those of the other parts are left out."""
    inside = {key.removeprefix(_ESTIMATOR): state[key] for key in state if key.startswith(_ESTIMATOR)}
    return inside or {key: value for key, value in state.items() if key != _SPEAKERS}


def parameter_names(estimator: Mapping[str, Tensor]) -> Names:
    """Returns for each parameter of our network the project's name, for the levels found in the state."""
    levels = count_layers(estimator, "downs.")
    names: dict[str, str] = {}
    for ours, theirs in _NAMES.items():
        names |= _layer(ours, theirs)
    if any(key.startswith("spk_mlp.") for key in estimator):
        names |= _layer("vector.0", "spk_mlp.0") | _layer("vector.2", "spk_mlp.2")
    for n in range(levels):
        names |= _level(estimator, f"down.{n}", f"downs.{n}")
    for n in range(levels - 1):
        names |= _level(estimator, f"up.{n}", f"ups.{n}")
        names |= _layer(f"downsample.{n}", f"downs.{n}.3.conv") | _layer(f"upsample.{n}", f"ups.{n}.3.conv")
    names |= _block(estimator, "middle.first", "mid_block1") | _block(
        estimator, "middle.second", "mid_block2"
    )
    names |= _attention("middle.attention", "mid_attn")
    return {ours: (theirs,) for ours, theirs in names.items()}


def network_node(
    estimator: Mapping[str, Tensor], params: Mapping[str, Any], counts_padding: bool
) -> dict[str, Any]:
    """Returns the recipe node of a network of the sizes that the project's tensors have."""
    width = estimator["final_conv.weight"].shape[1]
    levels = count_layers(estimator, "downs.")
    channels = [estimator[f"downs.{n}.0.block1.block.0.weight"].shape[0] for n in range(levels)]
    speaker = estimator.get("spk_mlp.0.weight")
    n_mels = int(params["n_feats"])
    return {
        "_target_": "audiodiff.networks.mel_unet.MelUNet",
        "n_mels": n_mels,
        "width": width,
        "multipliers": [count // width for count in channels],
        "condition": {
            "_target_": "audiodiff.networks.mel_unet.MelCondition",
            "local_features": n_mels,
            "vector_features": None if speaker is None else speaker.shape[1],
        },
        "dialect": {
            "_target_": "audiodiff.networks.mel_unet.Dialect",
            "time_scale": float(params["pe_scale"]),
            "counts_padding": counts_padding,
        },
    }


def _level(state: Mapping[str, Tensor], ours: str, theirs: str) -> dict[str, str]:
    return (
        _block(state, f"{ours}.first", f"{theirs}.0")
        | _block(state, f"{ours}.second", f"{theirs}.1")
        | _attention(f"{ours}.attention", f"{theirs}.2")
    )


def _block(state: Mapping[str, Tensor], ours: str, theirs: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for mine, other in _BLOCK_NAMES.items():
        names |= _layer(f"{ours}.{mine}", f"{theirs}.{other}")
    kernel = state.get(f"{theirs}.block1.block.0.weight")
    if kernel is not None and kernel.shape[0] != kernel.shape[1]:
        names |= _layer(f"{ours}.shortcut", f"{theirs}.res_conv")
    return names


def _attention(ours: str, theirs: str) -> dict[str, str]:
    return _layer(f"{ours}.output", f"{theirs}.fn.fn.to_out") | {
        f"{ours}.query_key_value.weight": f"{theirs}.fn.fn.to_qkv.weight",
        f"{ours}.gate": f"{theirs}.fn.g",
    }


def _layer(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias")}
