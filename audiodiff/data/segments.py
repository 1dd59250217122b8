"""Segments: which part of which clip is in which training batch, and reading it.

The order is a pure function of (seed, batch number), so training resumes exactly at any batch and every
rank knows its share. The stream of clips is permutation 0, permutation 1, ... one per epoch; batch b takes
positions [b*G, (b+1)*G) of it, with G = batch_size * world_size. Batches that lie inside one epoch are
grouped in windows of WINDOW_BATCHES; inside a window clips are sorted by length and the batches shuffled, so
that a batch pads little. A batch that straddles two epochs takes the end of one and the start of the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from audiodiff.audio import io
from audiodiff.data.collate import Item, collate
from audiodiff.data.manifests import label_of
from audiodiff.errors import InputError
from audiodiff.types import Batch

if TYPE_CHECKING:
    from lhotse.cut import Cut

WINDOW_BATCHES = 16

# What a random number is for; one key never serves two purposes.
_ORDER, _CROP, _SHUFFLE = range(3)


@dataclass(frozen=True)
class SegmentRequest:
    """Samples [start, start + length) of clip number `index`."""

    index: int
    start: int
    length: int


def fixed_requests(lengths: Sequence[int], segment_length: int) -> list[SegmentRequest]:
    """Returns the centre crop of every clip, for validation: the same at every call.

    Args:
        lengths: samples of each clip; a clip shorter than segment_length is taken whole.
        segment_length: samples.
    """
    requests = []
    for index, length in enumerate(lengths):
        taken = min(length, segment_length)
        requests.append(SegmentRequest(index, (length - taken) // 2, taken))
    return requests


class SegmentBatchSampler:
    """Endless batches of segment requests, the same for the same arguments.

    Args:
        lengths: samples of each clip.
        segment_length: samples; longer clips are cropped at random, shorter ones taken whole.
        batch_size: clips per batch and rank.
        seed: of the order and the crops.
        rank: which share of every global batch is given.
        world_size: number of ranks.
        start_batch: number of the batch to begin with: batches done so far when resuming.

    Raises:
        InputError: no clips, a clip of no length, or a size that is not positive.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        segment_length: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
    ) -> None:
        if len(lengths) == 0 or min(lengths) < 1:
            raise InputError(f"got {len(lengths)} clips, expected at least one, each of one sample or more")
        if segment_length < 1 or batch_size < 1:
            raise InputError(f"segment_length {segment_length} and batch_size {batch_size} must be positive")
        if not 0 <= rank < world_size or start_batch < 0 or seed < 0:
            raise InputError(
                f"got rank {rank} of {world_size}, start_batch {start_batch}, seed {seed}; "
                "expected 0 <= rank < world_size, and neither start_batch nor seed negative"
            )
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.segment_length = segment_length
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.start_batch = start_batch
        # The epoch's order and the window's batches last computed: all that is ever kept.
        self._permutation: tuple[int, np.ndarray] | None = None
        self._window: tuple[range, np.ndarray] | None = None

    @property
    def clips_per_batch(self) -> int:
        """Clips of one batch over all ranks."""
        return self.batch_size * self.world_size

    def epoch_of(self, batch: int) -> int:
        """Returns the epoch in which a batch begins."""
        return batch * self.clips_per_batch // len(self.lengths)

    def __iter__(self) -> Iterator[list[SegmentRequest]]:
        batch = self.start_batch
        while True:
            yield self.batch(batch)
            batch += 1

    def batch(self, number: int) -> list[SegmentRequest]:
        """Returns this rank's requests of one batch."""
        size, clips = self.clips_per_batch, len(self.lengths)
        positions = range(number * size, (number + 1) * size)
        epochs = [position // clips for position in positions]
        if epochs[0] == epochs[-1]:
            indices = self._sorted_batch(number, epochs[0])
        else:
            indices = [
                int(self._order(epoch)[position % clips])
                for epoch, position in zip(epochs, positions, strict=True)
            ]
        # Strided, so that clips of every length are spread over the ranks.
        share = slice(self.rank, None, self.world_size)
        return [
            self._request(epoch, index) for epoch, index in zip(epochs[share], indices[share], strict=True)
        ]

    def _order(self, epoch: int) -> np.ndarray:
        if self._permutation is None or self._permutation[0] != epoch:
            generator = np.random.default_rng([self.seed, _ORDER, epoch])
            self._permutation = (epoch, generator.permutation(len(self.lengths)))
        return self._permutation[1]

    def _sorted_batch(self, number: int, epoch: int) -> list[int]:
        """Returns the indices of a batch that lies inside one epoch."""
        if self._window is None or number not in self._window[0]:
            self._window = self._make_window(number, epoch)
        batches, indices = self._window
        return [int(index) for index in indices[number - batches.start]]

    def _make_window(self, number: int, epoch: int) -> tuple[range, np.ndarray]:
        size, clips = self.clips_per_batch, len(self.lengths)
        first = -(-epoch * clips // size)  # the first and the last batch wholly inside the epoch
        last = (epoch + 1) * clips // size
        start = first + (number - first) // WINDOW_BATCHES * WINDOW_BATCHES
        window = range(start, min(start + WINDOW_BATCHES, last))
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
        return SegmentRequest(index, start, taken)


class SegmentDataset(Dataset[Item]):
    """Segments of cuts, read from their audio files.

    Args:
        cuts: of one sample rate; see `load_cuts`.
        sample_rate: what the model needs, Hz.
        channels: what the model needs.
        label_names: labels that every item carries, for example ("digit", "speaker").
        cache_megabytes: decoded audio kept in memory, all worker processes together; clips are kept whole
            until this is spent, later ones are read from disk each time.

    Raises:
        InputError: no cuts; a cut has another sample rate or channel count, or lacks a label.
    """

    def __init__(
        self,
        cuts: Sequence[Cut],
        sample_rate: int,
        channels: int = 1,
        label_names: Sequence[str] = (),
        cache_megabytes: float = 0,
    ) -> None:
        if not cuts:
            raise InputError("got no cuts; run `audiodiff prepare` or name another split")
        for cut in cuts:
            _check(cut, sample_rate, channels)
        self.cuts = list(cuts)
        self.labels = [{name: label_of(cut, name) for name in label_names} for cut in self.cuts]
        self.sample_rate = sample_rate
        self.channels = channels
        self.cache_megabytes = cache_megabytes
        self._cache: dict[int, Tensor] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.cuts)

    @property
    def lengths(self) -> list[int]:
        """Samples of each cut."""
        return [cut.num_samples for cut in self.cuts]

    def __getitem__(self, request: SegmentRequest) -> Item:
        """Returns the requested segment.

        Raises:
            InputError: the audio file cannot be read or is shorter than its cut says.
        """
        cut = self.cuts[request.index]
        waveform = self._read(request)
        if waveform.shape[-1] != request.length:
            raise InputError(
                f"cut {cut.id}: got {waveform.shape[-1]} samples at {request.start}, expected "
                f"{request.length}; the audio changed, run `audiodiff prepare` again"
            )
        return Item(waveform, request.length, self.labels[request.index], cut.id)

    def _read(self, request: SegmentRequest) -> Tensor:
        cut, stop = self.cuts[request.index], request.start + request.length
        cached = self._cache.get(request.index)
        if cached is not None:
            return cached[:, request.start : stop]
        size = 4 * self.channels * cut.num_samples
        if self._cached_bytes + size > self._budget_bytes():
            return read_cut(cut, request.start, request.length)
        waveform = read_cut(cut, 0, cut.num_samples)
        self._cache[request.index] = waveform
        self._cached_bytes += size
        return waveform[:, request.start : stop]

    def _budget_bytes(self) -> float:
        worker = get_worker_info()
        return self.cache_megabytes * 1e6 / (1 if worker is None else worker.num_workers)


def _check(cut: Cut, sample_rate: int, channels: int) -> None:
    if cut.sampling_rate != sample_rate:
        raise InputError(
            f"cut {cut.id}: sample rate {cut.sampling_rate} Hz, model needs {sample_rate} Hz; "
            f"run `audiodiff prepare ... --sample-rate {sample_rate}`"
        )
    if cut.num_channels != channels:
        mend = "run `audiodiff prepare ... --mono`" if channels == 1 else "take another recipe or corpus"
        raise InputError(f"cut {cut.id}: {cut.num_channels} channels, model needs {channels}; {mend}")


def read_cut(cut: Cut, start: int, length: int) -> Tensor:
    """Returns [C, T] of a cut at its own sample rate.

    Args:
        cut: of one recording in one file.
        start: first sample, counted from the start of the cut.
        length: samples.

    Raises:
        InputError: the audio file cannot be read.
    """
    first = round(cut.start * cut.sampling_rate) + start
    source = cut.recording.sources[0]
    waveform, rate = io.read(source.source, start=first, length=length)
    if rate != cut.sampling_rate:
        raise InputError(
            f"cut {cut.id}: {source.source} is now at {rate} Hz, its manifest says {cut.sampling_rate} Hz; "
            "run `audiodiff prepare` again"
        )
    channels = cut.channel if isinstance(cut.channel, list) else [cut.channel]
    if len(channels) == waveform.shape[0]:
        return waveform
    return waveform[channels]


def training_loader(
    dataset: SegmentDataset, sampler: SegmentBatchSampler, num_workers: int
) -> DataLoader[Batch]:
    """Returns an endless loader of Batch in the sampler's order, whatever the number of workers.

    Args:
        dataset: whose clips the sampler orders.
        sampler: made from `dataset.lengths`.
        num_workers: processes that read ahead; 0 reads in this one.

    Raises:
        InputError: the sampler was made for other clips.
    """
    if len(sampler.lengths) != len(dataset):
        raise InputError(f"the sampler orders {len(sampler.lengths)} clips, the dataset has {len(dataset)}")
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(sampler.seed),
    )
    return loader
