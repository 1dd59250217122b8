"""Loops: sounds whose end runs into their start.

x lies on a circle from noise to signal: at every evaluation the network sees the first position follow the last one,
and so does the overlap-add that makes the waveform (`diffusion.windows`). No position is special, so there is no
seam: noise that is turned round gives the loop turned round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.samplers import NotFiniteError, Sampler
from audiodiff.diffusion.windows import Circle, CircleWindows, Layout, spread
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, Steering
from audiodiff.synthesis.free_length import (
    check_free,
    decode_circle,
    grain_of,
    margins_of,
    open_denoise,
    positions_of,
    segment_seconds,
)

MOST_SECONDS = 600.0  # a loop is sampled whole


def loop_samples(model: AudioDiffusion, seconds: float) -> int:
    """Returns the length that a loop of about so many seconds has: whole hops, and whole strides of the network.

    Raises:
        InputError: no length, or one that is sampled in blocks only.
    """
    if not 0 < seconds <= MOST_SECONDS:
        raise InputError(
            f"--loop: got {seconds} seconds, expected more than 0 and at most {MOST_SECONDS:g}; "
            "longer sounds are made without --loop"
        )
    return positions_of(model, seconds, grain_of(model)) * model.representation.hop_length


def make_loops(
    model: AudioDiffusion,
    sampler: Sampler,
    labels: Sequence[Mapping[str, str]],
    samples: int,
    noise: Callable[[int, int, tuple[int, int, int]], Tensor],
    steering: Steering,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """Returns one loop [C, samples] for each mapping of labels.

    Args:
        model: told nothing or labels.
        sampler: step and grid.
        labels: name -> value; an absent name means any.
        samples: length, see `loop_samples`.
        noise: (step, draw, shape) -> standard normal numbers, step 0 for the start; see `loop_noise`.
        steering: guidance.
        on_step: told (steps done, steps in all).

    Raises:
        InputError: a model that is told more than labels, or unknown labels.
        FloatingPointError: the model gave a number that is not finite.
    """
    check_free(model, "--loop")
    representation, schedule = model.representation, model.denoiser.schedule
    features = representation.shape(representation.hop_length)[0]
    shape = (len(labels), features, samples // representation.hop_length)
    with torch.inference_mode():
        denoise = spread(open_denoise(model, labels, steering), circle_of(model, steering))
        start = sampler.start(schedule, noise(0, 0, shape))
        try:
            x = sampler(
                denoise, schedule, start, lambda step, draw: noise(step, draw, shape), on_step=on_step
            )
        except NotFiniteError as error:
            raise FloatingPointError(str(error)) from error
        waveforms = decode_circle(representation, x)
    return [waveform.clone() for waveform in waveforms]


def loop_noise(
    model: AudioDiffusion, seed: int, items: Sequence[int]
) -> Callable[[int, int, tuple[int, int, int]], Tensor]:
    """Returns the keyed noise of loops."""
    source = KeyedNoise(seed, items)
    return lambda step, draw, shape: source(step, shape, model.device, draw)


def circle_of(model: AudioDiffusion, steering: Steering) -> Layout:
    """Returns how the model's denoiser goes round a circle."""
    margins = margins_of(model, steering)
    if margins is not None:
        return Circle(margins.before, margins.after, margins.grain)
    stride = positions_of(model, segment_seconds(model) / 2, grain_of(model))
    return CircleWindows(2 * stride, stride)
