"""Segments: reading the requested part of a clip, and the loader that does it ahead of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from audiodiff.audio import io
from audiodiff.data.collate import Item, collate
from audiodiff.data.manifests import label_of
from audiodiff.data.order import SegmentBatchSampler, SegmentRequest
from audiodiff.errors import InputError
from audiodiff.types import Batch

if TYPE_CHECKING:
    from lhotse.cut import Cut


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
