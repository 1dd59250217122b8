"""The decoder of Grad-TTS (github.com/huawei-noah/Speech-Backbones, Grad-TTS, MIT) as a MelUNet.

The project's checkpoint is the state dict of text encoder, speaker table and decoder; here the last two are
read. The decoder predicts the score of x_t, whose noise is centred on the mean that the text predicts:
x_t = a x_0 + (1 - a) mu + sqrt(1 - a^2) eps, a = exp(-1/2 int_0^t beta), beta linear from 0.05 to 20 (Popov et
al. 2021, eq. 9 and 12). Synthesis starts at mu + eps / temperature and takes Euler steps at the middle of each
of N equal intervals. Mels are HiFi-GAN's, as they are: not normalised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

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
from audiodiff.networks.mel_unet import Dialect, MelCondition, MelUNet

MEL_PRESET = "hifigan_22k80"
LICENCE = "MIT"

# The project's own defaults (params.py), for what tensor shapes cannot show.
DEFAULT_PARAMS: Mapping[str, Any] = {"n_feats": 80, "beta_min": 0.05, "beta_max": 20.0, "pe_scale": 1000}
TEMPERATURE = 1.5  # of the project's inference script

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
    state = require_tensors(read_checkpoint(path), path)
    estimator = estimator_state(state)
    names = parameter_names(estimator)
    require_names(estimator, names, path)
    merged = {**DEFAULT_PARAMS, **(params or {})}
    network = build_network(estimator, merged, counts_padding)
    load_weights(network, concatenate(estimator, names), path)
    speakers, expected = state.get(_SPEAKERS), network.condition_features.vector_features
    if speakers is not None and (speakers.dim() != 2 or speakers.shape[1] != expected):
        raise InputError(
            f"{path}: {_SPEAKERS} is {list(speakers.shape)}, the decoder takes "
            f"{'no speaker' if expected is None else f'{expected} features a speaker'}"
        )
    return GradTTSDecoder(network, speakers, float(merged["beta_min"]), float(merged["beta_max"]))


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


def build_network(
    estimator: Mapping[str, Tensor], params: Mapping[str, Any], counts_padding: bool
) -> MelUNet:
    """Returns a fresh network of the sizes that the project's tensors have."""
    width = estimator["final_conv.weight"].shape[1]
    levels = count_layers(estimator, "downs.")
    channels = [estimator[f"downs.{n}.0.block1.block.0.weight"].shape[0] for n in range(levels)]
    speaker = estimator.get("spk_mlp.0.weight")
    n_mels = int(params["n_feats"])
    return MelUNet(
        n_mels,
        width,
        [count // width for count in channels],
        MelCondition(n_mels, None if speaker is None else speaker.shape[1]),
        dialect=Dialect(float(params["pe_scale"]), counts_padding),
    )


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
