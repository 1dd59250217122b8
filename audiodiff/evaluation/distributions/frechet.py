"""Frechet distance of two Gaussians fitted to features (Heusel et al. 2017, eq. 6; Dowson and Landau 1982).

    d = |mu_r - mu_g|^2 + tr(S_r + S_g - 2 (S_r S_g)^(1/2))

d is a squared distance, as everywhere in the field. S_r S_g is similar to S_r^(1/2) S_g S_r^(1/2), which is symmetric
and not negative, so the trace of the root is the sum of the roots of that matrix's eigenvalues: real for singular
covariances too, where an iterative matrix root yields complex numbers or fails.
With N samples the distance of a distribution to itself is about proportional to 1/N, not 0 (Chong and Forsyth 2020):
compare only scores of equal counts.
"""

from __future__ import annotations

import numpy as np

from audiodiff.errors import InputError
from audiodiff.evaluation.distributions.matrices import feature_pair


def frechet_distance(real: np.ndarray, made: np.ndarray) -> float:
    """Returns the Frechet distance of two sets of features; 0 when mean and covariance agree.

    Args:
        real: [N, D], at least two rows.
        made: [M, D], at least two rows.

    Raises:
        InputError: not two such matrices.
    """
    real, made = feature_pair(real, made, least=2)
    return gaussian_distance(real.mean(0), _covariance(real), made.mean(0), _covariance(made))


def gaussian_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """Returns the Frechet distance of two Gaussians with means [D] and covariances [D, D]."""
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ other_covariance @ root)
    shared = np.sqrt(np.maximum(product, 0)).sum()
    apart = np.square(mean - other_mean).sum()
    return float(max(0.0, apart + np.trace(covariance) + np.trace(other_covariance) - 2 * shared))


def class_frechet_distance(
    real: np.ndarray, real_classes: np.ndarray, made: np.ndarray, made_classes: np.ndarray
) -> tuple[float, float]:
    """Returns mean and standard deviation over classes of the Frechet distance within a class (FID-class).

    Kong et al. 2021 (DiffWave), Table 3.

    Args:
        real: [N, D].
        real_classes: [N], class of each row.
        made: [M, D].
        made_classes: [M], class asked for.

    Raises:
        InputError: no class has two rows in both sets.
    """
    distances = [
        frechet_distance(real[real_classes == each], made[made_classes == each])
        for each in np.unique(made_classes)
        if min((real_classes == each).sum(), (made_classes == each).sum()) >= 2
    ]
    if not distances:
        raise InputError("no class has two real and two generated sounds; generate more of each class")
    return float(np.mean(distances)), float(np.std(distances))


def _covariance(features: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.cov(features, rowvar=False))
