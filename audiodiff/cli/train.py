"""audiodiff train experiment=NAME key=value ...: Hydra composes the recipe, training/loop.py does the rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from audiodiff.cli.failure import fail
from audiodiff.errors import InputError
from audiodiff.recipes_folder import recipes_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

HYDRA_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
_CONFIG = "train"
_FLAGS = ("-m", "--multirun", "--resolve", "--help", "-h")
_NAMING = "hydra.job.config.override_dirname.exclude_keys"


def train(context: typer.Context) -> None:
    """Train a model: audiodiff train experiment=NAME key=value ... (Hydra; -m sweeps, --help lists recipes)."""
    run_hydra("train", context.args, _train)


def run_hydra(command: str, arguments: list[str], job: Any, config: str = _CONFIG) -> None:
    """Composes recipes/train.yaml, or another root, with the arguments and runs the job on it or on each of a sweep."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    overrides = [argument for argument in arguments if not argument.startswith("-")]
    if overrides == arguments:
        check_overrides(overrides, config)
    # Hydra's parser stops at a flag that stands among the overrides.
    flags = [argument for argument in arguments if argument in _FLAGS]
    others = [argument for argument in arguments if argument not in _FLAGS]
    sys.argv = [f"audiodiff {command}", *flags, *others, *sweep_naming(arguments)]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # what is left is a bug: show where
    decorate = hydra.main(version_base="1.3", config_path=str(recipes_folder()), config_name=config)
    try:
        decorate(job)()
    except (HydraException, OmegaConfBaseException) as error:  # arguments with dashes were not checked before
        raise InputError(_message(error)) from error


def sweep_naming(arguments: list[str]) -> list[str]:
    """Returns an argument that names the folders of a sweep's runs by what is swept and by nothing else.

    Raises:
        InputError: an override that is none.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if not {"-m", "--multirun"} & set(arguments) or any(_NAMING in argument for argument in arguments):
        return []
    given = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    try:
        overrides = OverridesParser.create().parse_overrides(given)
    except HydraException as error:
        raise InputError(_message(error)) from error
    same = {override.key_or_group for override in overrides if not override.is_sweep_override()}
    names = ",".join(f"'{name}'" for name in sorted(same | {"data_dir", "out"}))
    return [f"{_NAMING}=[{names}]"]


def check_overrides(overrides: list[str], config: str = _CONFIG) -> None:
    """Composes once to find mistakes early.

    Args:
        overrides: of the command line.
        config: the root that they change.

    Raises:
        InputError: an unknown group, option or key, or a missing value; the message names its full path.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(recipes_folder()), version_base="1.3"):
            OmegaConf.to_container(compose(config, overrides), resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_message(error)) from error


def _message(error: Exception) -> str:
    """Returns what a composition failed with and why, in one line."""
    return " ".join(f"{error} {error.__cause__ or ''}".split())


def recipe_of(config: DictConfig) -> dict[str, Any]:
    """Returns the resolved recipe as plain values, without the paths of this machine and the size tables.

    The table of symbols of a text is filled in, so that ids mean the same wherever the model goes, and so is the
    autoencoder of a model of latents, as its folder describes it.

    Raises:
        InputError: a text that cannot be.
    """
    from omegaconf import OmegaConf

    if config.text is not None:
        from audiodiff.instantiation import instantiate

        front_end = instantiate(OmegaConf.to_container(config.text, resolve=True))
        filled = {"text": {"symbols": front_end.symbols}, "vocabulary": front_end.vocabulary}
        config = cast("DictConfig", OmegaConf.merge(config, filled))
    if config.autoencoder is not None and "compression" in config:
        from audiodiff.training.saved_autoencoder import autoencoder_node

        config = config.copy()
        OmegaConf.update(config, "compression", autoencoder_node(config.autoencoder), merge=False)
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    paths = ("data_dir", "out", "sizes", "text_sizes", "compression", "compression_sizes")
    return {str(key): value for key, value in plain.items() if key not in paths}


def data_location(config: DictConfig) -> Path | str:
    """Returns where the data is: a folder, or an address that pathlib would mistake for one."""
    return str(config.data_dir) if "://" in config.data_dir else Path(config.data_dir)


def _train(config: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from rich.console import Console

    from audiodiff.training.engine import join_processes, leave_processes
    from audiodiff.training.heartbeat import INTERRUPTED, fail_before_start, read_status
    from audiodiff.training.interruption import TRY_AGAIN, PreemptedError
    from audiodiff.training.loop import train as run_training

    join_processes()
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    folder = Path(HydraConfig.get().runtime.output_dir)
    command = "audiodiff train " + " ".join(HydraConfig.get().overrides.task)
    try:
        model = run_training(recipe_of(config), data_location(config), folder, command, console)
    except PreemptedError as error:
        print(f"audiodiff: {error}", file=sys.stderr)
        sys.exit(TRY_AGAIN)
    except (InputError, FloatingPointError) as error:
        fail_before_start(folder, config.experiment, str(error))
        interrupted = (read_status(folder) or {}).get("state") == INTERRUPTED
        if HydraConfig.get().mode == RunMode.MULTIRUN and not interrupted:
            raise  # the sweep goes on with its other runs
        fail(str(error))  # here, for Hydra would say more than one line
    except Exception as error:
        fail_before_start(folder, config.experiment, f"{type(error).__name__}: {error}")
        raise
    leave_processes()
    console.print(f"model: {model}", soft_wrap=True)
