"""The confusion matrix of a judge, and likelihoods of recordings, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from audiodiff.audio.pictures import new_figure, write_png
from audiodiff.errors import InputError

_DRAWN_LINES = 6


def confusion_picture(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Writes a confusion matrix with its counts as a PNG file; colour is the share of the row.

    Args:
        matrix: [N, N] counts, class asked for in rows, recognised class in columns.
        names: N class names.
        path: PNG file.

    Raises:
        InputError: the matrix does not fit the names, or the file cannot be written.
    """
    if matrix.shape != (len(names), len(names)) or not len(names):
        raise InputError(
            f"confusion matrix: got shape {matrix.shape} for {len(names)} names, expected [N, N]"
        )
    size = 1.8 + 0.42 * len(names)
    figure = new_figure(size, size)
    axis = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, vmin=0, vmax=1, cmap="Blues")
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("recognised")
    axis.set_ylabel("asked")
    for row, column in np.argwhere(matrix > 0):
        colour = "white" if share[row, column] > 0.5 else "black"
        axis.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=7, color=colour)
    write_png(figure, path)


def likelihood_picture(
    snr_db: Sequence[float],
    errors: Mapping[str, Sequence[float]],
    bits: Sequence[float],
    unit: str,
    path: Path,
) -> None:
    """Writes the denoising error by noise level beside a histogram of bits as a PNG file.

    Args:
        snr_db: signal-to-noise ratio of the levels.
        errors: per recording the error at each level; the first few are drawn, and the mean of all.
        bits: one number per recording.
        unit: what they are.
        path: PNG file.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    for name in list(errors)[:_DRAWN_LINES]:
        left.semilogy(snr_db, errors[name], linewidth=0.8, label=name)
    mean = np.mean(list(errors.values()), axis=0)
    left.semilogy(snr_db, mean, color="black", linewidth=2.5, label=f"mean of {len(errors)}")
    left.set_xlabel("signal-to-noise ratio of what is denoised, dB (noise on the left)", fontsize=8)
    left.set_ylabel("mean squared error of the noise estimate", fontsize=8)
    left.set_title("Denoising error by noise level: 1 means nothing of the noise is recognised", fontsize=9)
    left.legend(fontsize=7)
    right.hist(bits, bins=min(40, max(5, len(bits) // 4)), color="#1f5fa8")
    centre = float(np.mean(bits))
    right.axvline(centre, color="black", linewidth=2, label=f"mean {centre:.3f}")
    right.set_xlabel(unit, fontsize=8)
    right.set_ylabel("recordings", fontsize=8)
    right.set_title("How likely the recordings are: left is likelier", fontsize=9)
    right.legend(fontsize=7)
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (left, right):
        axis.tick_params(labelsize=7)
    write_png(figure, path)
