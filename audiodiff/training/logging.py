"""What a run leaves to look at and listen to: TensorBoard scalars, audio and spectrogram pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from audiodiff.audio.pictures import spectrogram_figure

_PLAIN_SECONDS = 30.0  # between progress lines where there is no terminal for a bar


class RunLog:
    """TensorBoard event file of one run; resuming goes on in the same place."""

    def __init__(self, folder: Path, update: int) -> None:
        """Opens the log; events after `update` (of a run that died later) are hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=update + 1 if update else None)

    def scalars(self, values: Mapping[str, float], update: int) -> None:
        """Writes numbers by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, update)

    def audio(
        self, waveforms: Sequence[Tensor], titles: Sequence[str], sample_rate: int, update: int
    ) -> None:
        """Writes waveforms [C, T] to listen to and one picture of their spectrograms."""
        for title, waveform in zip(titles, waveforms, strict=True):
            mono = waveform.mean(0, keepdim=True).clamp(-1, 1).cpu()
            self._writer.add_audio(f"samples/{title}", mono, update, sample_rate=sample_rate)
        rows = [[waveform.mean(0).cpu().numpy()] for waveform in waveforms]
        self._writer.add_figure("samples", spectrogram_figure(rows, titles, sample_rate), update)

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()


class ProgressBar:
    """A bar with updates done, updates per second, time left and the loss."""

    def __init__(self, console: Console, total: int, done: int, visible: bool) -> None:
        """Prepares the bar; it appears when the block is entered.

        Args:
            console: where it is drawn.
            total: updates in all.
            done: updates done before (a resumed run).
            visible: False on all ranks but one.
        """
        self._progress = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True, compact=True),
            console=console,
            disable=not (visible and console.is_terminal),
        )
        self._console, self._total, self._loss = console, total, "..."
        self._plain = visible and not console.is_terminal
        self._said = monotonic()
        self._first, self._started = done, monotonic()
        self._task = self._progress.add_task("train", total=total, completed=done, loss="...", rate="")

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance_to(self, update: int) -> None:
        """Shows the number of updates done."""
        rate = (update - self._first) / max(monotonic() - self._started, 1e-9)
        self._progress.update(self._task, completed=update, rate=f"{rate:.2f} updates/s")
        if self._plain and (update == self._total or monotonic() - self._said > _PLAIN_SECONDS):
            self._said = monotonic()
            left = (self._total - update) / max(rate, 1e-9)
            self._console.print(
                f"update {update} of {self._total}, loss {self._loss}, {rate:.2f} updates/s, {left / 60:.0f} min left"
            )

    def show_loss(self, loss: float) -> None:
        """Shows the latest mean loss."""
        self._loss = f"{loss:.4f}"
        self._progress.update(self._task, loss=self._loss)
