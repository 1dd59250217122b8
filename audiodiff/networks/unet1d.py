"""The waveform U-Net for music: residual blocks and self-attention on ever coarser time scales.

Level k holds one position for every factors[0] * ... * factors[k] samples. On the way down its blocks see
the finer level's state, on the way up the coarser one's output, and a skip connection joins the two
(Ronneberger et al. 2015; attention within it Ho et al. 2020, appendix B). The noise label, a number of order
one, enters through learned Fourier features (Tancik et al. 2020, eq. 4). What stands in a level and how the
label gets there is a design of `unet1d_levels`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiodiff.errors import InputError
from audiodiff.networks.blocks import check_features
from audiodiff.networks.unet1d_layers import Extent, FourierFeatures, Span, silence
from audiodiff.networks.unet1d_levels import ConcatenatedSkips, Design, Level, Levels
from audiodiff.types import Condition

Biases = list[tuple[Tensor | None, Tensor | None]]
"""What the condition adds to each level: [B, W, F'] at the frame rate and [B, W, 1], None where nothing."""


@dataclass(frozen=True)
class ConditionShape:
    """What the network is told besides the noise label; the default is nothing.

    Attributes:
        local_features: D of condition.local (mel bands), None for a network that hears none.
        hop_length: samples between two frames of condition.local.
        vector_features: D of condition.vector (class or speaker), None for a network that is told none.
    """

    local_features: int | None = None
    hop_length: int = 256
    vector_features: int | None = None


UNCONDITIONAL = ConditionShape()
DANCE_DIFFUSION = ConcatenatedSkips()


class UNet1d(nn.Module):
    """Network (x [B, C, T], noise_label [B], condition) -> [B, C * outputs, T]."""

    def __init__(
        self,
        channels: int,
        levels: Levels,
        design: Design = DANCE_DIFFUSION,
        condition: ConditionShape = UNCONDITIONAL,
        *,
        outputs: int = 1,
        checkpointing: bool = False,
    ) -> None:
        """Builds the network.

        Args:
            channels: audio channels C, 2 for stereo.
            levels: widths, factors, blocks and attention of each time scale.
            design: how levels are made and how the noise label enters.
            condition: which conditions it takes.
            outputs: tensors of x's shape to return, stacked along the channels.
            checkpointing: whether training computes each block again for its gradient, to save memory.

        Raises:
            InputError: the levels disagree in number, a number in them is below 1, or the design refuses
                them.
        """
        super().__init__()
        _check_levels(levels)
        self.hop_length = condition.hop_length
        self.condition_shape = condition
        self.factors = tuple(levels.factors)
        self.strides = tuple(math.prod(levels.factors[: k + 1]) for k in range(len(levels.factors)))
        self.fourier = FourierFeatures(design.label_features)
        self.embedding = design.embedding()
        self.levels = nn.ModuleList(
            design.level(levels, k, channels, channels * outputs) for k in range(len(self.factors))
        )
        self.biases = nn.ModuleList(ConditionBias(width, condition) for width in levels.widths)
        for level in self._levels():
            for unit in level.units():
                unit.checkpointing = checkpointing

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        """Returns the prediction [B, C * outputs, T].

        Args:
            x: [B, C, T], any T.
            noise_label: [B], of order one: t in [0, 1] or a quarter of the log-SNR.
            condition: local [B, D, F] and vector [B, D] where the network was built for them, and the
                valid samples. A rest of T shorter than one hop may lack its frame: the last one is held.

        Raises:
            InputError: a condition is missing, not expected, of the wrong size, or too short for T.
        """
        return self.bind(condition)(x, noise_label)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns (x, noise_label) -> prediction with the condition projected once, at its own rate."""
        check_features(condition, self.condition_shape.local_features, self.condition_shape.vector_features)
        biases: Biases = [bias(condition) for bias in self.biases]

        def network(x: Tensor, noise_label: Tensor) -> Tensor:
            self._check_frames(condition, x.shape[-1])
            return self._predict(x, noise_label, condition, biases)

        return network

    def receptive_field(self) -> int:
        """Returns how many samples of x one sample of the output depends on at most.

        `sys.maxsize` with attention, which sees every sample. The norms see every sample too, but tell of
        the rest only its mean and variance; they are not counted.
        """
        levels = self._levels()
        if any(unit.attention is not None for level in levels for unit in level.units()):
            return sys.maxsize
        spans = (_span(levels, (sample, sample)) for sample in range(self.strides[-1]))
        return max(last - first + 1 for first, last in spans)

    def _levels(self) -> list[Level]:
        return [level for level in self.levels if isinstance(level, Level)]

    def _predict(self, x: Tensor, noise_label: Tensor, condition: Condition, biases: Biases) -> Tensor:
        length = x.shape[-1]
        extents = self._extents(x, condition.frames)
        waves = self.fourier(noise_label).to(x.dtype)
        embedding = None if self.embedding is None else self.embedding(waves)
        hidden = functional.pad(x, (0, -length % self.strides[-1]))
        if embedding is None:
            hidden = torch.cat([hidden, waves[..., None].expand(-1, -1, hidden.shape[-1])], dim=1)
        skips = []
        levels = self._levels()
        for k, level in enumerate(levels):
            skips.append(hidden)
            bias = self._bias(biases[k], k, hidden.shape[-1] // self.factors[k], length, condition.frames)
            hidden = level.descend(hidden, embedding, bias, (extents[k], extents[k + 1]))
        for k, level in reversed(list(enumerate(levels))):
            hidden = level.ascend(hidden, embedding, skips.pop(), (extents[k], extents[k + 1]))
        return silence(hidden, extents[0])[..., :length]

    def _extents(self, x: Tensor, frames: Tensor | None) -> list[Extent | None]:
        """Returns the extent of x and of every level, None where every position is valid."""
        length, missing = x.shape[-1], -x.shape[-1] % self.strides[-1]
        if frames is None and missing == 0:
            return [None] * (len(self.factors) + 1)
        if frames is None:
            frames = torch.full((x.shape[0],), length, device=x.device)
        extents = [Extent.of(frames.to(x.device), length + missing)]
        for factor in self.factors:
            extents.append(extents[-1].coarser(factor))
        return list(extents)

    def _bias(
        self,
        projected: tuple[Tensor | None, Tensor | None],
        k: int,
        positions: int,
        length: int,
        frames: Tensor | None,
    ) -> Tensor | None:
        """Returns what the condition adds to level k, [B, W, F] or [B, W, 1]."""
        local, vector = projected
        if local is None:
            return vector
        samples = torch.full((1,), length) if frames is None else frames
        bias = interpolate(local, samples.to(local.device), positions, self.strides[k], self.hop_length)
        return bias if vector is None else bias + vector

    def _check_frames(self, condition: Condition, length: int) -> None:
        needed = max(length // self.hop_length, 1)
        if condition.local is not None and condition.local.shape[-1] < needed:
            raise InputError(
                f"local condition: got {condition.local.shape[-1]} frames of {self.hop_length} samples for "
                f"{length} samples, expected {needed} or more; compute it from the same audio, with this hop "
                "length"
            )


class ConditionBias(nn.Module):
    """What the condition adds to one level: projections of its frames and of its vector."""

    def __init__(self, width: int, shape: ConditionShape) -> None:
        super().__init__()
        local, vector = shape.local_features, shape.vector_features
        self.local = None if local is None else nn.Conv1d(local, width, 1)
        self.vector = None if vector is None else nn.Linear(vector, width)

    def forward(self, condition: Condition) -> tuple[Tensor | None, Tensor | None]:
        """Returns [B, W, F'] at the frame rate and [B, W, 1], None for what the network is not told."""
        local = None if self.local is None else self.local(condition.local)
        return local, None if self.vector is None else self.vector(condition.vector)[..., None]


def interpolate(local: Tensor, samples: Tensor, positions: int, stride: int, hop_length: int) -> Tensor:
    """Returns frames stretched to the positions of a level, linear between the centres of two frames.

    Frame f stands for the samples from f hop to (f + 1) hop, position p for those from p stride to
    (p + 1) stride. Only the ceil(samples / hop) frames that an item's samples need are used; before the
    first and after the last centre they are held.

    Args:
        local: [B, W, F'].
        samples: [B] or [1] valid samples of each item.
        positions: F of the level.
        stride: samples between two positions.
        hop_length: samples between two frames.

    Returns:
        [B, W, F].
    """
    last = ((samples + hop_length - 1) // hop_length).clamp(1, local.shape[-1])[:, None] - 1  # [B, 1]
    # In whole numbers of half a sample, exact at any length: (p + 1/2) stride = (place + 1/2) hop.
    place = (2 * torch.arange(positions, device=local.device) + 1) * stride - hop_length
    place = torch.minimum(place.clamp(min=0), 2 * hop_length * last)  # [B, F]
    below = place // (2 * hop_length)
    above = torch.minimum(below + 1, last)
    weight = (place % (2 * hop_length)).to(local.dtype) / (2 * hop_length)
    shape = (local.shape[0], local.shape[1], positions)
    low, high = (local.gather(2, index[:, None].expand(shape)) for index in (below, above))
    return torch.lerp(low, high, weight[:, None].expand(shape))


def _span(levels: list[Level], span: Span) -> Span:
    """Returns which positions of the finer level the output positions `span` of these levels depend on."""
    inner = levels[0].span_up(span)
    if len(levels) > 1:
        inner = _span(levels[1:], inner)
    first, last = levels[0].span_down(inner)
    return min(first, span[0]), max(last, span[1])


def _check_levels(levels: Levels) -> None:
    given = {name: len(getattr(levels, name)) for name in ("widths", "factors", "blocks", "attention")}
    if len(set(given.values())) != 1 or not levels.widths:
        raise InputError(f"levels: got {given}, expected the same number of each, one or more")
    for name in ("widths", "factors", "blocks"):
        if min(getattr(levels, name)) < 1:
            raise InputError(f"{name}: got {list(getattr(levels, name))}, expected 1 or more everywhere")
