"""What a model says of pieces of recordings: bits, and denoising error by noise level, channel group and frame.

The error of frame f at level l in channel group g is the mean over the group, the frame's positions and a few noise
draws of (eps_hat - eps)^2; the draws are keyed by seed, recording and position, so a piece has the same numbers in
any window, batch and run. Bits are those of evaluation.likelihood, summed over the positions that a piece keeps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiodiff.anomaly.pieces import Piece
from audiodiff.audio.representation import ComplexSTFT, Representation
from audiodiff.diffusion.likelihood import ProbabilityFlow, variational_bound
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.process import diffuse, epsilon_from_clean
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.errors import InputError
from audiodiff.evaluation.likelihood import encoded_alone, level_times
from audiodiff.model import AudioDiffusion
from audiodiff.types import Condition

_BOUND_DRAW, _ERROR_DRAW = 0, 1  # the errors' draws are 1, 2, ...


@dataclass(frozen=True)
class Probe:
    """How denoising errors are measured.

    Attributes:
        levels: noise levels, evenly spaced in log-SNR.
        lowest_db: signal-to-noise ratio of the noisiest; of unit-variance x.
        highest_db: of the cleanest. Both are held to the schedule's own.
        groups: of channels of x, neighbours in frequency, that errors are told for.
        bands: of channels of x that the power is told for.
        draws: of noise that are averaged.
        frame_seconds: about how long a frame is.
        window_seconds: of long recordings; None for a training segment.
        seed: of the noise.
    """

    levels: int = 7
    lowest_db: float = -13.0
    highest_db: float = 39.0
    groups: int = 2
    bands: int = 24
    draws: int = 2
    frame_seconds: float = 0.008
    window_seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("levels", 2), ("groups", 1), ("bands", 1), ("draws", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name}: got {getattr(self, name)}, expected at least {least}")
        if not self.lowest_db < self.highest_db:
            raise InputError(
                f"levels from {self.lowest_db:g} dB to {self.highest_db:g} dB: the first must be lower"
            )
        for name, value in (("frame", self.frame_seconds), ("window", self.window_seconds)):
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"--{name}: got {value:g} seconds, expected more than 0")


@dataclass(frozen=True)
class Bits:
    """How exactly likelihoods are measured.

    Attributes:
        steps: of the probability flow; 0 leaves it out.
        bound_steps: of the variational bound; 0 leaves it out.
    """

    steps: int = 0
    bound_steps: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "bound_steps"):
            if getattr(self, name) < 0:
                option = name.replace("_", "-")
                raise InputError(f"--{option}: got {getattr(self, name)}, expected 0 or more")


@dataclass(frozen=True)
class Measured:
    """What was measured of one piece.

    Attributes:
        errors: [levels, groups, frames], float32.
        power: [bands, frames], mean square of whitened x.
        numbers: of x that the piece keeps.
        bound: upper bound on minus their log-density, nats; None if left out.
        flow: minus their log-density by the probability flow, nats; None if left out.
    """

    errors: Tensor
    power: Tensor
    numbers: int
    bound: float | None
    flow: float | None


def probe_times(schedule: NoiseSchedule, probe: Probe) -> Tensor:
    """Returns the times of a probe's levels [levels], the noisiest first, float64."""
    latest, earliest = level_times(schedule, 2)
    ends = schedule.log_snr(torch.tensor([latest, earliest], dtype=torch.float64))
    asked = torch.tensor([probe.lowest_db, probe.highest_db], dtype=torch.float64) * math.log(10) / 10
    low, high = asked.clamp(ends[0], ends[1]).tolist()
    return schedule.time(torch.linspace(low, high, probe.levels, dtype=torch.float64))


def levels_db(schedule: NoiseSchedule, probe: Probe) -> list[float]:
    """Returns the signal-to-noise ratio of each level in dB, rising."""
    return (10 / math.log(10) * schedule.log_snr(probe_times(schedule, probe))).tolist()


def group_weights(representation: Representation, groups: int) -> Tensor:
    """Returns [groups, D], each row the mean over a group of the D features of x: neighbours in frequency.

    Of a spectrum the real and imaginary part of a bin are in one group; of other x neighbours in number are.
    """
    features = representation.shape(representation.hop_length)[0]
    place = torch.arange(features)
    if isinstance(representation, ComplexSTFT):
        within, half = place % representation.n_fft, representation.n_fft // 2
        place = torch.where(within > half, within - half, within)  # bin 0 .. half
    count = int(place.max()) + 1
    groups = min(groups, count)
    member = place * groups // count == torch.arange(groups)[:, None]
    return member.float() / member.sum(1, keepdim=True)


def measure_pieces(
    model: AudioDiffusion, chosen: Sequence[Piece], probe: Probe, bits: Bits, pool: int
) -> list[Measured]:
    """Returns what a model says of some pieces; each has the same numbers alone.

    Args:
        model: the model.
        chosen: the pieces, one batch.
        probe: of the denoising errors.
        bits: of the likelihoods.
        pool: positions of a frame.

    Raises:
        InputError: a label that the model does not know, or a model that needs a text.
        FloatingPointError: the model gave numbers that are not finite.
    """
    with torch.no_grad():
        waveforms, labels = [piece.waveform for piece in chosen], [piece.labels for piece in chosen]
        _, condition, x = encoded_alone(model, waveforms, labels)
        mask = _kept(x, chosen, condition)
        numbers = (mask.sum((1, 2)) * x.shape[1]).long().tolist()
        denoise, schedule = model.denoiser.bind(condition), model.denoiser.schedule
        volume = _volume(x, condition, mask)
        bounds: list[float | None] = [None] * len(chosen)
        if bits.bound_steps:
            times = torch.tensor([*level_times(schedule, bits.bound_steps), 0.0], dtype=torch.float64)
            source = _Source(chosen, probe.seed, x)
            bounds = (
                variational_bound(denoise, schedule, x, lambda _: times, source, mask) - volume
            ).tolist()
        errors = _errors(model, chosen, probe, x, condition)
        flows: list[float | None] = [None] * len(chosen)
        if bits.steps:
            flow = ProbabilityFlow(bits.steps, latest=level_times(schedule, 2)[0])
            probes = _Source(chosen, probe.seed, x)(0, 0).sign()[None]
            flows = (-flow.along(denoise, schedule, x, probes, mask) - volume).tolist()
    weights = group_weights(model.representation, probe.bands).to(x.device)
    power = torch.einsum("gd,bdf->bgf", weights, x.square())
    found = []
    for i, facts in enumerate(zip(numbers, bounds, flows, strict=True)):
        kept = _positions(mask, i)
        found.append(Measured(_pooled(errors[i, ..., kept], pool), _pooled(power[i, :, kept], pool), *facts))
    return found


class _Source:
    """Noise of pieces: each number depends on seed, recording, step, draw and position in the recording."""

    def __init__(self, chosen: Sequence[Piece], seed: int, x: Tensor) -> None:
        self._keyed = [KeyedNoise(seed, [piece.key], piece.start) for piece in chosen]
        self._shape, self._device = (1, *x.shape[1:]), x.device

    def __call__(self, step: int, draw: int) -> Tensor:
        """Returns [B, D, F]."""
        return torch.cat([keyed(step, self._shape, self._device, draw) for keyed in self._keyed])


def _errors(
    model: AudioDiffusion, chosen: Sequence[Piece], probe: Probe, x: Tensor, condition: Condition
) -> Tensor:
    """Returns [B, levels, groups, F]."""
    schedule, denoise = model.denoiser.schedule, model.denoiser.bind(condition)
    weights = group_weights(model.representation, probe.groups).to(x.device)
    source = _Source(chosen, probe.seed, x)
    rows = []
    for number, t in enumerate(probe_times(schedule, probe), start=1):
        total = torch.zeros_like(x)
        for draw in range(probe.draws):
            noise = source(number, _ERROR_DRAW + draw)
            x_t = diffuse(schedule, x, noise, t)
            total += (epsilon_from_clean(schedule, x_t, denoise(x_t, t), t) - noise).square()
        rows.append(torch.einsum("gd,bdf->bgf", weights, total / probe.draws))
    return torch.stack(rows, dim=1)


def _kept(x: Tensor, chosen: Sequence[Piece], condition: Condition) -> Tensor:
    """Returns [B, 1, F], 1 at the positions that count."""
    mask = torch.zeros(x.shape[0], 1, x.shape[-1], device=x.device)
    for row, piece in zip(mask, chosen, strict=True):
        row[:, piece.keep] = 1
    valid = condition.mask(x)
    return mask if valid is None else mask * valid


def _positions(mask: Tensor, item: int) -> Tensor:
    return mask[item, 0].nonzero()[:, 0]


def _volume(x: Tensor, condition: Condition, mask: Tensor) -> Tensor:
    """Returns log |dz/dx| over the positions that count [B]."""
    if condition.prior_std is None:
        return torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
    deviations = torch.where(mask.bool(), condition.prior_std, 1.0).expand_as(x)
    return -deviations.double().log().flatten(1).sum(1)


def _pooled(values: Tensor, pool: int) -> Tensor:
    """Returns the means over each `pool` positions [..., ceil(F / pool)] of [..., F]."""
    if not bool(values.isfinite().all()):
        raise FloatingPointError("the model gave numbers that are not finite")
    rest = -values.shape[-1] % pool
    padded = torch.nn.functional.pad(values, (0, rest))
    counts = torch.nn.functional.pad(torch.ones(values.shape[-1], device=values.device), (0, rest))
    sums = padded.unflatten(-1, (-1, pool)).sum(-1)
    return (sums / counts.unflatten(-1, (-1, pool)).sum(-1)).float().cpu()
