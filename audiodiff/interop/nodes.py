"""Recipe nodes of objects: what a model folder's config.yaml says so that `audiodiff.instantiation` builds them again.

A dataclass is its own recipe, its fields are the arguments. A network keeps what tensor shapes do not show; the
rest is read from its layers. A table of betas that a formula gives is written as that formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.prior import MelEnergyPrior
from audiodiff.diffusion.schedules import BetaTable, linear
from audiodiff.networks.unet1d import UNet1d
from audiodiff.networks.wavegrad import WaveGrad
from audiodiff.networks.wavenet import WaveNet

Node = dict[str, Any]


def node_of(value: Any) -> Any:
    """Returns a dataclass, or a sequence or mapping with some in it, as plain values with `_target_`s."""
    if is_dataclass(value) and not isinstance(value, type):
        arguments = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        return target(type(value), **arguments)
    if isinstance(value, Mapping):
        return {str(key): node_of(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [node_of(part) for part in value]
    return value


def target(kind: Any, /, **arguments: Any) -> Node:
    """Returns the node of a call of a class or function with the arguments."""
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}"} | {
        name: node_of(argument) for name, argument in arguments.items()
    }


def function(kind: Any) -> Node:
    """Returns the node of a function that is not called, such as a parameterization."""
    return target(kind) | {"_partial_": True}


def wavenet(network: WaveNet) -> Node:
    """Returns the node of a WaveNet."""
    return target(
        WaveNet,
        residual_layers=len(network.layers),
        residual_channels=network.input_projection.out_channels,
        skip_channels=network.skip_projection.out_channels,
        dilation_cycle=max(network.dilations).bit_length(),
        audio_channels=network.input_projection.in_channels,
        embedding=network.noise_embedding,
        condition=network.condition_shape,
        convolution=network.convolution,
    )


def wavegrad(network: WaveGrad) -> Node:
    """Returns the node of a WaveGrad."""
    return target(
        WaveGrad,
        blocks=network.blocks,
        audio_channels=network.first.in_channels,
        local_features=network.local_features,
    )


def unet1d(plan: Any) -> Node:
    """Returns the node of a UNet1d from what it was built from: channels, levels and design."""
    return target(UNet1d, channels=plan.channels, levels=plan.levels, design=plan.design)


def schedule(betas: Sequence[float]) -> Node:
    """Returns the node of a table of betas: the two ends and the number of rows, if they lie evenly between."""
    table = torch.tensor(betas, dtype=torch.float64)
    if len(betas) > 1 and betas[0] < betas[-1]:
        even = linear(betas[0], betas[-1], len(betas)).betas
        if torch.allclose(even, table, rtol=1e-12, atol=0):
            return target(linear, beta_start=betas[0], beta_end=betas[-1], steps=len(betas))
    return target(BetaTable, betas=tuple(betas))


def conditioner(part: nn.Module, representation: Node) -> Node:
    """Returns the node of a conditioner that hears a mel or nothing; its statistics are saved with the weights.

    Args:
        part: the conditioner.
        representation: node of what is diffused, where a prior looks its positions up.
    """
    if isinstance(part, MelEnergyPrior):
        return target(
            type(part),
            log_mel=part.log_mel,
            representation=representation,
            energy_max=part.energy_max,
            std_min=part.std_min,
        )
    return target(type(part), log_mel=part.log_mel) if isinstance(part, Mel) else target(type(part))
