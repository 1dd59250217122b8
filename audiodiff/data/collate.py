"""Items of different lengths -> one Batch, zero-padded at the end to the longest item.

Shapes: items [C, T_i] -> waveform [B, C, max T_i], lengths [B]; texts [L_i] -> tokens [B, max L_i], token_counts
[B]. Padding is marked by `lengths` and `token_counts` alone, so that networks and losses can mask it.
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
        tokens: [L] int64, the text; None without.
        problems: why this stands in for another clip, one line; none where it is what was asked for.
        mel: [n_mels, F], what the audio is heard as; None where the waveform tells it.
    """

    waveform: Tensor
    length: int
    labels: Mapping[str, str]
    id: str
    tokens: Tensor | None = None
    problems: tuple[str, ...] = ()
    mel: Tensor | None = None


def collate(items: Sequence[Item]) -> Batch:
    """Returns the Batch of some items, zero beyond each item's length; mels go on with their last frame.

    Args:
        items: at least one, all with the same channels and label names; all or none with a text, and with a mel.

    Raises:
        ValueError: no items, or items with different channels or label names, or some of them with a text or a mel.
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
    tokens, token_counts = _texts(items)
    return Batch(
        waveform=waveform,
        lengths=torch.tensor([item.length for item in items], dtype=torch.int64),
        labels={name: tuple(item.labels[name] for item in items) for name in names},
        mel=_mels(items),
        ids=tuple(item.id for item in items),
        tokens=tokens,
        token_counts=token_counts,
        problems=tuple(problem for item in items for problem in item.problems),
    )


def _mels(items: Sequence[Item]) -> Tensor | None:
    mels = [item.mel for item in items if item.mel is not None]
    if not mels:
        return None
    if len(mels) < len(items):
        without = next(item.id for item in items if item.mel is None)
        raise ValueError(f"collate: {without} has no mel, others have; expected all or none")
    longest = max(mel.shape[1] for mel in mels)
    return torch.stack([torch.cat([mel, mel[:, -1:].expand(-1, longest - mel.shape[1])], 1) for mel in mels])


def _texts(items: Sequence[Item]) -> tuple[Tensor | None, Tensor | None]:
    texts = [item.tokens for item in items if item.tokens is not None]
    if not texts:
        return None, None
    if len(texts) < len(items):
        without = next(item.id for item in items if item.tokens is None)
        raise ValueError(f"collate: {without} has no text, others have; expected all or none")
    counts = torch.tensor([len(text) for text in texts], dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(texts, batch_first=True), counts
