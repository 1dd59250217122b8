"""Weights in half precision, where that changes nothing that matters, and how much it changes.

Matrices are rounded to float16, eleven bits of each number; loading puts them back into float32, so that the
arithmetic stays as it was. Vectors (biases, gains of layers, which may be as small as 1e-6), statistics and tables stay
in float32: they are few, and every sample passes through them. So does a matrix with numbers that float16 cannot hold.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_LARGEST_ERROR = 2.0**-11  # relative: half a unit in the last place of float16's normal numbers


def half_precision(model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """Returns a model's weights with its matrices in float16, and the names of matrices that had to stay.

    Args:
        model: in float32.
    """
    parameters = {name for name, _ in model.named_parameters()}
    weights, kept = {}, []
    for name, tensor in model.state_dict().items():
        whole = tensor.detach().contiguous().cpu()
        rounded = name in parameters and whole.dim() > 1 and whole.dtype == torch.float32
        if rounded and not fits(whole):
            kept.append(name)
            rounded = False
        weights[name] = whole.half() if rounded else whole
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
