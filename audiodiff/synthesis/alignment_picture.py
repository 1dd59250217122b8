"""What is said when: the spectrogram of each sentence, with its tokens as a staircase over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audiodiff.audio.pictures import draw_levels, levels, new_figure, write_png
from audiodiff.synthesis.speech import Sentence, Speech
from audiodiff.text.front_end import TextFrontEnd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS = 12  # sentences that are drawn
_LEGIBLE = 90  # tokens whose symbols can be told apart


def draw_alignment(speech: Speech, front_end: TextFrontEnd, path: Path) -> None:
    """Writes a PNG file with a row for each of the first sentences.

    Args:
        speech: what was said.
        front_end: whose symbols the tokens are.
        path: of the file.

    Raises:
        InputError: the file cannot be written.
    """
    rows = speech.sentences[:_ROWS]
    figure = new_figure(9.0, 0.6 + 1.9 * len(rows))
    axes = figure.subplots(len(rows), 1, squeeze=False)
    for axis, sentence in zip(axes[:, 0], rows, strict=True):
        _draw(axis, sentence, front_end, speech.sample_rate)
    axes[-1][0].set_xlabel("seconds", fontsize=8)
    write_png(figure, path)


def _draw(axis: Axes, sentence: Sentence, front_end: TextFrontEnd, sample_rate: int) -> None:
    level = levels(sentence.waveform.numpy(), sample_rate)
    draw_levels(axis, level, sample_rate, float(level.max()))
    seconds = len(sentence.waveform) / sample_rate
    frames = sentence.durations.double().cumsum(0).numpy()
    ends = frames / frames[-1] * seconds
    starts = np.concatenate([[0.0], ends[:-1]])
    axis.set_xlim(0, seconds)
    axis.set_ylabel("kHz", fontsize=8)
    axis.tick_params(labelsize=6)
    stairs = axis.twinx()
    stairs.stairs(
        np.arange(1, len(ends) + 1),
        np.concatenate([[0.0], ends]),
        color="white",
        linewidth=0.8,
        baseline=None,
    )
    stairs.set_ylabel("token", fontsize=8)
    stairs.set_ylim(0, len(ends) + 1)
    stairs.tick_params(labelsize=6)
    if len(ends) <= _LEGIBLE:
        for start, end, token in zip(starts, ends, sentence.reading.tokens, strict=True):
            symbol = front_end.symbols[token].replace(" ", "\u2423").replace("$", r"\$")
            axis.annotate(
                symbol, ((start + end) / 2, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=6
            )
