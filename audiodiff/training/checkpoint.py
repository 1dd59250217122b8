"""Checkpoints: a model folder with a `training/` folder inside, written beside and renamed.

`RUN/checkpoints/update-00001000/` is a complete model (averaged weights, recipe, card) and, in
`training/state.pt`, what resuming needs: raw weights, average, optimizer, update count. Everything random in
training is keyed by the update number, so that no generator state has to be kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from audiodiff.errors import InputError
from audiodiff.files import writing_folder
from audiodiff.model import AudioDiffusion

_STATE = Path("training") / "state.pt"
# What must not change on resuming. The model that a run was initialised from is in its weights by then.
_SAME_RUN = ("model", "features", "data", "objective", "times", "optimizer", "lora")
_SAME_TRAINING = (
    "batch_size",
    "accumulate",
    "clip_norm",
    "ema_decay",
    "label_drop",
    "freeze",
    "precision",
    "seed",
)


def save(
    run: Path, update: int, model: AudioDiffusion, state: Mapping[str, Any], texts: Mapping[str, Any]
) -> Path:
    """Writes the checkpoint of one update and returns its folder.

    Args:
        run: the run folder.
        update: updates done.
        model: the averaged model.
        state: tensors and plain values for resuming.
        texts: `recipe`, `facts` and `card` of AudioDiffusion.write.

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


def check_same(run: Path, saved: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """Refuses to go on with a run under a recipe that would have made another one.

    Args:
        run: its folder.
        saved: the recipe of its checkpoint.
        recipe: the one asked for.

    Raises:
        InputError: naming what differs.
    """
    changed = [key for key in _SAME_RUN if saved.get(key) != recipe.get(key)]
    before, after = saved["training"], recipe["training"]
    changed += [f"training.{key}" for key in _SAME_TRAINING if before.get(key) != after[key]]
    if changed:
        raise InputError(
            f"{run} holds a run with another {', '.join(changed)}; give a new folder with out=..., "
            "or remove it to start again"
        )


def prune(run: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints."""
    for folder in sorted((run / "checkpoints").glob("update-*"))[:-keep]:
        shutil.rmtree(folder, ignore_errors=True)
