"""What lmnt's DiffWave and its descendants share: parameter names and the order of a gate's halves.

PriorGrad, FreGrad, SpeechBrain and Amphion all began as copies of that network. Where they differ is the dilated
convolution; FreGrad's holds the gates of two sub-bands one behind the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from audiodiff.audio.mel import LogMel
from audiodiff.errors import InputError
from audiodiff.interop import Names, concatenate, count_layers, load_weights, require_names
from audiodiff.networks.dilated import DilatedConvolution, ZeroPadded
from audiodiff.networks.wavenet import ConditionShape, NoiseEmbedding, WaveNet

ZERO_PADDED = ZeroPadded()

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


def load_network(
    state: Mapping[str, Tensor],
    dilation_cycle: int,
    source: Path | str,
    convolution: DilatedConvolution = ZERO_PADDED,
) -> WaveNet:
    """Returns the network with the weights of a state under lmnt's names.

    Args:
        state: parameters under lmnt's names.
        dilation_cycle: layers after which the dilation starts again at 1.
        source: the file, for messages.
        convolution: the kind of the layers' dilated convolutions.

    Raises:
        InputError: parameters missing, unknown or of another shape.
    """
    names = parameter_names(state)
    require_names(state, names, source)
    network = build_network(state, dilation_cycle, convolution)
    load_weights(network, convert(state, convolution), source)
    return network


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


def convert(state: Mapping[str, Tensor], convolution: DilatedConvolution = ZERO_PADDED) -> dict[str, Tensor]:
    """Returns the parameters under our names, with the two halves of every gate exchanged."""
    converted = concatenate(state, parameter_names(state))
    for key, tensor in converted.items():
        if ".dilated." in key:
            converted[key] = torch.cat([_exchange_halves(band) for band in tensor.chunk(convolution.width)])
        elif ".local_projection." in key:
            converted[key] = _exchange_halves(tensor)
    return converted


def build_network(
    state: Mapping[str, Tensor], dilation_cycle: int, convolution: DilatedConvolution
) -> WaveNet:
    """Returns a fresh network of the sizes that the project's tensors have."""
    channels, audio_channels, _ = state["input_projection.weight"].shape
    hidden_dim, dim = state["diffusion_embedding.projection1.weight"].shape
    mel = state.get("residual_layers.0.conditioner_projection.weight")
    stages = () if mel is None else ("conv1", "conv2")
    widths = [state[f"spectrogram_upsampler.{stage}.weight"].shape[-1] for stage in stages]
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
            upsample_factors=tuple(math.ceil(width / 2) for width in widths),
        ),
        convolution=convolution,
    )


def check_mel(
    network: WaveNet, log_mel: LogMel, source: Path | str, hop_length: int = 1, *, mend: str
) -> None:
    """Checks that the network hears this mel.

    Args:
        network: the network.
        log_mel: the mel of the configuration.
        source: the file, for messages.
        hop_length: samples of a position of x.
        mend: what the user can do.

    Raises:
        InputError: another number of bands or hop.
    """
    hears = network.condition_shape.local_features, network.hop_length * hop_length
    if hears != (log_mel.n_mels, log_mel.hop_length):
        raise InputError(
            f"{source}: the network hears {hears[0]} bands every {hears[1]} samples, the configuration says "
            f"{log_mel.n_mels} every {log_mel.hop_length}; {mend}"
        )


def _exchange_halves(tensor: Tensor) -> Tensor:
    first, second = tensor.chunk(2)
    return torch.cat([second, first])
