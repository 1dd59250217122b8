"""Recordings in, one summary each out: pieces are measured in batches, of whatever recording they come.

Per frame only its errors by level and one number (or what else the caller keeps) stay in memory.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from audiodiff.anomaly.features import Neighbours, Profile, fine_features, frame_features
from audiodiff.anomaly.measure import Bits, Measured, Probe, measure_pieces
from audiodiff.anomaly.pieces import Piece, Tiling, opened, pieces, tiling_of
from audiodiff.errors import InputError
from audiodiff.evaluation.likelihood import Recording
from audiodiff.model import AudioDiffusion

Keep = Callable[
    [np.ndarray], np.ndarray
]  # frames beside their neighbours [P, D] -> what is kept of each [P, ...]


@dataclass(frozen=True)
class Summary:
    """What was measured of one recording.

    Attributes:
        recording: which.
        problem: why nothing was; None where it was.
        seconds: length.
        own_rate: hertz, of the file.
        bound_bits: upper bound on minus log2 of the density per number of x; None if left out.
        flow_bits: minus log2 of it by the probability flow; None if left out.
        errors: [levels, P], denoising error of each frame, mean over the channels of x.
        profile: [D], see `features.Profile`.
        kept: [P, ...], what the caller keeps of each frame.
    """

    recording: Recording
    problem: str | None = None
    seconds: float = 0.0
    own_rate: int = 0
    bound_bits: float | None = None
    flow_bits: float | None = None
    errors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    profile: np.ndarray = field(default_factory=lambda: np.zeros(0))
    kept: np.ndarray = field(default_factory=lambda: np.zeros(0))


class _Running:
    """A recording of which some pieces are measured and others are not."""

    def __init__(self, recording: Recording, keep: Keep) -> None:
        self.recording, self._keep = recording, keep
        self.problem: str | None = None
        self.complete, self.waiting = False, 0
        self.seconds, self.own_rate = 0.0, 0
        self._numbers, self._bound, self._flow = 0, 0.0, 0.0
        self._has_bound = self._has_flow = False
        self._errors: list[np.ndarray] = []
        self._kept: list[np.ndarray] = []
        self._neighbours, self._profile = Neighbours(), Profile()

    def add(self, measured: Measured) -> None:
        """Takes in a piece; they come in their order."""
        errors, power = measured.errors.double().numpy(), measured.power.double().numpy()
        self._errors.append(errors.mean(1).astype(np.float32))
        self._keep_of(self._neighbours.add(frame_features(errors, power)))
        self._profile.add(fine_features(errors, power))
        self._numbers += measured.numbers
        self._has_bound, self._has_flow = measured.bound is not None, measured.flow is not None
        self._bound += measured.bound or 0.0
        self._flow += measured.flow or 0.0

    def summary(self) -> Summary:
        """Returns what was found."""
        if self.problem is not None:
            return Summary(self.recording, self.problem, self.seconds, self.own_rate)
        self._keep_of(self._neighbours.finish())
        errors = np.concatenate(self._errors, axis=1)
        nats = self._numbers * math.log(2)
        return Summary(
            self.recording, None, self.seconds, self.own_rate,
            self._bound / nats if self._has_bound else None, self._flow / nats if self._has_flow else None,
            errors, self._profile.vector(), np.concatenate(self._kept),
        )  # fmt: skip

    def _keep_of(self, frames: np.ndarray) -> None:
        if len(frames):
            self._kept.append(self._keep(frames))


def gather(
    model: AudioDiffusion, recordings: Sequence[Recording], probe: Probe, bits: Bits, batch: int, keep: Keep,
    on_step: Callable[[float], None] | None = None,
) -> Iterator[Summary]:  # fmt: skip
    """Yields a summary of each recording, in their order; one that cannot be scored says why.

    Args:
        model: the model.
        recordings: to measure.
        probe: of the denoising errors.
        bits: of the likelihoods.
        batch: windows at a time; changes speed and memory, not the numbers.
        keep: what of each frame.
        on_step: told by how many recordings the work went on.

    Raises:
        InputError: a batch below one; a label or text that the model does not know.
    """
    if batch < 1:
        raise InputError(f"--batch: got {batch}, expected at least 1")
    tiling = tiling_of(model, probe.frame_seconds, probe.window_seconds)
    queue: deque[_Running] = deque()
    pending: list[tuple[_Running, Piece]] = []

    def flush() -> None:
        _measure(model, pending, probe, bits, tiling.pool)
        pending.clear()

    for recording in recordings:
        running = _Running(recording, keep)
        queue.append(running)
        for piece, share in _pieces(running, model, tiling):
            pending.append((running, piece))
            running.waiting += 1
            if len(pending) == batch:
                flush()
            if on_step is not None:
                on_step(share)
        while queue and queue[0].complete and not queue[0].waiting:
            yield queue.popleft().summary()
    if pending:
        flush()
    while queue:
        yield queue.popleft().summary()


def _pieces(running: _Running, model: AudioDiffusion, tiling: Tiling) -> Iterator[tuple[Piece, float]]:
    """Yields the pieces of a recording and their share of it; what is wrong with it is noted."""
    try:
        signal = opened(running.recording, model)
        running.seconds, running.own_rate = signal.seconds, signal.own_rate
        step = tiling.window - 2 * tiling.margin
        count = max(1, -(-(signal.readable.length - 2 * tiling.margin) // step))
        for piece in pieces(signal, running.recording, tiling):
            yield piece, 1 / count
    except InputError as error:
        running.problem = str(error)
    running.complete = True


def _measure(
    model: AudioDiffusion, pending: Sequence[tuple[_Running, Piece]], probe: Probe, bits: Bits, pool: int
) -> None:
    """Measures pieces in one batch; where that has numbers that are not finite, one by one to tell whose."""
    try:
        found = measure_pieces(model, [piece for _, piece in pending], probe, bits, pool)
        for (running, _), measured in zip(pending, found, strict=True):
            running.add(measured)
    except FloatingPointError as error:
        if len(pending) == 1:
            pending[0][0].problem = str(error)
        else:
            for each in pending:
                _measure(model, [each], probe, bits, pool)
            return
    for running, _ in pending:
        running.waiting -= 1
