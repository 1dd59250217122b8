"""Which definition made a mel, known for certain beside the audio that it was made of.

The audio is analysed by every definition that projects use and by the model's own with one field changed; the mel that
comes nearest tells. Hop length and framing show in the number of frames, the filterbank in the bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from audiodiff.audio import io
from audiodiff.audio.mel import LogMel, preset, preset_names
from audiodiff.errors import InputError

_HOPS = (64, 80, 128, 160, 200, 240, 256, 275, 300, 320, 480, 512)
_F_MINS = (0.0, 20.0, 40.0, 50.0, 55.0, 80.0, 125.0)
_F_MAXS = (7600.0, 8000.0, 11000.0, 11025.0, 12000.0, None)


@dataclass(frozen=True)
class Match:
    """How near the mel of one definition comes.

    Attributes:
        name: of the definition, in words.
        definition: it.
        error_db: mean absolute difference, decibels.
        frames: how many frames more or less the mel has than the definition gives.
    """

    name: str
    definition: LogMel
    error_db: float
    frames: int


def recognise(mel: Tensor, waveform: Tensor, sample_rate: int, log_mel: LogMel) -> list[Match]:
    """Returns definitions by how near their mel of the audio comes to the mel, the nearest first.

    Args:
        mel: [bands, F].
        waveform: [1, T], the audio that the mel was made of.
        sample_rate: its, hertz.
        log_mel: the model's definition.

    Raises:
        InputError: no definition gives a mel of about so many bands and frames.
    """
    matches = []
    for name, definition in _candidates(log_mel, mel.shape[0]):
        heard = io.resample(waveform, sample_rate, definition.sample_rate)
        frames = mel.shape[1] - definition.frames(heard.shape[-1])
        if abs(frames) > 2:
            continue
        made = definition(heard)[0]
        common = min(made.shape[1], mel.shape[1])
        difference = (made[:, :common] - mel[:, :common]).abs().mean() / definition.decibel
        matches.append(Match(name, definition, float(difference), frames))
    if not matches:
        raise InputError(
            f"no known definition makes {mel.shape[1]} frames of {mel.shape[0]} bands of {waveform.shape[-1]} samples "
            f"at {sample_rate} Hz; is this the audio that the mel was made of?"
        )
    return sorted(matches, key=lambda match: (match.error_db, abs(match.frames)))


def _candidates(log_mel: LogMel, bands: int) -> Iterator[tuple[str, LogMel]]:
    if bands == log_mel.n_mels:
        yield "the model's own", log_mel
        for change in _changes(log_mel):
            try:
                made = LogMel.from_definition(log_mel.definition() | change)
            except InputError:  # an f_max above half the sample rate, a hop above the window
                continue
            yield "; ".join(log_mel.difference(made)), made
    for name in preset_names():
        other = preset(name)
        if other.n_mels == bands and log_mel.difference(other):
            yield f"{name} ({'; '.join(log_mel.difference(other))})", other


def _changes(log_mel: LogMel) -> Iterator[dict[str, Any]]:
    values: dict[str, tuple[Any, ...]] = {
        "hop_length": _HOPS, "framing": ("center", "same"), "f_min": _F_MINS, "f_max": _F_MAXS,
        "mel_scale": ("slaney", "htk"), "mel_norm": ("slaney", None), "power": (1, 2),
        "log_base": ("e", "10", "db20"), "floor": (1e-10, 1e-7, 1e-5), "floor_mode": ("clamp", "add"),
        "window_normalized": (False, True), "window_periodic": (False, True), "pad_mode": ("reflect", "constant"),
        "win_length": tuple(log_mel.n_fft // part for part in (1, 2, 4)),
    }  # fmt: skip
    own = log_mel.effective()
    for name, options in values.items():
        for value in options:
            same = log_mel.sample_rate / 2 if name == "f_max" and value is None else value
            if same != own[name]:
                yield {name: value}
