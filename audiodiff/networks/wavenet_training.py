"""A WaveNet in training on a CPU: its own embedding, upsampler and ends, and its layers by `gated`.

The prediction and the gradients are those of `WaveNet.forward` layer by layer, their sums in another order. Other
devices, precisions and convolutions, compilers, adapters, shards and hooks get the layers one by one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from audiodiff.networks.blocks import check_features, step_embedding
from audiodiff.networks.dilated import ZeroPadded
from audiodiff.networks.gated import GatedLayer, sum_of_skips
from audiodiff.types import Condition

if TYPE_CHECKING:
    from audiodiff.networks.wavenet import ResidualLayer, WaveNet


def trains_in_tiles(network: WaveNet, x: Tensor) -> bool:
    """Returns whether `predict_in_tiles` takes the place of the layers for x, here and now."""
    from audiodiff.networks.wavenet import ResidualLayer  # which imports this module

    return (
        network.training
        and torch.is_grad_enabled()
        and type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and network.convolution == ZeroPadded()
        # A layer that is wrapped, as shards are, answers for what it wraps.
        and all(isinstance(layer, ResidualLayer) and layer.is_plain() for layer in network.layers)
    )


def predict_in_tiles(network: WaveNet, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
    """Returns the prediction [B, C, T]; Args and Raises as of `WaveNet.forward`."""
    shape, noise = network.condition_shape, network.noise_embedding
    check_features(condition, shape.local_features, shape.vector_features)
    items, length = x.shape[0], x.shape[-1]
    frames = condition.frames
    embedding = network.embedding(step_embedding(noise_label, noise.dim, noise.exponent))
    upsamplers = range(len(network.upsamplers))
    skips = sum_of_skips(
        torch.relu(network.input_projection(x)).transpose(1, 2),
        [network._upsample(n, condition, length).transpose(1, 2) for n in upsamplers],
        [_gated_layer(layer, embedding, condition.vector) for layer in network.layers],  # type: ignore[arg-type]
        [length] * items if frames is None else frames.clamp(max=length).tolist(),
        noise.in_residual,
        keep_gates=not network.checkpointing,
    )
    hidden = torch.relu(network.skip_projection(skips.transpose(1, 2) / math.sqrt(len(network.layers))))
    output: Tensor = network.output_projection(hidden)
    mask = condition.mask(x)
    return output if mask is None else output * mask


def _gated_layer(layer: ResidualLayer, embedding: Tensor, vector: Tensor | None) -> GatedLayer:
    """Returns what the layer multiplies and adds, for a noise embedding [B, out_dim] and a vector [B, D]."""
    dilated, output = layer.dilated, layer.output_projection
    assert isinstance(dilated, nn.Conv1d)
    assert dilated.bias is not None
    assert output.bias is not None
    bias, local = dilated.bias[None], None
    if layer.local_projection is not None:
        assert layer.local_projection.bias is not None
        bias, local = bias + layer.local_projection.bias, layer.local_projection.weight[..., 0]
    if layer.vector_projection is not None:
        bias = bias + layer.vector_projection(vector)
    return GatedLayer(
        dilation=dilated.dilation[0],
        taps=dilated.weight,
        gate_bias=bias,
        shift=layer.step_projection(embedding),
        local=local,
        output=output.weight[..., 0],
        output_bias=output.bias,
    )
