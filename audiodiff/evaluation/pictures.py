"""The confusion matrix of a judge as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiodiff.audio.pictures import new_figure, write_png
from audiodiff.errors import InputError


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
