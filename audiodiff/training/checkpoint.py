"""Checkpoints: a model folder with a `training/` folder inside, written beside and renamed.

`RUN/checkpoints/update-00001000/` is a complete model (averaged weights, recipe, card) and, in
`training/state.pt`, what resuming needs: raw weights, average, optimizer, update count. Everything random in
training is keyed by the update number, so that no generator state has to be kept.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from audiodiff.errors import InputError
from audiodiff.files import writing_folder

_STATE = Path("training") / "state.pt"
# What a run cannot go on with: other weights, other sounds, other parameters in the optimizer.
_REFUSED = ("model", "features", "conditioner", "data", "lora", "optimizer.name", "training.freeze")
# What changes the numbers of a run from here on, and is said in one line.
_NOTICED = ("objective", "times", "optimizer", "training")
# What of it changes none.
_FREE = (
    *("pass_seconds", "num_workers", "cache_megabytes", "statistics_clips", "log_every", "validate_every"),
    *("validation_clips", "sample_every", "sample_clips", "select_by", "finish_with", "tracker"),
    *("checkpoint_every", "keep_checkpoints", "compile", "sharding", "timeout_seconds", "patience"),
    *("spike_deviations", "posthoc_ema"),
)


class Model(Protocol):
    """What can be written into a folder: an AudioDiffusion, or an autoencoder."""

    def write(self, folder: Path, recipe: Mapping[str, Any], facts: Mapping[str, Any], card: str) -> None:
        """Writes its files into an existing folder."""
        ...


def save(run: Path, update: int, model: Model, state: Mapping[str, Any], texts: Mapping[str, Any]) -> Path:
    """Writes the checkpoint of one update and returns its folder.

    Args:
        run: the run folder.
        update: updates done.
        model: the averaged model.
        state: tensors and plain values for resuming.
        texts: `recipe`, `facts` and `card` of its write.

    Raises:
        InputError: the disk is full or cannot be written; earlier checkpoints stay whole.
    """
    folder = run / "checkpoints" / f"update-{update:08d}"
    with writing_folder(folder) as draft:
        model.write(draft, texts["recipe"], texts["facts"], texts["card"])
        (draft / _STATE).parent.mkdir()
        try:
            torch.save(dict(state), draft / _STATE)
        except RuntimeError as error:  # torch reports a full disk so
            raise OSError(str(error).splitlines()[0]) from error
        for file in (path for path in draft.rglob("*") if path.is_file()):
            with file.open(
                "rb"
            ) as written:  # a machine that fails must not leave a whole folder of empty files
                os.fsync(written.fileno())
    return folder


def newest(run: Path) -> Path | None:
    """Returns the newest checkpoint of a run, None if it has none."""
    folders = sorted((run / "checkpoints").glob("update-*"))
    return folders[-1] if folders else None


def read_state(folder: Path) -> dict[str, Any]:
    """Returns what `save` was given as `state`; no code in the file is run.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return torch.load(folder / _STATE, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{folder / _STATE}: cannot be read ({str(error).splitlines()[0]}); "
            "remove this checkpoint folder to resume from the one before"
        ) from error


def check_same(run: Path, saved: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    """Returns the keys of a recipe that differ from the one a run was begun with and change how it goes on.

    Args:
        run: its folder.
        saved: the recipe of its checkpoint.
        recipe: the one asked for.

    Raises:
        InputError: keys differ with which the checkpoint cannot be used; they are named.
    """
    refused = [key for key in _REFUSED if _at(saved, key) != _at(recipe, key)]
    if refused:
        raise InputError(
            f"{run} holds a run with another {', '.join(refused)}; give a new folder with out=..., "
            "or remove it to start again"
        )
    changed = []
    for key in _NOTICED:
        before, after = saved.get(key), recipe.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping) and key in ("optimizer", "training"):
            names = sorted(before.keys() | after.keys())
            changed += [f"{key}.{name}" for name in names if before.get(name) != after.get(name)]
        elif before != after:
            changed.append(key)
    return [key for key in changed if key.removeprefix("training.") not in _FREE]


def _at(recipe: Mapping[str, Any], path: str) -> Any:
    value: Any = recipe
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return _plain(value)


def _plain(value: Any) -> Any:
    """Returns a node without `checkpointing`, which changes the memory of a training and nothing else."""
    if not isinstance(value, Mapping):
        return value
    return {key: _plain(item) for key, item in value.items() if key != "checkpointing"}


def clean_up(run: Path) -> None:
    """Removes what a killed process left half written in a run folder, and puts back what it was replacing."""
    for draft in [*run.glob(".*.part"), *run.glob("*/.*.part")]:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)
    for old in [*run.glob(".*.old"), *run.glob("*/.*.old")]:
        place = old.with_name(old.name.removeprefix(".").rsplit(".", 2)[0])
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(place)


def prune(run: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints."""
    for folder in sorted((run / "checkpoints").glob("update-*"))[:-keep]:
        shutil.rmtree(folder, ignore_errors=True)
