"""Foreign checkpoints, read without executing anything in them and rearranged into this library's networks.

Each project has one module that knows its parameter names; what they share is here. An importer says for
every parameter of our network which of theirs it is made of, so that nothing is left over on either side.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from audiodiff.errors import InputError

Names = Mapping[str, tuple[str, ...]]
"""For each of our parameter names, the foreign ones it is made of, concatenated along their first axis."""

_PARALLEL_PREFIX = "module."
_LISTED = 6  # names in a message
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
        with warnings.catch_warnings(action="ignore"):  # of pickle protocols that torch knows too little of
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged or foreign file raises depends on the byte it breaks at
        raise InputError(
            f"{path}: not a checkpoint of tensors and plain values ({_reason(error)})"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: got a {type(content).__name__}, expected a dictionary of tensors")
    return content


def _reason(error: Exception) -> str:
    """Returns why a file cannot be read, without torch's advice to run what is in it."""
    refused = re.search(r"(?:GLOBAL|Unsupported (?:class|global:? GLOBAL)) ([\w.]+)", str(error))
    if refused:
        return f"it holds {refused[1]}, which would have to be run, and nothing in a checkpoint is run"
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or holds objects that would have to be run, and nothing in a checkpoint is run"
    if isinstance(error, EOFError):
        return "it is empty, or ends too soon"
    text = " ".join(str(error).split())
    return "it is damaged or cut short" if "zip archive" in text else f"{type(error).__name__}: {text[:200]}"


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
        InputError: naming the first parameters that are missing or not known, and how many there are.
    """
    needed = {key for keys in names.values() for key in keys}
    missing, unexpected = sorted(needed - state.keys()), sorted(state.keys() - needed)
    if missing or unexpected:
        raise InputError(
            f"{source}: the weights do not fit the architecture; "
            f"missing: {listed(missing)}; unexpected: {listed(unexpected)}"
        )


def listed(names: Sequence[str]) -> str:
    """Returns the first names and how many more there are, for messages."""
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more or "none"


def concatenate(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Returns our parameters, each joined from the foreign ones that `names` lists for it."""
    return {
        ours: state[theirs[0]] if len(theirs) == 1 else torch.cat([state[key] for key in theirs])
        for ours, theirs in names.items()
    }


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: Path | str) -> None:
    """Copies weights into the network.

    Raises:
        InputError: naming the first parameters whose shape differs, and how many there are.
    """
    own = network.state_dict()
    wrong = [
        f"{key} is {list(weights[key].shape)}, expected {list(own[key].shape)}"
        for key in own
        if weights[key].shape != own[key].shape
    ]
    if wrong:
        raise InputError(f"{source}: shapes that do not fit the architecture: {listed(wrong)}")
    network.load_state_dict(dict(weights))
