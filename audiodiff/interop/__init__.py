"""Foreign checkpoints, read without executing anything in them and rearranged into this library's networks.

Each project has one module that knows its parameter names; what they share is here. An importer says for
every parameter of our network which of theirs it is made of, so that nothing is left over on either side.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from audiodiff.errors import InputError

Names = Mapping[str, tuple[str, ...]]
"""For each of our parameter names, the foreign ones it is made of, concatenated along their first axis."""

_PARALLEL_PREFIX = "module."
_HALVES = (torch.float16, torch.bfloat16)


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU: `.safetensors`, or anything `torch.load` reads with weights_only.

    Raises:
        InputError: the file is absent, damaged, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a checkpoint")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged or foreign file raises depends on the byte it breaks at
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{path}: not a checkpoint of tensors and plain values ({reason[0] if reason else 'empty file'})"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: got a {type(content).__name__}, expected a dictionary of tensors")
    return content


def require_tensors(content: object, source: Path | str) -> dict[str, Tensor]:
    """Returns the content as named tensors: half precision in float32, without DataParallel's prefix.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{source}: got no dictionary of tensors where the weights should be")
    prefix = _PARALLEL_PREFIX if all(key.startswith(_PARALLEL_PREFIX) for key in content) else ""
    return {
        key.removeprefix(prefix): value.float() if value.dtype in _HALVES else value
        for key, value in content.items()
    }


def count_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    """Returns 1 + the largest n among the keys `prefix`n.…, 0 if there is none."""
    indices = [key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)]
    return max((int(index) + 1 for index in indices if index.isdigit()), default=0)


def require_names(state: Mapping[str, Tensor], names: Names, source: Path | str) -> None:
    """Checks that the checkpoint holds every parameter that `names` needs and no other.

    Raises:
        InputError: naming every parameter that is missing or not known.
    """
    needed = {key for keys in names.values() for key in keys}
    missing, unexpected = sorted(needed - state.keys()), sorted(state.keys() - needed)
    if missing or unexpected:
        raise InputError(
            f"{source}: the weights do not fit the architecture; "
            f"missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(unexpected) or 'none'}"
        )


def concatenate(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Returns our parameters, each joined from the foreign ones that `names` lists for it."""
    return {
        ours: state[theirs[0]] if len(theirs) == 1 else torch.cat([state[key] for key in theirs])
        for ours, theirs in names.items()
    }


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: Path | str) -> None:
    """Copies weights into the network.

    Raises:
        InputError: naming every parameter whose shape differs.
    """
    own = network.state_dict()
    wrong = [
        f"{key} is {list(weights[key].shape)}, expected {list(own[key].shape)}"
        for key in own
        if weights[key].shape != own[key].shape
    ]
    if wrong:
        raise InputError(f"{source}: shapes that do not fit the architecture: {'; '.join(wrong)}")
    network.load_state_dict(dict(weights))
