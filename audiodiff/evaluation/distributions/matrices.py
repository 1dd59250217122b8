"""What the measures take: finite matrices of features, rows of probabilities; distances in pieces that fit memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial.distance import cdist

from audiodiff.errors import InputError

PIECE = 4_000_000  # distances held at a time

# Below it a probability counts as this one: the smallest that float32 holds in full.
SMALLEST = float(np.finfo(np.float32).tiny)


def feature_matrix(features: np.ndarray, name: str, least: int = 1) -> np.ndarray:
    """Returns features [N, D] in float64.

    Args:
        features: one row a sound.
        name: whose, for the message.
        least: rows that are needed.

    Raises:
        InputError: another shape, too few rows, or NaN or infinite numbers.
    """
    matrix = np.asarray(features, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < least or matrix.shape[1] < 1:
        raise InputError(
            f"{name} features: got shape {matrix.shape}, expected [N, D] with N of at least {least}"
        )
    if not np.isfinite(matrix).all():
        raise InputError(f"{name} features: hold NaN or infinite numbers; expected finite ones")
    return matrix


def feature_pair(real: np.ndarray, made: np.ndarray, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Returns both matrices, see `feature_matrix`.

    Raises:
        InputError: one is no matrix of features, or they have not the same number of features.
    """
    pair = feature_matrix(real, "real", least), feature_matrix(made, "generated", least)
    if pair[0].shape[1] != pair[1].shape[1]:
        raise InputError(
            f"real features have {pair[0].shape[1]} columns, generated {pair[1].shape[1]}; expected the same features"
        )
    return pair


def probability_matrix(probabilities: np.ndarray, name: str) -> np.ndarray:
    """Returns probabilities [N, K] in float64, none below SMALLEST, every row summing to 1.

    Raises:
        InputError: another shape, negative or not finite numbers, or rows that do not sum to 1 within 1 %.
    """
    matrix = feature_matrix(probabilities, name)
    if (matrix < 0).any() or np.abs(matrix.sum(1) - 1).max() > 0.01:
        raise InputError(f"{name}: expected probabilities, rows of numbers from 0 on that sum to 1")
    matrix = np.maximum(matrix, SMALLEST)
    return matrix / matrix.sum(1, keepdims=True)


def distance_rows(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields Euclidean distances of some rows of [N, D] to all of [M, D]: which rows, and [rows, M]."""
    step = max(1, PIECE // len(other))
    for start in range(0, len(one), step):
        rows = slice(start, min(start + step, len(one)))
        yield rows, cdist(one[rows], other)
