"""Weights in half precision, where that changes nothing that matters, and how much it changes.

Matrices are rounded to float16, eleven bits of each number; loading puts them back into float32, so that the
arithmetic stays as it was. Vectors (biases, gains of layers, which may be as small as 1e-6), statistics and tables stay
in float32: they are few, and every sample passes through them. So does a matrix with numbers that float16 cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping

import torch
from torch import Tensor, nn

from audiodiff.weights import change_names

_LARGEST_ERROR = 2.0**-11  # relative: half a unit in the last place of float16's normal numbers


def half_precision(model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """Returns a model's weights with its matrices in float16, and the names of matrices that had to stay.

    Args:
        model: in float32.
    """
    parameters = {name for name, _ in model.named_parameters()}
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    return _rounded(state, parameters)


def half_changes(changes: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """Returns changes to a model's weights, see `audiodiff.weights`, rounded like those.

    Args:
        changes: in float32.
        model: that has the weights.
    """
    parameters = {name for name, _ in model.named_parameters()}
    factors = {factor for name in parameters for factor in change_names(name)}
    return _rounded(changes, parameters | factors)


def _rounded(tensors: Mapping[str, Tensor], matrices: Container[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Returns tensors with matrices of these names in float16, and the names of those that had to stay."""
    weights, kept = {}, []
    for name, whole in tensors.items():
        matrix = name in matrices and whole.dim() > 1 and whole.dtype == torch.float32
        if matrix and not fits(whole):
            kept.append(name)
            matrix = False
        weights[name] = whole.half() if matrix else whole
    return weights, kept


def fits(tensor: Tensor) -> bool:
    """Whether float16 holds a tensor's numbers: none overflows, and together they lose no more than it must."""
    error = float((tensor.half().float() - tensor).norm())
    return error <= _LARGEST_ERROR * float(tensor.norm())  # false where it is not finite


def signal_to_noise_db(signal: Tensor, other: Tensor) -> float:
    """Returns the energy of a signal over that of its difference from another, in dB; infinite for equal signals.

    Where one is longer, as speech by slightly other durations may be, the beginnings are compared.
    """
    length = min(signal.shape[-1], other.shape[-1])
    signal, other = signal[..., :length].double(), other[..., :length].double()
    noise = float((signal - other).square().sum())
    return math.inf if noise == 0 else 10 * math.log10(float(signal.square().sum()) / noise)
