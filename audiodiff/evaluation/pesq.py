"""Scores of the package pesq, with its crashes and silences turned into values or reasons."""

from __future__ import annotations

import numpy as np

from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.signals import FLOOR_POWER, matched, optional_package, resampled

# The C code holds 50 utterances without a check and dies beyond. An utterance and its pause last at least
# 4 + 50 frames of 4 ms, so 10.5 s never hold more than 49; LJ Speech's longest clip has 10.1 s.
PIECE_SECONDS = 10.5

TOO_SHORT = "too short for PESQ (a quarter of a second)"


def pesq_score(
    reference: np.ndarray | None, estimate: np.ndarray, sample_rate: int, pesq_rate: int, mode: str
) -> float:
    """Returns the mean PESQ score of a signal's pieces; pieces where the reference is silent do not count.

    Args:
        reference: [T].
        estimate: [T].
        sample_rate: Hz, of both.
        pesq_rate: 8000 or 16000, at which PESQ listens.
        mode: "nb" or "wb".

    Raises:
        InputError: signals that cannot be compared.
        NotMeasurable: a piece cannot be scored.
    """
    pair = [resampled(signal, sample_rate, pesq_rate) for signal in matched(reference, estimate)]
    if pair[0].size < pesq_rate / 4:
        raise NotMeasurable(TOO_SHORT)
    pieces = int(np.ceil(pair[0].size / (PIECE_SECONDS * pesq_rate)))
    cut = zip(*(np.array_split(signal, pieces) for signal in pair), strict=True)
    heard = [(clean, degraded) for clean, degraded in cut if np.mean(clean**2) >= FLOOR_POWER]
    if not heard:
        raise NotMeasurable("PESQ: the reference is silent")
    return float(np.mean([_piece_score(clean, degraded, pesq_rate, mode) for clean, degraded in heard]))


def _piece_score(clean: np.ndarray, degraded: np.ndarray, pesq_rate: int, mode: str) -> float:
    pesq = optional_package("pesq")
    if np.mean(degraded**2) < FLOOR_POWER:  # the C code divides by its level
        raise NotMeasurable("PESQ: the estimate is silent")
    try:
        return float(pesq.pesq(pesq_rate, clean, degraded, mode))
    except pesq.NoUtterancesError:
        raise NotMeasurable("PESQ found no utterance") from None
    except pesq.BufferTooShortError:
        raise NotMeasurable(TOO_SHORT) from None
