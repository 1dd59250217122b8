"""Clipped samples restored without a model: frame by frame the spectrum of fewest lines that clipping would turn into
what was recorded (A-SPADE, Kitic, Bertin and Gribonval 2015, "Sparsity and cosparsity for audio declipping: a flexible
non-convex approach", algorithm 2)."""

from __future__ import annotations

import numpy as np

_OVERLAP = 4  # frames over each sample
_REDUNDANCY = 2  # bins of the spectrum per sample of a frame
_TOLERANCE = 1e-3  # of a frame's norm, at which its few lines count as its spectrum
_MOST_LINES = 0.3  # of a frame's samples


def sparsest(waveform: np.ndarray, clipped: np.ndarray, frame: int) -> np.ndarray:
    """Returns samples [T] of which the clipped ones are restored, at their level or beyond it; the others stay.

    Args:
        waveform: [T], clipped.
        clipped: [T], true for the samples that are to be restored.
        frame: samples of a frame, a multiple of 4.
    """
    padding = frame, frame + -waveform.size % (frame // _OVERLAP)
    padded, flags = np.pad(waveform.astype(np.float64), padding), np.pad(clipped, padding)
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame))
    starts = np.arange(0, padded.size - frame + 1, frame // _OVERLAP)
    concerned = [start for start in starts if flags[start : start + frame].any()]
    made, weight = np.zeros(padded.size), np.zeros(padded.size)
    if concerned:
        parts = np.stack([np.arange(start, start + frame) for start in concerned])
        restored = _restored(padded[parts] * window, flags[parts])
        np.add.at(made, parts, restored * window)
        np.add.at(weight, parts, np.broadcast_to(window**2, parts.shape))
    result = beyond(made / np.maximum(weight, 1e-9), padded, flags)
    return result[frame : frame + waveform.size]


def beyond(estimate: np.ndarray, waveform: np.ndarray, clipped: np.ndarray) -> np.ndarray:
    """Returns what clipping turns into the waveform and is nearest to an estimate, all of one shape."""
    further = np.where(waveform > 0, np.maximum(estimate, waveform), np.minimum(estimate, waveform))
    return np.where(clipped, further, waveform)


def _restored(frames: np.ndarray, clipped: np.ndarray) -> np.ndarray:
    """Returns frames [N, frame], each as soon as its spectrum has so few lines that it is consistent."""
    size = _REDUNDANCY * frames.shape[1]
    result = frames.copy()
    limits = _TOLERANCE * np.linalg.norm(frames, axis=1)
    active = np.arange(len(frames))
    dual = np.zeros((len(frames), size // 2 + 1), dtype=np.complex128)
    for lines in range(1, int(_MOST_LINES * frames.shape[1])):
        moved = np.fft.rfft(result[active], size, norm="ortho") + dual
        strength = np.abs(moved)
        least = np.partition(strength, -lines, axis=1)[:, -lines, None]
        sparse = np.where(strength >= least, moved, 0)
        back = np.fft.irfft(sparse - dual, size, norm="ortho")[:, : frames.shape[1]]
        result[active] = beyond(back, frames[active], clipped[active])
        residual = np.fft.rfft(result[active], size, norm="ortho") - sparse
        unfinished = np.linalg.norm(residual, axis=1) > limits[active]
        if not unfinished.any():
            break
        active, dual = active[unfinished], (dual + residual)[unfinished]
    return result
