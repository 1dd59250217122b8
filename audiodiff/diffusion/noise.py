"""Keyed noise: each number depends on (seed, item, step, position) and on nothing else.

The same seed therefore gives the same audio whether items are synthesized alone or in a batch, at any
batch size, whole or in chunks. The numbers come from the counter-based generator Philox 4x64 (Salmon et
al. 2011): key = (seed, item), counter = (block, step, draw), so that any position can be computed by itself, and
from one Box-Muller pair per 64-bit word, so that no position depends on how often another one was redrawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from audiodiff.errors import InputError

_WORDS_PER_BLOCK = 4  # one Philox 4x64 counter value gives four 64-bit words


def keyed_normal(key: tuple[int, int], step: int, start: int, count: int, draw: int = 0) -> np.ndarray:
    """Returns standard normal numbers at positions start .. start + count - 1 of one stream.

    Args:
        key: (seed, item), each a non-negative integer below 2^64.
        step: which stream of the item: 0 is the starting noise, then one per sampler step.
        start: first position.
        count: how many positions.
        draw: number of the draw within the step, for steps that draw more than once.
    """
    first_word, last_word = start // 2, (start + count + 1) // 2
    block = first_word // _WORDS_PER_BLOCK
    generator = np.random.Philox(
        key=np.array(key, dtype=np.uint64), counter=np.array([block, step, draw, 0], dtype=np.uint64)
    )
    words = generator.random_raw(last_word - block * _WORDS_PER_BLOCK)
    words = words[first_word - block * _WORDS_PER_BLOCK :]
    radius = np.sqrt(-2 * np.log(((words >> np.uint64(32)).astype(np.float64) + 0.5) / 2**32))
    angle = (words & np.uint64(0xFFFFFFFF)).astype(np.float64) * (2 * np.pi / 2**32)
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
    offset = start - 2 * first_word
    return pairs[offset : offset + count]


class KeyedNoise:
    """Noise source of a batch: item i of the batch draws from the stream (seed, items[i])."""

    def __init__(self, seed: int | Sequence[int], items: Sequence[int], frame: int = 0) -> None:
        """Stores the keys.

        Args:
            seed: non-negative integer, or one per item.
            items: one number per item of the batch; the same number gives the same noise.
            frame: position of the first frame within the whole signal, for synthesis in chunks.

        Raises:
            InputError: the seed or an item is negative or does not fit in 64 bits.
        """
        seeds = [seed] * len(items) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(items):
            raise InputError(f"seed: got {len(seeds)} seeds for {len(items)} items")
        for name, number in (*(("seed", one) for one in seeds), *(("item", item) for item in items)):
            if not 0 <= number < 2**64:
                raise InputError(f"{name}: got {number}, expected a whole number from 0 to 2^64 - 1")
        self._keys = list(zip(seeds, items, strict=True))
        self._frame = frame

    def __call__(
        self, step: int, shape: torch.Size | tuple[int, int, int], device: torch.device, draw: int = 0
    ) -> Tensor:
        """Returns [B, C, F] standard normal noise, float32.

        Args:
            step: 0 for the starting noise, then one number per sampler step.
            shape: (B, C, F); the numbers at a frame do not depend on F.
            device: where the noise goes.
            draw: number of the draw within the step, from 0.
        """
        batch, channels, frames = shape
        if batch != len(self._keys):
            raise ValueError(f"noise for {batch} items asked of a source for {len(self._keys)}")
        start, count = self._frame * channels, frames * channels
        streams = [keyed_normal(key, step, start, count, draw) for key in self._keys]
        noise = torch.from_numpy(np.stack(streams).astype(np.float32))
        return noise.view(batch, frames, channels).transpose(1, 2).contiguous().to(device)
