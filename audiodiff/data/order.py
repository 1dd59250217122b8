"""Order: which part of which clip is in which update, as a pure function of (seed, update).

Training therefore resumes exactly at any update, every rank knows its share, and the clips of an update are the
same whatever the number of ranks and of backward passes. The stream of clips is permutation 0, permutation 1,
... one per epoch; update u takes positions [u*G, (u+1)*G) of it, with G clips per update. Updates that lie inside one
epoch are grouped in windows of WINDOW_UPDATES; inside a window clips are sorted by length and the updates shuffled, so
that a batch pads little. An update that straddles two epochs takes the end of one and the start of the next.
Clips in shards come shard by shard: an epoch's permutation permutes the shards, then the clips within groups of several
shards, so that only those few need be at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from audiodiff.errors import InputError

WINDOW_UPDATES = 16

# What a random number is for; one key never serves two purposes.
_ORDER, _CROP, _SHUFFLE, AUGMENT, REPLACE, SEQUENCE = range(6)


@dataclass(frozen=True)
class SegmentRequest:
    """Samples [start, start + length) of clip number `index`, taken in epoch number `epoch`."""

    index: int
    start: int
    length: int
    epoch: int = 0


class FixedRequests(Sequence[SegmentRequest]):
    """The centre crop of every clip, made when it is asked for."""

    def __init__(self, lengths: Sequence[int] | np.ndarray, segment_length: int) -> None:
        self._lengths = lengths
        self._segment_length = segment_length

    def __len__(self) -> int:
        return len(self._lengths)

    @overload
    def __getitem__(self, number: int) -> SegmentRequest: ...

    @overload
    def __getitem__(self, number: slice) -> list[SegmentRequest]: ...

    def __getitem__(self, number: int | slice) -> SegmentRequest | list[SegmentRequest]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        index = range(len(self))[number]
        length = int(self._lengths[index])
        taken = min(length, self._segment_length)
        return SegmentRequest(index, (length - taken) // 2, taken)


def fixed_requests(lengths: Sequence[int] | np.ndarray, segment_length: int) -> FixedRequests:
    """Returns the centre crop of every clip, for validation: the same at every call.

    Args:
        lengths: samples of each clip; a clip shorter than segment_length is taken whole.
        segment_length: samples.
    """
    return FixedRequests(lengths, segment_length)


@dataclass(frozen=True, eq=False)
class Shards:
    """How clips lie in files that are read whole.

    Attributes:
        starts: [S + 1], number of the first clip of each shard, and the number of clips.
        together: shards whose clips are shuffled with one another: more mix better and need more room.
    """

    starts: np.ndarray
    together: int = 8

    def permutation(self, generator: np.random.Generator) -> np.ndarray:
        """Returns all clips: shards in random order, clips shuffled within each group of shards."""
        shards = generator.permutation(len(self.starts) - 1)
        order = np.empty(int(self.starts[-1]), dtype=np.int64)
        filled = 0
        for first in range(0, len(shards), self.together):
            group = [
                np.arange(self.starts[shard], self.starts[shard + 1])
                for shard in shards[first : first + self.together]
            ]
            clips = generator.permutation(np.concatenate(group))
            order[filled : filled + len(clips)] = clips
            filled += len(clips)
        return order

    def beside(self, clip: int) -> range:
        """Returns the clips of a clip's shard."""
        shard = int(np.searchsorted(self.starts, clip, side="right")) - 1
        return range(int(self.starts[shard]), int(self.starts[shard + 1]))


@dataclass(frozen=True)
class Share:
    """Which part of every update is taken here.

    Attributes:
        rank: number of this process.
        world_size: number of processes.
        passes: backward passes of one update, in each process.
    """

    rank: int = 0
    world_size: int = 1
    passes: int = 1

    def positions(self, clips: int, part: int) -> range:
        """Returns which of an update's clips are in one backward pass of this process.

        Strided, so that clips of every length are spread over ranks and passes.
        """
        return range(self.rank + self.world_size * part, clips, self.world_size * self.passes)


ALONE = Share()


class SegmentBatchSampler:
    """Endless batches of segment requests, the same for the same arguments: the passes of update 0, of update 1, ...

    Args:
        lengths: samples of each clip.
        segment_length: samples; longer clips are cropped at random, shorter ones taken whole.
        clips: clips of one update, over all ranks and passes.
        seed: of the order and the crops.
        share: which part of every update is given.
        start: number of the update to begin with: updates done so far when resuming.
        shards: how the clips lie in shards; None where each is a file of its own.

    Raises:
        InputError: no clips, a clip of no length, a size that is not positive, or clips that cannot be shared evenly.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        segment_length: int,
        clips: int,
        seed: int,
        share: Share = ALONE,
        start: int = 0,
        shards: Shards | None = None,
    ) -> None:
        lengths = np.asarray(lengths, dtype=np.int64)
        if len(lengths) == 0 or lengths.min() < 1:
            raise InputError(f"got {len(lengths)} clips, expected at least one, each of one sample or more")
        if segment_length < 1 or clips < 1:
            raise InputError(f"segment_length {segment_length} and clips {clips} must be positive")
        if not 0 <= share.rank < share.world_size or share.passes < 1 or start < 0 or seed < 0:
            raise InputError(
                f"got rank {share.rank} of {share.world_size}, {share.passes} passes, start {start}, seed {seed}; "
                "expected 0 <= rank < world_size, a pass or more, and neither start nor seed negative"
            )
        if clips % (share.world_size * share.passes):
            raise InputError(
                f"{clips} clips per update cannot be shared evenly by {share.world_size} process(es) in "
                f"{share.passes} pass(es) each; take a multiple of {share.world_size * share.passes}"
            )
        if shards is not None and shards.starts[-1] != len(lengths):
            raise InputError(f"got {len(lengths)} clips, and shards of {shards.starts[-1]}; expected as many")
        self.lengths = lengths
        self.segment_length = segment_length
        self.clips = clips
        self.seed = seed
        self.share = share
        self.start = start
        self.shards = shards
        # The epoch's order and the window's updates last computed: all that is ever kept.
        self._permutation: tuple[int, np.ndarray] | None = None
        self._window: tuple[range, np.ndarray] | None = None

    def epoch_of(self, update: int) -> int:
        """Returns the epoch in which an update begins."""
        return update * self.clips // len(self.lengths)

    def __iter__(self) -> Iterator[list[SegmentRequest]]:
        update = self.start
        while True:
            for part in range(self.share.passes):
                yield self.batch(update, part)
            update += 1

    def batch(self, update: int, part: int = 0) -> list[SegmentRequest]:
        """Returns the requests of one backward pass of an update."""
        drawn = self._drawn(update)
        return [self._request(*drawn[position]) for position in self.share.positions(self.clips, part)]

    def update(self, number: int) -> list[SegmentRequest]:
        """Returns the requests of one update, of all ranks and passes."""
        return [self._request(epoch, index) for epoch, index in self._drawn(number)]

    def coming(self, number: int) -> np.ndarray:
        """Returns the clips that the next updates take, in order: as many as one group of shards has, in this epoch."""
        if self.shards is None:
            return np.empty(0, dtype=np.int64)
        epoch, offset = divmod(number * self.clips, len(self.lengths))
        ahead = -(-len(self.lengths) * self.shards.together // (len(self.shards.starts) - 1))
        return self._order(epoch)[offset : offset + ahead]

    def _drawn(self, number: int) -> list[tuple[int, int]]:
        """Returns epoch and clip of every place of an update."""
        clips = len(self.lengths)
        positions = range(number * self.clips, (number + 1) * self.clips)
        epochs = [position // clips for position in positions]
        if epochs[0] == epochs[-1]:
            indices = self._sorted_update(number, epochs[0])
        else:
            indices = [
                int(self._order(epoch)[position % clips])
                for epoch, position in zip(epochs, positions, strict=True)
            ]
        return list(zip(epochs, indices, strict=True))

    def _order(self, epoch: int) -> np.ndarray:
        if self._permutation is None or self._permutation[0] != epoch:
            generator = np.random.default_rng([self.seed, _ORDER, epoch])
            if self.shards is None:
                self._permutation = (epoch, generator.permutation(len(self.lengths)))
            else:
                self._permutation = (epoch, self.shards.permutation(generator))
        return self._permutation[1]

    def _sorted_update(self, number: int, epoch: int) -> list[int]:
        """Returns the indices of an update that lies inside one epoch."""
        if self._window is None or number not in self._window[0]:
            self._window = self._make_window(number, epoch)
        updates, indices = self._window
        return [int(index) for index in indices[number - updates.start]]

    def _make_window(self, number: int, epoch: int) -> tuple[range, np.ndarray]:
        size, clips = self.clips, len(self.lengths)
        first = -(-epoch * clips // size)  # the first and the last update wholly inside the epoch
        last = (epoch + 1) * clips // size
        start = first + (number - first) // WINDOW_UPDATES * WINDOW_UPDATES
        window = range(start, min(start + WINDOW_UPDATES, last))
        offset = epoch * clips
        indices = self._order(epoch)[window.start * size - offset : window.stop * size - offset]
        taken = np.minimum(self.lengths[indices], self.segment_length)
        indices = indices[np.argsort(taken, kind="stable")].reshape(len(window), size)
        generator = np.random.default_rng([self.seed, _SHUFFLE, window.start])
        return window, indices[generator.permutation(len(window))]

    def _request(self, epoch: int, index: int) -> SegmentRequest:
        length = int(self.lengths[index])
        taken = min(length, self.segment_length)
        start = 0
        if length > taken:
            generator = np.random.default_rng([self.seed, _CROP, epoch, index])
            start = int(generator.integers(length - taken + 1))
        return SegmentRequest(index, start, taken, epoch)
