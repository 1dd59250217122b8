"""A trained prior and an observation of a window of sound: a waveform that is likely under both.

Four methods share one sampler. `projection` puts the observation into every clean estimate (Wang et al. 2023, DDNM),
`replacement` puts the noised observation into x and repeats each step (Lugmayr et al. 2022, RePaint), `gradient` moves
every estimate down the gradient of the misfit (Chung et al. 2023, DPS), and `moments` solves for the posterior mean
with the denoiser's own covariance (Rozet et al. 2024, MMPS). What each is worth is measured in docs/editing.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.text_conditioner import Text
from audiodiff.diffusion.constraints import Constraint, projected
from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.posterior import gradient_guided, moment_matched
from audiodiff.diffusion.process import diffuse, noise_ratio
from audiodiff.diffusion.renoising import Resampled
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.times import LogSnrGrid
from audiodiff.diffusion.without_noise import without_noise
from audiodiff.editing.observation import Lifted, WaveformObservation, replaced
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion
from audiodiff.types import Batch

METHODS = ("moments", "projection", "replacement", "gradient")
RATIO_MAX, _RATIO_MIN = 30.0, 0.01  # sigma / alpha of the first and the last level; data has unit variance
_DENOISE_RATIO_MAX = 100.0  # of removed noise: weak bands may have 40 dB more noise than signal
_SEGMENT_SECONDS = 1.5  # of models whose recipe tells none


@dataclass(frozen=True)
class Recovery:
    """How an edit is sampled.

    Attributes:
        method: one of METHODS; noise is removed in one way, whatever the method.
        steps: moves from noise to signal, evenly spaced in log-SNR.
        eta: share of new noise of each move, 0 to 1.
        effort: iterations of the conjugate gradients (moments; None: 1), repeats of each step (replacement; None: 5).
        scale: size of the moves by gradient, in units of sigma / alpha.
        start: sigma / alpha of the first level; below 30 the sampling begins not with noise but with the noised
            simplest repair (linear prediction of a gap, the sparsest sound that was clipped). None: as suits the edit.
        seed: of the noise.
        labels: name -> value, for a model that is told labels; what is left out means any.
    """

    method: str = "moments"
    steps: int = 20
    eta: float = 0.0
    effort: int | None = None
    scale: float = 0.25
    start: float | None = None
    seed: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method: got {self.method!r}, choose one of {', '.join(METHODS)}")
        if self.steps < 1:
            raise InputError(f"steps: got {self.steps}, expected 1 or more")
        if self.effort is not None and self.effort < 1:
            raise InputError(f"effort: got {self.effort}, expected 1 or more")
        if self.start is not None and not _RATIO_MIN < self.start <= RATIO_MAX:
            raise InputError(f"start: got {self.start}, expected above {_RATIO_MIN} and at most {RATIO_MAX}")
        if self.seed < 0:
            raise InputError(f"seed: got {self.seed}, expected 0 or more")


class Restorer:
    """A model as editor of windows of waveform at its own sample rate.

    Attributes:
        model: unconditional, or told labels.
        recovery: how it samples.
    """

    def __init__(self, model: AudioDiffusion, recovery: Recovery) -> None:
        """Takes a trained model.

        Raises:
            InputError: a model of mels, one that needs a mel or a text, or labels that it does not know.
        """
        _check_kind(model)
        for name, value in recovery.labels.items():
            if value and value not in model.labels.get(name, ()):
                known = ", ".join(model.labels) or "no labels"
                raise InputError(f"label {name}={value}: this model does not know it; it is told {known}")
        self.model, self.recovery = model, recovery
        self.sample_rate, self.channels = model.sample_rate, model.representation.channels

    @property
    def segment(self) -> int:
        """Samples of a training segment."""
        seconds = self.model.recipe.get("data", {}).get("segment_seconds") or _SEGMENT_SECONDS
        return max(1, round(seconds * self.sample_rate))

    @property
    def rms(self) -> float:
        """Root mean square of the waveforms that the model was trained on."""
        std = self.model.representation.std.double()
        length = 4 * self.segment
        features, frames = self.model.representation.shape(length)
        # A tight frame spreads the energy of T samples and C channels over D F coefficients.
        return math.sqrt(float(std.square().mean()) * features * frames / (length * self.channels))

    def __call__(
        self,
        observation: WaveformObservation,
        position: int = 0,
        start: float = RATIO_MAX,
        guess: Tensor | None = None,
    ) -> Tensor:
        """Returns waveforms [B, C, T].

        Args:
            observation: of waveforms at the model's level, see `rms`.
            position: sample of the whole recording at which the window begins; the noise hangs on it.
            start: sigma / alpha of the first level, where the recovery tells none.
            guess: [B, C, T] from which a start below 30 sets out; None: what was observed.

        Raises:
            FloatingPointError: the model gave numbers that are not finite.
        """
        start = start if self.recovery.start is None else self.recovery.start
        representation, schedule = self.model.representation, self.model.denoiser.schedule
        batch, _, length = observation.observed.shape
        shape = (batch, *representation.shape(length))
        noise = KeyedNoise(self.recovery.seed, range(batch), position // representation.hop_length)
        draws = itertools.count()
        lifted = Lifted(observation, representation)
        with torch.no_grad():
            denoise = self._posterior(self._denoise(batch, length), lifted)
            again = replaced(lifted, schedule, lambda: noise(10**6 + next(draws), shape, self.model.device))
            sampler = self._sampler(again, start)
            first = noise(0, shape, self.model.device)
            x = sampler.start(schedule, first)
            if start < RATIO_MAX:
                near = representation.encode(observation.observed if guess is None else guess)
                x = diffuse(schedule, near, first, sampler.times(schedule)[0])
            x = sampler(
                denoise,
                schedule,
                x,
                lambda step, draw: noise(step, shape, self.model.device, draw),
            )
            return lifted.decode(x)

    def without_noise(self, observed: Tensor, ratios: Tensor, position: int = 0) -> Tensor:
        """Returns waveforms [B, C, T] without their noise; the recovery's method plays no part.

        Args:
            observed: [B, C, T], at the model's level.
            ratios: [D, 1], deviation of the noise in each channel of x, see `noise_ratios`.
            position: sample of the whole recording at which the window begins; the noise hangs on it.

        Raises:
            FloatingPointError: the model gave numbers that are not finite.
        """
        representation, schedule = self.model.representation, self.model.denoiser.schedule
        batch, _, length = observed.shape
        noise = KeyedNoise(self.recovery.seed, range(batch), position // representation.hop_length)
        highest = float(noise_ratio(schedule, torch.ones((), dtype=torch.float64)))
        first = min(max(float(ratios.max()), _RATIO_MIN), highest, _DENOISE_RATIO_MAX)
        last = min(max(float(ratios.min()), _RATIO_MIN), first)
        with torch.no_grad():
            x = representation.encode(observed)
            zero = representation.encode(torch.zeros_like(observed))
            clean = without_noise(
                self._denoise(batch, length),
                schedule,
                x,
                ratios,
                np.geomspace(first, last, self.recovery.steps).tolist(),
                lambda step, draw: noise(step, x.shape, x.device, draw),
                lambda change: representation.encode(representation.decode(change + zero, length)) - zero,
            )
            waveform = representation.decode(clean, length)
        if not bool(waveform.isfinite().all()):
            raise FloatingPointError("denoise: the model gave numbers that are not finite")
        return waveform

    def noise_ratios(self, noise: Tensor) -> Tensor:
        """Returns the deviation [D, 1] in each channel of x that noise like a given one [1, C, T] stands for.

        A Representation of more coefficients than samples has the noise of a waveform in a part of them only; the
        diffusion's, which fills all, is as strong in that part when it has more energy by as much as it is redundant.
        """
        representation = self.model.representation
        with torch.no_grad():
            change = representation.encode(noise) - representation.encode(torch.zeros_like(noise))
        redundancy = change.numel() / noise.numel()
        return (change.square().mean((0, 2)) * redundancy).sqrt()[:, None]

    def _denoise(self, batch: int, length: int) -> Denoise:
        labels = {name: (self.recovery.labels.get(name, ""),) * batch for name in self.model.labels}
        lengths = torch.full((batch,), length)
        return self.model.bind(Batch(None, lengths, labels), self.model.steering)[0]

    def _posterior(self, denoise: Denoise, observation: Lifted) -> Denoise:
        method, schedule = self.recovery.method, self.model.denoiser.schedule
        if method == "moments":
            denoise = moment_matched(denoise, schedule, observation, self.recovery.effort or 1)
        if method == "gradient":
            denoise = gradient_guided(denoise, schedule, observation, self.recovery.scale)
        return projected(denoise, observation) if method in ("moments", "projection") else denoise

    def _sampler(self, constraint: Constraint, start: float) -> Sampler:
        schedule = self.model.denoiser.schedule
        end = torch.ones((), dtype=torch.float64)
        highest = min(start, float(noise_ratio(schedule, end)))
        grid = LogSnrGrid(self.recovery.steps, _RATIO_MIN, highest)
        step = DDIM(self.recovery.eta)
        if self.recovery.method == "replacement":
            return Sampler(Resampled(step, constraint, self.recovery.effort or 5), grid)
        return Sampler(step, grid)


def _check_kind(model: AudioDiffusion) -> None:
    for part in model.modules():
        kind = "a mel" if isinstance(part, Mel) else "a text" if isinstance(part, Text) else None
        if kind is not None:
            raise InputError(
                f"edit: this model makes sound from {kind}, which an edit does not have; "
                "take an unconditional model or one that is told labels"
            )
    if not model.representation.exact:
        raise InputError(
            "edit: this model diffuses something that loses samples (a mel, or the code of an autoencoder), of which a "
            "known sample says nothing; take a model of waveforms or of their STFT"
        )
