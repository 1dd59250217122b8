"""Linear prediction: Burg's method, the continuation of a signal, and the signal between two known sides.

x_n = sum_k a_k x_{n-k} + e_n. Burg 1975 finds the a_k by reflection coefficients within +-1, so that a continuation
never grows. Between two sides the samples with the least prediction error solve a linear system (Janssen, Veldhuis
and Vries 1986, eq. 12), in turn with the coefficients.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_toeplitz
from scipy.signal import fftconvolve, lfilter


def burg(signal: np.ndarray, order: int) -> np.ndarray:
    """Returns the prediction-error filter [order + 1], 1 first, of a signal [T] (Burg 1975).

    Fewer coefficients than asked are found where the signal has fewer samples or is predicted exactly.
    """
    forward, backward = signal[1:].astype(np.float64), signal[:-1].astype(np.float64)
    filter_ = np.ones(1)
    for _ in range(min(order, signal.size - 1)):
        power = forward @ forward + backward @ backward
        if power <= 1e-20 * signal.size:
            break
        reflection = -2 * (forward @ backward) / power
        filter_ = np.append(filter_, 0) + reflection * np.append(filter_, 0)[::-1]
        forward, backward = (forward + reflection * backward)[1:], (backward + reflection * forward)[:-1]
    return np.pad(filter_, (0, order + 1 - filter_.size))


def continued(signal: np.ndarray, count: int, order: int) -> np.ndarray:
    """Returns the `count` samples with which linear prediction goes on after a signal [T]."""
    filter_ = burg(signal, min(order, max(1, signal.size // 2)))
    past = signal[::-1][: filter_.size - 1].astype(np.float64)
    state = -np.array([filter_[k + 1 :] @ past[: filter_.size - 1 - k] for k in range(filter_.size - 1)])
    return lfilter([1.0], filter_, np.zeros(count), zi=state)[0]


def interpolated(
    before: np.ndarray, after: np.ndarray, count: int, order: int, iterations: int = 3
) -> np.ndarray:
    """Returns the `count` samples between two sides that linear prediction expects (Janssen et al. 1986).

    Args:
        before: [T], known, right before.
        after: [T'], known, right after; either side may be short, not both.
        count: samples between them.
        order: of the prediction.
        iterations: of coefficients and samples in turn.
    """
    order = min(order, max(1, (before.size + after.size) // 4))
    whole = np.concatenate([before, np.zeros(count), after]).astype(np.float64)
    gap = slice(before.size, before.size + count)
    whole[gap] = _from_both_sides(before, after, count, order)
    for _ in range(iterations):
        filter_ = burg(whole, order)
        correlation = np.correlate(filter_, filter_, "full")[order:]  # [order + 1]
        known = whole.copy()
        known[gap] = 0
        pull = fftconvolve(known, np.concatenate([correlation[:0:-1], correlation]), "same")[gap]
        column = np.pad(correlation, (0, max(0, count - order - 1)))[:count]
        column[0] *= 1 + 1e-9  # a pure tone leaves nothing to tell the samples by
        whole[gap] = solve_toeplitz(column, -pull)
    return whole[gap]


def _from_both_sides(before: np.ndarray, after: np.ndarray, count: int, order: int) -> np.ndarray:
    """Returns forward and backward continuations, cross-faded."""
    fade = (np.arange(count) + 0.5) / count
    if before.size < 2:
        return continued(after[::-1], count, order)[::-1]
    if after.size < 2:
        return continued(before, count, order)
    backwards = continued(after[::-1], count, order)[::-1]
    return (1 - fade) * continued(before, count, order) + fade * backwards
