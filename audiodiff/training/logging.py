"""What the terminal shows of a run: a bar, or a line now and then where there is no terminal."""

from __future__ import annotations

from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_SECONDS = 30.0  # between progress lines where there is no terminal for a bar


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
