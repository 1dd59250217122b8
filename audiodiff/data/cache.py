"""Clips kept in memory, once for all worker processes, as 16-bit integers wherever that loses nothing.

libsndfile reads a 16-bit sample n as n / 2^15, a float32 that turns back into n exactly; so audio of 16-bit files takes
half the room and comes back the very same. The memory is shared by the processes that a loader forks: whichever reads a
clip first keeps it for all. Every clip has its place from the beginning, so nothing is locked: who writes a clip twice
writes the same bytes.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

_FULL_SCALE = 32768.0


class ClipCache:
    """Whole clips, from the first one until a number of bytes is spent.

    Args:
        lengths: samples of each clip.
        channels: of every clip.
        budget: bytes, of all processes together.
        exact_in_16_bits: whether a first look says so; a clip that is not is then left out. Otherwise float32 is kept.
    """

    def __init__(self, lengths: np.ndarray, channels: int, budget: float, exact_in_16_bits: bool) -> None:
        self._lengths = lengths
        self._channels = channels
        self._budget = budget
        self._type = np.dtype(np.int16 if exact_in_16_bits else np.float32)
        self._allocate()

    def _allocate(self) -> None:
        sizes = self._type.itemsize * self._channels * self._lengths
        ends = np.cumsum(sizes)
        self.clips = int(np.searchsorted(ends, self._budget, side="right"))
        self._starts = (ends - sizes)[: self.clips]
        # Shared with processes forked from here, and zero until written: pages are taken when they are needed.
        self._filled = mmap.mmap(-1, max(self.clips, 1))
        self._bytes = mmap.mmap(-1, int(ends[self.clips - 1]) if self.clips else 1)

    def __getstate__(self) -> dict[str, Any]:
        kept = {"_lengths", "_channels", "_budget", "_type"}
        return {name: value for name, value in self.__dict__.items() if name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A process that was not forked has a cache of its own, with its share of the bytes."""
        self.__dict__.update(state)
        self.clips = -1

    def __contains__(self, clip: int) -> bool:
        """Whether there is room for a clip."""
        if self.clips < 0:
            worker = get_worker_info()
            self._budget /= 1 if worker is None else worker.num_workers
            self._allocate()
        return clip < self.clips

    def get(self, clip: int, start: int, stop: int) -> Tensor | None:
        """Returns samples [C, stop - start] of a clip, or None if it is not kept."""
        if clip not in self or not self._filled[clip]:
            return None
        samples = torch.from_numpy(self._place(clip)[:, start:stop].astype(np.float32))
        return samples / _FULL_SCALE if self._type == np.int16 else samples

    def put(self, clip: int, waveform: Tensor) -> None:
        """Keeps a clip [C, T] if there is room for it and nothing is lost."""
        if clip not in self or (self._type == np.int16 and not exact_in_16_bits(waveform)):
            return
        scaled = waveform * _FULL_SCALE if self._type == np.int16 else waveform
        self._place(clip)[:] = scaled.numpy()
        self._filled[clip] = 1

    def _place(self, clip: int) -> np.ndarray:
        length = int(self._lengths[clip])
        flat = np.frombuffer(self._bytes, self._type, self._channels * length, int(self._starts[clip]))
        return flat.reshape(self._channels, length)


def exact_in_16_bits(waveform: Tensor) -> bool:
    """Returns whether every sample is a 16-bit integer / 2^15."""
    scaled = waveform * _FULL_SCALE
    inside = bool((scaled >= -_FULL_SCALE).all() and (scaled < _FULL_SCALE).all())
    return inside and torch.equal(scaled.round(), scaled)
