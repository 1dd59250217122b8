"""Scores on a classifier's probabilities p(y|x): inception score, modified inception score, AM score.

    IS  = exp( E_x KL(p(y|x) || p(y)) )                 Salimans et al. 2016, section 4; from 1 to the number of classes
    mIS = exp( E_{x, x'} KL(p(y|x) || p(y|x')) )        Gurumurthy et al. 2017 (DeLiGAN), eq. 9
    AM  = KL(p_real(y) || p(y)) + E_x H(p(y|x))         Zhou et al. 2018, eq. 25; 0 is best

with p(y) = E_x p(y|x). mIS runs over all N^2 pairs, in closed form: E_x sum_y p log p - sum_y p(y) E_x log p(y|x).
It has no upper end: it is large when the classifier is sure, so it compares models only under one classifier.
A probability below 1.2e-38 counts as that.
"""

from __future__ import annotations

import numpy as np

from audiodiff.errors import InputError
from audiodiff.evaluation.distributions.matrices import probability_matrix


def inception_score(probabilities: np.ndarray) -> float:
    """Returns the inception score of probabilities [N, K]; 1 for one class or for guessing, K at best.

    Raises:
        InputError: not probabilities.
    """
    p = probability_matrix(probabilities, "probabilities")
    return float(np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean()))


def modified_inception_score(probabilities: np.ndarray) -> float:
    """Returns the modified inception score of probabilities [N, K], over all pairs; at least 1.

    Raises:
        InputError: not probabilities.
    """
    p = probability_matrix(probabilities, "probabilities")
    logarithm = np.log(p)
    return float(np.exp((p * logarithm).sum(1).mean() - (p.mean(0) * logarithm.mean(0)).sum()))


def am_score(real: np.ndarray, made: np.ndarray) -> float:
    """Returns the AM score of probabilities [M, K] against those of real sounds [N, K]; 0 at best.

    Raises:
        InputError: not probabilities, or of another number of classes.
    """
    real, made = probability_matrix(real, "real probabilities"), probability_matrix(made, "probabilities")
    if real.shape[1] != made.shape[1]:
        raise InputError(f"{real.shape[1]} real and {made.shape[1]} generated classes; use one classifier")
    marginal = real.mean(0)
    divergence = (marginal * (np.log(marginal) - np.log(made.mean(0)))).sum()
    return float(divergence - (made * np.log(made)).sum(1).mean())
