"""What a mel from elsewhere must be before it is believed: layout, shape, finite numbers, range.

A mel does not say how it was made. What can be told from its numbers is refused here, with the likeliest other
convention named; what cannot (a natural logarithm that looks like a quiet log10) is for `mel_conversion` to know
from the other definition, and for `audiodiff check-mel` to guess from the model's training statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from audiodiff.errors import InputError

if TYPE_CHECKING:
    from audiodiff.audio.mel import LogMel

LAYOUTS = ("bands_first", "frames_first")
# Share of the range from silence to full scale by which a mel may leave it: predicted mels overshoot.
_MARGIN = 0.1


def check_layout(layout: str | None) -> None:
    """Refuses a layout that is none of LAYOUTS or None."""
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"layout: got {layout!r}, choose one of {', '.join(LAYOUTS)}, or None to detect it")


def bands_first(mel: Tensor | np.ndarray, n_mels: int, layout: str | None, name: str) -> Tensor | np.ndarray:
    """Returns the mel as [..., n_mels, F].

    Args:
        mel: [..., n_mels, F] or [..., F, n_mels].
        n_mels: bands that the model expects.
        layout: "bands_first" or "frames_first"; None: the one of the last two axes that has n_mels entries.
        name: what the messages call it.

    Raises:
        InputError: an unknown layout, frames first told of a mel that has no such axis, or none told of a mel with
            as many frames as bands.
    """
    check_layout(layout)
    if len(getattr(mel, "shape", ())) < 2 or layout == "bands_first":
        return mel
    first, last = mel.shape[-2:]
    if layout is None and first == last == n_mels:
        raise InputError(
            f"{name}: shape {tuple(mel.shape)} has as many frames as bands, so its layout cannot be told; "
            'give layout="bands_first" ([B, n_mels, F]) or layout="frames_first" ([B, F, n_mels])'
        )
    if layout == "frames_first" and last != n_mels:
        raise InputError(
            f"{name}: shape {tuple(mel.shape)}, expected {n_mels} bands on the last axis (layout frames_first)"
        )
    if last != n_mels or (layout is None and first == n_mels):
        return mel
    return mel.transpose(-1, -2) if isinstance(mel, Tensor) else np.swapaxes(mel, -1, -2)


def checked(definition: LogMel, mel: Tensor | np.ndarray, name: str) -> Tensor:
    """Returns a mel as [B, n_mels, F] float32, see `LogMel.check`."""
    if isinstance(mel, np.ndarray) and mel.dtype.kind == "f":
        mel = torch.from_numpy(mel.astype(np.float32))
    if not isinstance(mel, Tensor) or not mel.is_floating_point():
        kind = getattr(mel, "dtype", type(mel).__name__)
        raise InputError(f"{name}: values of type {kind}, expected a floating point tensor or array")
    shape, bands = tuple(mel.shape), definition.n_mels
    mel = mel.float() if mel.dim() != 2 else mel.float()[None]
    if mel.dim() != 3:
        raise InputError(f"{name}: shape {shape}, expected [B, {bands}, F] or [{bands}, F]")
    if mel.shape[1] != bands:
        mend = "analyse with this model's mel definition"
        if mel.shape[2] == bands:
            mend = "this looks like [B, F, n_mels]; exchange the last two dimensions"
        raise InputError(f"{name}: shape {shape}, expected {bands} bands in [B, n_mels, F]; {mend}")
    if mel.numel() == 0:
        raise InputError(f"{name}: shape {shape} has no frames")
    if not torch.isfinite(mel).all():
        count = int((~torch.isfinite(mel)).sum())
        raise InputError(f"{name}: {count} of {mel.numel()} values are NaN or infinite")
    _check_range(definition, mel, name)
    return mel


def _check_range(definition: LogMel, mel: Tensor, name: str) -> None:
    # The loudest magnitude of samples in [-1, 1] is sum(w), and no spectrum lies above
    # sqrt(sum(w^2)) everywhere, since sum(w^2) bounds the mean squared magnitude (Parseval).
    norm = definition.window.norm()
    unit = norm if definition.window_normalized else 1
    loudest = float(definition.level(float(definition.window.sum() / unit)).max())
    everywhere = float(definition.level(float(norm / unit)).min())
    silence = definition.floor_value
    margin = _MARGIN * (loudest - silence)
    low, high = float(mel.min()), float(mel.max())
    if silence - margin <= low <= everywhere and high <= loudest + margin:
        return
    raise InputError(
        f"{name}: values from {low:.4g} to {high:.4g}, expected between {silence:.4g} (silence) and "
        f"{loudest:.4g} (full scale); this looks like {_likeliest(definition, mel)}; "
        "analyse with this model's mel definition, or convert"
    )


def _likeliest(definition: LogMel, values: Tensor) -> str:
    """Guesses the convention of values that are not of this definition, from their range and mean."""
    low, high, mean = float(values.min()), float(values.max()), float(values.mean())
    if low >= 0:
        return "a mel scaled to 0..1" if high <= 1 else "linear magnitudes without a logarithm"
    if abs(mean) < 1:
        return "a mel normalized to mean 0"
    # Speech has a mean near -2.3 in log10, -5 in natural logarithm, -45 in decibels.
    theirs = "db20" if mean < -20 else "e" if mean < -3.5 else "10"
    plain = (definition.scale, definition.offset) == (1, 0)
    if mean > 0 or (plain and theirs == definition.log_base):
        return "another floor, or audio that was not scaled to [-1, 1]"
    return {"db20": "decibels (20 log10)", "e": "a natural logarithm (ln)", "10": "log10"}[theirs]
