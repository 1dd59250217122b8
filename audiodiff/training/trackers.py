"""Where numbers, sounds and pictures of a run go: TensorBoard, Weights & Biases, or both (training.tracker).

A tracker is opened again where a run goes on. TensorBoard hides events after the update of the checkpoint; Weights &
Biases gets the same run id, kept in `log/wandb.json`, and its curves are drawn over `update`.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from torch import Tensor

from audiodiff.audio.pictures import spectrogram_figure
from audiodiff.errors import InputError
from audiodiff.files import write_whole
from audiodiff.training.heartbeat import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

_RUN_ID = "wandb.json"


class Tracker(Protocol):
    """What a run is told to."""

    def scalars(self, values: Mapping[str, float], update: int) -> None:
        """Takes numbers by name."""

    def audio(self, name: str, waveform: Tensor, sample_rate: int, update: int) -> None:
        """Takes a sound [T] in [-1, 1] to listen to."""

    def figure(self, name: str, figure: Figure, update: int) -> None:
        """Takes a picture."""

    def flush(self) -> None:
        """Writes what was told so far, so that a process that is killed leaves it behind."""

    def close(self) -> None:
        """Writes what is left and ends."""


def open_trackers(kind: str, run: Path, update: int, recipe: Mapping[str, Any]) -> list[Tracker]:
    """Returns the trackers of a run.

    Args:
        kind: tensorboard, wandb, both or none.
        run: its folder.
        update: at which it begins or goes on.
        recipe: for trackers that keep it.

    Raises:
        InputError: another kind, or Weights & Biases is not installed.
    """
    check_tracker(kind)
    trackers: list[Tracker] = []
    if kind in ("tensorboard", "both"):
        trackers.append(TensorBoard(run / "log", update))
    if kind in ("wandb", "both"):
        trackers.append(WeightsAndBiases(run, recipe))
    return trackers


def check_tracker(kind: str) -> None:
    """Refuses a tracker that there is not.

    Raises:
        InputError: another kind, or Weights & Biases is not installed.
    """
    kinds = ("tensorboard", "wandb", "both", "none")
    if kind not in kinds:
        raise InputError(f"training.tracker: got {kind!r}, expected one of {', '.join(kinds)}")
    if kind in ("wandb", "both"):
        _wandb()


class TensorBoard:
    """An event file; resuming goes on in the same folder. A full disk costs what was to be written, not the run."""

    def __init__(self, folder: Path, update: int) -> None:
        """Opens the log; events after `update` (of a run that died later) are hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._writer: SummaryWriter | None = SummaryWriter(str(folder), purge_step=update + 1)

    def scalars(self, values: Mapping[str, float], update: int) -> None:
        """Writes numbers by name."""

        def write(writer: SummaryWriter) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, update)

        self._write(write)

    def audio(self, name: str, waveform: Tensor, sample_rate: int, update: int) -> None:
        """Writes a sound [T]."""
        self._write(lambda writer: writer.add_audio(name, waveform[None], update, sample_rate=sample_rate))

    def figure(self, name: str, figure: Figure, update: int) -> None:
        """Writes a picture."""
        self._write(lambda writer: writer.add_figure(name, figure, update))

    def flush(self) -> None:
        """Writes what is in memory."""
        self._write(lambda writer: writer.flush())

    def close(self) -> None:
        """Flushes and closes the file."""
        self._write(lambda writer: writer.close())

    def _write(self, write: Callable[[SummaryWriter], None]) -> None:
        """Writes to the file, or to a new one after one that could not be written, whose thread is dead."""
        from torch.utils.tensorboard import SummaryWriter

        try:
            if self._writer is None:
                self._writer = SummaryWriter(str(self._folder))
            write(self._writer)
        except OSError:
            self._writer = None


class WeightsAndBiases:
    """A run there; project, account and mode come from its own variables (WANDB_PROJECT, WANDB_MODE, ...)."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        """Opens the run whose id the folder keeps, or a new one.

        Raises:
            InputError: the package is not installed.
        """
        self._package = _wandb()
        path = folder / "log" / _RUN_ID
        known = read_json(path)
        identity = known["id"] if known else uuid4().hex
        if known is None:
            write_whole({path: (json.dumps({"id": identity}) + "\n").encode()})
        self._run = self._package.init(
            project=os.environ.get("WANDB_PROJECT", "audiodiff"),
            dir=str(folder / "log"),
            id=identity,
            name=folder.name,
            config=dict(recipe),
            resume="allow",
        )
        # Its own step would drop what is logged again after going back to a checkpoint.
        self._run.define_metric("*", step_metric="update")

    def scalars(self, values: Mapping[str, float], update: int) -> None:
        """Logs numbers by name."""
        self._run.log({**values, "update": update})

    def audio(self, name: str, waveform: Tensor, sample_rate: int, update: int) -> None:
        """Logs a sound [T]."""
        sound = self._package.Audio(waveform.numpy(), sample_rate=sample_rate)
        self._run.log({name: sound, "update": update})

    def figure(self, name: str, figure: Figure, update: int) -> None:
        """Logs a picture."""
        self._run.log({name: self._package.Image(figure), "update": update})

    def flush(self) -> None:
        """Does nothing: its own process, which outlives this one, has what it was told."""

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()


def show_samples(
    trackers: Sequence[Tracker],
    waveforms: Sequence[Tensor],
    titles: Sequence[str],
    sample_rate: int,
    update: int,
    recordings: Sequence[Tensor] | None,
) -> None:
    """Hands on waveforms to listen to, and one picture of their spectrograms.

    Args:
        trackers: told.
        waveforms: [C, T] each.
        titles: one per waveform.
        sample_rate: Hz.
        update: of the model that made them.
        recordings: [C, T] that they are to equal, drawn to their left; None if there are none.
    """
    columns = (waveforms,) if recordings is None else (recordings, waveforms)
    rows = [[waveform.mean(0).clamp(-1, 1).cpu() for waveform in row] for row in zip(*columns, strict=True)]
    figure = spectrogram_figure([[waveform.numpy() for waveform in row] for row in rows], titles, sample_rate)
    for tracker in trackers:
        for title, row in zip(titles, rows, strict=True):
            tracker.audio(f"samples/{title}", row[-1], sample_rate, update)
        tracker.figure("samples", figure, update)


def _wandb() -> Any:
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise InputError(
            f"training.tracker: package wandb is not installed ({error}); install it with: pip install "
            "'audiodiff[wandb]', or take tensorboard"
        ) from error
