"""Where runs stand, read from their folders: running, killed, finished, failed or empty ones.

A run's own account is its status.json (heartbeat.py); what it left is seen from its checkpoints and its model, so that
a run of which only those were copied can be read too. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import time
from typing import Any

from audiodiff.errors import InputError
from audiodiff.training.heartbeat import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    RUNNING,
    STATUS,
    alive,
    read_json,
    read_status,
)

EMPTY, STOPPED = "empty", "stopped"
_SILENCE_SECONDS = 600.0  # a run elsewhere may validate for minutes between two signs of life
_FACTS = "training.json"


@dataclass(frozen=True)
class Standing:
    """Where one run stands.

    Attributes:
        folder: of the run.
        state: running, finished, interrupted (by a signal; saved), failed (with `error`), stopped (killed) or empty.
        experiment: name of the recipe.
        update: updates done, as far as is known; after a kill those of the last sign of life.
        updates: wanted in all.
        updates_per_second: lately.
        audio_seconds_per_second: of all processes together.
        seconds: trained, all starts together.
        seconds_left: at the present speed; None when it does not run.
        loss: mean of the last look.
        validation_loss: the last.
        best: name, value and update of the best checkpoint.
        checkpoint: update of the newest checkpoint, from which the run would go on.
        checkpoint_age_seconds: since it was written.
        silent_seconds: since the run's last sign of life.
        skipped: updates left out because their loss or gradient was not finite.
        spikes: updates whose loss stood out.
        rollbacks: returns to an earlier checkpoint.
        corrupt_files: recordings that could not be read.
        parameters: of the model.
        model: whether the finished model is there.
        host: that runs it or ran it.
        error: why it failed.
    """

    folder: str
    state: str
    experiment: str | None = None
    update: int | None = None
    updates: int | None = None
    updates_per_second: float | None = None
    audio_seconds_per_second: float | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    loss: float | None = None
    validation_loss: float | None = None
    best: dict[str, Any] | None = None
    checkpoint: int | None = None
    checkpoint_age_seconds: float | None = None
    silent_seconds: float | None = None
    skipped: int = 0
    spikes: int = 0
    rollbacks: int = 0
    corrupt_files: int = 0
    parameters: int | None = None
    model: bool = False
    host: str | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values."""
        return asdict(self)


def standing(folder: Path) -> Standing:
    """Returns where the run of a folder stands.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is no folder; expected a run folder, as `audiodiff train` makes in exp/NAME"
        )
    status = read_status(folder)
    facts = read_json(folder / "model" / _FACTS)
    found = _of_files(folder, facts)
    if status is None:
        return found
    known = {name: status[name] for name in Standing.__dataclass_fields__ if name in status} | {
        "folder": str(folder),
        "checkpoint": found.checkpoint,
        "checkpoint_age_seconds": found.checkpoint_age_seconds,
        "model": found.model,
        "best": status.get("best") or found.best,
        "silent_seconds": round(max(0.0, time() - status["written"]), 1),
    }
    known["state"] = _state(status, found)
    if known["state"] != RUNNING:
        known |= {"seconds_left": None}
    return Standing(**known)


def _state(status: dict[str, Any], found: Standing) -> str:
    """Returns the state that a status tells, doubted: its process may have died, also on the way to the model."""
    if status["state"] in (INTERRUPTED, FAILED):
        return str(status["state"])
    complete = found.model and found.checkpoint == status.get("updates")
    if not complete and alive(status, _SILENCE_SECONDS):
        return RUNNING
    return FINISHED if complete else STOPPED


def _of_files(folder: Path, model_facts: dict[str, Any] | None) -> Standing:
    """Returns what checkpoints and model tell, for runs without a status of their own."""
    checkpoints = sorted((folder / "checkpoints").glob("update-*"))
    newest = checkpoints[-1] if checkpoints else None
    facts = model_facts or (read_json(newest / _FACTS) if newest else None) or {}
    best = read_json(folder / "checkpoints" / "best" / _FACTS)
    found = Standing(
        str(folder),
        FINISHED if model_facts else STOPPED if newest else EMPTY,
        experiment=facts.get("experiment"),
        update=facts.get("updates"),
        updates=facts.get("updates") if model_facts else None,
        seconds=facts.get("train_seconds"),
        validation_loss=facts.get("validation_loss"),
        best=None if best is None else best.get("selected"),
        parameters=facts.get("parameters"),
        model=model_facts is not None,
    )
    if newest is None:
        return found
    return replace(
        found,
        checkpoint=int(newest.name.removeprefix("update-")),
        checkpoint_age_seconds=round(max(0.0, time() - newest.stat().st_mtime), 1),
    )


def run_folders(places: Sequence[Path]) -> list[Path]:
    """Returns the run folders among and below places; a place without any run counts as one that is empty.

    Raises:
        InputError: a place that is no folder.
    """
    found: list[Path] = []
    for place in places:
        if not place.is_dir():
            raise InputError(
                f"{place}: is no folder; expected a run folder, as `audiodiff train` makes in exp/NAME"
            )
        below = [place] if _is_run(place) else sorted(filter(_is_run, _folders(place)))
        found += [folder for folder in below or [place] if folder not in found]
    return found


def _is_run(folder: Path) -> bool:
    return (
        (folder / STATUS).is_file()
        or (folder / "checkpoints").is_dir()
        or (folder / ".hydra" / "overrides.yaml").is_file()
    )


def _folders(place: Path, depth: int = 4) -> list[Path]:
    """Returns the folders below a place; not those within a run, which may be many."""
    below = [path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")]
    deeper = (
        [] if depth == 0 else [p for path in below if not _is_run(path) for p in _folders(path, depth - 1)]
    )
    return below + deeper


def one_line(run: Standing) -> str:
    """Returns a run in one line: state, progress, loss, what was best, what went wrong."""
    parts = [run.state.ljust(len(INTERRUPTED)), run.folder]
    if run.update is not None:
        of = f"/{run.updates}" if run.updates else ""
        share = f" ({100 * run.update / run.updates:.0f} %)" if run.updates else ""
        parts.append(f"update {run.update}{of}{share}")
    if run.state == RUNNING and run.updates_per_second:
        parts.append(f"{run.updates_per_second:.3g}/s")
    if run.seconds_left is not None:
        parts.append(f"{duration(run.seconds_left)} left")
    if run.loss is not None:
        parts.append(f"loss {run.loss:.4g}")
    if run.validation_loss is not None:
        parts.append(f"validation {run.validation_loss:.4g}")
    if run.best:
        parts.append(f"best {run.best['name']} {run.best['value']:.4g} at {run.best['update']}")
    parts += troubles(run)
    if run.error:
        parts.append(run.error)
    return "  ".join(parts)


def rows(run: Standing) -> dict[str, str]:
    """Returns what is known of a run, by heading."""
    of = f" of {run.updates} ({100 * (run.update or 0) / run.updates:.1f} %)" if run.updates else ""
    silent = "" if run.silent_seconds is None else f", last sign of life {duration(run.silent_seconds)} ago"
    speed = None if run.updates_per_second is None else f"{run.updates_per_second:.3g} updates/s"
    if speed and run.audio_seconds_per_second is not None:
        speed += f", {run.audio_seconds_per_second:.3g} s of audio per second"
    best = run.best and f"{run.best['name']} {run.best['value']:.6g} at update {run.best['update']}"
    shown = {
        "experiment": run.experiment,
        "state": run.state + ("" if run.state == FINISHED else silent),
        "host": run.host,
        "update": None if run.update is None else f"{run.update}{of}",
        "speed": speed,
        "trained": None if run.seconds is None else duration(run.seconds),
        "left": None if run.seconds_left is None else duration(run.seconds_left),
        "loss": run.loss,
        "validation loss": run.validation_loss,
        "best": best,
        "last checkpoint": _checkpoint(run),
        "trouble": ", ".join(troubles(run)) or None,
        "model": f"{run.folder}/model" if run.model else None,
        "error": run.error,
    }
    return {name: str(value) for name, value in shown.items() if value is not None}


def troubles(run: Standing) -> list[str]:
    """Returns what went wrong and was survived, in words."""
    counts = {
        "skipped updates": run.skipped,
        "loss spikes": run.spikes,
        "rollbacks": run.rollbacks,
        "corrupt files": run.corrupt_files,
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


def duration(seconds: float) -> str:
    """Returns a length of time in its two largest units."""
    for unit, smaller, size, ratio in (("d", "h", 86400, 24), ("h", "min", 3600, 60), ("min", "s", 60, 60)):
        if seconds >= size:
            whole = int(seconds // size)
            return f"{whole} {unit} {int((seconds % size) / (size / ratio))} {smaller}"
    return f"{seconds:.0f} s"


def _checkpoint(run: Standing) -> str | None:
    if run.checkpoint is None:
        return None
    assert run.checkpoint_age_seconds is not None
    return f"update {run.checkpoint}, {duration(run.checkpoint_age_seconds)} old"
