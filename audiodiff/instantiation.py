"""Objects from a recipe's nodes, built only from this package's parts and torch.nn layers.

A recipe may come from anybody with a downloaded model, and `_target_` could otherwise name any code.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from audiodiff.errors import InputError

# Not all of `audio`: a recipe must not be able to write files.
_BUILDABLE = tuple(
    f"audiodiff.{part}."
    for part in (
        "diffusion",
        "audio.mel",
        "audio.representation",
        "audio.mel_representation",
        "audio.latent_representation",
        "audio.wavelet",
        "networks",
        "conditioning",
    )
)
_BUILDABLE += ("audiodiff.model.AudioDiffusion", "audiodiff.training.teacher.Teacher", "torch.nn.")
_BUILDABLE += ("audiodiff.interop.encodec.EncodecLatents",)
# Not all of `text`: phonemes are kept in a folder.
_BUILDABLE += ("audiodiff.text.front_end.TextFrontEnd",)


def instantiate(node: Any, besides: tuple[str, ...] = ()) -> Any:
    """Returns the object that a resolved recipe node describes.

    Args:
        node: of a recipe.
        besides: prefixes of names that may be built in this place besides the parts of models.

    Raises:
        InputError: a `_target_` outside the parts that may be built, an interpolation (which could make such
            a target out of text), or arguments that do not fit.
    """
    from hydra.errors import HydraException
    from hydra.utils import instantiate as hydra_instantiate
    from omegaconf.errors import OmegaConfBaseException

    _check_targets(node, _BUILDABLE + besides)
    try:
        return hydra_instantiate(node, _convert_="all")
    except (HydraException, OmegaConfBaseException) as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise InputError("recipe: " + " ".join(str(error).split())) from error


def _check_targets(node: Any, allowed: tuple[str, ...]) -> None:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                _check_target(value, allowed)
            else:
                _check_targets(value, allowed)
    elif isinstance(node, str):
        if "${" in node:
            raise InputError(f"recipe: {node!r} is an interpolation; a saved recipe holds plain values")
    elif isinstance(node, Sequence):
        for value in node:
            _check_targets(value, allowed)


def _check_target(target: Any, allowed: tuple[str, ...]) -> None:
    """Refuses a target that is not a class or function defined in an allowed package."""
    refused = InputError(f"recipe: _target_ {target!r} is refused; a model may be built only from {allowed}")
    if not isinstance(target, str) or not target.startswith(allowed):
        raise refused
    module, _, name = target.rpartition(".")
    try:
        part = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"recipe: _target_ {target!r} does not exist in this version of audiodiff"
        ) from error
    # A name that a module merely imported (os, Path) is not one of its parts.
    home = f"{getattr(part, '__module__', None)}.{getattr(part, '__qualname__', None)}"
    if not callable(part) or not home.startswith(allowed):
        raise refused
