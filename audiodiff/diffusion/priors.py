"""What noise is: isotropic, or a diagonal Gaussian that the condition tells.

With x_t = mean + alpha (x_0 - mean) + sigma std eps (PriorGrad, Lee et al. 2022, eq. 5; Grad-TTS, Popov et al.
2021, eq. 9) the whitened z = (x - mean) / std diffuses by the plain process. So a prior is a change of
coordinates: objectives, samplers and likelihoods work on z, the network sees x, and everything that they
inject as noise is scaled by std. PriorGrad's whitened loss is the plain loss on z.
"""

from __future__ import annotations

from torch import Tensor

from audiodiff.types import Condition


def whiten(x: Tensor, condition: Condition) -> Tensor:
    """Returns z = (x - prior_mean) / prior_std [B, C, F]; x itself when the condition tells no prior."""
    if condition.prior_mean is not None:
        x = x - condition.prior_mean
    return x if condition.prior_std is None else x / condition.prior_std


def color(z: Tensor, condition: Condition) -> Tensor:
    """Returns x = prior_mean + prior_std z [B, C, F]; inverts whiten."""
    if condition.prior_std is not None:
        z = z * condition.prior_std
    return z if condition.prior_mean is None else z + condition.prior_mean


def whiten_scale(prediction: Tensor, condition: Condition) -> Tensor:
    """Returns a prediction of noise or signal [B, C, F], made relative to the mean, in whitened units."""
    return prediction if condition.prior_std is None else prediction / condition.prior_std


def log_volume(x: Tensor, condition: Condition) -> Tensor | float:
    """Returns log |dz/dx| of each item [B]: what turns a log-density of z into one of x."""
    if condition.prior_std is None:
        return 0.0
    return -condition.prior_std.expand_as(x).log().flatten(1).sum(1)
