"""Sounds and pictures as text inside a page: FLAC and PNG in base64.

FLAC is lossless at the sixteen bits that are written, half as large as WAV, and played by every current browser.
"""

from __future__ import annotations

import base64
import io as bytes_io
from pathlib import Path

import numpy as np

from audiodiff.audio import io
from audiodiff.audio.pictures import RANGE_DB, levels

_PICTURE_HEIGHT = 128  # pixels
_WIDEST = 480  # pixels
_DIFFERENCE_DB = 30.0  # at which a difference has its strongest colour


def read_sound(path: Path, sample_rate: int | None = None) -> tuple[np.ndarray, int]:
    """Returns samples [T, C] in [-1, 1] and their rate.

    Raises:
        InputError: the file cannot be read.
    """
    waveform, rate = io.read(path, sample_rate)
    return waveform.T.numpy(), rate


def sound_uri(samples: np.ndarray, sample_rate: int) -> str:
    """Returns samples [T, C] as a data URI of a FLAC file."""
    import soundfile

    buffer = bytes_io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), sample_rate, format="FLAC", subtype="PCM_16")
    return _uri("audio/flac", buffer.getvalue())


def spectrogram(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns levels [bins, frames] in decibels of the mean of the channels."""
    return np.asarray(levels(samples.mean(1), sample_rate))


def spectrogram_uri(decibels: np.ndarray, loudest: float) -> str:
    """Returns a spectrogram as a PNG, 80 dB below the loudest level black."""
    return _png(_small(decibels), "magma", loudest - RANGE_DB, loudest)


def difference_uri(estimate: np.ndarray, reference: np.ndarray) -> str:
    """Returns by how much an estimate is louder (red) or quieter (blue) than a reference, both in decibels.

    What lies 80 dB below the reference's loudest level counts as that quiet.
    """
    frames = min(estimate.shape[1], reference.shape[1])
    floor = float(reference.max()) - RANGE_DB
    pair = [np.maximum(each[:, :frames], floor) for each in (estimate, reference)]
    return _png(_small(pair[0] - pair[1]), "RdBu_r", -_DIFFERENCE_DB, _DIFFERENCE_DB)


def _small(picture: np.ndarray) -> np.ndarray:
    """Returns a picture of at most 128 x 480, each of its points the mean of those that it stands for."""
    for axis, most in ((0, _PICTURE_HEIGHT), (1, _WIDEST)):
        size = picture.shape[axis]
        if size > most:
            starts = np.arange(most) * size // most
            counts = np.diff(np.append(starts, size))
            shape = (-1, 1) if axis == 0 else (1, -1)
            picture = np.add.reduceat(picture, starts, axis=axis) / counts.reshape(shape)
    return picture


def _png(picture: np.ndarray, colours: str, low: float, high: float) -> str:
    from matplotlib.image import imsave

    buffer = bytes_io.BytesIO()
    imsave(
        buffer,
        picture,
        cmap=colours,
        vmin=low,
        vmax=high,
        origin="lower",
        format="png",
        metadata={"Software": ""},
    )
    return _uri("image/png", buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
