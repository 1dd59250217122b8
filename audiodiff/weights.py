"""The weights in a model folder; those of a shipped model may be what distinguishes it from another one.

    W = W_base + B A                        (Hu et al. 2022, "LoRA", section 4.1)

A file of changes holds A [rank, in, ...] as `NAME.down` and B [out, rank] as `NAME.up` for each weight that was trained
as such a product, tensors that were trained whole by their own names, and nothing of what is the base's own. Its
metadata names the base, a shipped model, and the SHA-256 of its weights. No pickled code is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from audiodiff.errors import InputError
from audiodiff.model_folder import WEIGHTS, shipped_models

BASE, DIGEST = "base", "base_sha256"  # keys of the metadata
_DOWN, _UP = ".down", ".up"


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Returns the weights of a model folder by name; changes are added to those of the model that they belong to.

    Raises:
        InputError: a damaged file; changes to a model that is not shipped, or to another version of it, or that do not
            fit it.
    """
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no mapping
    except Exception as error:  # safetensors raises its own type for a truncated file
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from error
    if BASE not in metadata:
        return tensors
    base = shipped_models().get(metadata[BASE])
    if base is None or base.resolve() == folder.resolve():
        raise InputError(f"{path}: holds changes to the shipped model {metadata[BASE]}, which is not there")
    if weights_digest(base) != metadata.get(DIGEST):
        raise InputError(
            f"{path}: holds changes to another version of the shipped model {metadata[BASE]} than the one in {base}; "
            "install both from one version of audiodiff"
        )
    return with_changes(read_weights(base), tensors, str(path))


def weights_digest(folder: Path) -> str:
    """Returns the SHA-256 of a model folder's weights, hexadecimal."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def changes_file(tensors: Mapping[str, Tensor], base: Path) -> bytes:
    """Returns a file of changes to the shipped model in a folder.

    Args:
        tensors: as the file holds them.
        base: folder of the model that they belong to.
    """
    return to_bytes(dict(tensors), {BASE: base.name, DIGEST: weights_digest(base)})


def change_names(weight: str) -> tuple[str, str]:
    """Returns the names of A and B of a weight in a file of changes."""
    return weight + _DOWN, weight + _UP


def with_changes(base: Mapping[str, Tensor], changes: Mapping[str, Tensor], named: str) -> dict[str, Tensor]:
    """Returns the weights of a base with changes, in float32 where they were changed.

    Args:
        base: weights by name.
        changes: as a file of them holds them.
        named: the file, for the message.

    Raises:
        InputError: one that does not fit.
    """
    weights = dict(base)
    for name, tensor in changes.items():
        weight = name.removesuffix(_DOWN).removesuffix(_UP)
        down, up = (changes.get(each) for each in change_names(weight))
        if weight == name:
            weights[name] = tensor
        elif weight not in base or down is None or up is None or not _fit(down, up, base[weight]):
            raise InputError(f"{named}: the change of {weight} does not fit the model that it belongs to")
        elif name.endswith(_UP):
            weights[weight] = base[weight].float() + low_rank_product(down.float(), up.float(), base[weight])
    return weights


def low_rank_product(down: Tensor, up: Tensor, weight: Tensor) -> Tensor:
    """Returns B A in the shape of the weight [out, in, ...], for A [rank, in, ...] and B [out, rank, ...]."""
    return (up.flatten(1) @ down.flatten(1)).view_as(weight)


def _fit(down: Tensor, up: Tensor, weight: Tensor) -> bool:
    return down.shape[1:] == weight.shape[1:] and up.flatten(1).shape == (weight.shape[0], down.shape[0])
