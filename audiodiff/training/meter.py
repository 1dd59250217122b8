"""What the updates since the last look were, summed up on the device: losses by noise level, gradient norm, throughput.

Adding an update starts a few small kernels and waits for none. A look sums over all ranks with one reduction and reads
one small tensor, so that the device is waited for once per look and not once per update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = 10


@dataclass(frozen=True)
class Look:
    """Means over the updates since the look before, over all ranks.

    Attributes:
        loss: mean over items; None if no item had a finite one.
        loss_by_level: [LEVELS] mean over the items whose t lies in the i-th tenth of [0, 1]; NaN without items.
        gradient_norm: mean over the updates in which it was finite; None if there was none.
        parts: losses of the conditioner by name, means over updates.
        audio_seconds: of all ranks.
        loader_seconds: waited for batches, mean over ranks.
        updates: looked at, on this rank.
    """

    loss: float | None
    loss_by_level: np.ndarray
    gradient_norm: float | None
    parts: Mapping[str, float]
    audio_seconds: float
    loader_seconds: float
    updates: int


@dataclass
class Meter:
    """Sums since the last look.

    Attributes:
        device: where they are kept.
    """

    device: torch.device
    _levels: Tensor = field(init=False)  # [2, LEVELS]: losses, items
    _norms: Tensor = field(init=False)  # [2]: norms, updates with a finite one
    _parts: dict[str, Tensor] = field(init=False)
    _plain: list[float] = field(init=False)  # audio seconds, loader seconds
    _updates: int = field(init=False)

    def __post_init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._levels = torch.zeros(2, LEVELS, device=self.device)
        self._norms = torch.zeros(2, device=self.device)
        self._parts, self._plain, self._updates = {}, [0.0, 0.0], 0

    def add(
        self,
        losses: Tensor,
        times: Tensor,
        gradient_norm: Tensor,
        audio_seconds: float,
        loader_seconds: float,
    ) -> None:
        """Adds one update of this rank.

        Args:
            losses: [n] of the items, detached.
            times: [n] t of the items in [0, 1].
            gradient_norm: scalar.
            audio_seconds: valid audio of the items.
            loader_seconds: how long the rank waited for them.
        """
        level = (times * LEVELS).long().clamp(0, LEVELS - 1).to(self.device)
        self._levels.index_add_(1, level, _counted(losses.to(self.device)))
        self._norms += _counted(gradient_norm.detach().to(self.device))
        self._plain[0] += audio_seconds
        self._plain[1] += loader_seconds
        self._updates += 1

    def add_parts(self, parts: Mapping[str, Tensor]) -> None:
        """Adds losses by name, scalars, of the update that was added last."""
        for name, value in parts.items():
            self._parts[name] = self._parts.get(name, 0) + value.detach().to(self.device).float()

    def look(self, total: Callable[[Tensor], Tensor], ranks: int) -> Look:
        """Returns what was added since the last look and begins anew; every rank has to look.

        Args:
            total: sums a tensor over the ranks.
            ranks: how many.
        """
        names = sorted(self._parts)
        plain = torch.tensor(self._plain).to(self.device, non_blocking=True)
        parts = [self._parts[name].reshape(1) for name in names]
        packed = total(torch.cat([self._levels.flatten(), self._norms, plain, *parts])).cpu().double().numpy()
        sums, items = packed[:LEVELS], packed[LEVELS : 2 * LEVELS]
        norm, norms, audio_seconds, loader_seconds, *rest = packed[2 * LEVELS :].tolist()
        updates = self._updates
        self._clear()
        with np.errstate(invalid="ignore"):
            by_level = sums / items
        return Look(
            float(sums.sum() / items.sum()) if items.sum() else None,
            by_level,
            norm / norms if norms else None,
            {name: value / (ranks * updates) for name, value in zip(names, rest, strict=True)},
            audio_seconds,
            loader_seconds / ranks,
            updates,
        )


def _counted(values: Tensor) -> Tensor:
    """Returns [2, ...]: the finite values, else 0, and 1 where they are finite."""
    finite = values.isfinite()
    return torch.stack([values.float().where(finite, 0), finite.float()])


def level_names() -> list[str]:
    """Returns the names of the curves of the losses by noise level."""
    return [f"loss_by_level/{place / LEVELS:.1f}-{(place + 1) / LEVELS:.1f}" for place in range(LEVELS)]


def level_figure(updates: list[int], losses: list[np.ndarray]) -> Figure:
    """Returns a picture of the losses by noise level as they changed.

    Args:
        updates: [N] of the looks.
        losses: N times [LEVELS], NaN where there is none.
    """
    rows = np.stack(losses)
    figure = new_figure(6.4, 3.2)
    history, last = figure.subplots(1, 2, width_ratios=(3, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        picture = np.log10(np.where(rows > 0, rows, np.nan)).T
    extent = (updates[0], max(updates[-1], updates[0] + 1), 0, 1)
    image = history.imshow(picture, "magma", origin="lower", aspect="auto", extent=extent)
    history.set_xlabel("update", fontsize=8)
    history.set_ylabel("t", fontsize=8)
    figure.colorbar(image, ax=history, label="log10 loss")
    centres = (np.arange(LEVELS) + 0.5) / LEVELS
    for place, shade in zip((0, len(rows) // 2, len(rows) - 1), ("0.75", "0.5", "0"), strict=True):
        last.plot(centres, rows[place], color=shade, label=f"update {updates[place]}")
    last.set_yscale("log")
    last.set_xlabel("t", fontsize=8)
    last.legend(fontsize=6)
    return figure
