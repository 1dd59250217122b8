"""train(): opens a run, goes on from its newest checkpoint, updates, watches and saves until it is done.

Everything is counted in updates, and everything random is keyed by the number of the update and the position of the
clip in it: a run that died goes on from its last checkpoint with the numbers it would have drawn.
"""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

from accelerate.utils import gather_object
from rich.console import Console

from audiodiff.data.problems import refuse_unreadable
from audiodiff.errors import InputError
from audiodiff.training.engine import lost_process
from audiodiff.training.guards import GUARDS, SPIKES, record
from audiodiff.training.interruption import PreemptedError
from audiodiff.training.resuming import (
    forget_the_future,
    resume,
    roll_back,
    save_checkpoint,
    save_or_warn,
)
from audiodiff.training.run import Run, open_run, save_model
from audiodiff.training.updates import Observed, one_update, training_batches
from audiodiff.training.watching import Watch


def train(recipe: dict[str, Any], data_dir: Path | str, folder: Path, command: str, console: Console) -> Path:
    """Trains until recipe["training"]["updates"] and returns the folder of the finished model.

    Args:
        recipe: the resolved recipe (see recipes/train.yaml), without paths.
        data_dir: a prepared corpus, or the folder or address of its shards.
        folder: where checkpoints, log and model go; a run found there is resumed.
        command: what the user typed, for the record.
        console: where progress is shown.

    Raises:
        InputError: data, recipe and run folder that do not fit one another; Ctrl-C or SIGTERM, after saving; another
            process of the training died.
        PreemptedError: SIGUSR1 or SIGUSR2, after saving.
        FloatingPointError: loss or gradient stay not finite; checkpoints from before are kept.
    """
    run = open_run(recipe, data_dir, folder, command, console)
    resume(run, console)
    forget_the_future(run)
    try:
        with run.stop:
            last = None
            while run.update < run.settings["updates"] and not (last and last.stopping):
                last = go_on(run, console)
            if last and last.stopping and run.update < run.settings["updates"]:
                stop(run, last)
    except RuntimeError as error:
        if not lost_process(error):
            raise
        raise InputError(
            f"another process of this training died at about update {run.update} ({str(error).splitlines()[0]}); "
            "the same command goes on from the newest checkpoint"
        ) from error
    if run.main:
        save_model(run)
    run.accelerator.wait_for_everyone()
    return folder / "model"


def go_on(run: Run, console: Console) -> Observed:
    """Updates until the run is done, is asked to stop or had to go back to a checkpoint; returns the last update."""
    batches = training_batches(run)
    started = monotonic() - run.seconds
    wanted = False
    with Watch(run, console) as watch:
        while True:
            observed = one_update(run, batches)
            run.seconds = monotonic() - started
            judge(run, observed, console)
            watch.observe(observed)
            if run.guard.exhausted:
                roll_back(run, console)
                return observed
            watch.after_update()
            done = run.update == run.settings["updates"]
            wanted = wanted or run.due("checkpoint_every")
            # While updates are skipped nobody knows whether the weights before them are good.
            if done or (wanted and not run.guard.streak):
                watch.flush()
                if done:
                    save_checkpoint(run)
                else:
                    save_or_warn(run, console)
                wanted = False
            if done or observed.stopping:
                return observed


def judge(run: Run, observed: Observed, console: Console) -> None:
    """Counts and writes down what is to be known of an update that was not as it should be."""
    folder, entry = run.folder, {"update": observed.update}
    spike = False
    if observed.skipped:
        run.guard.skip(observed.overflow)
    else:
        spike = run.guard.accept(observed.loss)
    run.guard.unread(list(observed.problems))
    refuse_unreadable(run.guard.unreadable, observed.update * run.batching.clips, run.guard.problems)
    ids = gather_object(list(observed.ids)) if spike and run.batching.ranks > 1 else observed.ids
    if not run.main:
        return
    if spike:
        limit = {"loss": observed.loss, "limit": run.guard.limit(), "clips": list(ids)}
        record(folder / SPIKES, entry | limit)
    if observed.skipped:
        norm = float(observed.gradient_norm)
        values = {"event": "skipped", "loss": repr(observed.loss), "gradient_norm": repr(norm)}
        record(folder / GUARDS, entry | values | {"overflow": observed.overflow})
        if run.guard.streak == 1:
            console.print(
                f"update {observed.update} is skipped: loss {observed.loss:.4g}, gradient norm {norm:.4g}",
                style="yellow",
                soft_wrap=True,
            )
    for problem in observed.problems:
        record(folder / GUARDS, entry | {"event": "unreadable", "clip": problem})
        console.print(f"warning: {problem}", style="yellow", soft_wrap=True, markup=False)


def stop(run: Run, last: Observed) -> None:
    """Saves a run that was asked to stop, tells the launcher and raises what ends the command."""
    save_checkpoint(run)
    words = f"at update {run.update}, which is saved in {run.folder}; the same command goes on from there"
    if last.preempted:
        run.stop.tell_launcher()
        raise PreemptedError(f"preempted {words}")
    raise InputError(f"interrupted {words}")
