"""Scale-invariant signal-to-distortion ratio in decibels (Le Roux et al. 2019, "SDR, half-baked or well done?", eq. 3).

10 log10(||a r||^2 / ||a r - e||^2) with a = <e, r> / ||r||^2, means removed; at most 100 dB, where the distortion
is that of rounding. It compares waveforms sample by sample: a vocoder that chooses its own phases scores low and may
sound perfect; it is for what repairs or denoises a recording.
"""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.signals import FLOOR_POWER, matched

NAME = "SI-SDR"
UNIT = "dB"
BETTER = "higher"

HIGHEST_DB = 100.0


def si_sdr(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the scale-invariant signal-to-distortion ratio in decibels, from -100 to 100.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both; the definition does not use it.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: a signal is silent.
    """
    clean, made = (signal - signal.mean() for signal in matched(reference, estimate))
    if min(np.mean(clean**2), np.mean(made**2)) < FLOOR_POWER:
        raise NotMeasurable("SI-SDR: a signal is silent")
    target = clean * (clean @ made) / (clean @ clean)
    distortion = target - made
    ratio = (target @ target) / max(distortion @ distortion, np.finfo(np.float64).tiny)
    limit = 10 ** (HIGHEST_DB / 10)
    return float(10 * np.log10(np.clip(ratio, 1 / limit, limit)))
