"""Pictures: levels are those of the signal, and all panels share one scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audiodiff.audio.pictures import (
    RANGE_DB,
    draw_levels,
    draw_waveform,
    levels,
    new_figure,
    spectrogram_figure,
    spectrogram_grid,
)
from audiodiff.errors import InputError

RATE = 8000


def tone(frequency: float, amplitude: float, samples: int = 4000) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(samples) / RATE)


def test_level_is_loudest_at_the_frequency_of_a_tone() -> None:
    level = levels(tone(1000, 0.5), RATE)
    bins = level.shape[0]
    loudest = level.mean(1).argmax() * RATE / 2 / (bins - 1)
    assert loudest == pytest.approx(1000, abs=RATE / 2 / (bins - 1))


def test_half_the_amplitude_is_six_decibels_less() -> None:
    loud, soft = (levels(tone(1000, amplitude), RATE).max() for amplitude in (0.5, 0.25))
    assert loud - soft == pytest.approx(20 * np.log10(2), abs=1e-3)


def test_panels_share_the_colour_scale_and_the_time_axis() -> None:
    figure = spectrogram_figure([[tone(500, 0.5), tone(900, 0.01, 2000)], [tone(700, 0.1)]], ["a", "b"], RATE)
    images = [image for axis in figure.axes for image in axis.get_images()]
    assert len(images) == 3
    assert len({image.get_clim() for image in images}) == 1
    low, high = images[0].get_clim()
    assert high - low == pytest.approx(RANGE_DB)
    assert high == pytest.approx(max(float(image.get_array().max()) for image in images))
    assert {axis.get_xlim() for axis in figure.axes} == {(0, 0.5)}


def test_image_spans_the_signal_in_seconds_and_kilohertz() -> None:
    axis = new_figure(2, 2).subplots()
    image = draw_levels(axis, levels(tone(500, 0.5), RATE), RATE, 0.0)
    left, right, bottom, top = image.get_extent()
    assert (left, bottom, top) == (0, 0, RATE / 2000)
    assert right == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("amplitude", [0.5, 1e-3, 0.0])
def test_waveform_fills_its_panel_and_tells_its_peak(amplitude: float) -> None:
    axis = new_figure(2, 2).subplots()
    draw_waveform(axis, tone(500, amplitude), RATE)
    low, high = axis.get_ylim()
    assert low == -high
    assert high > 0
    assert [text.get_text() for text in axis.texts] == [f"peak {amplitude:.2g}"]


def test_rows_without_titles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rows"):
        spectrogram_grid([[tone(500, 0.5)]], [], RATE, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
