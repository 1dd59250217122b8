"""audiodiff statistics experiment=NAME ...: measures what the model normalises by, before training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from audiodiff.cli.failure import fail
from audiodiff.cli.train import data_location, recipe_of, run_hydra
from audiodiff.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def statistics(context: typer.Context) -> None:
    """Measure a recipe's statistics into the run folder (train does it when they are not there)."""
    run_hydra("statistics", context.args, _statistics)


def _statistics(config: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console

    from audiodiff.model import build
    from audiodiff.training.run import open_split, training_statistics
    from audiodiff.training.saved_autoencoder import adopt

    recipe = recipe_of(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        train_set = open_split(recipe, data_location(config), "train", Console())
        model = build(recipe)
        adopt(model, recipe["autoencoder"])
        training_statistics(recipe, model, train_set, folder, Console())
    except InputError as error:
        fail(str(error))  # here, for Hydra would say more than one line
