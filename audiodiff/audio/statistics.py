"""Streaming mean and standard deviation per feature, exact for any split into batches."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningMoments:
    """Count, mean and squared deviations of [..., D, F] values over everything seen (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self._squares = torch.zeros(0, dtype=torch.float64)

    def update(self, values: Tensor) -> None:
        """Adds the F frames of values [D, F]; F may be 0."""
        values = values.double().cpu()
        frames = values.shape[-1]
        if frames == 0:
            return
        mean = values.mean(-1)
        squares = (values - mean[:, None]).square().sum(-1)
        if self.count == 0:
            self.count, self.mean, self._squares = frames, mean, squares
            return
        total = self.count + frames
        delta = mean - self.mean
        self.mean = self.mean + delta * frames / total
        self._squares = self._squares + squares + delta.square() * self.count * frames / total
        self.count = total

    @property
    def std(self) -> Tensor:
        """Standard deviation [D] over the frames seen."""
        return (self._squares / max(self.count, 1)).sqrt()
