"""Items of different lengths -> one Batch, zero-padded at the end to the longest item.

Shapes: items [C, T_i] -> waveform [B, C, max T_i], lengths [B]. Padding is marked by `lengths` alone, so that
networks and losses can mask it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from audiodiff.types import Batch


class Item(NamedTuple):
    """One segment of audio.

    Attributes:
        waveform: [C, T], in [-1, 1].
        length: valid samples, T.
        labels: label name -> value.
        id: name of the cut, for messages.
    """

    waveform: Tensor
    length: int
    labels: Mapping[str, str]
    id: str


def collate(items: Sequence[Item]) -> Batch:
    """Returns the Batch of some items, zero beyond each item's length.

    Args:
        items: at least one, all with the same channels and label names.

    Raises:
        ValueError: no items, or items with different channels or label names.
    """
    if not items:
        raise ValueError("collate: got no items, expected at least one")
    channels, names = items[0].waveform.shape[0], tuple(items[0].labels)
    waveform = torch.zeros(len(items), channels, max(item.length for item in items))
    for row, item in zip(waveform, items, strict=True):
        if item.waveform.shape[0] != channels or set(item.labels) != set(names):
            raise ValueError(
                f"collate: {item.id} has {item.waveform.shape[0]} channels and labels {sorted(item.labels)}, "
                f"{items[0].id} has {channels} and {sorted(names)}; expected the same"
            )
        row[:, : item.length] = item.waveform[:, : item.length]
    return Batch(
        waveform=waveform,
        lengths=torch.tensor([item.length for item in items], dtype=torch.int64),
        labels={name: tuple(item.labels[name] for item in items) for name in names},
        ids=tuple(item.id for item in items),
    )
