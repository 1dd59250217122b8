"""Checkpoints of Dance Diffusion (github.com/Harmonai-org/sample-generator, MIT) as a UNet1d.

Its DiffusionAttnUnet1D is this library's network in the design ConcatenatedSkips; Stability AI's
stable-audio-tools has the same class under the name DAU1d. Both train the velocity v = alpha eps - sigma x_0
(Salimans and Ho 2022, eq. 8) with alpha = cos(pi t / 2), sigma = sin(pi t / 2), and tell the network t.
Sampling is DDIM without noise over the project's "crash" times, sigma(t) = sin(pi u / 2)^2 at evenly spaced u.
A file does not say its sample rate: it is known by the name of a published file or given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
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
from audiodiff.networks.unet1d import UNet1d
from audiodiff.networks.unet1d_layers import cubic_kernel
from audiodiff.networks.unet1d_levels import ConcatenatedSkips, Levels

# Sample rate in Hz and training length in samples of the files that the project published.
PUBLISHED: Mapping[str, tuple[int, int]] = {
    "gwf-440k": (48000, 65536),
    "jmann-small-190k": (48000, 65536),
    "jmann-large-580k": (48000, 131072),
    "maestro-uncond-150k": (16000, 65536),
    "unlocked-uncond-250k": (16000, 65536),
    "honk-140k": (16000, 65536),
}
DEFAULT_SAMPLE_SIZE = 65536  # samples, of the project's defaults
DEFAULT_STEPS = 250  # of the project's defaults for demonstrations
LICENCE = (
    "The code is under the MIT licence. The weights have the terms of whoever trained them and of their "
    "training data; the project states none for the files that it published."
)

# Where the weights stand in a file, the averaged ones first.
_PREFIXES = ("diffusion_ema.", "diffusion_ema.ema_model.", "diffusion.", "diffusion.model.", "model.", "")
_LABEL = "timestep_embed.weight"
_LAYER_NAMES = {
    "block.first": "main.0",
    "block.norm": "main.1",
    "block.second": "main.3",
    "block.last_norm": "main.4",
    "block.skip": "skip",
    "attention.norm": "norm",
    "attention.project": "qkv_proj",
    "attention.output": "out_proj",
}
_BLOCKS = 3  # of a level on either side


@dataclass(frozen=True)
class Plan:
    """What a network of the project is built from; fields as in UNet1d."""

    channels: int
    levels: Levels
    design: ConcatenatedSkips


@dataclass(frozen=True)
class DanceDiffusion:
    """An imported model: the network and how the project trains and samples it.

    Attributes:
        network: predicts the velocity from x_t and t.
        plan: what the network was built from.
        sample_rate: Hz.
        sample_size: samples of a training segment.
        times: t at which the project's sampler evaluates the network, falling from 1, and 0 at the end.
        eta: noise that its DDIM steps inject, 0 for none.
        averaged: whether the weights are the moving average.
        parameterization: what the network predicts.
        schedule: alpha and sigma as functions of t.
        noise_label: what the network is told of t.
        clip: bounds to which the finished audio is clamped.
        licence: terms of code and weights.
    """

    network: UNet1d
    plan: Plan
    sample_rate: int
    sample_size: int
    times: tuple[float, ...]
    averaged: bool
    eta: float = 0.0
    parameterization: str = "velocity"
    schedule: str = "cosine"
    noise_label: str = "time"
    clip: tuple[float, float] = (-1.0, 1.0)
    licence: str = LICENCE


def load(
    path: Path | str,
    sample_rate: int | None = None,
    sample_size: int | None = None,
    steps: int = DEFAULT_STEPS,
) -> DanceDiffusion:
    """Reads a checkpoint: the project's `.ckpt` or its weights as `.safetensors`, averaged weights first.

    Args:
        path: the file.
        sample_rate: Hz; None for a file with the name of a published one.
        sample_size: samples of a training segment; None for the published or else the project's default.
        steps: evaluations of the network in sampling, 1 or more.

    Raises:
        InputError: no checkpoint, one of another project, parameters missing, unknown or of another shape, a
            network with a condition or another resampling, or a file of unknown sample rate.
    """
    content = read_checkpoint(path)
    state, averaged = _select(require_tensors(content.get("state_dict", content), path), path)
    state = _without_kernels(state, path)
    network, plan = build_network(state, path), plan_of(state, path)
    names = parameter_names(network)
    require_names(state, names, path)
    load_weights(network, concatenate(state, names), path)
    published = PUBLISHED.get(Path(path).stem)
    if sample_rate is None and published is None:
        raise InputError(
            f"{path}: the file does not say its sample rate, expected sample_rate in Hz or the name of a "
            f"published file ({', '.join(PUBLISHED)})"
        )
    rate, size = published or (0, DEFAULT_SAMPLE_SIZE)
    return DanceDiffusion(
        network=network,
        plan=plan,
        sample_rate=rate if sample_rate is None else sample_rate,
        sample_size=size if sample_size is None else sample_size,
        times=crash_times(steps),
        averaged=averaged,
    )


def crash_times(steps: int) -> tuple[float, ...]:
    """Returns the t of the project's sampler: sigma(t) = sin(pi u / 2)^2, u from 1 to 0 in `steps` steps.

    Raises:
        InputError: fewer than one step.
    """
    if steps < 1:
        raise InputError(f"steps: got {steps}, expected 1 or more")
    sigmas = [math.sin(math.pi / 2 * (1 - n / steps)) ** 2 for n in range(steps)]
    return (*(math.asin(sigma) * 2 / math.pi for sigma in sigmas), 0.0)


def parameter_names(network: UNet1d) -> Names:
    """Returns for each parameter of our network the project's name."""
    return {ours: (_LABEL if ours == "fourier.weight" else _foreign(ours),) for ours in network.state_dict()}


def build_network(state: Mapping[str, Tensor], source: Path | str) -> UNet1d:
    """Returns a fresh network of the sizes that the project's tensors have, see `plan_of`."""
    plan = plan_of(state, source)
    return UNet1d(plan.channels, plan.levels, plan.design)


def plan_of(state: Mapping[str, Tensor], source: Path | str) -> Plan:
    """Returns the sizes that the project's tensors have.

    Args:
        state: parameters under the project's names.
        source: name for messages.

    Raises:
        InputError: a parameter that shows the sizes is missing, or the network takes a condition beside x.
    """
    depth = 1
    while count_layers(state, _level(depth)):
        depth += 1
    channels = _shape(state, f"net.{2 * _BLOCKS}.main.3.weight", source)[0]
    width, given, kernel_size = _shape(state, "net.0.main.0.weight", source)
    label_features = 2 * _shape(state, _LABEL, source)[0]
    if given != channels + label_features:
        raise InputError(
            f"{source}: got an input of {given} channels, expected {channels} of audio and {label_features} "
            "of the noise label; networks with a condition beside them are not read"
        )
    deeper = [_level(k) for k in range(1, depth)]
    levels = Levels(
        widths=(width, *(_shape(state, f"{level}1.main.0.weight", source)[0] for level in deeper)),
        factors=(1, *(2 for _ in deeper)),
        blocks=(_BLOCKS,) * depth,
        attention=(False, *(f"{level}2.qkv_proj.weight" in state for level in deeper)),
    )
    design = ConcatenatedSkips(kernel_size=kernel_size, label_features=label_features)
    return Plan(channels, levels, design)


def _select(state: Mapping[str, Tensor], source: Path | str) -> tuple[dict[str, Tensor], bool]:
    """Returns the network's own tensors, and whether they are the averaged ones."""
    bare = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    for prefix in _PREFIXES:
        if prefix + _LABEL in bare:
            chosen = {key[len(prefix) :]: value for key, value in bare.items() if key.startswith(prefix)}
            return chosen, "ema" in prefix
    examples = ", ".join(sorted(state)[:3]) or "none"
    raise InputError(
        f"{source}: got parameters such as {examples}, expected those of Dance Diffusion with {_LABEL} under "
        f"one of {', '.join(repr(prefix) for prefix in _PREFIXES)}"
    )


def _without_kernels(state: Mapping[str, Tensor], source: Path | str) -> dict[str, Tensor]:
    """Returns the state without the resampling kernels, which are constants, after comparing them."""
    weights = dict(state)
    for key in [key for key in state if key.endswith(".kernel")]:
        kernel = weights.pop(key).float()
        expected = cubic_kernel(2) * (2 if kernel.sum() > 1.5 else 1)
        if kernel.shape != expected.shape or not torch.allclose(kernel, expected, atol=1e-3):
            raise InputError(f"{source}: {key} is {kernel.tolist()}, expected the cubic {expected.tolist()}")
    return weights


def _shape(state: Mapping[str, Tensor], key: str, source: Path | str) -> torch.Size:
    if key not in state:
        raise InputError(f"{source}: the weights do not fit the architecture; missing: {key}")
    return state[key].shape


def _foreign(ours: str) -> str:
    """Returns the project's name for levels.K.SIDE.N.PART.LAYER.KIND."""
    _, level, side, block, part, layer, kind = ours.split(".")
    k, n = int(level), int(block)
    if k == 0:
        place = n if side == "before" else n + _BLOCKS + 1
    else:  # the resampler comes first, and every block has room for attention after it
        place = 2 * n + (1 if side == "before" else 2 * _BLOCKS + 2) + (part == "attention")
    return f"{_level(k)}{place}.{_LAYER_NAMES[f'{part}.{layer}']}.{kind}"


def _level(k: int) -> str:
    """Returns the prefix of level k: the first is a sequence, each other the main path of a skip block."""
    return "net." if k == 0 else f"net.{_BLOCKS}.main." + f"{2 * _BLOCKS + 1}.main." * (k - 1)
