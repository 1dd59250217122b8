"""What a run leaves to look at and listen to: TensorBoard scalars, audio and spectrogram pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE_FLOOR_DB = -80.0


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

    def audio(self, waveforms: Sequence[Tensor], titles: Sequence[str], sample_rate: int, update: int) -> None:
        """Writes waveforms [C, T] to listen to and one picture of their spectrograms."""
        for title, waveform in zip(titles, waveforms, strict=True):
            mono = waveform.mean(0, keepdim=True).clamp(-1, 1).cpu()
            self._writer.add_audio(f"samples/{title}", mono, update, sample_rate=sample_rate)
        self._writer.add_figure("samples", spectrogram_figure(waveforms, titles, sample_rate), update)

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()


def spectrogram_figure(waveforms: Sequence[Tensor], titles: Sequence[str], sample_rate: int) -> Figure:
    """Returns a row of spectrograms in dB of waveforms [C, T], on one common scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(waveforms), 2.6), layout="constrained")
    axes = figure.subplots(1, len(waveforms), squeeze=False)[0]
    n_fft = 256 if sample_rate <= 12000 else 1024
    window = torch.hann_window(n_fft)
    for axis, waveform, title in zip(axes, waveforms, titles, strict=True):
        mono = waveform.mean(0).cpu()
        mono = torch.nn.functional.pad(mono, (0, max(0, n_fft - mono.numel())))
        spectrum = torch.stft(mono, n_fft, n_fft // 8, window=window, return_complex=True).abs() / window.sum() * 2
        level = 20 * torch.log10(spectrum.clamp(min=1e-8))
        extent = (0, mono.numel() / sample_rate, 0, sample_rate / 2000)
        axis.imshow(level, origin="lower", aspect="auto", extent=extent, vmin=PICTURE_FLOOR_DB, vmax=-10, cmap="magma")
        axis.set_title(title, fontsize=8)
        axis.set_xlabel("seconds", fontsize=7)
        axis.tick_params(labelsize=6)
    axes[0].set_ylabel("kHz", fontsize=7)
    return figure


class progress_bar:  # noqa: N801 - used as a statement: with progress_bar(...)
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
            disable=not visible,
        )
        self._first, self._started = done, monotonic()
        self._task = self._progress.add_task("train", total=total, completed=done, loss="...", rate="")

    def __enter__(self) -> progress_bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance_to(self, update: int) -> None:
        """Shows the number of updates done."""
        rate = (update - self._first) / max(monotonic() - self._started, 1e-9)
        self._progress.update(self._task, completed=update, rate=f"{rate:.2f} updates/s")

    def show_loss(self, loss: float) -> None:
        """Shows the latest mean loss."""
        self._progress.update(self._task, loss=f"{loss:.4f}")
