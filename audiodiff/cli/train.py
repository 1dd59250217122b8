"""audiodiff train experiment=NAME key=value ...: Hydra composes the recipe, training/loop.py does the rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from audiodiff.cli.failure import fail
from audiodiff.errors import InputError
from audiodiff.recipes_folder import recipes_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

HYDRA_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
_CONFIG = "train"


def train(context: typer.Context) -> None:
    """Train a model: audiodiff train experiment=NAME key=value ... (Hydra; -m sweeps, --help lists recipes)."""
    run_hydra("train", context.args, _train)


def run_hydra(command: str, arguments: list[str], job: Any) -> None:
    """Composes recipes/train.yaml with the arguments and runs the job on it, or on each one of a sweep."""
    import hydra

    overrides = [argument for argument in arguments if not argument.startswith("-")]
    if overrides == arguments:
        check_overrides(overrides)
    sys.argv = [f"audiodiff {command}", *arguments]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # what is left is a bug: show where
    decorate = hydra.main(version_base="1.3", config_path=str(recipes_folder()), config_name=_CONFIG)
    decorate(job)()


def check_overrides(overrides: list[str]) -> None:
    """Composes once to find mistakes early.

    Raises:
        InputError: an unknown group, option or key, or a missing value; the message names its full path.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(recipes_folder()), version_base="1.3"):
            OmegaConf.to_container(compose(_CONFIG, overrides), resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        causes = [str(error), str(error.__cause__ or "")]
        raise InputError(" ".join(" ".join(causes).split())) from error


def recipe_of(config: DictConfig) -> dict[str, Any]:
    """Returns the resolved recipe as plain values, without the paths of this machine and the size tables."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    paths = ("data_dir", "out", "sizes")
    return {str(key): value for key, value in plain.items() if key not in paths}


def _train(config: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console

    from audiodiff.training.loop import train as run_training

    console = Console()
    folder = Path(HydraConfig.get().runtime.output_dir)
    command = "audiodiff train " + " ".join(HydraConfig.get().overrides.task)
    try:
        model = run_training(recipe_of(config), Path(config.data_dir), folder, command, console)
    except (InputError, FloatingPointError) as error:
        fail(str(error))  # here, for Hydra would say more than one line
    console.print(f"model: {model}", soft_wrap=True)
