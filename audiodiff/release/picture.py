"""The picture of a card: spectrograms, in as many bytes as a card may have."""

from __future__ import annotations

import io
from pathlib import Path

from torch import Tensor

from audiodiff.audio.pictures import spectrogram_figure
from audiodiff.errors import InputError

PICTURE = "spectrograms.png"
MOST_BYTES = 75_000
_COLOURS = 128


def draw(rows: dict[str, list[Tensor]], sample_rate: int) -> bytes:
    """Returns a PNG of spectrograms, one row of waveforms [C, T] per title."""
    waveforms = [[waveform.mean(0).numpy() for waveform in row] for row in rows.values()]
    buffer = io.BytesIO()
    spectrogram_figure(waveforms, list(rows), sample_rate).savefig(buffer, format="png")
    return small(buffer.getvalue(), "spectrograms")


def read(path: Path) -> bytes:
    """Returns a picture as a PNG that is small enough.

    Raises:
        InputError: it cannot be read as a picture.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return small(content, str(path))


def small(content: bytes, name: str) -> bytes:
    """Returns a picture as a PNG of few colours, shrunk until it has at most MOST_BYTES.

    Raises:
        InputError: it cannot be read as a picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(content)).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{name}: cannot be read as a picture ({error})") from error
    while True:
        buffer = io.BytesIO()
        picture.quantize(_COLOURS).save(buffer, format="png", optimize=True)
        if buffer.tell() <= MOST_BYTES:
            return buffer.getvalue()
        picture = picture.resize((picture.width * 4 // 5, picture.height * 4 // 5), Image.Resampling.LANCZOS)
