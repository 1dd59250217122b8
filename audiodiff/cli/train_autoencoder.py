"""audiodiff train-autoencoder data=NAME key=value ...: Hydra composes recipes/train_autoencoder.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from audiodiff.cli.failure import fail
from audiodiff.cli.train import data_location, run_hydra
from audiodiff.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIG = "train_autoencoder"


def train_autoencoder(context: typer.Context) -> None:
    """Train an autoencoder, whose latents a model can diffuse: audiodiff train-autoencoder data=NAME key=value ..."""
    run_hydra("train-autoencoder", context.args, _train, CONFIG)


def autoencoder_recipe_of(config: DictConfig) -> dict[str, Any]:
    """Returns the resolved recipe as plain values, its network under `autoencoder`, without paths and size tables."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    left_out = ("data_dir", "out", "compression", "compression_sizes")
    recipe = {str(key): value for key, value in plain.items() if key not in left_out}
    return recipe | {"autoencoder": plain["compression"]}


def _train(config: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console

    from audiodiff.training.autoencoder import train_autoencoder as run_training
    from audiodiff.training.engine import join_processes, leave_processes

    join_processes()
    console, folder = Console(), Path(HydraConfig.get().runtime.output_dir)
    command = "audiodiff train-autoencoder " + " ".join(HydraConfig.get().overrides.task)
    try:
        made = run_training(autoencoder_recipe_of(config), data_location(config), folder, command, console)
    except (InputError, FloatingPointError) as error:
        fail(str(error))  # here, for Hydra would say more than one line
    leave_processes()
    console.print(f"autoencoder: {made}", soft_wrap=True)
