"""What training minimises: (denoiser, clean, condition, noise, t) -> loss [B].

The default is the epsilon-prediction mean squared error of Ho et al. 2020, eq. 14: draw x_t, let the
network say which noise was added, and square the error. Every objective is an error of the prediction, scaled
by the square root of a weight, under a distance. Weights are stated on the error of the clean estimate, which
is c_out times that of the prediction, so that one weight means the same for every parameterization; None leaves
the prediction's own error. Positions beyond an item's length do not count. Clean signal, noise and errors
are in the whitened coordinates of the condition's prior (see `priors`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoiser, VarianceDenoiser
from audiodiff.diffusion.parameterizations import target
from audiodiff.diffusion.process import (
    diffuse,
    expand,
    posterior,
    posterior_variance,
    rates,
    transition_variance,
)
from audiodiff.diffusion.samplers import interpolated_log_variance
from audiodiff.diffusion.schedules import NoiseSchedule, table_of
from audiodiff.errors import InputError
from audiodiff.types import Condition

Weight = Callable[[NoiseSchedule, Tensor], Tensor]
"""(schedule, t [B]) -> weight [B], float64, on the squared error of the clean estimate."""


class Objective(Protocol):
    """A loss per item."""

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Returns the loss [B] of clean [B, C, F] at t [B] with the given noise [B, C, F]."""
        ...


def min_snr(schedule: NoiseSchedule, t: Tensor, *, gamma: float = 5.0) -> Tensor:
    """Returns min(SNR, gamma): low noise counts no more than gamma (Hang et al. 2023, eq. 8)."""
    return schedule.log_snr(t).exp().clamp(max=gamma)


def truncated_snr(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Returns max(SNR, 1), which keeps the error at pure noise counting (Salimans and Ho 2022, section 4)."""
    return schedule.log_snr(t).exp().clamp(min=1)


def edm_weight(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Returns (sigma^2 + alpha^2) / sigma^2: uniform for EDM's preconditioned network (Karras et al. 2022, eq. 8)."""
    return schedule.log_snr(t).exp() + 1


def variational(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Returns -1/2 dSNR/dt, with which the mean over t is the variational bound (Kingma et al. 2021, eq. 17)."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    alpha_rate, sigma_rate = rates(schedule, t)
    return alpha * (alpha * sigma_rate - sigma * alpha_rate) / sigma**3


@dataclass(frozen=True)
class MeanSquaredError:
    """Mean squared error of the prediction; with epsilon prediction, the simple loss of Ho et al. 2020.

    Attributes:
        weight: on the error of the clean estimate; None for the prediction's own error.
    """

    weight: Weight | None = None

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Returns the loss [B]."""
        error = weighted_error(denoiser, clean, condition, noise, t, self.weight)
        return masked_mean(error.square(), condition.mask(clean))


@dataclass(frozen=True)
class MeanAbsoluteError:
    """Mean absolute error of the prediction, as lmnt's DiffWave and WaveGrad train.

    Attributes:
        weight: on the squared error of the clean estimate; None for the prediction's own error.
    """

    weight: Weight | None = None

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Returns the loss [B]."""
        error = weighted_error(denoiser, clean, condition, noise, t, self.weight)
        return masked_mean(error.abs(), condition.mask(clean))


@dataclass(frozen=True)
class Huber:
    """Pseudo-Huber error: squared when small, absolute when large (Charbonnier et al. 1997).

    Attributes:
        delta: error at which one passes into the other.
        weight: on the squared error of the clean estimate; None for the prediction's own error.
    """

    delta: float = 1.0
    weight: Weight | None = None

    def __post_init__(self) -> None:
        if self.delta <= 0:
            raise InputError(f"huber delta: got {self.delta}, expected a number above 0")

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Returns the loss [B]."""
        error = weighted_error(denoiser, clean, condition, noise, t, self.weight)
        return masked_mean(pseudo_huber(error, self.delta), condition.mask(clean))


@dataclass(frozen=True)
class WithSTFT:
    """Another objective plus a multi-resolution STFT loss on the clean estimate (Yamamoto et al. 2020, eqs. 4-6).

    It takes x for a signal along its last axis, so it belongs to waveforms. It is weighted by alpha(t)^2, since the
    clean estimate of a noise prediction has its error over alpha.

    Attributes:
        objective: the main loss.
        share: of the STFT loss.
        resolutions: (n_fft, hop_length, win_length) of each, in samples.
    """

    objective: Objective
    share: float = 0.1
    resolutions: tuple[tuple[int, int, int], ...] = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Returns the loss [B]; the main objective and this one evaluate the network once each."""
        x_t = diffuse(denoiser.schedule, clean, noise, t)
        estimate = denoiser(x_t, t, condition)
        mask = condition.mask(clean)
        pair = (estimate, clean) if mask is None else (estimate * mask, clean * mask)
        frames = clean.shape[-1] if condition.frames is None else condition.frames.to(clean.device)
        lengths = torch.as_tensor(frames, device=clean.device).expand(clean.shape[0])
        losses = [stft_loss(*pair, lengths, *resolution) for resolution in self.resolutions]
        weight = denoiser.schedule.alpha(t).to(clean.device).float() ** 2
        main = self.objective(denoiser, clean, condition, noise, t)
        return main + self.share * weight * torch.stack(losses).mean(0)


@dataclass(frozen=True)
class HybridVariational:
    """Squared error of the prediction plus the variational bound of the learned variance.

    Nichol and Dhariwal 2021, eq. 16: the bound trains only the variance; the mean is held fixed in it.

    Attributes:
        share: of the bound, in bits per position and multiplied by the number of rows as theirs.
    """

    share: float = 1e-3

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Returns the loss [B]; t on rows of the table (density UniformSteps).

        Raises:
            InputError: the denoiser has no learned variance, or its schedule no rows.
        """
        if not isinstance(denoiser, VarianceDenoiser):
            raise InputError("hybrid objective: needs a VarianceDenoiser, whose network has outputs: 2")
        rows = table_of(denoiser.schedule, "hybrid objective").steps
        x_t = diffuse(denoiser.schedule, clean, noise, t)
        prediction, share = denoiser.predict_with_variance(x_t, t, condition)
        mask = condition.mask(clean)
        error = prediction.float() - _target(denoiser, clean, noise, t)
        estimate = denoiser.clean_of(x_t, t, prediction.detach())
        bound = step_bound(denoiser.schedule, x_t, clean, estimate, share, t, (t - 1 / rows).clamp(min=0))
        return masked_mean(error.square() + self.share * rows * bound, mask)


def step_bound(
    schedule: NoiseSchedule, x_t: Tensor, clean: Tensor, estimate: Tensor, share: Tensor, t: Tensor, s: Tensor
) -> Tensor:
    """Returns the bound's term of the step from t to s at each position [B, C, F], in bits.

    KL(q(x_s | x_t, clean) || p(x_s | x_t)) of two Gaussians; for s = 0, minus log p(clean | x_t), with the variance
    of the step before (Ho et al. 2020, eq. 5; Nichol and Dhariwal 2021, eqs. 4 to 7).

    Args:
        schedule: the noise schedule.
        x_t: [B, C, F].
        clean: [B, C, F].
        estimate: the model's clean estimate [B, C, F].
        share: v of its log-variance between posterior and transition [B, C, F].
        t: [B].
        s: [B], below t.
    """
    true_mean, _ = posterior(schedule, x_t, clean, t, s)
    mean, _ = posterior(schedule, x_t, estimate, t, s)
    large = transition_variance(schedule, t, s)
    # At the first row the posterior has no variance; as theirs, it takes that of the second row.
    first = s <= 0
    small = posterior_variance(schedule, torch.where(first, 2 * t, t), torch.where(first, t, s))
    log_variance = interpolated_log_variance(share, small, large)
    squared = (true_mean - mean).square()
    log_small, spread = expand(small.log(), x_t), expand(small, x_t)
    kl = log_variance - log_small + (spread + squared) * (-log_variance).exp() - 1
    decoder = log_variance + math.log(2 * math.pi) + squared * (-log_variance).exp()
    return torch.where(expand(s, x_t) > 0, kl, decoder) / (2 * math.log(2))


def weighted_error(
    denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor, weight: Weight | None
) -> Tensor:
    """Returns the prediction minus its target [B, C, F], times the root of its weight; t [B] in (0, 1]."""
    x_t = diffuse(denoiser.schedule, clean, noise, t)
    error = denoiser.predict(x_t, t, condition).float() - _target(denoiser, clean, noise, t)
    if weight is None:
        return error
    _, _, c_out = denoiser.coefficients(t)
    return expand(weight(denoiser.schedule, t).sqrt() * c_out.abs(), error) * error


def _target(denoiser: Denoiser, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
    return target(denoiser.coefficients(t), alpha, sigma, clean, noise).float()


def pseudo_huber(error: Tensor, delta: float) -> Tensor:
    """Returns 2 delta^2 (sqrt(1 + (error / delta)^2) - 1): error^2 near 0, 2 delta |error| far away."""
    # Written without the difference of two nearly equal numbers that small errors would lose their digits in.
    return 2 * error.square() / (1 + (1 + (error / delta).square()).sqrt())


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the mean over channels and valid positions of values [B, C, F] as [B].

    Args:
        values: [B, C, F].
        mask: [B, 1, F] with 1 at valid positions, or None for all.
    """
    if mask is None:
        return values.flatten(1).mean(1)
    count = mask.flatten(1).sum(1) * values.shape[1]
    return (values * mask).flatten(1).sum(1) / count.clamp(min=1)


def stft_loss(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor,
    n_fft: int,
    hop_length: int,
    win_length: int,
    floor: float = 1e-5,
) -> Tensor:
    """Returns spectral convergence plus mean log-magnitude difference [B] over each item's own frames.

    Args:
        estimate: [B, C, T].
        clean: [B, C, T].
        lengths: [B], valid samples of each item.
        n_fft: samples of a transform.
        hop_length: samples between frames.
        win_length: samples of the Hann window.
        floor: smallest magnitude that counts.
    """
    window = torch.hann_window(win_length, device=clean.device)
    magnitudes = []
    for signal in (estimate, clean):
        flat = signal.flatten(0, 1).float()
        spectrum = torch.stft(
            flat, n_fft, hop_length, win_length, window, pad_mode="constant", return_complex=True
        )
        magnitudes.append(spectrum.abs().clamp(min=floor).unflatten(0, clean.shape[:2]))  # [B, C, D, F]
    found, wanted = magnitudes
    centres = torch.arange(found.shape[-1], device=clean.device) * hop_length
    own = (centres <= lengths[:, None])[:, None, None].expand_as(found).flatten(1).float()
    difference, wanted = (found - wanted).flatten(1) * own, wanted.flatten(1)
    logarithms = (found.flatten(1).log() - wanted.log()).abs() * own
    return difference.norm(dim=1) / (wanted * own).norm(dim=1) + logarithms.sum(1) / own.sum(1)
