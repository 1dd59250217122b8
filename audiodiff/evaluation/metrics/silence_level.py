"""Level of the estimate where the reference is silent (hiss), relative to the reference's sound elsewhere.

Frames of 20 ms; the reference is silent in frames more than 40 dB below its loudest (the limit of STOI, Taal
et al. 2011). 10 log10 of the estimate's mean power in the silent frames, floored at -100 dB of full scale,
over the reference's mean power in the others. The recording itself has a value too, its noise floor:
nothing needs to be quieter.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.signals import FLOOR_POWER, matched

NAME = "Silence level"
UNIT = "dB"
BETTER = "lower"

FRAME_SECONDS = 0.02
SILENT_DB = 40.0
FEWEST_FRAMES = 3


def silence_level(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the level of the estimate in the reference's silence, in decibels.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: the reference has less than three silent frames, or no sound at all.
    """
    clean, made = (_frame_power(x, sample_rate) for x in matched(reference, estimate))
    if clean.size == 0 or clean.max() < FLOOR_POWER:
        raise NotMeasurable("the reference is silent throughout")
    silent = clean < clean.max() * 10 ** (-SILENT_DB / 10)
    if silent.sum() < FEWEST_FRAMES:
        raise NotMeasurable("the reference has no silence")
    hiss = max(float(np.mean(made[silent])), FLOOR_POWER)
    return float(10 * np.log10(hiss / np.mean(clean[~silent])))


def _frame_power(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    length = round(FRAME_SECONDS * sample_rate)
    frames = waveform[: waveform.size // length * length].reshape(-1, length)
    return np.asarray(np.mean(frames**2, axis=1))
