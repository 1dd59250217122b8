"""What is said when: the mel of a recording and the model's of the same frames, tokens as a staircase over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from audiodiff.audio.pictures import new_figure, write_png

_LEGIBLE = 90  # tokens whose symbols can be told apart


def draw_aligned(
    recorded: Tensor, sampled: Tensor, frames: Tensor, symbols: Sequence[str], path: Path
) -> None:
    """Writes a PNG file.

    Args:
        recorded: [n_mels, F], mel of the recording.
        sampled: [n_mels, F], mel of the model.
        frames: [L], of each token.
        symbols: of the tokens.
        path: of the file.

    Raises:
        InputError: the file cannot be written.
    """
    figure = new_figure(9.0, 4.6)
    ends = np.concatenate([[0], frames.numpy().cumsum()])
    low, high = float(recorded.min()), float(recorded.max())
    for axis, mel, title in zip(
        figure.subplots(2, 1, sharex=True),
        (recorded, sampled),
        ("recording", "model, in its time"),
        strict=True,
    ):
        extent = (0, int(ends[-1]), 0, mel.shape[0])
        axis.imshow(mel.numpy(), "magma", origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high)
        axis.set_ylabel(f"{title}\nmel band", fontsize=8)
        axis.tick_params(labelsize=6)
        stairs = axis.twinx()
        stairs.stairs(np.arange(1, len(ends)), ends, color="white", linewidth=0.8, baseline=None)
        stairs.set_ylim(0, len(ends))
        stairs.set_ylabel("token", fontsize=8)
        stairs.tick_params(labelsize=6)
        if len(symbols) <= _LEGIBLE and mel is recorded:
            for start, end, symbol in zip(ends[:-1], ends[1:], symbols, strict=True):
                shown = symbol.replace(" ", "\u2423").replace("$", r"\$")
                place = ((start + end) / 2, 1.01)
                axis.annotate(shown, place, xycoords=("data", "axes fraction"), ha="center", fontsize=6)
        axis.set_xlim(0, ends[-1])
    axis.set_xlabel("frame", fontsize=8)
    write_png(figure, path)
