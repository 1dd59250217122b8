"""Pictures of results: a grid of spectrograms and a confusion matrix, as PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audiodiff.data.manifests import write_whole
from audiodiff.types import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANGE_DB = 80.0


def spectrogram_grid(
    waveforms: Sequence[Sequence[np.ndarray]], titles: Sequence[str], sample_rate: int, path: Path
) -> None:
    """Draws one row of spectrograms per class; all share the time axis and one 80 dB colour scale.

    Args:
        waveforms: rows of signals [T].
        titles: one per row.
        sample_rate: Hz, of all signals.
        path: PNG file to write.

    Raises:
        InputError: no signals, or not one title per row.
    """
    columns = max((len(row) for row in waveforms), default=0)
    if columns == 0 or len(waveforms) != len(titles):
        raise InputError(f"spectrogram grid: got {len(waveforms)} rows and {len(titles)} titles, expected as many")
    n_fft = int(2 ** round(np.log2(0.03 * sample_rate)))
    rows = [[_level(waveform, n_fft) for waveform in row] for row in waveforms]
    loudest = max(float(level.max()) for row in rows for level in row)
    seconds = max(waveform.size for row in waveforms for waveform in row) / sample_rate
    figure = _figure(0.8 + 1.8 * columns, 0.6 + 1.1 * len(rows))
    axes = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    for axis_row, row, title in zip(axes, rows, titles, strict=True):
        axis_row[0].set_ylabel(f"{title}\nkHz", fontsize=8)
        for axis in axis_row:
            axis.tick_params(labelsize=6)
            axis.set_facecolor("0.9")  # no signal, as opposed to silence
        for axis, level in zip(axis_row, row, strict=False):
            extent = (0, level.shape[1] * (n_fft // 4) / sample_rate, 0, sample_rate / 2000)
            axis.imshow(
                level,
                origin="lower",
                aspect="auto",
                extent=extent,
                vmin=loudest - RANGE_DB,
                vmax=loudest,
                cmap="magma",
            )
    axes[0][0].set_xlim(0, seconds)
    figure.supxlabel("seconds", fontsize=8)
    _write(figure, path)


def confusion_picture(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draws a confusion matrix with its counts.

    Args:
        matrix: [N, N] counts, true class in rows, recognised class in columns.
        names: N class names.
        path: PNG file to write.

    Raises:
        InputError: the matrix does not fit the names.
    """
    if matrix.shape != (len(names), len(names)) or not len(names):
        raise InputError(f"confusion matrix: got shape {matrix.shape} for {len(names)} names, expected [N, N]")
    size = 1.8 + 0.42 * len(names)
    figure = _figure(size, size)
    axis = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, vmin=0, vmax=1, cmap="Blues")
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("recognised")
    axis.set_ylabel("asked")
    for i, j in np.argwhere(matrix > 0):
        colour = "white" if share[i, j] > 0.5 else "black"
        axis.text(j, i, int(matrix[i, j]), ha="center", va="center", fontsize=7, color=colour)
    _write(figure, path)


def _level(waveform: np.ndarray, n_fft: int) -> np.ndarray:
    """Returns [n_fft//2 + 1, F] in decibels."""
    padded = np.pad(np.asarray(waveform, dtype=np.float64), n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: n_fft // 4]
    power = np.abs(np.fft.rfft(frames * np.hanning(n_fft))) ** 2
    return 10 * np.log10(power.T + 1e-10)


def _figure(width: float, height: float) -> Figure:
    # Without pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); nothing was left behind") from error
