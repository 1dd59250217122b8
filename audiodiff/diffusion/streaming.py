"""All steps of a sampler on a signal whose condition comes piece by piece.

Step i of N turns x at t_{i-1} into x at t_i. What it makes of a position depends on as many positions around it as the
denoiser sees, once more for each evaluation that follows another within the step. So the steps stand in a cascade:
where the last one has reached position p, step i has reached p plus what the steps after it see ahead, and runs next on
a window that shows it the margins that it needs on both sides. True ends are the windows' ends there; elsewhere the
margins are made again and thrown away. A denoiser that looks back only and remembers has no margins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from audiodiff.diffusion.constraints import Clip
from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.guidance import Guidance, GuidedVariance
from audiodiff.diffusion.samplers import Sampler
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.errors import InputError

Bind = Callable[[int, int, int], tuple[Denoise, Sampler]]
"""(number of the step, start, stop) -> the denoiser of the window's positions, and the sampler with its constraints."""
WindowNoise = Callable[[int, int, int, int], Tensor]
"""(number of the step, draw, start, stop) -> standard normal noise [B, C, stop - start]; step 0 starts."""


@dataclass(frozen=True)
class Reach:
    """Positions around one that an evaluation of the denoiser sees, each a multiple of what windows are aligned to."""

    before: int
    after: int


class Cascade:
    """Takes a signal from noise through all steps of a sampler, as far as it is asked to."""

    def __init__(
        self, sampler: Sampler, schedule: NoiseSchedule, reach: Reach, bind: Bind, noise: WindowNoise
    ) -> None:
        """Stands at position 0.

        Args:
            sampler: step and grid.
            schedule: the schedule of the denoiser.
            reach: of one evaluation.
            bind: gives the denoiser of a window.
            noise: gives the noise of a window.

        Raises:
            InputError: see `Sampler.times`.
        """
        self._sampler, self._schedule, self._bind, self._noise = sampler, schedule, bind, noise
        self._times = sampler.times(schedule)
        counts = evaluations(sampler, schedule)
        self._stages = [_Stage(n, count * reach.before) for n, count in enumerate(counts, 1)]
        afters = [count * reach.after for count in counts]
        self._tails = [sum(afters[n:]) for n in range(len(afters) + 1)]

    @property
    def lookahead(self) -> int:
        """How many positions beyond the last one that is finished must be known."""
        return self._tails[0]

    @property
    def oldest(self) -> int:
        """The first position that a coming window may begin with."""
        return min(max(0, stage.done - stage.before) for stage in self._stages)

    def advance(self, target: int, end: int | None) -> Tensor:
        """Returns x at the end of the grid from where the last call stopped up to target, [B, C, F].

        Args:
            target: aligned as the reach is, unless it is the end.
            end: number of positions of the whole signal; None while there is more than target + lookahead.
        """
        stops = [target + tail if end is None else min(target + tail, end) for tail in self._tails]
        first = self._stages[0]
        x, memory = self._start(first.stop, stops[0]), None
        for stage, known, stop in zip(self._stages, stops[:-1], stops[1:], strict=True):
            stage.take(x, memory, known)
            x, memory = self._run(stage, stop)
        return x

    def _start(self, start: int, stop: int) -> Tensor:
        noise = self._noise(0, 0, start, stop)
        return self._sampler.start(self._schedule, noise) if stop > start else noise

    def _run(self, stage: _Stage, stop: int) -> tuple[Tensor, Any]:
        """Returns what the step makes of the positions from where it stood up to `stop`."""
        start, known = stage.start, stage.stop
        done, stage.done = stage.done, stop
        if stop == done:
            return stage.x[..., :0], over_positions(lambda part: part[..., :0], stage.memory)
        denoise, sampler = self._bind(stage.number, start, known)
        x, memory = sampler.advance(
            denoise, self._schedule, self._times, stage.number, stage.x, stage.memory,
            lambda step, draw: self._noise(step, draw, start, known),
        )  # fmt: skip
        stage.forget()
        inside = slice(done - start, stop - start)
        return x[..., inside], over_positions(lambda part: part[..., inside], memory)


class _Stage:
    """One step, and the part of its input that a coming window shows."""

    def __init__(self, number: int, before: int) -> None:
        self.number, self.before = number, before
        self.start = self.stop = self.done = (
            0  # first position kept, the one after the last, the next to be made
        )
        self.x: Tensor
        self.memory: Any = None

    def take(self, x: Tensor, memory: Any, stop: int) -> None:
        """Appends x and memory of the positions up to `stop`."""
        if self.stop == 0:
            self.x, self.memory = x, memory
        elif stop > self.stop:
            self.x = torch.cat([self.x, x], dim=-1)
            self.memory = over_positions(lambda *parts: torch.cat(parts, dim=-1), self.memory, memory)
        self.stop = stop

    def forget(self) -> None:
        """Drops what no coming window shows."""
        start = max(0, self.done - self.before)
        beyond = slice(start - self.start, None)
        # Copies, since views would keep all of what they were cut from.
        self.x = self.x[..., beyond].clone()
        self.memory = over_positions(lambda part: part[..., beyond].clone(), self.memory)
        self.start = start


def over_positions(function: Callable[..., Tensor], *memories: Any) -> Any:
    """Returns what steps remember with a function applied to every tensor [B, C, F] in it.

    Args:
        function: (tensor of each memory) -> tensor.
        memories: of one step, at different positions; tuples and dataclasses of tensors and numbers.
    """
    first = memories[0]
    if isinstance(first, Tensor) and first.dim() == 3:
        return function(*memories)
    if isinstance(first, tuple):
        return tuple(over_positions(function, *parts) for parts in zip(*memories, strict=True))
    if is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in fields(first)]
        parts = {n: over_positions(function, *(getattr(memory, n) for memory in memories)) for n in names}
        return replace(first, **parts)
    return first


def evaluations(sampler: Sampler, schedule: NoiseSchedule) -> list[int]:
    """Returns how often each step of the grid evaluates the denoiser, found by sampling one position of nothing.

    Raises:
        InputError: see `Sampler.times`, or a step that this schedule does not admit.
    """
    counter = _Counter()
    denoise = GuidedVariance(counter, lambda x, t: 0 * x, Guidance(0.5))
    plain, times = replace(sampler, constraint=None, projection=None), sampler.times(schedule)
    x, memory, counts = torch.zeros(1, 1, 1), None, []
    for number in range(1, len(times)):
        before = counter.calls
        x, memory = plain.advance(
            denoise, schedule, times, number, x, memory, lambda step, draw: torch.zeros(1, 1, 1)
        )
        counts.append(counter.calls - before)
    return counts


class _Counter:
    """A denoiser of nothing that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.with_variance(x, t)[0]

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return 0 * x, 0 * x


def check_local(sampler: Sampler, guidance: Guidance) -> None:
    """Refuses what looks at the whole signal at once.

    Raises:
        InputError: a constraint or projection other than Clip, or guidance that is rescaled.
    """
    for name, part in (("constraint", sampler.constraint), ("projection", sampler.projection)):
        if not isinstance(part, Clip | None):
            raise InputError(
                f"streaming: the sampler's {name} {type(part).__name__} looks at the whole signal; "
                "synthesize offline, or take a sampler without it or with Clip"
            )
    if guidance.scale != 1 and guidance.rescale > 0:
        raise InputError(
            "streaming: guidance_rescale measures the spread of the whole signal; use 0, or synthesize offline"
        )
