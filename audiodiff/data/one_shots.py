"""One-shots: single sounds that begin at their attack, all brought to one length.

What is longer is faded out and cut, what is shorter is followed by silence, so that a model learns how a sound ends
and judge, metrics and listener hear recordings and generated sounds alike. The copies are FLAC in the prepared folder.
"""

from __future__ import annotations

import filecmp
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.data.listing import PrepareOptions, file_name

FADE_SECONDS = 0.05


@dataclass(frozen=True)
class OneShot:
    """A sound of the one length.

    Attributes:
        path: of the copy.
        waveform: [C, T], as written but for its rounding.
        sample_rate: Hz.
        clipped: samples beyond full scale that were clipped; resampling may overshoot.
    """

    path: Path
    waveform: Tensor
    sample_rate: int
    clipped: int


def write_one_shot(
    identifier: str, source: Path, seconds: float, out: Path, options: PrepareOptions
) -> OneShot:
    """Writes the first seconds of a file to out/audio, at the rate and with the channels asked for.

    Args:
        identifier: of the clip, which names the copy.
        source: the recording.
        seconds: length of the copy.
        out: prepared folder.
        options: rate, channels and peak. None of them is left to do for a copy.

    Raises:
        InputError: the file cannot be read, or the folder not be written.
    """
    info = io.probe(source)
    longest = min(info.length, math.ceil((seconds + FADE_SECONDS) * info.sample_rate))
    waveform, rate = io.read(source, options.sample_rate, 1 if options.mono else None, length=longest)
    waveform = of_length(waveform, round(seconds * rate), round(FADE_SECONDS * rate))
    loudest = float(waveform.abs().max())
    if options.peak is not None and loudest > 0:
        waveform = waveform * (options.peak / loudest)
    path = out.absolute() / "audio" / f"{file_name(identifier)}.flac"
    clipped = _write(path, waveform, rate, "PCM_16" if info.subtype == "PCM_16" else "PCM_24")
    return OneShot(path, waveform, rate, clipped)


def of_length(waveform: Tensor, length: int, fade: int) -> Tensor:
    """Returns [C, length]: the waveform [C, T] followed by silence, or faded out by half a cosine and cut."""
    if waveform.shape[-1] <= length:
        return torch.nn.functional.pad(waveform, (0, length - waveform.shape[-1]))
    fade = min(fade, length)
    slope = 0.5 + 0.5 * torch.cos(math.pi * (torch.arange(fade) + 0.5) / max(1, fade))
    kept = waveform[:, :length].clone()
    kept[:, length - fade :] *= slope
    return kept


def _write(path: Path, waveform: Tensor, sample_rate: int, subtype: str) -> int:
    """Writes a copy; a file that holds the same bytes already stays, so that it is not checked again."""
    fresh = path.with_name(f".fresh_{path.name}")
    try:
        clipped = io.write(fresh, waveform, sample_rate, subtype)
        if not (path.is_file() and filecmp.cmp(fresh, path, shallow=False)):
            os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    return clipped
