"""Between a run and its newest checkpoint: what is written of a run, and how a run goes on from there.

A checkpoint is whole, whatever the number of processes that wrote it and whether they shared the weights: it can be
resumed by any other number. On as many processes and passes as before the numbers are the same bit for bit on a CPU;
on others the clips and draws of every update are the same and the gradients differ by rounding, 1e-6 of their range.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from audiodiff.errors import InputError
from audiodiff.model import FACTS, AudioDiffusion, load
from audiodiff.training import checkpoint, engine
from audiodiff.training.guards import GUARDS, MOST_ROLLBACKS, SPIKES, forget_after, record
from audiodiff.training.lora import trained_weights
from audiodiff.training.run import Run, texts

_KEPT_FACTS = ("validation_loss", "init", "init_sha256")


def save_checkpoint(run: Run) -> None:
    """Saves the run at its present update; one process writes, the others wait.

    Raises:
        InputError: on all processes, if the disk is full or cannot be written; earlier checkpoints stay.
        RuntimeError: the processes hold different weights.
    """
    engine.check_agreement(run.average)
    shared = engine.whole({"raw": run.model.state_dict(), "optimizer": run.optimizer.state_dict()})
    failure: InputError | None = None
    if run.main:
        try:
            checkpoint.save(run.folder, run.update, run.finished_model, shared | _state(run), texts(run))
            checkpoint.prune(run.folder, run.settings["keep_checkpoints"])
        except InputError as error:
            failure = error
    failed = engine.total(torch.tensor([float(failure is not None)], device=run.accelerator.device))
    if float(failed):
        raise failure or InputError(f"{run.folder}: the main process could not write a checkpoint")


def save_or_warn(run: Run, console: Console) -> None:
    """Saves the run, or says that it could not: a full disk is no reason to stop before the end."""
    try:
        save_checkpoint(run)
    except InputError as error:
        if run.main:
            console.print(
                f"warning: no checkpoint of update {run.update}: {error}; the one before stays, and the next is tried "
                f"in {run.settings['checkpoint_every']} updates",
                style="yellow",
                soft_wrap=True,
                markup=False,
            )


def _state(run: Run) -> dict[str, Any]:
    """Returns tensors and plain values from which the run goes on, besides raw weights and optimizer."""
    state = {
        "averaged_updates": int(run.average.n_averaged),
        "update": run.update,
        "seconds": run.seconds,
        "rollbacks": run.rollbacks,
        "guard": run.guard.state_dict(),
    }
    if run.scale is not None:
        state["loss_scale"] = [run.scale.value, run.scale.good]
    if run.recipe["lora"] is not None:  # the merged weights in the folder do not tell A from B
        state["averaged"] = trained_weights(run.averaged_model)
    if run.posthoc is not None:
        state["posthoc_ema"] = run.posthoc.state_dict()
    return state


def resume(run: Run, console: Console) -> None:
    """Brings the run to its newest checkpoint, if it has one.

    Raises:
        InputError: the checkpoint is damaged or belongs to a recipe that cannot go on from it.
    """
    newest = checkpoint.newest(run.folder)
    if newest is None:
        return
    saved = load(newest)
    changed = checkpoint.check_same(run.folder, saved.recipe, run.recipe)
    state = checkpoint.read_state(newest)
    if state["update"] > run.settings["updates"]:
        raise InputError(
            f"{run.folder} holds a run of {state['update']} updates, asked for are {run.settings['updates']}; "
            "give a new folder with out=..., or remove it to start again"
        )
    if changed and run.main:
        console.print(
            f"warning: goes on with another {', '.join(changed)} than the run began with; its result is that of "
            "neither recipe",
            style="yellow",
            soft_wrap=True,
            markup=False,
        )
    facts = json.loads((newest / FACTS).read_text(encoding="utf-8"))
    run.facts |= {key: facts[key] for key in _KEPT_FACTS if key in facts}
    _restore(run, saved, state)
    run.rollbacks, run.seconds = state.get("rollbacks", 0), state["seconds"]
    run.guard.load_state_dict(state.get("guard", {}))


def roll_back(run: Run, console: Console) -> None:
    """Takes the run to its newest checkpoint again, from where it draws other noise.

    Raises:
        FloatingPointError: there is no checkpoint, or it has been gone back to three times.
    """
    newest, reached, before = checkpoint.newest(run.folder), run.update, run.rollbacks
    advice = "lower optimizer.lr or training.clip_norm, or train with training.precision=no"
    story = f"{run.guard.streak} updates in a row up to {reached} had a loss or gradient that is not finite"
    if newest is None:
        raise FloatingPointError(f"{story}, and there is no checkpoint to go back to; {advice}")
    state = checkpoint.read_state(newest)
    if before + 1 - state.get("rollbacks", 0) > MOST_ROLLBACKS:
        raise FloatingPointError(f"{story}, {MOST_ROLLBACKS} times from update {state['update']}; {advice}")
    skipped = run.guard.skipped, run.guard.overflows
    _restore(run, load(newest), state)
    run.rollbacks = before + 1
    run.guard.load_state_dict(state["guard"])
    run.guard.skipped, run.guard.overflows = skipped
    if run.main:
        console.print(
            f"{story}: going back to update {run.update} with other noise", style="yellow", soft_wrap=True
        )
        record(run.folder / GUARDS, {"update": run.update, "event": "rollback", "from": reached})


def _restore(run: Run, saved: AudioDiffusion, state: dict[str, Any]) -> None:
    """Gives the run the weights, averages and optimizer of a checkpoint."""
    engine.release(run.step)
    present = run.model.state_dict()
    run.model.load_state_dict({name: engine.like(present[name], w) for name, w in state["raw"].items()})
    averaged_weights = state["raw"] | state["averaged"] if "averaged" in state else saved.state_dict()
    run.average.module.load_state_dict(averaged_weights)
    run.average.n_averaged.fill_(state["averaged_updates"])
    if run.posthoc is not None:
        run.posthoc.load_state_dict(state.get("posthoc_ema"))
    run.optimizer.load_state_dict(_shared_moments(run, state["optimizer"]))
    if run.scale is not None and "loss_scale" in state:
        run.scale.value, run.scale.good = state["loss_scale"]
    run.update = state["update"]


def _shared_moments(run: Run, state: dict[str, Any]) -> dict[str, Any]:
    """Returns an optimizer's state with its moments sharded as the parameters they belong to."""
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    of = dict(zip(numbers, parameters, strict=True))

    def placed(number: int, moments: dict[str, Any]) -> dict[str, Any]:
        return {
            name: engine.like(of[number], value) if isinstance(value, Tensor) else value
            for name, value in moments.items()
        }

    return state | {"state": {number: placed(number, moments) for number, moments in state["state"].items()}}


def forget_the_future(run: Run) -> None:
    """Removes what a process that died later wrote in the log about updates that are to come again."""
    if run.main:
        for path in (run.folder / GUARDS, run.folder / SPIKES):
            forget_after(path, run.update)
