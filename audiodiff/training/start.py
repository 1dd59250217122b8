"""What the weights of a training are before its first update: taken from a model, frozen, adapted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from torch import nn

from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion
from audiodiff.training.initialization import freeze, initialize, provenance
from audiodiff.training.lora import adapt, check_new, low_rank
from audiodiff.training.saved_autoencoder import check_kept, frozen_weights
from audiodiff.training.taken_parts import take_parts


def start(
    model: AudioDiffusion, recipe: Mapping[str, Any], resumed: bool, console: Console
) -> dict[str, Any]:
    """Prepares a model for training as the recipe's init, training.freeze and lora say; returns facts for the record.

    Args:
        model: as it was built, with statistics; changed in place.
        recipe: resolved.
        resumed: whether a checkpoint holds the weights, so that init is not read again.
        console: told what was taken.

    Raises:
        InputError: a model that does not fit, parts that are not there, or lora without a model to adapt.
    """
    settings = None if recipe["lora"] is None else low_rank(recipe["lora"])
    if recipe["init_parts"] is not None and (recipe["init"] is None or settings is not None):
        raise InputError("init_parts: names parts of the model at init=FOLDER, and goes with no lora")
    facts: dict[str, Any] = {"parameters": parameter_count(model)}
    if recipe["init"] is not None and not resumed:
        latents = frozen_weights(model)
        parts = recipe["init_parts"]
        taken = (
            initialize(model, recipe["init"]) if parts is None else take_parts(model, recipe["init"], parts)
        )
        check_kept(model, latents, recipe["init"])
        if settings is not None:
            check_new(taken, settings)
        console.print(taken.describe(recipe["init"]), soft_wrap=True)
        facts |= provenance(recipe["init"])
    elif settings is not None and not resumed:
        raise InputError("lora adapts a trained model; name its folder with init=FOLDER")
    freeze(model, recipe["training"]["freeze"])
    if settings is not None:
        adapt(model, settings, recipe["training"]["seed"])
    trained = [weight.numel() for weight in model.parameters() if weight.requires_grad]
    return facts | {"trained_parameters": sum(trained)}


def parameter_count(model: nn.Module) -> int:
    """Returns the number of weights, trained or not."""
    return sum(parameter.numel() for parameter in model.parameters())
