"""Endless sound, a block at a time, in bounded memory, from a model that may be told otherwise while it runs.

Each block is sampled by all steps at once, in a window that also shows the network the `context` that was made before
and an `ahead` that is thrown away and made again. What was made is held: after every step, x of the context is what it
was at that step when it was made, so that past and present share a level of noise and the past never changes.
The noise of a position depends on the seed and the position alone. A change holds from the next block on, which is its
latency; what a player has buffered comes on top of it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.samplers import NotFiniteError, Sampler
from audiodiff.errors import InputError
from audiodiff.model import UNSTEERED, AudioDiffusion, Steering
from audiodiff.synthesis.free_length import (
    Decoder,
    check_free,
    grain_of,
    open_denoise,
    positions_of,
    segment_seconds,
)
from audiodiff.synthesis.generation import label_sets


@dataclass(frozen=True)
class Settings:
    """What may change while the sound goes on.

    Attributes:
        labels: name -> value; an absent name means any.
        steering: guidance.
        temperature: divides the noise of a block; None for the sampler's own.
        seed: of the noise.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    steering: Steering = UNSTEERED
    temperature: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Window:
    """How much is made and seen at a time.

    Attributes:
        block_seconds: made at a time; a change holds from the next block on. None: a quarter of a training segment.
        context_seconds: of the past that the network sees; None: half a training segment.
        ahead_seconds: made too and thrown away, so that a block does not end like a sound; None: a quarter.
    """

    block_seconds: float | None = None
    context_seconds: float | None = None
    ahead_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, seconds in (("block", self.block_seconds), ("context", self.context_seconds)):
            if seconds is not None and not 0 < seconds < 3600:
                raise InputError(f"--{name}: got {seconds}, expected seconds above 0")
        if self.ahead_seconds is not None and not 0 <= self.ahead_seconds < 3600:
            raise InputError(f"--ahead: got {self.ahead_seconds}, expected seconds, 0 or more")


class Live:
    """An endless sound; iterating yields its waveform [C, n] block by block.

    `change` may be called at any time, from any thread:

        live = audiodiff.Live(model, sampler)
        for waveform in live:              # play it
            live.change(replace(live.settings, labels={"class": "snare"}))
    """

    def __init__(
        self,
        model: AudioDiffusion,
        sampler: Sampler,
        settings: Settings | None = None,
        window: Window | None = None,
    ) -> None:
        """Stands at the beginning.

        Args:
            model: told nothing or labels.
            sampler: step and grid.
            settings: to begin with.
            window: how much is made and seen at a time.

        Raises:
            InputError: a model that is told a mel or a text, settings that it does not admit.
        """
        check_free(model, "live")
        window = Window() if window is None else window
        segment, grain = segment_seconds(model), grain_of(model)
        seconds = (window.block_seconds, window.context_seconds, window.ahead_seconds)
        wanted = [
            s if s is not None else segment * part for s, part in zip(seconds, (0.25, 0.5, 0.25), strict=True)
        ]
        self._block, self._context = (positions_of(model, one, grain) for one in wanted[:2])
        self._ahead = 0 if wanted[2] == 0 else positions_of(model, wanted[2], grain)
        self._model, self._sampler = model, sampler
        self._decoder = Decoder(model.representation)
        self._past = _Past()
        self._position = 0  # of the next block
        self.settings = Settings() if settings is None else settings
        self.change(self.settings)

    @property
    def latency_seconds(self) -> float:
        """How much sound at most is yielded before a change is heard: the block that is being made, and the overlap."""
        hop = self._model.representation.hop_length
        return (self._block + self._decoder.lag) * hop / self._model.sample_rate

    @property
    def block_seconds(self) -> float:
        """How much sound a block is."""
        return self._block * self._model.representation.hop_length / self._model.sample_rate

    def change(self, settings: Settings) -> None:
        """Makes the settings hold from the next block on.

        Raises:
            InputError: they cannot; what held goes on.
        """
        with torch.inference_mode():
            denoise = open_denoise(self._model, [settings.labels], settings.steering)
        sampler = self._sampler
        if settings.temperature is not None:
            sampler = replace(sampler, temperature=settings.temperature)
        KeyedNoise(settings.seed, [0])
        # One assignment, so that a block never sees half of a change.
        self._now = (denoise, sampler, settings)
        self.settings = settings

    def __iter__(self) -> Iterator[Tensor]:
        """Yields blocks without end."""
        while True:
            waveform = self.block()
            if waveform.shape[-1]:
                yield waveform

    def block(self) -> Tensor:
        """Returns the next waveform [C, n].

        Raises:
            FloatingPointError: the model gave a number that is not finite.
        """
        with torch.inference_mode():
            x = self._sampled()
            waveform = self._decoder.push(x)[0]
        return waveform.clone()

    def _sampled(self) -> Tensor:
        """Returns the next positions of x [1, D, F] and holds them."""
        denoise, sampler, settings = self._now
        known = min(self._context, self._position)
        frame, count = self._position - known, known + self._block + self._ahead
        shape = (1, self._model.representation.shape(1)[0], count)
        source = KeyedNoise(settings.seed, [0], frame=frame)
        schedule, device = self._model.denoiser.schedule, self._model.device
        self._past.begin(known, self._block, self._context)
        start = self._past(sampler.start(schedule, source(0, shape, device)), torch.ones(()))
        try:
            x = sampler(
                denoise, schedule, start, lambda step, draw: source(step, shape, device, draw), self._past
            )
        except NotFiniteError as error:
            raise FloatingPointError(str(error)) from error
        self._position += self._block
        return x[..., known : known + self._block]


class _Past:
    """Constraint: x of what was made is, after every step, what it was then; and x of the new block is remembered."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []  # x of the context after each step, noise first
        self._next = self._known = self._block = self._context = 0

    def begin(self, known: int, block: int, context: int) -> None:
        """Stands before the first step of a new block.

        Args:
            known: positions that are held.
            block: positions that are made and to be held.
            context: positions to be held in the next block, at most.
        """
        self._next, self._known, self._block, self._context = 0, known, block, context

    def __call__(self, x: Tensor, s: Tensor) -> Tensor:
        """Returns x [1, C, F] with the past put in."""
        if self._next == len(self._kept):
            self._kept.append(x[..., :0])
        if self._known:
            x = torch.cat([self._kept[self._next], x[..., self._known :]], dim=-1)
        made = x[..., : self._known + self._block]
        self._kept[self._next] = made[..., max(0, made.shape[-1] - self._context) :].clone()
        self._next += 1
        return x


def changed(settings: Settings, line: str, model: AudioDiffusion) -> Settings:
    """Returns the settings as one line changes them.

    Args:
        settings: that hold.
        line: `label class=snare` (of several names, several times; `label` alone: any), `negative class=kick`,
            `guidance 2`, `temperature 1.2` or `seed 7`.
        model: whose labels are meant.

    Raises:
        InputError: another line.
    """
    try:
        word, *values = shlex.split(line)
    except ValueError as error:
        raise InputError(f"{line.strip()}: cannot be read ({error})") from error
    if word == "label":
        (labels,) = label_sets(model.labels, values, [], 1)
        return replace(settings, labels=dict(settings.labels) | labels if labels else {})
    if word == "negative":
        (labels,) = label_sets(model.labels, values, [], 1)
        return replace(settings, steering=replace(settings.steering, negative=labels or None))
    if word not in ("guidance", "temperature", "seed") or len(values) != 1:
        raise InputError(
            f"{line.strip()}: expected label NAME=VALUE, negative NAME=VALUE, guidance NUMBER, temperature NUMBER, "
            "seed NUMBER or quit"
        )
    if word == "seed":
        if not values[0].isdecimal():
            raise InputError(f"seed: got {values[0]!r}, expected a whole number of 0 or more")
        return replace(settings, seed=int(values[0]))
    number = _number(values[0])
    if word == "temperature":
        return replace(settings, temperature=number)
    guidance = settings.steering.guidance.changed(number, None, None)
    return replace(settings, steering=replace(settings.steering, guidance=guidance))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"got {text!r}, expected a number") from None
