"""The model as a window of a stream sees it: the same parts, a condition cut to the window, a network that remembers.

A position of x may depend on mel frames a little before its own, so a conditioner is handed some frames too many, and
what it says of them is cut off (`Cut`). A causal network is bound so that it goes on where it stopped (`_Resumed`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from audiodiff.conditioning.conditioner import Conditioner
from audiodiff.model import AudioDiffusion
from audiodiff.networks.streaming import Causal, Memory
from audiodiff.types import Batch, Condition


@dataclass(frozen=True)
class Cut:
    """Which part of a condition belongs to a window.

    Attributes:
        frames: of the mel that come before it.
        positions: of x that come before it.
        count: positions of the window.
    """

    frames: int
    positions: int
    count: int

    def __call__(self, condition: Condition) -> Condition:
        """Returns the condition of the window alone."""
        inside = slice(self.positions, self.positions + self.count)
        priors = {
            name: None if prior is None else prior[..., inside]
            for name, prior in (("prior_mean", condition.prior_mean), ("prior_std", condition.prior_std))
        }
        local = None if condition.local is None else condition.local[..., self.frames :]
        return replace(condition, local=local, **priors)


class CutConditioner(nn.Module):
    """A conditioner that is handed some frames too many before a window."""

    def __init__(self, conditioner: Conditioner, cut: Cut) -> None:
        super().__init__()
        self.conditioner = conditioner
        self._cut = cut

    def forward(self, batch: Batch) -> Condition:
        return self._cut(self.conditioner(batch))

    def null(self, batch: Batch) -> Condition:
        return self._cut(self.conditioner.null(batch))


class _Resumed(nn.Module):
    """A causal network that goes on where it stopped: one Memory for every condition that is bound, in order."""

    def __init__(self, network: nn.Module, memories: list[Memory]) -> None:
        super().__init__()
        self.network = network
        self.hop_length = getattr(network, "hop_length", 1)
        self._memories, self._next = memories, 0

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        if self._next == len(self._memories):
            self._memories.append(Memory())
        memory = self._memories[self._next]
        self._next += 1
        memory.rewind()
        assert isinstance(self.network, Causal)
        return self.network.resume(condition, memory)


def view_of(model: AudioDiffusion, cut: Cut, memories: list[Memory] | None) -> AudioDiffusion:
    """Returns the model as a window sees it: the same parts, its condition cut, its network resumed."""
    denoiser = model.denoiser
    if memories is not None:
        assert isinstance(denoiser.network, nn.Module)
        resumed = _Resumed(denoiser.network, memories)
        denoiser = type(denoiser)(resumed, denoiser.schedule, denoiser.parameterization, denoiser.noise_label)
    assert isinstance(model.representation, nn.Module)
    view = AudioDiffusion(model.representation, CutConditioner(model.conditioner, cut), denoiser)
    view.recipe = model.recipe
    return view
