"""The picture of a trace: forward process, reverse trajectory and clean estimates in columns of equal time.

Noise stands on the left and the signal on the right in all rows, so the forward process reads to the left, the
reverse trajectory to the right, and a column compares what training showed the network with what synthesis
gave it at the same level. All spectrograms share one colour scale; each waveform tells its peak.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from audiodiff.audio.pictures import RANGE_DB, draw_levels, draw_waveform, levels, new_figure, write_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

_UPDATE, _ESTIMATE = "#1f5fa8", "#c4501b"


@dataclass(frozen=True)
class Column:
    """One time of the picture.

    Attributes:
        step: number of sampler steps made before, 0 at the noise.
        t: the time.
        snr_db: signal-to-noise ratio there; infinite at t = 0.
        forward: [C, T], the noised recording.
        state: [C, T], x_t of the sampler.
        estimate: [C, T], the clean estimate at it; None at the result.
    """

    step: int
    t: float
    snr_db: float
    forward: Tensor
    state: Tensor
    estimate: Tensor | None


@dataclass(frozen=True)
class Curves:
    """Numbers along the trajectory.

    Attributes:
        updates: RMS of x_s - x_t, one per step.
        estimate_changes: RMS of what the clean estimate moved, one per step; NaN at first.
        alpha: at each time of the grid.
        sigma: at each time of the grid.
        snr_db: at each time of the grid.
        chosen: the grid times that are drawn as columns.
    """

    updates: list[float]
    estimate_changes: list[float]
    alpha: list[float]
    sigma: list[float]
    snr_db: list[float]
    chosen: list[int]


def draw_trace(
    columns: Sequence[Column], curves: Curves, title: str, forward: str, sample_rate: int, path: Path
) -> None:
    """Writes the picture as a PNG file.

    Args:
        columns: from noise to signal.
        curves: along the steps.
        title: what was made, how.
        forward: what the forward process starts from.
        sample_rate: Hz.
        path: PNG file.

    Raises:
        InputError: the file cannot be written.
    """
    steps = len(curves.updates)
    figure = new_figure(0.8 + 2.1 * max(len(columns), 4), 9.6)
    figure.suptitle(title, fontsize=10)
    parts = np.asarray(figure.subfigures(4, 1, height_ratios=[1, 1, 1, 0.95]), dtype=object)
    rows = [
        ([_mono(c.forward) for c in columns], [_level_text(c) for c in columns]),
        ([_mono(c.state) for c in columns], [_step_text(c, steps) for c in columns]),
        (
            [_mono(c.estimate) for c in columns if c.estimate is not None],
            [_estimate_text(c) for c in columns],
        ),
    ]
    headings = (
        f"Forward process, to the left: noise is added to {forward}, $x_t = \\alpha_t x_0 + \\sigma_t \\epsilon$",
        "Reverse process, to the right: $x_t$ of the sampler, from noise to the result",
        "Clean estimate at each $x_t$: what the network takes the sound to be",
    )
    scale = _Scale.of([waveform for waveforms, _ in rows for waveform in waveforms], sample_rate)
    for part, heading, (waveforms, titles) in zip(parts, headings, rows, strict=False):
        _draw_row(part, heading, waveforms, titles, scale)
    _draw_curves(parts[-1], curves)
    write_png(figure, path)


@dataclass(frozen=True)
class _Scale:
    """What all panels share: seconds and the loudest level."""

    sample_rate: int
    seconds: float
    loudest: float

    @classmethod
    def of(cls, waveforms: Sequence[np.ndarray], sample_rate: int) -> _Scale:
        loudest = max(float(levels(waveform, sample_rate).max()) for waveform in waveforms)
        seconds = max(waveform.size for waveform in waveforms) / sample_rate
        return cls(sample_rate, seconds, loudest)


def _draw_row(
    part: SubFigure, heading: str, waveforms: Sequence[np.ndarray], titles: Sequence[str], scale: _Scale
) -> None:
    """Draws waveforms over spectrograms; a column that is left over tells the colours."""
    part.suptitle(heading, fontsize=9, x=0.01, ha="left")
    axes = part.subplots(2, len(titles), squeeze=False, height_ratios=[1, 2])
    for number, (waveform, title) in enumerate(zip(waveforms, titles, strict=False)):
        top, bottom = axes[:, number]
        draw_waveform(top, waveform, scale.sample_rate)
        image = draw_levels(bottom, levels(waveform, scale.sample_rate), scale.sample_rate, scale.loudest)
        top.set_title(title, fontsize=8)
        bottom.tick_params(labelsize=6, labelleft=number == 0)
        bottom.set_facecolor("0.9")
        for axis in (top, bottom):
            axis.set_xlim(0, scale.seconds)
    axes[1][0].set_ylabel("kHz", fontsize=7)
    axes[1][0].set_xlabel("seconds", fontsize=7, labelpad=1)
    for top, bottom in axes[:, len(waveforms) :].T:
        top.axis("off")
        bottom.axis("off")
        bar = part.colorbar(image, cax=bottom.inset_axes((0.05, 0.55, 0.9, 0.12)), orientation="horizontal")
        bar.set_ticks([scale.loudest - RANGE_DB, scale.loudest - RANGE_DB / 2, scale.loudest])
        bar.set_ticklabels([f"−{RANGE_DB:.0f}", f"−{RANGE_DB / 2:.0f}", "0 dB"], fontsize=7)
        bar.set_label("level of all spectrograms,\nbelow the loudest of them", fontsize=7)


def _draw_curves(part: SubFigure, curves: Curves) -> None:
    steps = len(curves.updates)
    left, middle, right = part.subplots(1, 3)
    moves = np.arange(1, steps + 1)
    left.semilogy(moves, curves.updates, ".-", color=_UPDATE, label="$x_s - x_t$, what the step adds")
    left.semilogy(moves, curves.estimate_changes, ".-", color=_ESTIMATE, label="change of the clean estimate")
    _finish(left, "Size of the update of each step (RMS)", curves)
    times = np.arange(steps + 1)
    middle.plot(times, curves.alpha, ".-", color=_UPDATE, label=r"$\alpha$, signal")
    middle.plot(times, curves.sigma, ".-", color=_ESTIMATE, label=r"$\sigma$, noise")
    _finish(middle, "Signal and noise in $x_t$", curves)
    finite = [value if math.isfinite(value) else math.nan for value in curves.snr_db]
    right.plot(times, finite, ".-", color="0.25", label="signal-to-noise ratio, dB")
    _finish(right, "Signal-to-noise ratio (10 dB = 2.3 of log-SNR)", curves)


def _finish(axis: Axes, title: str, curves: Curves) -> None:
    """Gives an axis its title and legend and marks the columns."""
    from matplotlib.ticker import MaxNLocator

    axis.set_title(title, fontsize=8)
    axis.set_xlabel("steps made; dashed: the columns above", fontsize=7)
    axis.set_xlim(-0.02 * len(curves.updates), 1.02 * len(curves.updates))
    axis.tick_params(labelsize=7)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for number in curves.chosen:
        axis.axvline(number, color="0.8", linewidth=0.8, linestyle="--", zorder=0)
    axis.legend(fontsize=7)


def _mono(waveform: Tensor) -> np.ndarray:
    return waveform.mean(0).numpy()


def _level_text(column: Column) -> str:
    if math.isinf(column.snr_db):
        return f"t = {column.t:.3g}, no {'noise' if column.snr_db > 0 else 'signal'}"
    return f"t = {column.t:.3g}, SNR {column.snr_db:+.0f} dB".replace("-", "\N{MINUS SIGN}")


def _step_text(column: Column, steps: int) -> str:
    if column.estimate is None:
        return f"result, after {steps} steps"
    return "start" if column.step == 0 else f"after {column.step} of {steps} steps"


def _estimate_text(column: Column) -> str:
    return f"at t = {column.t:.3g}"
