"""Variations of a recording: noise is added up to a level and taken away again (Meng et al. 2022, "SDEdit").

The strength s says how far it goes: the level at which sampling begins has noise and signal in the ratio

    sigma / alpha = s / (1 - s),

so that s is the time of the flow x_s = (1 - s) x_0 + s noise, whatever schedule the model has: 0 is the recording, 0.5
as much noise as signal (x has unit variance), 1 noise alone, which ignores the recording. All steps of the sampler are
spent below that level. A recording of any length passes in bounded memory (`long_form`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.process import diffuse, time_of_ratio
from audiodiff.diffusion.samplers import Sampler
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.times import Grid
from audiodiff.errors import InputError
from audiodiff.model import UNSTEERED, AudioDiffusion, Steering
from audiodiff.synthesis.free_length import Decoder, check_free, margin_of
from audiodiff.synthesis.long_form import BLOCK_SECONDS, LongForm, LongRequest
from audiodiff.synthesis.recordings import Recording


@dataclass(frozen=True)
class VariationRequest:
    """What is to be made of the recording.

    Attributes:
        strength: 0 gives the recording back, 1 ignores it.
        labels: name -> value; an absent name means any.
        steering: guidance.
        seed: of the noise.
        item: number of the variation, which has noise of its own.
        window_seconds: what is denoised at once, see `LongRequest`.
        block_seconds: what is finished at a time.
    """

    strength: float
    labels: Mapping[str, str] = field(default_factory=dict)
    steering: Steering = UNSTEERED
    seed: int = 0
    item: int = 0
    window_seconds: float | None = None
    block_seconds: float = BLOCK_SECONDS

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise InputError(
                f"--strength: got {self.strength}, expected 0 (the recording) to 1 (nothing of it)"
            )


@dataclass(frozen=True)
class PartOfGrid:
    """A grid whose times are scaled so that it begins at another one.

    Attributes:
        grid: the grid from its own first time on.
        start: the first time, in (0, 1].
    """

    grid: Grid
    start: float

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        """Returns the times, without those that a model cannot tell from 0."""
        times = self.grid(schedule)
        times = times * (self.start / float(times[0]))
        kept = times >= min(schedule.earliest, self.start)
        kept[0] = kept[-1] = True
        return times[kept]


def vary(
    model: AudioDiffusion, sampler: Sampler, recording: Recording, request: VariationRequest
) -> Iterator[Tensor]:
    """Yields the variation [groups * C, n] block by block, at the model's rate.

    Args:
        model: told nothing or labels.
        sampler: step and grid.
        recording: opened for the model's rate and channels.
        request: how much is to change, and to what.

    Raises:
        InputError: a model, labels or a sampler that cannot be taken, see `LongForm`.
        FloatingPointError: the model gave a number that is not finite.
    """
    check_free(model, "--variation-of")
    groups = [_group(model, sampler, recording, request, group) for group in range(recording.groups)]
    for blocks in zip(*groups, strict=True):
        yield torch.cat(blocks)


def starting_time(schedule: NoiseSchedule, strength: float) -> float:
    """Returns the time t in (0, 1] with sigma / alpha = strength / (1 - strength)."""
    if strength == 1:
        return 1.0
    ratio = torch.tensor(strength / (1 - strength), dtype=torch.float64)
    return float(time_of_ratio(schedule, ratio))


def _group(
    model: AudioDiffusion, sampler: Sampler, recording: Recording, request: VariationRequest, group: int
) -> Iterator[Tensor]:
    """Yields the blocks [C, n] of one group of channels."""
    encoded = _Encoded(model, recording, group)
    if request.strength == 0:
        return encoded.decoded(request.block_seconds)
    schedule, beginning = model.denoiser.schedule, None
    if request.strength < 1:
        start = starting_time(schedule, request.strength)
        sampler = replace(sampler, grid=PartOfGrid(sampler.grid, start))
        beginning = _Noised(encoded, schedule, sampler, request)
    long = LongRequest(
        recording.samples, request.labels, request.steering, request.seed, request.item,
        request.window_seconds, request.block_seconds,
    )  # fmt: skip
    return iter(LongForm(model, sampler, long, beginning))


@dataclass(frozen=True)
class _Encoded:
    """Any part of x of one group of a recording's channels."""

    model: AudioDiffusion
    recording: Recording
    group: int

    def __call__(self, start: int, stop: int) -> Tensor:
        """Returns x [1, D, stop - start] of the positions from start on, as in x of the whole recording."""
        representation = self.model.representation
        hop, margin = representation.hop_length, margin_of(representation)
        first = max(0, start - (representation.shape(hop)[1] - 1) - margin)
        waveform = self.recording.read(first * hop, (stop + margin) * hop)[self.group]
        return representation.encode(waveform[None].to(self.model.device))[..., start - first : stop - first]

    def decoded(self, block_seconds: float) -> Iterator[Tensor]:
        """Yields what the representation makes of the recording, [C, n]."""
        representation = self.model.representation
        end, decoder, made = representation.shape(self.recording.samples)[1], Decoder(representation), 0
        block = math.ceil(block_seconds * self.model.sample_rate / representation.hop_length)
        for start in range(0, end, block):
            stop = min(start + block, end)
            with torch.inference_mode():
                rest = self.recording.samples - made if stop == end else None
                waveform = decoder.push(self(start, stop), rest)[0]
            made += waveform.shape[-1]
            yield waveform.clone()


@dataclass(frozen=True)
class _Noised:
    """x at the first time of the sampler's grid: the recording's, noised."""

    encoded: _Encoded
    schedule: NoiseSchedule
    sampler: Sampler
    request: VariationRequest

    def __call__(self, start: int, stop: int) -> Tensor:
        clean = self.encoded(start, stop)
        source = KeyedNoise(self.request.seed, [self.request.item], frame=start)
        noise = source(0, clean.shape, clean.device) / self.sampler.temperature
        return diffuse(self.schedule, clean, noise, self.sampler.times(self.schedule)[0])
