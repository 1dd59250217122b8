"""A sound of any length in bounded memory: all of it sampled jointly, finished from its beginning on.

The steps stand in a cascade (`diffusion.streaming`), so that the audio is that of one sampler run on the whole signal,
however it is cut into blocks, and there is no join that could be heard. A network of bounded reach sees around a
position what it would see of the whole signal. One that looks at the whole signal works in windows as long as a
training segment, which overlap by half and are blended at every evaluation (Bar-Tal et al. 2023, "MultiDiffusion", eq.
5). The noise of a position depends on the seed and the position alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.samplers import NotFiniteError, Sampler
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.streaming import Cascade, Reach, check_local
from audiodiff.diffusion.windows import Overlapping, spread
from audiodiff.errors import InputError
from audiodiff.model import UNSTEERED, AudioDiffusion, Steering
from audiodiff.synthesis.free_length import (
    Decoder,
    check_free,
    grain_of,
    margins_of,
    open_denoise,
    positions_of,
    segment_seconds,
)

BLOCK_SECONDS = 5.0  # of audio that is finished at a time, unless the margins are longer

Beginning = Callable[[int, int], Tensor]
"""(start, stop) -> x [1, D, stop - start] at the first time of the sampler's grid."""


@dataclass(frozen=True)
class LongRequest:
    """What is to be made.

    Attributes:
        samples: length of the sound.
        labels: name -> value; an absent name means any.
        steering: guidance.
        seed: of the noise.
        item: number of the sound, which has noise of its own.
        window_seconds: what is denoised at once; 0 for all that the network sees; None: that, or a training segment for
            a network that sees the whole signal.
        block_seconds: what is finished at a time; changes speed and memory, not the audio.
    """

    samples: int
    labels: Mapping[str, str] = field(default_factory=dict)
    steering: Steering = UNSTEERED
    seed: int = 0
    item: int = 0
    window_seconds: float | None = None
    block_seconds: float = BLOCK_SECONDS


@dataclass(frozen=True)
class Started(Sampler):
    """A sampler whose x at the first time is not noise but what it is given."""

    def start(self, schedule: NoiseSchedule, noise: Tensor) -> Tensor:
        """Returns what it is given."""
        return noise


class LongForm:
    """One sound of any length; iterating yields its waveform [C, n] block by block."""

    def __init__(
        self,
        model: AudioDiffusion,
        sampler: Sampler,
        request: LongRequest,
        beginning: Beginning | None = None,
    ) -> None:
        """Binds the model.

        Args:
            model: told nothing or labels.
            sampler: step and grid.
            request: what to make.
            beginning: what sampling starts from; None for keyed noise.

        Raises:
            InputError: a model of another kind, a length below one sample, a sampler or guidance that looks at the
                whole signal at once, windows that are not longer than 0.
        """
        check_free(model, "a sound of any length")
        check_local(sampler, request.steering.guidance)
        if request.samples < 1:
            raise InputError(f"length: got {request.samples} samples, expected at least 1")
        self._model, self._request, self._beginning = model, request, beginning
        self._sampler = sampler if beginning is None else _started(sampler)
        self._end = model.representation.shape(request.samples)[1]
        with torch.inference_mode():
            self._denoise = open_denoise(model, [request.labels], request.steering)
        self.window = window_of(model, request.steering, request.window_seconds)
        self._reach, self._grain = _reach(model, request.steering, self.window)
        self._cascade = Cascade(self._sampler, model.denoiser.schedule, self._reach, self._bind, self._noise)
        least = 2 * (self._reach.before + self._reach.after)
        self._block = max(positions_of(model, request.block_seconds, self._grain), least)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self._end // self._block)

    def __iter__(self) -> Iterator[Tensor]:
        """Yields the waveform [C, n]; once.

        Raises:
            FloatingPointError: the model gave a number that is not finite.
        """
        decoder, made = Decoder(self._model.representation), 0
        for number in range(1, self.blocks + 1):
            target = min(number * self._block, self._end)
            with torch.inference_mode():
                waveform = self._advance(target, decoder, made)
            made += waveform.shape[-1]
            # Neither the caller nor its tensors are to be in inference mode.
            yield waveform.clone()

    def _advance(self, target: int, decoder: Decoder, made: int) -> Tensor:
        """Returns the samples [C, n] that the positions up to `target` complete."""
        try:
            x = self._cascade.advance(target, self._end)
        except NotFiniteError as error:
            raise FloatingPointError(str(error)) from error
        return decoder.push(x, self._request.samples - made if target == self._end else None)[0]

    def _bind(self, number: int, start: int, stop: int) -> tuple[Denoise, Sampler]:
        if self.window is None:
            return self._denoise, self._sampler
        layout = Overlapping(self.window, self.window // 2, start, stop == self._end)
        return spread(self._denoise, layout), self._sampler

    def _noise(self, step: int, draw: int, start: int, stop: int) -> Tensor:
        if self._beginning is not None and (step, draw) == (0, 0):
            return self._beginning(start, stop)
        features = self._model.representation.shape(1)[0]
        source = KeyedNoise(self._request.seed, [self._request.item], frame=start)
        return source(step, (1, features, stop - start), self._model.device, draw)


def window_of(model: AudioDiffusion, steering: Steering, seconds: float | None) -> int | None:
    """Returns the positions that are denoised at once, two strides of the windows; None for no windows.

    Args:
        model: the model.
        steering: its guidance, by another model perhaps.
        seconds: what was asked; 0 for no windows, None for what suits the model.

    Raises:
        InputError: a negative length, or no windows for a network that looks at the whole signal.
    """
    if seconds is not None and not seconds >= 0:
        raise InputError(f"--window: got {seconds}, expected seconds, or 0 for none")
    margins = margins_of(model, steering)
    if seconds == 0 and margins is None:
        raise InputError(
            f"--window 0: {type(model.denoiser.network).__name__} looks at the whole signal, which a sound of any "
            f"length does not have; leave --window out for windows of {segment_seconds(model):g} s"
        )
    if seconds == 0 or (seconds is None and margins is not None):
        return None
    return 2 * positions_of(model, (seconds or segment_seconds(model)) / 2, grain_of(model))


def _reach(model: AudioDiffusion, steering: Steering, window: int | None) -> tuple[Reach, int]:
    """Returns what an evaluation sees around a position, and what windows are aligned to."""
    if window is not None:
        return Reach(window, window), window // 2
    margins = margins_of(model, steering)
    assert margins is not None
    grain = margins.grain
    return Reach(-(-margins.before // grain) * grain, -(-margins.after // grain) * grain), grain


def _started(sampler: Sampler) -> Started:
    return Started(sampler.step, sampler.grid, sampler.constraint, sampler.projection, sampler.temperature)
