"""Before and after: the spectrograms of a recording and of its edit, with what was edited marked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from audiodiff.audio.pictures import draw_levels, levels, new_figure, write_png
from audiodiff.editing.intervals import Interval
from audiodiff.editing.recording import Recording

_SECONDS = 12.0  # of the recording that are drawn at most
_BESIDE_SECONDS = 1.0  # of the first edited interval


def draw_edit(
    before: Recording, after: Recording, span: tuple[int, int], marks: Sequence[Interval], path: Path
) -> None:
    """Writes a PNG file with the stretch around the first edited interval, or the start where all is edited.

    Args:
        before: the recording.
        after: its edit, which holds positions span[0] to span[1].
        span: in samples of `after`.
        marks: edited intervals, in samples of `after`; empty where all is edited.
        path: of the file.

    Raises:
        InputError: the file cannot be written.
    """
    rate = after.sample_rate
    start = max(span[0], marks[0].start - round(_BESIDE_SECONDS * rate)) if marks else span[0]
    stop = min(span[1], start + round(_SECONDS * rate))
    if marks:
        stop = min(stop, max(marks[-1].stop + round(_BESIDE_SECONDS * rate), start + rate))
    scale = before.sample_rate / rate
    rows = {
        "before": (
            before,
            before.read(round(start * scale), max(round(stop * scale), round(start * scale) + 1)),
        ),
        "after": (after, after.read(start - span[0], stop - span[0])),
    }
    pictures = {
        name: levels(waveform.mean(0).numpy(), one.sample_rate) for name, (one, waveform) in rows.items()
    }
    loudest = max(float(level.max()) for level in pictures.values())
    figure = new_figure(9.0, 4.4)
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    for axis, (name, level) in zip(axes, pictures.items(), strict=True):
        draw_levels(axis, level, rows[name][0].sample_rate, loudest)
        axis.set_ylabel(f"{name}\nkHz", fontsize=8)
        axis.tick_params(labelsize=6)
        for mark in marks:
            left, right = ((place - start) / rate for place in (mark.start, mark.stop))
            axis.axvspan(left, right, facecolor="none", edgecolor="cyan", linewidth=0.8)
    axes[0].set_xlim(0, (stop - start) / rate)
    axes[0].set_ylim(0, rate / 2000)
    figure.supxlabel(f"seconds from {start / rate:.3f} s", fontsize=8)
    write_png(figure, path)
