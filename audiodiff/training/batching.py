"""Batching: from the seconds of audio of one update to clips per process and backward pass.

    clips per update = global_batch_seconds / segment_seconds
    clips per pass   = clips per update / (processes * passes), at most pass_seconds / segment_seconds

What an update is, and with it the whole course of a training, depends on the first line alone; the second only says
how the work is shared, and may change when a run goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audiodiff.data.order import Share
from audiodiff.errors import InputError


@dataclass(frozen=True)
class Batching:
    """How the clips of an update are shared.

    Attributes:
        clips: of one update, over all processes and passes.
        ranks: processes.
        passes: backward passes of one update in each process, whose gradients accumulate.
        asked: clips that the recipe's seconds would make, before they were rounded to what can be shared.
    """

    clips: int
    ranks: int
    passes: int
    asked: int

    @property
    def clips_per_pass(self) -> int:
        """Clips of one backward pass of one process."""
        return self.clips // (self.ranks * self.passes)

    def share(self, rank: int) -> Share:
        """Returns which part of every update one process takes."""
        return Share(rank, self.ranks, self.passes)

    def describe(self, segment_seconds: float) -> str:
        """Returns the line that is printed at the start."""
        rounded = f" (rounded from {self.asked})" if self.asked != self.clips else ""
        return (
            f"batch: {self.clips} clips per update{rounded}, {self.clips * segment_seconds:.4g} s of audio, on "
            f"{self.ranks} process(es) in {self.passes} pass(es) of {self.clips_per_pass} clips"
        )


def batching(settings: Mapping[str, Any], segment_seconds: float, ranks: int) -> Batching:
    """Returns how the recipe's batch is shared over the processes.

    Args:
        settings: `global_batch_seconds` and `pass_seconds`, the most audio of one pass; None for no limit.
        segment_seconds: of a training segment, as long as a clip can be.
        ranks: processes.

    Raises:
        InputError: seconds that are not positive, or less than one clip per pass.
    """
    total, limit = settings["global_batch_seconds"], settings["pass_seconds"]
    if not total > 0:
        raise InputError(f"training.global_batch_seconds: got {total}, expected seconds of audio above 0")
    asked = max(1, round(total / segment_seconds))
    most = asked if limit is None else int(limit / segment_seconds * (1 + 1e-9))
    if most < 1:
        raise InputError(
            f"training.pass_seconds: got {limit}, expected at least the {segment_seconds:g} s of one segment"
        )
    passes = -(-asked // (ranks * most))
    step = ranks * passes
    clips = max(step, (asked + step // 2) // step * step)
    if clips // step > most:  # rounding up made a pass too large
        clips -= step
    return Batching(clips, ranks, passes, asked)
