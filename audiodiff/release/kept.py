"""What the file of a released model's weights holds: all of them, or what distinguishes them from a shipped model's.

A model that was trained as low-rank changes (`lora=adapters`) of a shipped model is kept as those: a student of few
steps then costs a tenth of its teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from audiodiff.errors import InputError
from audiodiff.model_folder import shipped_models
from audiodiff.release.rounding import half_changes, half_precision
from audiodiff.training.adapter import Adapter, find_adapter, load_adapter
from audiodiff.weights import change_names, changes_file, read_weights, weights_digest, with_changes

_LARGEST_DIFFERENCE = (
    1e-4  # relative, between a merged model and its base with the changes: sums in another order
)


@dataclass(frozen=True)
class Kept:
    """A file of weights.

    Attributes:
        content: of the file.
        weights: that it stands for, by name.
        full: names of matrices that had to stay in float32.
        base: the shipped model that the file holds changes to; None where it holds everything.
    """

    content: bytes
    weights: Mapping[str, Tensor]
    full: list[str]
    base: str | None


def kept_weights(model: nn.Module, place: Path, half: bool) -> Kept:
    """Returns what is kept of a model.

    Args:
        model: in float32.
        place: its folder; the adapter that it was trained as lies beside it.
        half: whether matrices are rounded to float16.

    Raises:
        InputError: an adapter that is not this model's.
    """
    adapter = None if find_adapter(place.parent) is None else load_adapter(place.parent)
    base = None if adapter is None else shipped_models().get(adapter.base["name"])
    if adapter is None or base is None or weights_digest(base) != adapter.base["sha256"]:
        weights, full = half_precision(model) if half else (dict(model.state_dict()), [])
        return Kept(to_bytes(weights), weights, full, None)
    own = read_weights(base)
    changes = _changes(adapter, own)
    _check(with_changes(own, changes, str(place)), model.state_dict(), place)
    full = []
    if half:
        changes, full = half_changes(changes, model)
    return Kept(changes_file(changes, base), with_changes(own, changes, str(place)), full, base.name)


def _changes(adapter: Adapter, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns an adapter's tensors as a file of changes names them, without those that are the base's own."""
    products, whole = adapter.parts()
    changes: dict[str, Tensor] = {}
    for layer, (down, up) in products.items():
        names = change_names(f"{layer}.weight")
        changes |= dict(zip(names, (down, up * adapter.settings.scale), strict=True))
    for name, tensor in whole.items():
        if name not in base or not torch.equal(base[name].float(), tensor.float()):
            changes[name] = tensor
    return changes


def _check(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: Path) -> None:
    for name, tensor in wanted.items():
        other = found.get(name)
        if other is None or other.shape != tensor.shape or not _close(other.float(), tensor.float()):
            raise InputError(
                f"{place}: {name} is not what the adapter beside it makes of its base; merge the adapter again, "
                "or move it away to release all weights"
            )


def _close(found: Tensor, wanted: Tensor) -> bool:
    return float((found - wanted).norm()) <= _LARGEST_DIFFERENCE * float(wanted.norm())
