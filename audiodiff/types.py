"""What travels through the library: Batch (what a user has) and Condition (what a network sees).

Shape legend, used in every docstring:

    B items   C channels   T samples   F frames (or positions)   D features   L tokens

A Batch is data: waveforms, mels, texts, labels by name. A Conditioner turns it into a Condition, whose fields are
named by how they enter the network, so that no network knows what a label, a text or a mel is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Items to train on or to synthesize for.

    Attributes:
        waveform: [B, C, T] in [-1, 1], zero beyond each item's length; None in synthesis.
        lengths: [B] int64, valid samples of each item; 0 in synthesis where the conditioner tells how long an item is.
        labels: for each label name (for example "digit", "speaker") one string per item.
        mel: [B, n_mels, F], log-mel in the model's own convention; None where the waveform gives it.
        ids: one name per item, for messages and file names.
        tokens: [B, L] int64, numbers of the symbols of each item's text, any known one beyond its end; None without.
        token_counts: [B] int64, tokens of each item.
        speeds: [B], how many times as fast as the model's own each text is spoken; None for 1.
        problems: one line for each item that stands in for a clip which could not be read.
    """

    waveform: Tensor | None
    lengths: Tensor
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mel: Tensor | None = None
    ids: tuple[str, ...] = ()
    tokens: Tensor | None = None
    token_counts: Tensor | None = None
    speeds: Tensor | None = None
    problems: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of items B."""
        return self.lengths.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """Returns the same batch with its tensors on a device (lengths and token counts stay on the CPU)."""
        moved = {
            name: None if tensor is None else tensor.to(device, non_blocking=True)
            for name, tensor in (("waveform", self.waveform), ("mel", self.mel), ("tokens", self.tokens))
        }
        return replace(self, **moved)  # type: ignore[arg-type]

    def pin_memory(self) -> Batch:
        """Returns the same batch in pinned memory, from which a GPU copies while it computes; loaders call this."""
        pinned = {
            name: None if tensor is None else tensor.pin_memory()
            for name, tensor in (("waveform", self.waveform), ("mel", self.mel), ("tokens", self.tokens))
        }
        return replace(self, **pinned)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Condition:
    """What a network is told, named by how it enters.

    Attributes:
        local: [B, D, F'], one vector per frame (a log-mel); the network maps F' to its own positions.
        vector: [B, D], one vector per item (class, speaker), added to the noise embedding.
        frames: [B] int64, valid positions of x; positions beyond are padding and must not influence the
            valid ones. None when every position of every item is valid.
        prior_mean: [B, C, F], mean of the noise; None for 0.
        prior_std: [B, 1 or C, F], standard deviation of the noise, above 0; None for 1.
    """

    local: Tensor | None = None
    vector: Tensor | None = None
    frames: Tensor | None = None
    prior_mean: Tensor | None = None
    prior_std: Tensor | None = None

    def same_prior(self, other: Condition) -> bool:
        """Returns whether x whitened by either prior has the same coordinates."""
        pairs = ((self.prior_mean, other.prior_mean), (self.prior_std, other.prior_std))
        return all(one is another or _equal(one, another) for one, another in pairs)

    def mask(self, x: Tensor) -> Tensor | None:
        """Returns [B, 1, F] with 1 at valid positions of x [B, C, F], or None when all are valid."""
        if self.frames is None:
            return None
        positions = torch.arange(x.shape[-1], device=x.device)
        return (positions < self.frames.to(x.device)[:, None])[:, None].to(x.dtype)


def _equal(one: Tensor | None, another: Tensor | None) -> bool:
    return one is not None and another is not None and torch.equal(one, another)
