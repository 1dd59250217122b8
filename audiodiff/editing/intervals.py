"""Intervals of a recording that are to be made anew, as seconds in words and as samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from audiodiff.errors import InputError


@dataclass(frozen=True, order=True)
class Interval:
    """Samples start to stop of a recording, stop not included.

    Attributes:
        start: first sample; negative before the recording.
        stop: above start.
    """

    start: int
    stop: int

    @property
    def length(self) -> int:
        """In samples."""
        return self.stop - self.start


def parse_interval(text: str) -> tuple[float, float]:
    """Returns (start, stop) in seconds of a text such as 1.2:1.9.

    Raises:
        InputError: something else, or a start that is not below the stop.
    """
    try:
        start, stop = (float(part) for part in text.split(":"))
    except ValueError:
        raise InputError(f"mask {text!r}: expected two times in seconds, such as 1.2:1.9") from None
    if not (math.isfinite(start) and math.isfinite(stop) and start < stop):
        raise InputError(
            f"mask {text!r}: starts at {start} s and ends at {stop} s; expected a start before the end"
        )
    return start, stop


def intervals_within(
    seconds: Iterable[tuple[float, float]], sample_rate: int, length: int
) -> tuple[list[Interval], list[str]]:
    """Returns rising, separate intervals of a recording, and a line on each that was changed to make them so.

    Args:
        seconds: (start, stop) of each.
        sample_rate: hertz.
        length: of the recording, samples.

    Raises:
        InputError: none given, one that lies outside the recording or holds no sample, or nothing left beside them.
    """
    found, remarks = [], []
    end = length / sample_rate
    for start, stop in seconds:
        if start < 0 or start >= end:
            raise InputError(f"mask {start:g}:{stop:g}: lies outside the recording, which lasts {end:.3f} s")
        if stop > end + 0.5 / sample_rate:
            remarks.append(f"mask {start:g}:{stop:g}: ends with the recording at {end:.3f} s")
        interval = Interval(round(start * sample_rate), min(round(stop * sample_rate), length))
        if interval.length < 1:
            raise InputError(f"mask {start:g}:{stop:g}: holds no sample at {sample_rate} Hz")
        found.append(interval)
    if not found:
        raise InputError("mask: none given; name at least one interval in seconds, such as --mask 1.2:1.9")
    whole, merged = merge(found)
    if merged:
        remarks.append(f"{merged} overlapping or touching mask(s) merged; {len(whole)} left")
    if whole[0].length == length:
        raise InputError(
            "mask: covers the whole recording, so that nothing is left to go by; `audiodiff synthesize` makes new sound"
        )
    return whole, remarks


def merge(intervals: Iterable[Interval], gap: int = 0) -> tuple[list[Interval], int]:
    """Returns rising intervals that are more than `gap` samples apart, and how many were joined to others."""
    found: list[Interval] = []
    merged = 0
    for interval in sorted(intervals):
        if found and interval.start <= found[-1].stop + gap:
            found[-1] = Interval(found[-1].start, max(found[-1].stop, interval.stop))
            merged += 1
        else:
            found.append(interval)
    return found, merged


def runs(flags: Tensor, offset: int = 0) -> list[Interval]:
    """Returns the stretches in which flags [T] are true, their first sample counted from `offset`."""
    steps = torch.diff(torch.nn.functional.pad(flags.to(torch.int8), (1, 1)))
    starts, stops = (steps == 1).nonzero()[:, 0], (steps == -1).nonzero()[:, 0]
    pairs = zip(starts.tolist(), stops.tolist(), strict=True)
    return [Interval(start + offset, stop + offset) for start, stop in pairs]
