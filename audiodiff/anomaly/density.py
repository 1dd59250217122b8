"""A small mixture of Gaussians of feature vectors, with shrunken covariances.

The vectors are first whitened by the covariance of all of them, shrunken towards a multiple of the identity by the
amount of Ledoit and Wolf 2004; expectation and maximisation then fit the components, each covariance drawn towards
the whole's by as many vectors as it has dimensions. What is surprising is minus the log-density: it grows for errors
that are too small as for those that are too large (typicality; Nalisnick et al. 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp, softmax

from audiodiff.errors import InputError

_ROUNDS = 30
_SMALLEST = 1e-10  # of a variance


@dataclass(frozen=True)
class Mixture:
    """Gaussians with weights.

    Attributes:
        weights: [K], adding up to one.
        means: [K, D].
        roots: [K, D, D], lower triangular, of the covariances.
    """

    weights: np.ndarray
    means: np.ndarray
    roots: np.ndarray

    def surprise(self, vectors: np.ndarray) -> np.ndarray:
        """Returns minus the log-density in nats [N] of vectors [N, D]."""
        return -logsumexp(self._joint(vectors), axis=1)

    def _joint(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the log of weight times density [N, K]."""
        columns = []
        for weight, mean, root in zip(self.weights, self.means, self.roots, strict=True):
            scaled = solve_triangular(root, (vectors - mean).T, lower=True)
            volume = np.log(np.diag(root)).sum() + len(mean) / 2 * math.log(2 * math.pi)
            columns.append(np.log(weight) - volume - (scaled**2).sum(0) / 2)
        return np.stack(columns, axis=1)


def ledoit_wolf(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean [D] and shrunken covariance [D, D] of vectors [N, D] (Ledoit and Wolf 2004, lemma 3.2)."""
    count, features = vectors.shape
    mean = vectors.mean(0)
    centred = vectors - mean
    covariance = centred.T @ centred / count
    scale = np.trace(covariance) / features
    distance = (covariance**2).sum() - features * scale**2
    spread = ((centred**2).sum(1) ** 2).sum() / count**2 - (covariance**2).sum() / count
    share = min(max(spread, 0.0) / distance, 1.0) if distance > 0 else 1.0
    shrunken = (1 - share) * covariance + (share * scale + _SMALLEST) * np.eye(features)
    return mean, shrunken


def fit_mixture(vectors: np.ndarray, components: int, seed: int) -> Mixture:
    """Returns the mixture of vectors [N, D].

    Args:
        vectors: of normal frames or recordings.
        components: Gaussians.
        seed: of the vectors that they start from.

    Raises:
        InputError: less than two vectors for each component.
    """
    if components < 1 or len(vectors) < 2 * components:
        raise InputError(f"density: got {len(vectors)} frames for {components} Gaussians, expected more")
    mean, covariance = ledoit_wolf(vectors)
    root = np.linalg.cholesky(covariance)
    whitened = solve_triangular(root, (vectors - mean).T, lower=True).T
    mixture = _start(whitened, components, seed)
    if components > 1:
        for _ in range(_ROUNDS):
            mixture = _maximised(whitened, softmax(mixture._joint(whitened), axis=1))
    means = mean + mixture.means @ root.T
    return Mixture(mixture.weights, means, np.einsum("ij,kjl->kil", root, mixture.roots))


def _start(whitened: np.ndarray, components: int, seed: int) -> Mixture:
    features = whitened.shape[1]
    if components == 1:
        return Mixture(np.ones(1), np.zeros((1, features)), np.eye(features)[None])
    generator = np.random.default_rng(seed)
    centres = whitened[generator.choice(len(whitened), components, replace=False)]
    for _ in range(_ROUNDS):  # k-means
        nearest = _nearest(whitened, centres)
        centres = np.stack(
            [
                whitened[nearest == k].mean(0) if (nearest == k).any() else centre
                for k, centre in enumerate(centres)
            ]
        )
    return _maximised(whitened, np.eye(components)[_nearest(whitened, centres)])


def _nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return ((centres**2).sum(1) - 2 * vectors @ centres.T).argmin(1)


def _maximised(whitened: np.ndarray, shares: np.ndarray) -> Mixture:
    """Returns the mixture of vectors [N, D] that belong to the components by shares [N, K]."""
    features = whitened.shape[1]
    counts = shares.sum(0) + 1e-9
    means = (shares.T @ whitened) / counts[:, None]
    roots = []
    for share, mean, count in zip(shares.T, means, counts, strict=True):
        centred = whitened - mean
        scatter = (centred * share[:, None]).T @ centred
        roots.append(np.linalg.cholesky((scatter + features * np.eye(features)) / (count + features)))
    return Mixture(counts / counts.sum(), means, np.stack(roots))
