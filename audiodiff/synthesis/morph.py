"""Sounds between two others: the noises they are made of are interpolated on the sphere and sampled.

An end is a seed, whose noise is known, or a recording, whose noise is found by inverting DDIM (`diffusion.inversion`;
Song et al. 2021, section 5.3). The recordings are inverted and the sounds made on the same times, without guidance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from audiodiff.diffusion.inversion import check_deterministic, invert, slerp
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.samplers import DDIM, NotFiniteError, Sampler
from audiodiff.errors import InputError
from audiodiff.model import UNSTEERED, AudioDiffusion, Steering
from audiodiff.synthesis.free_length import check_free, open_denoise
from audiodiff.synthesis.recordings import Recording

MOST_SECONDS = 120.0  # of recordings: they are inverted whole
ITERATIONS = 3  # evaluations of each step of the inversion, see docs/generation.md

End = int | Path
"""A seed or a recording."""


@dataclass(frozen=True)
class MorphRequest:
    """What lies between what.

    Attributes:
        ends: two seeds or recordings, or one of each.
        count: sounds, the two ends among them.
        samples: length where both ends are seeds; else the longer recording's, to which silence is added to the other.
        labels: name -> value, of all sounds; an absent name means any.
        steering: guidance; only between two seeds.
        item: of the seeds' noise.
    """

    ends: tuple[End, End]
    count: int = 5
    samples: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    steering: Steering = UNSTEERED
    item: int = 0

    def __post_init__(self) -> None:
        if self.count < 2:
            raise InputError(f"--count: got {self.count}, expected at least the 2 ends of a morph")


def end_of(text: str) -> End:
    """Returns the seed or the recording that a word means; a file that is named like a number is written ./7.

    Raises:
        InputError: neither a seed nor a file.
    """
    if text.isdecimal():
        return int(text)
    if not Path(text).exists():
        raise InputError(f"--morph {text}: no such file, and no seed (a whole number of 0 or more)")
    return Path(text)


def morph(
    model: AudioDiffusion,
    sampler: Sampler,
    request: MorphRequest,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """Returns the sounds [C, T] from one end to the other.

    Args:
        model: told nothing or labels.
        sampler: deterministic; of DDIM where a recording is inverted.
        request: the ends.
        on_step: told (steps done, steps in all) of sampling.

    Raises:
        InputError: a model, sampler or guidance that cannot be inverted, recordings that are unreadable or too long.
        FloatingPointError: the model gave a number that is not finite.
    """
    check_free(model, "--morph")
    schedule, representation = model.denoiser.schedule, model.representation
    check_deterministic(sampler, schedule)
    recordings = [end for end in request.ends if isinstance(end, Path)]
    if recordings:
        _check_invertible(sampler, request.steering)
    waveforms = {end: read_whole(model, end) for end in recordings}
    samples = max((w.shape[-1] for w in waveforms.values()), default=request.samples)
    if samples < 1:
        raise InputError(f"length: got {samples} samples, expected at least 1")
    with torch.inference_mode():
        denoise = open_denoise(model, [request.labels], request.steering)
        latents = [
            _of_recording(model, sampler, denoise, waveforms[end], samples)
            if isinstance(end, Path)
            else _of_seed(model, sampler, end, request.item, samples)
            for end in request.ends
        ]
        shares = [number / (request.count - 1) for number in range(request.count)]
        x = torch.cat([slerp(latents[0], latents[1], share) for share in shares])
        together = open_denoise(model, [request.labels] * request.count, request.steering)
        try:
            x = sampler(together, schedule, x, _no_noise, on_step=on_step)
        except NotFiniteError as error:
            raise FloatingPointError(str(error)) from error
        waveform = representation.decode(x, samples)
    return [item.clone() for item in waveform]


def read_whole(model: AudioDiffusion, path: Path) -> Tensor:
    """Returns a recording [1, C, T] at the model's rate; further channels of it are mixed into a mono model's one.

    Raises:
        InputError: it cannot be read, or is longer than what is inverted at once.
    """
    recording = Recording(path, model.sample_rate, model.representation.channels)
    if recording.info.seconds > MOST_SECONDS:
        raise InputError(
            f"{path}: {recording.info.seconds:.0f} s, longer than the {MOST_SECONDS:g} s that are taken whole; cut it"
        )
    return recording.read(0, recording.samples).mean(0, keepdim=True)


def inverted(
    model: AudioDiffusion, sampler: Sampler, labels: Mapping[str, str], waveform: Tensor, iterations: int
) -> Tensor:
    """Returns x [1, D, F] at the first time of the sampler's grid that stands for a waveform [1, C, T]."""
    with torch.inference_mode():
        denoise = open_denoise(model, [labels], UNSTEERED)
        return _inverted(model, sampler, denoise, waveform, iterations)


def _inverted(
    model: AudioDiffusion, sampler: Sampler, denoise: Callable[[Tensor, Tensor], Tensor], waveform: Tensor,
    iterations: int,
) -> Tensor:  # fmt: skip
    clean = model.representation.encode(waveform.to(model.device))
    schedule = model.denoiser.schedule
    noise = KeyedNoise(0, [0])(0, clean.shape, clean.device)
    return invert(denoise, schedule, clean, sampler.times(schedule), noise, iterations)


def _of_recording(
    model: AudioDiffusion, sampler: Sampler, denoise: Callable[[Tensor, Tensor], Tensor], waveform: Tensor,
    samples: int,
) -> Tensor:  # fmt: skip
    padded = torch.nn.functional.pad(waveform, (0, samples - waveform.shape[-1]))
    return _inverted(model, sampler, denoise, padded, ITERATIONS)


def _of_seed(model: AudioDiffusion, sampler: Sampler, seed: int, item: int, samples: int) -> Tensor:
    shape = (1, *model.representation.shape(samples))
    return sampler.start(model.denoiser.schedule, KeyedNoise(seed, [item])(0, shape, model.device))


def _check_invertible(sampler: Sampler, steering: Steering) -> None:
    if not isinstance(sampler.step, DDIM) or sampler.constraint or sampler.projection:
        raise InputError(
            f"--morph: a recording is inverted by DDIM, not by {type(sampler.step).__name__} or with clamping; "
            "choose --sampler ddim"
        )
    if steering.guidance.scale != 1:
        raise InputError(
            f"--morph: a recording cannot be inverted under guidance (scale {steering.guidance.scale:g}); "
            "use --guidance 1"
        )


def _no_noise(step: int, draw: int) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")
