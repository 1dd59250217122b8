"""Difference of integrated loudness in loudness units, by the package pyloudnorm (ITU-R BS.1770-4).

|L_estimate - L_reference|, each with K-weighting and both gates. It is what a listener turns the volume knob by before
anything else can be compared.
"""

from __future__ import annotations

import warnings

import numpy as np

from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.signals import matched, optional_package

NAME = "Loudness difference"
UNIT = "LU"
BETTER = "lower"

BLOCK_SECONDS = 0.4


def loudness_difference(reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the absolute difference of two loudnesses in loudness units; 0 when the signals are equal.

    Args:
        reference: [T].
        estimate: [T], of the same length but for less than 2 %.
        sample_rate: Hz, of both.

    Raises:
        InputError: signals that cannot be compared, see `signals.matched`.
        NotMeasurable: shorter than a block of 0.4 s, or below the gate of -70 LUFS throughout.
    """
    meter = optional_package("pyloudnorm").Meter(sample_rate, block_size=BLOCK_SECONDS)
    pair = matched(reference, estimate)
    if pair[0].size <= BLOCK_SECONDS * sample_rate:
        raise NotMeasurable("too short for a loudness (0.4 s)")
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")  # a silent signal has no block above the gate, which is said below
        levels = [float(meter.integrated_loudness(signal)) for signal in pair]
    if not np.isfinite(levels).all():
        raise NotMeasurable("a signal is below the gate of -70 LUFS throughout")
    return abs(levels[1] - levels[0])
