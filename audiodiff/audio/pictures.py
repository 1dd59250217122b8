"""Spectrograms as pictures: rows of waveforms on one common time axis and one common scale of level."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audiodiff.errors import InputError
from audiodiff.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

RANGE_DB = 80.0
_WINDOW_SECONDS = 0.03


def spectrogram_grid(
    waveforms: Sequence[Sequence[np.ndarray]], titles: Sequence[str], sample_rate: int, path: Path
) -> None:
    """Writes `spectrogram_figure` as a PNG file.

    Raises:
        InputError: as `spectrogram_figure`, or the file cannot be written.
    """
    write_png(spectrogram_figure(waveforms, titles, sample_rate), path)


def spectrogram_figure(
    waveforms: Sequence[Sequence[np.ndarray]], titles: Sequence[str], sample_rate: int
) -> Figure:
    """Returns one row of spectrograms per title; all share the time axis and one 80 dB scale.

    Args:
        waveforms: rows of signals [T].
        titles: one per row.
        sample_rate: Hz, of all signals.

    Raises:
        InputError: no signals, or not one title per row.
    """
    columns = max((len(row) for row in waveforms), default=0)
    if columns == 0 or len(waveforms) != len(titles):
        raise InputError(
            f"spectrograms: got {len(waveforms)} rows and {len(titles)} titles, expected as many"
        )
    rows = [[levels(waveform, sample_rate) for waveform in row] for row in waveforms]
    loudest = max(float(level.max()) for row in rows for level in row)
    seconds = max(waveform.size for row in waveforms for waveform in row) / sample_rate
    figure = new_figure(0.8 + 1.8 * columns, 0.6 + 1.1 * len(rows))
    axes = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    for axis_row, row, title in zip(axes, rows, titles, strict=True):
        axis_row[0].set_ylabel(f"{title}\nkHz", fontsize=8)
        for axis in axis_row:
            axis.tick_params(labelsize=6)
            axis.set_facecolor("0.9")  # no signal, as opposed to silence
        for axis, level in zip(axis_row, row, strict=False):
            draw_levels(axis, level, sample_rate, loudest)
    axes[0][0].set_xlim(0, seconds)
    figure.supxlabel("seconds", fontsize=8)
    return figure


def levels(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the spectrogram [bins, frames] of a signal [T] in decibels, of windows of about 30 ms."""
    n_fft = _n_fft(sample_rate)
    padded = np.pad(np.asarray(waveform, dtype=np.float64), n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: n_fft // 4]
    power = np.abs(np.fft.rfft(frames * np.hanning(n_fft))) ** 2
    return 10 * np.log10(power.T + 1e-10)


def draw_levels(axis: Axes, level: np.ndarray, sample_rate: int, loudest: float) -> AxesImage:
    """Draws what `levels` gave over seconds and kHz, in colours from `loudest` down to 80 dB below it."""
    extent = (0, level.shape[1] * (_n_fft(sample_rate) // 4) / sample_rate, 0, sample_rate / 2000)
    low = loudest - RANGE_DB
    return axis.imshow(level, "magma", origin="lower", aspect="auto", extent=extent, vmin=low, vmax=loudest)


def draw_waveform(axis: Axes, waveform: np.ndarray, sample_rate: int) -> None:
    """Draws a signal [T] over seconds as high as the panel, with its peak written in the corner."""
    peak = float(np.abs(waveform).max(initial=0))
    axis.plot(np.arange(waveform.size) / sample_rate, waveform, linewidth=0.4, color="0.15")
    height = 1.1 * max(peak, 1e-6)
    axis.set_ylim(-height, height)
    axis.set_yticks([])
    axis.tick_params(bottom=False, labelbottom=False)
    box: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    axis.text(
        0.99, 0.94, f"peak {peak:.2g}", transform=axis.transAxes, ha="right", va="top", fontsize=6, bbox=box
    )


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of that size in inches, without pyplot: no display, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure


def write_png(figure: Figure, path: Path) -> None:
    """Writes a figure whole.

    Raises:
        InputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_whole({path: buffer.getvalue()})


def _n_fft(sample_rate: int) -> int:
    return int(2 ** round(np.log2(_WINDOW_SECONDS * sample_rate)))
