"""A local condition at the sample rate, made window by window as far as tiles of samples ask for it.

A frame's samples depend on the frames within the upsampler's reach alone, so that a window with that many frames more
on either side gives the same numbers. Samples lie one after the other, [samples, D + 1], as a matrix product takes
them; the last column is one, for a bias.
"""

from __future__ import annotations

from torch import Tensor

from audiodiff.networks.blocks import FrameUpsampler


class UpsampledRows:
    """The local condition at the sample rate, [samples, D + 1] with ones at the end, made as far as it is asked for."""

    def __init__(self, upsampler: FrameUpsampler, hop_length: int, rows: Tensor) -> None:
        """Takes the memory.

        Args:
            upsampler: from frames to samples.
            hop_length: samples of a frame.
            rows: [R, D + 1] ones; R is at least what is asked for at a time and one hop, or the whole length.
        """
        self._upsampler = upsampler
        self._hop_length = hop_length
        self._reach = upsampler.reach()
        self._rows = rows
        self._local: Tensor | None = None
        self._frames = 0
        self._first = self._end = 0  # the samples that are there

    def begin(self, local: Tensor, frames: int) -> None:
        """Starts at the first sample of local [D, F] with so many valid frames; what is there still is kept."""
        if self._local is not local or self._first > 0:
            self._first = self._end = 0
        self._local, self._frames = local, frames

    def rows(self, start: int, stop: int, keep: int) -> Tensor:
        """Returns samples start to stop; those before `keep` are not asked for again."""
        if stop > self._end:
            self._extend(-(-stop // self._hop_length), keep)
        return self._rows[start - self._first : stop - self._first]

    def _extend(self, frames: int, keep: int) -> None:
        assert self._local is not None
        hop_length, done = self._hop_length, self._end // self._hop_length
        if frames * hop_length - self._first > len(self._rows):
            shift(self._rows, keep - self._first, self._end - keep)
            self._first = keep
        low, high = max(0, done - self._reach[0]), min(self._frames, frames + self._reach[1])
        window = self._upsampler(self._local[None, :, low:high])[0]
        made = window[:, (done - low) * hop_length : (frames - low) * hop_length].T
        self._rows[self._end - self._first : frames * hop_length - self._first, :-1] = made
        self._end = frames * hop_length


def shift(buffer: Tensor, rows: int, kept: int) -> None:
    """Moves the `kept` rows that follow the first `rows` to the front, without a copy in between."""
    if rows > 0:
        for start in range(0, kept, rows):  # pieces that do not overlap with where they go
            stop = min(start + rows, kept)
            buffer[start:stop] = buffer[start + rows : stop + rows]
