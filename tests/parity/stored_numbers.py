"""Numbers of other projects that are kept in numbers/: how they are read, and how what they were made with is made.

Each project's own code was run on one CPU thread, on weights that `rebuilt` makes again from names, shapes and a
seed, and on noise that `recorded` makes again.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiodiff.diffusion.constraints import Clip
from audiodiff.diffusion.data_space import in_data_space
from audiodiff.diffusion.denoiser import Denoiser, StepIndex
from audiodiff.diffusion.parameterizations import epsilon
from audiodiff.diffusion.samplers import Ancestral, Sampler
from audiodiff.diffusion.schedules import BetaTable
from audiodiff.diffusion.times import Grid
from audiodiff.networks.wavenet import WaveNet
from audiodiff.types import Condition


def arrays(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the arrays of numbers/NAME.npz, and what is said of them."""
    path = Path(__file__).parent / "numbers" / f"{name}.npz"
    with np.load(path, allow_pickle=False) as content:
        tensors = {key: torch.from_numpy(content[key]) for key in content.files if key != "meta_json"}
        return tensors, json.loads(str(content["meta_json"]))


def rebuilt(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """Returns the weights that the numbers were made with."""
    weights = {}
    for key, shape in shapes.items():
        random = np.random.RandomState((zlib.crc32(key.encode()) ^ seed) & 0xFFFFFFFF)
        scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.05
        weights[key] = torch.from_numpy((random.standard_normal(shape) * scale).astype(np.float32))
    return weights


def recorded(seed: int, *shape: int) -> Tensor:
    """Returns noise that a number was made with."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def assert_close(actual: Tensor, expected: Tensor, relative: float, what: str) -> None:
    """Compares at a tolerance relative to the largest expected value."""
    assert actual.shape == expected.shape, what
    error = float((actual.double() - expected.double()).abs().max())
    largest = float(expected.abs().max())
    assert error <= relative * largest, f"{what}: error {error:.3g}, largest value {largest:.3g}"


def lmnt_states(
    network: WaveNet, betas: Sequence[float], grid: Grid, condition: Condition, noise: Callable[[int], Tensor]
) -> Tensor:
    """Returns the states [steps, B, C, F] in the data's coordinates after every step of lmnt's sampling loop.

    That is the posterior variance, and samples clamped to [-1, 1]. noise gives [B, C, F] of step 1 and on, and in
    step 0 that of the start; the condition's prior scales it.
    """
    schedule = BetaTable(betas)
    states: list[Tensor] = []

    def kept(x: Tensor, s: Tensor) -> Tensor:
        states.append(Clip()(x, s))
        return states[-1]

    sampler = in_data_space(Sampler(Ancestral(), grid, kept), condition)
    denoise = Denoiser(network, schedule, epsilon, StepIndex()).bind(condition)
    sampler(denoise, schedule, noise(0), lambda step, draw: noise(step))
    return torch.stack(states)
