"""Fundamental frequency by WORLD: DIO refined by StoneMask (Morise et al. 2009, 2016), every 5 ms.

0 Hz means unvoiced. DIO searches 71 to 800 Hz.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.signals import matched, optional_package

# Two periods of the lowest tone at 71 Hz and DIO's filters do not fit into less.
SHORTEST_SECONDS = 0.06


def f0_pair(
    reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the fundamental frequency [F] in Hz of two signals, 0 where unvoiced.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: too short.
    """
    clean, made = matched(reference, estimate)
    if clean.size < SHORTEST_SECONDS * sample_rate:
        raise NotMeasurable("too short to measure F0")
    return _f0(clean, sample_rate), _f0(made, sample_rate)


def _f0(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    world = optional_package("pyworld")
    waveform = np.ascontiguousarray(waveform)
    rough, times = world.dio(waveform, sample_rate)
    return np.asarray(world.stonemask(waveform, rough, times, sample_rate))
