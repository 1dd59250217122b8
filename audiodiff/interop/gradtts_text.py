"""The text side of Grad-TTS checkpoints (github.com/huawei-noah/Speech-Backbones, MIT) as a TextEncoder.

The project's convolutions of one tap are linear layers here, its norms' gamma and beta are weight and bias,
and its tables of distances have an axis of one. All sizes follow from shapes (the heads from the width of a
table of distances); only the dropout does not, and is taken from the project's own parameters. Its own
multi-speaker models hand the speaker to the decoder alone, so that their encoder is one without speakers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

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
from audiodiff.model import instantiate

DEFAULT_DROPOUT = 0.1
_PREFIX = "encoder."
_NORM = {"weight": "gamma", "bias": "beta"}
_LINEAR = {"weight": "weight", "bias": "bias"}
_DURATIONS = {
    "durations.first": ("proj_w.conv_1", _LINEAR),
    "durations.first_norm": ("proj_w.norm_1", _NORM),
    "durations.second": ("proj_w.conv_2", _LINEAR),
    "durations.second_norm": ("proj_w.norm_2", _NORM),
    "durations.projection": ("proj_w.proj", _LINEAR),
}
_LAYER = {
    "attention.query": ("attn_layers.{}.conv_q", _LINEAR),
    "attention.key": ("attn_layers.{}.conv_k", _LINEAR),
    "attention.value": ("attn_layers.{}.conv_v", _LINEAR),
    "attention.output": ("attn_layers.{}.conv_o", _LINEAR),
    "attention": ("attn_layers.{}", {"distance_keys": "emb_rel_k", "distance_values": "emb_rel_v"}),
    "attention_norm": ("norm_layers_1.{}", _NORM),
    "expand": ("ffn_layers.{}.conv_1", _LINEAR),
    "contract": ("ffn_layers.{}.conv_2", _LINEAR),
    "feed_forward_norm": ("norm_layers_2.{}", _NORM),
}


def load(path: Path | str, params: Mapping[str, Any] | None = None) -> TextEncoder:
    """Reads the text encoder of a checkpoint: the project's `.pt`, or its weights as `.safetensors`.

    Args:
        path: the file; what it holds besides the encoder is not read.
        params: values under the project's own names; of these only enc_dropout is read.

    Raises:
        InputError: no checkpoint, or parameters missing, unknown or of another shape.
    """
    return read_encoder(encoder_state(require_tensors(read_checkpoint(path), path), path), params or {}, path)


def encoder_state(content: Mapping[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """Returns the encoder's tensors by their names within it.

    Raises:
        InputError: there are none.
    """
    state = {key.removeprefix(_PREFIX): value for key, value in content.items() if key.startswith(_PREFIX)}
    if not state:
        raise InputError(f"{path}: got no parameters {_PREFIX}*, expected a checkpoint of Grad-TTS")
    return state


def read_encoder(state: Mapping[str, Tensor], params: Mapping[str, Any], path: Path | str) -> TextEncoder:
    """Returns the encoder of its tensors by their names within it; otherwise as `load`."""
    names = parameter_names(state)
    require_names(state, names, path)
    encoder: TextEncoder = instantiate(encoder_node(state, params))
    load_weights(encoder, convert(state, names, encoder), path)
    return encoder


def parameter_names(state: Mapping[str, Tensor]) -> Names:
    """Returns for each parameter of our encoder the project's name, for the layers found in the state."""
    modules = {"prenet.projection": ("prenet.proj", _LINEAR), "mean": ("proj_m", _LINEAR)} | _DURATIONS
    for n in range(max(1, count_layers(state, "prenet.conv_layers."))):
        modules[f"prenet.convolutions.{n}"] = (f"prenet.conv_layers.{n}", _LINEAR)
        modules[f"prenet.norms.{n}"] = (f"prenet.norm_layers.{n}", _NORM)
    for n in range(max(1, count_layers(state, "encoder.attn_layers."))):
        for ours, (theirs, kinds) in _LAYER.items():
            modules[f"layers.{n}.{ours}"] = (f"encoder.{theirs.format(n)}", kinds)
    names = {
        f"{ours}.{our_kind}": (f"{theirs}.{their_kind}",)
        for ours, (theirs, kinds) in modules.items()
        for our_kind, their_kind in kinds.items()
    }
    return names | {"embedding.weight": ("emb.weight",)}


def convert(state: Mapping[str, Tensor], names: Names, encoder: TextEncoder) -> dict[str, Tensor]:
    """Returns the parameters under our names, without the axes of one that the project has more."""
    linear = {f"{name}.weight" for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    weights = concatenate(state, names)
    for key, tensor in weights.items():
        if key in linear:
            weights[key] = tensor[..., 0]
        elif key.endswith((".distance_keys", ".distance_values")):
            weights[key] = tensor[0]
    return weights


def encoder_node(state: Mapping[str, Tensor], params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe node of an encoder of the sizes that the project's tensors have."""
    vocabulary, channels = state["emb.weight"].shape
    features, width, _ = state["proj_m.weight"].shape
    _, distances, head_features = state["encoder.attn_layers.0.emb_rel_k"].shape
    filter_channels, _, kernel_size = state["encoder.ffn_layers.0.conv_1.weight"].shape
    size = {
        "_target_": "audiodiff.conditioning.text.TextEncoderSize",
        "channels": channels,
        "filter_channels": filter_channels,
        "layers": count_layers(state, "encoder.attn_layers."),
        "heads": width // head_features,
        "kernel_size": kernel_size,
        "window": distances // 2,
        "dropout": float(params.get("enc_dropout", DEFAULT_DROPOUT)),
        "prenet_layers": count_layers(state, "prenet.conv_layers."),
        "prenet_kernel_size": state["prenet.conv_layers.0.weight"].shape[2],
        "duration_channels": state["proj_w.proj.weight"].shape[1],
    }
    return {
        "_target_": "audiodiff.conditioning.text.TextEncoder",
        "vocabulary": vocabulary,
        "features": features,
        "size": size,
        "speaker_features": width - channels or None,
    }
