"""Segments: reading the requested part of a clip, and the loader that does it ahead of time.

What a request gives depends on the request, the seed and the files alone, not on the process that reads it: crops,
augmentation and the clip that stands in for an unreadable one are drawn from numbers keyed by epoch and clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from audiodiff.data.augmenting import augmented
from audiodiff.data.cache import ClipCache, exact_in_16_bits
from audiodiff.data.collate import Item, collate
from audiodiff.data.entries import (
    Entry,
    Summary,
    check_label,
    entry_of,
    missing_label,
    wrong_channels,
    wrong_rate,
)
from audiodiff.data.order import AUGMENT, REPLACE, SegmentBatchSampler, SegmentRequest, Shards
from audiodiff.data.reading import MelGrid, read_entry, read_mel
from audiodiff.errors import InputError
from audiodiff.types import Batch

if TYPE_CHECKING:
    from lhotse.cut import Cut

    from audiodiff.data.sequences import ClipSequences

# (waveform [C, T], generator) -> waveform [C, T'].
Augment = Callable[[Tensor, np.random.Generator], Tensor]

_REPLACEMENTS = 10
_PREFETCH = 4  # batches that each worker has ready
_ANNOUNCE_EVERY = 16  # updates


@runtime_checkable
class Clips(Protocol):
    """Clips by number: of a manifest, of shards, or of cuts in memory."""

    def __len__(self) -> int: ...

    @property
    def shards(self) -> Shards | None:
        """How the clips lie in shards; None where each is a file of its own."""

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each clip, int64."""

    @property
    def summary(self) -> Summary:
        """Rates, channels and labels of all clips."""

    def entry(self, number: int) -> Entry:
        """Returns where one clip lies and what its labels are."""

    def content(self, number: int) -> bytes | None:
        """Returns the audio file of one clip where it lies in a shard; None where it is `entry.source`."""

    def fetch_ahead(self, clips: np.ndarray) -> None:
        """Begins to fetch what lies on a server, for clips that will soon be read; returns at once."""


@runtime_checkable
class Transcribed(Protocol):
    """Clips of which it is known what is said in them; they are taken whole."""

    def tokens(self, number: int) -> Tensor:
        """Returns the tokens [L] int64 of what is said in one clip."""


class _CutsInMemory:
    """Cuts that are lhotse's objects already."""

    shards = None

    def __init__(self, cuts: Sequence[Cut]) -> None:
        self._entries = [_entry(cut) for cut in cuts]
        self.lengths = np.array([entry.length for entry in self._entries], dtype=np.int64)
        self.summary = Summary.of(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, number: int) -> Entry:
        return self._entries[number]

    def content(self, number: int) -> None:
        return None

    def fetch_ahead(self, clips: np.ndarray) -> None:
        """They lie here."""


class SegmentDataset(Dataset[Item]):
    """Segments of cuts, read from their audio files.

    Args:
        cuts: of one sample rate; see `load_cuts` and `audiodiff.data.shards.open_clips`.
        sample_rate: what the model needs, Hz.
        channels: what the model needs.
        label_names: labels that every item carries, for example ("digit", "speaker").
        cache_megabytes: decoded audio kept in memory, all worker processes together; clips are kept whole
            until this is spent, later ones are read from disk each time.
        augment: changes every segment; its generator is keyed by seed, epoch and clip. What comes back is cropped to
            the length asked for, or kept if shorter; of a clip with a text it is kept whole. Labels change with it
            where it is `audiodiff.data.augmenting.Relabelling`.
        seed: of the augmentation and of what replaces a clip that cannot be read.
        mels: where the frames of the cuts' mel files lie; segments then begin on a frame and carry their part of
            the mel. None takes no mels from files.

    Raises:
        InputError: no cuts; a cut has another sample rate or channel count, or lacks a label; augmentation of
            audio whose mel is given.
    """

    def __init__(
        self,
        cuts: Sequence[Cut] | Clips,
        sample_rate: int,
        channels: int = 1,
        label_names: Sequence[str] = (),
        cache_megabytes: float = 0,
        augment: Augment | None = None,
        seed: int = 0,
        mels: MelGrid | None = None,
    ) -> None:
        if not len(cuts):
            raise InputError("got no cuts; run `audiodiff prepare` or name another split")
        if augment is not None and mels is not None:
            raise InputError(
                "augmentation: these clips have mels of their own, which augmented audio would not fit; train without"
            )
        self.cuts = cuts
        self.clips: Clips = cuts if isinstance(cuts, Clips) else _CutsInMemory(cuts)
        _check(self.clips, sample_rate, channels, label_names)
        self.sample_rate = sample_rate
        self.channels = channels
        self.label_names = tuple(label_names)
        self.augment = augment
        self.seed = seed
        self.mels = mels
        self._cache = self._make_cache(cache_megabytes * 1e6)

    def __len__(self) -> int:
        return len(self.clips.lengths)

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each cut, int64."""
        return self.clips.lengths

    @property
    def shards(self) -> Shards | None:
        """How the clips lie in shards, which a sampler must know; None where each is a file of its own."""
        return self.clips.shards

    def __getitem__(self, request: SegmentRequest) -> Item:
        """Returns the requested segment, or one of another clip where it cannot be read.

        The other clip is drawn from numbers keyed by seed, epoch and clip; `Item.problems` says what happened.

        Raises:
            InputError: neither that nor any of ten other clips can be read.
        """
        problems: list[str] = []
        request = self._on_a_frame(request)
        taken = request
        for attempt in range(_REPLACEMENTS + 1):
            entry = self.clips.entry(taken.index)
            try:
                waveform = self._read(entry, taken)
                mel = None if self.mels is None else read_mel(entry, self.mels, taken.start, taken.length)
            except InputError as error:
                problems.append(f"cut {entry.id}: {error}")
                taken = self._on_a_frame(self._replacement(request, attempt))
                continue
            labels: Mapping[str, str] = {name: check_label(entry, name) for name in self.label_names}
            waveform, labels = self._augmented(waveform, labels, request)
            tokens = self.clips.tokens(taken.index) if isinstance(self.clips, Transcribed) else None
            return Item(waveform, waveform.shape[-1], labels, entry.id, tokens, tuple(problems[:1]), mel)
        raise InputError(
            f"{len(problems)} clips cannot be read, one replacing the other: {'; '.join(problems[:3])}"
        )

    def _on_a_frame(self, request: SegmentRequest) -> SegmentRequest:
        """Returns the request, begun where a frame of the mel begins."""
        if self.mels is None:
            return request
        return replace(request, start=request.start - request.start % self.mels.hop_length)

    def _read(self, entry: Entry, request: SegmentRequest) -> Tensor:
        index, stop = request.index, request.start + request.length
        if self._cache is None or index not in self._cache:
            return self._decode(entry, index, request.start, request.length)
        kept = self._cache.get(index, request.start, stop)
        if kept is not None:
            return kept
        waveform = self._decode(entry, index, 0, entry.length)
        self._cache.put(index, waveform)
        return waveform[:, request.start : stop]

    def _decode(self, entry: Entry, index: int, start: int, length: int) -> Tensor:
        return read_entry(entry, start, length, self.clips.content(index))

    def _replacement(self, request: SegmentRequest, attempt: int) -> SegmentRequest:
        """Returns a request of another clip, as long at most.

        Where there are shards it is one of the same shard and, should that be lost, of one other for all its clips.
        """
        key = [self.seed, REPLACE, request.epoch]
        among = range(len(self))
        if self.shards is not None:
            among = self.shards.beside(request.index)
            if attempt > 1:
                other = np.random.default_rng([*key, among.start, attempt // 2]).integers(len(self))
                among = self.shards.beside(int(other))
        generator = np.random.default_rng([*key, request.index, attempt])
        index = among[int(generator.integers(len(among)))]
        whole = int(self.lengths[index])
        length = whole if isinstance(self.clips, Transcribed) else min(request.length, whole)
        start = int(generator.integers(whole - length + 1))
        return SegmentRequest(index, start, length, request.epoch)

    def _augmented(
        self, waveform: Tensor, labels: Mapping[str, str], request: SegmentRequest
    ) -> tuple[Tensor, Mapping[str, str]]:
        if self.augment is None:
            return waveform, labels
        generator = np.random.default_rng([self.seed, AUGMENT, request.epoch, request.index])
        changed, labels = augmented(self.augment, waveform, labels, generator)
        if changed.dim() != 2 or changed.shape[0] != self.channels or changed.shape[1] < 1:
            raise ValueError(f"augment returned {tuple(changed.shape)}, expected [{self.channels}, T]")
        # What is said in a clip must stay in it.
        kept = changed if isinstance(self.clips, Transcribed) else changed[:, : request.length]
        return kept, labels

    def _make_cache(self, budget: float) -> ClipCache | None:
        if budget <= 0:
            return None
        entry = self.clips.entry(0)
        try:
            integers = exact_in_16_bits(self._decode(entry, 0, 0, entry.length))
        except InputError:  # said again, and counted, when it is its turn
            integers = True
        return ClipCache(self.lengths, self.channels, budget, integers)


def _entry(cut: Cut) -> Entry:
    try:
        return entry_of(cut.to_dict())
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"cut {cut.id}: not read here: {error}") from error


def _check(clips: Clips, sample_rate: int, channels: int, label_names: Sequence[str]) -> None:
    summary = clips.summary
    for wrong in (wrong_rate(summary, sample_rate), wrong_channels(summary, channels)):
        if wrong is not None:
            number, fault = wrong
            raise InputError(f"cut {clips.entry(number).id}: {fault}")
    for name in label_names:
        number_without = missing_label(summary, name)
        if number_without is not None:
            check_label(clips.entry(number_without), name)


def read_cut(cut: Cut, start: int, length: int) -> Tensor:
    """Returns [C, T] of a cut at its own sample rate.

    Args:
        cut: of one recording in one file.
        start: first sample, counted from the start of the cut.
        length: samples.

    Raises:
        InputError: the audio file cannot be read.
    """
    return read_entry(_entry(cut), start, length)


class _Announcing:
    """Batches of a sampler; the clips say from time to time which will be needed, before they are."""

    def __init__(self, sampler: SegmentBatchSampler, clips: Clips) -> None:
        self._sampler = sampler
        self._clips = clips

    def __iter__(self) -> Iterator[list[SegmentRequest]]:
        passes = self._sampler.share.passes
        for number, batch in enumerate(self._sampler):
            if number % (_ANNOUNCE_EVERY * passes) == 0:
                self._clips.fetch_ahead(self._sampler.coming(self._sampler.start + number // passes))
            yield batch


def training_loader(
    dataset: SegmentDataset | ClipSequences, sampler: SegmentBatchSampler, num_workers: int
) -> DataLoader[Batch]:
    """Returns an endless loader of Batch in the sampler's order, whatever the number of workers.

    Args:
        dataset: whose clips the sampler orders.
        sampler: made from `dataset.lengths` and `dataset.shards`.
        num_workers: processes that read ahead; 0 reads in this one.

    Raises:
        InputError: the sampler was made for other clips.
    """
    if len(sampler.lengths) != len(dataset):
        raise InputError(f"the sampler orders {len(sampler.lengths)} clips, the dataset has {len(dataset)}")
    if dataset.shards is not sampler.shards:
        raise InputError("the sampler must know the shards of its dataset; pass shards=dataset.shards")
    ahead: Mapping[str, Any] = (
        {"prefetch_factor": _PREFETCH, "persistent_workers": True} if num_workers else {}
    )
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=sampler if dataset.shards is None else _Announcing(sampler, dataset.clips),
        collate_fn=collate,
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(sampler.seed),
        pin_memory=torch.cuda.is_available(),
        **ahead,
    )
    return loader
