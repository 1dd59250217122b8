"""The picture of a mel check: values against the training audio's, and bands against its mean and deviation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audiodiff.audio.pictures import new_figure, write_png
from audiodiff.synthesis.mel_check import Statistics, Verdict

_BINS = 80


def draw_check(given: np.ndarray, best: Verdict, statistics: Statistics, path: Path) -> None:
    """Writes the picture as PNG.

    Args:
        given: the mel as it came, any shape.
        best: the likeliest verdict.
        statistics: of the model's training audio.
        path: the file.

    Raises:
        InputError: the file cannot be written.
    """
    mean, std = statistics.mean.double().numpy(), statistics.std.double().numpy()
    mended = best.mended.double().numpy()
    figure = new_figure(10, 3.6)
    values, bands = figure.subplots(1, 2)
    low = min(float(given.min()), float(mended.min()), float((mean - 4 * std).min()))
    high = max(float(given.max()), float(mended.max()), float((mean + 4 * std).max()))
    axis = np.linspace(low, high, 400)
    density = np.exp(-0.5 * ((axis - mean[:, None]) / std[:, None]) ** 2) / (
        std[:, None] * np.sqrt(2 * np.pi)
    )
    values.fill_between(axis, density.mean(0), color="0.8", label="training audio")
    edges = np.linspace(low, high, _BINS)
    values.hist(given.ravel(), edges, density=True, histtype="step", color="tab:red", label="this mel")
    values.hist(mended.ravel(), edges, density=True, histtype="step", color="tab:blue", label="mended")
    values.set_xlabel("mel value")
    values.legend(fontsize=8)
    number = np.arange(len(mean))
    bands.fill_between(number, mean - std, mean + std, color="0.8", label="training audio")
    bands.errorbar(number, mended.mean(1), mended.std(1), color="tab:blue", linewidth=0.8, label="mended")
    bands.set_xlabel("band")
    bands.set_ylabel("mean and deviation")
    bands.legend(fontsize=8)
    figure.suptitle(f"likeliest mistake: {best.mistake}"[:110], fontsize=9)
    write_png(figure, path)
