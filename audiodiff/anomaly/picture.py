"""The denoising error of a recording as a map of noise level and time, with what was flagged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiodiff.audio.pictures import new_figure, write_png

_MOST_COLUMNS = 2000  # a longer recording is drawn with the largest error of each stretch


def heat_map(
    errors: np.ndarray, scores: np.ndarray, unit: str, snr_db: Sequence[float], frame_seconds: float,
    intervals: Sequence[tuple[float, float]], path: Path,
) -> None:  # fmt: skip
    """Writes the picture of a recording as a PNG file.

    Args:
        errors: [levels, P], denoising error, the noisiest level first.
        scores: [P], one number per frame.
        unit: what they are.
        snr_db: signal-to-noise ratio of the levels.
        frame_seconds: length of a frame.
        intervals: flagged, start and end in seconds.
        path: PNG file.

    Raises:
        InputError: the file cannot be written.
    """
    seconds = errors.shape[1] * frame_seconds
    shown = _reduced(10 * np.log10(np.maximum(errors, 1e-12)))
    figure = new_figure(10, 4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    image = above.imshow(
        shown,
        aspect="auto",
        origin="lower",
        extent=(0, seconds, -0.5, len(shown) - 0.5),
        cmap="magma",
        interpolation="nearest",
    )
    above.set_yticks(range(len(snr_db)), [f"{level:.0f}" for level in snr_db])
    above.set_ylabel("signal-to-noise ratio, dB", fontsize=8)
    figure.colorbar(image, ax=[above, below]).set_label("denoising error, dB", fontsize=8)
    line = _reduced(scores[None])[0]
    below.plot((np.arange(len(line)) + 0.5) * seconds / len(line), line, color="#1f5fa8", linewidth=0.9)
    below.set_ylabel(unit, fontsize=8)
    below.set_xlabel("seconds", fontsize=8)
    for start, end in intervals:
        above.axvspan(start, end, ymax=0.03, color="#00c2c7")
        below.axvspan(start, end, color="#00c2c7", alpha=0.35)
    marked = f"{len(intervals)} flagged interval(s) marked" if intervals else "nothing flagged"
    above.set_title(f"Denoising error by noise level and time; {marked}", fontsize=9)
    for axis in (above, below):
        axis.tick_params(labelsize=7)
    write_png(figure, path)


def _reduced(rows: np.ndarray) -> np.ndarray:
    """Returns [N, at most 2000] of rows [N, P]: the largest of each stretch."""
    stretch = -(-rows.shape[1] // _MOST_COLUMNS)
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % stretch)), mode="edge")
    return padded.reshape(len(rows), -1, stretch).max(2)
