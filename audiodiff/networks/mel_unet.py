"""Grad-TTS's score network: a 2-D U-Net over the bands and frames of a mel spectrogram.

The noisy mel, the mean that the text predicts for it and a plane for the speaker are the channels of an image.
Each level has two residual blocks, h = block(block(x) + W mish(time)) + shortcut(x), and linear attention over
all its pixels, added through a gate that starts at zero; levels are joined by strided convolutions, halving
both axes. Popov et al. 2021, "Grad-TTS", section 3.4 and appendix B (arXiv 2105.06337); the attention is that
of Katharopoulos et al. 2020 with a softmax over positions, the gate ReZero of Bachlechner et al. 2021.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from audiodiff.errors import InputError
from audiodiff.types import Condition

_GROUPS = 8  # of every group norm
_HEADS, _HEAD_FEATURES = 4, 32  # of every attention
_TIME_PERIODS = 10_000.0  # the slowest sine of the time embedding over the fastest
_HIDDEN_FACTOR = 4  # of the perceptrons of time and speaker


@dataclass(frozen=True)
class MelCondition:
    """What the network is told besides the noise label; the default is nothing.

    Attributes:
        local_features: D of condition.local, which must be n_mels: the mean enters as a second image. None for a
            network that hears none.
        vector_features: D of condition.vector (speaker or class), None for a network that is told none.
    """

    local_features: int | None = None
    vector_features: int | None = None


@dataclass(frozen=True)
class Dialect:
    """In what published models differ, besides their sizes.

    Attributes:
        time_scale: factor on the noise label before its sines; 1000 for t in [0, 1], 1 in the first release of
            Grad-TTS.
        counts_padding: whether group norms and attention also count the frames that pad an item to the longest
            of its batch, as the published code does. An item's numbers then depend on the batch. Alone in its
            batch it has the same numbers either way.
    """

    time_scale: float = 1000.0
    counts_padding: bool = False


UNCONDITIONAL = MelCondition()
OURS = Dialect()


class MelUNet(nn.Module):
    """Network (x [B, n_mels, F], noise_label [B], condition) -> [B, n_mels * outputs, F]."""

    def __init__(
        self,
        n_mels: int,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4),
        condition: MelCondition = UNCONDITIONAL,
        outputs: int = 1,
        checkpointing: bool = False,
        dialect: Dialect = OURS,
    ) -> None:
        """Builds the network; its output is 0 until it is trained.

        Args:
            n_mels: bands of x, a multiple of 2^(levels - 1).
            width: channels of the first level, a multiple of 8.
            multipliers: channels of each level over the width.
            condition: which conditions it takes.
            outputs: tensors of x's shape that come back, stacked along the bands (2: mean and variance).
            checkpointing: keeps only each level's input in training and computes the rest again.
            dialect: details in which published models differ.

        Raises:
            InputError: sizes that do not divide, or a local condition of other than n_mels features.
        """
        super().__init__()
        _check_sizes(n_mels, width, multipliers, condition)
        self.multiple = 2 ** (len(multipliers) - 1)
        self.n_mels = n_mels
        self.width = width
        self.condition_features = condition
        self.outputs = outputs
        self.checkpointing = checkpointing
        self.dialect = dialect
        planes = 1 + (condition.local_features is not None) + (condition.vector_features is not None)
        channels = [width * multiplier for multiplier in multipliers]
        self.time = _perceptron(width, width)
        vector = condition.vector_features
        self.vector = None if vector is None else _perceptron(vector, n_mels)
        self.down = nn.ModuleList(Level(c, d, width) for c, d in pairwise([planes, *channels]))
        self.downsample = nn.ModuleList(nn.Conv2d(c, c, 3, stride=2, padding=1) for c in channels[:-1])
        self.middle = Middle(channels[-1], width)
        self.up = nn.ModuleList(Level(2 * c, d, width) for c, d in pairwise(reversed(channels)))
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(c, c, 4, stride=2, padding=1) for c in channels[-2::-1]
        )
        self.final = ConvBlock(channels[0], channels[0])
        self.output = nn.Conv2d(channels[0], outputs, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        """Returns the prediction [B, n_mels * outputs, F].

        Args:
            x: [B, n_mels, F], any F.
            noise_label: [B], t in [0, 1].
            condition: local [B, n_mels, F'] with F' at least F, whose frames from F on are not used, and vector
                [B, vector_features], where the network was built for them; the valid frames.

        Raises:
            InputError: a condition is missing, not expected, of the wrong size, or too short for F.
        """
        return self.bind(condition)(x, noise_label)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns (x, noise_label) -> prediction with the speaker's plane computed once."""
        self._check(condition)
        speaker = None if self.vector is None else self.vector(condition.vector)

        def network(x: Tensor, noise_label: Tensor) -> Tensor:
            frames = x.shape[-1]
            padded = -(-frames // self.multiple) * self.multiple
            image = functional.pad(self._image(x, condition.local, speaker), (0, padded - frames))
            pyramid = self._pyramid(image, condition.frames, frames)
            prediction = self._predict(image, self._embed(noise_label, x.dtype), pyramid)
            return prediction.flatten(1, 2)[..., :frames]  # [B, outputs * n_mels, F]

        return network

    def receptive_field(self) -> int:
        """Returns `sys.maxsize`: attention and group norms let every frame depend on all the others."""
        return sys.maxsize

    def _predict(self, image: Tensor, embedding: Tensor, pyramid: list[Extent]) -> Tensor:
        """Returns [B, outputs, n_mels, F] for the image [B, planes, n_mels, F] of its channels."""
        hidden, skips = image, []
        for n, level in enumerate(self.down):
            hidden = self._run(level, hidden, embedding, pyramid[n])
            skips.append(hidden)
            if n < len(self.downsample):
                hidden = self.downsample[n](pyramid[n].valid_of(hidden))
        hidden = self._run(self.middle, hidden, embedding, pyramid[-1])
        for n, (level, upsample) in enumerate(zip(self.up, self.upsample, strict=True)):
            extent = pyramid[-1 - n]
            # The skip of the first level is not used: the published network leaves it out.
            hidden = self._run(level, torch.cat([hidden, skips.pop()], dim=1), embedding, extent)
            hidden = upsample(extent.valid_of(hidden))
        output: Tensor = self.output(self.final(hidden, pyramid[0]))
        return pyramid[0].valid_of(output)

    def _run(self, block: nn.Module, *inputs: Tensor | Extent) -> Tensor:
        if self.checkpointing and self.training:
            result = checkpoint(block, *inputs, use_reentrant=False)
            assert isinstance(result, Tensor)
            return result
        output: Tensor = block(*inputs)
        return output

    def _embed(self, noise_label: Tensor, dtype: torch.dtype) -> Tensor:
        waves = time_embedding(noise_label, self.width, self.dialect.time_scale)
        embedding: Tensor = self.time(waves.to(dtype))
        return embedding

    def _image(self, x: Tensor, local: Tensor | None, speaker: Tensor | None) -> Tensor:
        """Returns [B, planes, n_mels, F]: mean, noisy mel, speaker."""
        planes = [] if local is None else [_cut(local, x.shape[-1])]
        planes.append(x)
        if speaker is not None:
            planes.append(speaker[..., None].expand_as(x))
        return torch.stack(planes, dim=1)

    def _pyramid(self, image: Tensor, frames: Tensor | None, length: int) -> list[Extent]:
        """Returns which frames of each level are an item's own, and which its norms and attention count."""
        padded = image.shape[-1]
        if frames is None and length == padded:
            return [Extent(None, None)] * len(self.down)
        if frames is None:
            frames = torch.full((1,), length)
        frames = frames.to(image.device)[:, None]
        # An item is padded to whole steps of the coarsest level; these few frames count, as they do alone.
        counted = (frames + self.multiple - 1) // self.multiple * self.multiple
        position = torch.arange(padded, device=image.device)
        valid, region = position < frames, position < counted  # [B, F]
        return [
            Extent(
                valid[:, None, None, :: 2**n],
                None if self.dialect.counts_padding else region[:, None, None, :: 2**n],
            )
            for n in range(len(self.down))
        ]

    def _check(self, condition: Condition) -> None:
        expected = self.condition_features
        for name, given, features in (
            ("local", condition.local, expected.local_features),
            ("vector", condition.vector, expected.vector_features),
        ):
            found = None if given is None else given.shape[1]
            if found != features:
                raise InputError(
                    f"{name} condition: got {'no' if found is None else found} features, the network expects "
                    f"{'none' if features is None else features}; use the conditioner it was trained with"
                )


@dataclass(frozen=True)
class Extent:
    """Which frames of a level are real.

    Attributes:
        valid: [B, 1, 1, F] bool, an item's own frames; None: all.
        counted: [B, 1, 1, F] bool, frames that enter means over an item; None: all.
    """

    valid: Tensor | None
    counted: Tensor | None

    def valid_of(self, x: Tensor) -> Tensor:
        """Returns x [B, C, M, F] with zeros beyond the valid frames."""
        return x if self.valid is None else x * self.valid.to(x.dtype)


class Level(nn.Module):
    """Two residual blocks, then linear attention."""

    def __init__(self, in_channels: int, out_channels: int, time_features: int) -> None:
        """Builds the level."""
        super().__init__()
        self.first = ResidualBlock(in_channels, out_channels, time_features)
        self.second = ResidualBlock(out_channels, out_channels, time_features)
        self.attention = LinearAttention(out_channels)

    def forward(self, x: Tensor, embedding: Tensor, extent: Extent) -> Tensor:
        """Returns [B, C', M, F] for x [B, C, M, F] and the time embedding [B, D]."""
        x = self.second(self.first(x, embedding, extent), embedding, extent)
        output: Tensor = self.attention(x, extent)
        return output


class Middle(nn.Module):
    """A residual block, linear attention, a residual block: the coarsest level."""

    def __init__(self, channels: int, time_features: int) -> None:
        """Builds the level."""
        super().__init__()
        self.first = ResidualBlock(channels, channels, time_features)
        self.attention = LinearAttention(channels)
        self.second = ResidualBlock(channels, channels, time_features)

    def forward(self, x: Tensor, embedding: Tensor, extent: Extent) -> Tensor:
        """Returns [B, C, M, F] for x [B, C, M, F] and the time embedding [B, D]."""
        x = self.attention(self.first(x, embedding, extent), extent)
        output: Tensor = self.second(x, embedding, extent)
        return output


class ResidualBlock(nn.Module):
    """Two convolution blocks with the time embedding added between them, and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, time_features: int) -> None:
        """Builds the block; the shortcut is a 1x1 convolution where the channels change."""
        super().__init__()
        self.time = nn.Linear(time_features, out_channels)
        self.first = ConvBlock(in_channels, out_channels)
        self.second = ConvBlock(out_channels, out_channels)
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor, embedding: Tensor, extent: Extent) -> Tensor:
        """Returns [B, C', M, F] for x [B, C, M, F] and the time embedding [B, D]."""
        time = self.time(functional.mish(embedding))[:, :, None, None]
        output: Tensor = self.second(self.first(x, extent) + time, extent)
        return output + self.shortcut(extent.valid_of(x))


class ConvBlock(nn.Module):
    """3x3 convolution, group norm, Mish; zero beyond the valid frames, before and after."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Builds the block."""
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.GroupNorm(_GROUPS, out_channels)

    def forward(self, x: Tensor, extent: Extent) -> Tensor:
        """Returns [B, C', M, F] for x [B, C, M, F]."""
        hidden = self.conv(extent.valid_of(x))
        return extent.valid_of(functional.mish(_group_norm(hidden, self.norm, extent.counted)))


class LinearAttention(nn.Module):
    """x + gate * attention(x): keys are softmaxed over positions, so the cost is linear in them."""

    def __init__(self, channels: int) -> None:
        """Builds the layer; it starts as the identity, since its gate starts at zero."""
        super().__init__()
        features = _HEADS * _HEAD_FEATURES
        self.query_key_value = nn.Conv2d(channels, 3 * features, 1, bias=False)
        self.output = nn.Conv2d(features, channels, 1)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, extent: Extent) -> Tensor:
        """Returns [B, C, M, F] for x [B, C, M, F]."""
        batch, _, bands, frames = x.shape
        heads = self.query_key_value(x).view(batch, 3, _HEADS, _HEAD_FEATURES, bands, frames)
        query, key, value = heads.unbind(1)  # [B, heads, features, M, F]
        if extent.counted is not None:
            key = key.masked_fill(~extent.counted[:, None], -torch.inf)
        weights = key.flatten(3).softmax(dim=-1)
        context = weights @ value.flatten(3).transpose(2, 3)  # [B, heads, key features, value features]
        attended = context.transpose(2, 3) @ query.flatten(3)
        return x + self.gate * self.output(attended.reshape(batch, -1, bands, frames))


def time_embedding(label: Tensor, dim: int, scale: float) -> Tensor:
    """Returns [sin(p_k) | cos(p_k)], p_k = scale * label * 10000^(-k / (dim/2 - 1)), k = 0 .. dim/2 - 1.

    Args:
        label: [B]; phases are computed in its precision, float32 at least, from float32 frequencies.
        dim: even, at least 4.
        scale: factor on the label.
    """
    half = dim // 2
    # Rounded where float32 arithmetic rounds, but computed in float64: the last bit of a float32 exponential
    # depends on the machine.
    rate = torch.tensor(-math.log(_TIME_PERIODS) / (half - 1), dtype=torch.float32).double()
    exponents = (torch.arange(half, dtype=torch.float64) * rate).float().double()
    frequencies = exponents.exp().float().to(label.device)
    label = label if label.dtype == torch.float64 else label.float()
    phases = (scale * label)[:, None] * frequencies
    return torch.cat([phases.sin(), phases.cos()], dim=1)


def _perceptron(in_features: int, out_features: int) -> nn.Sequential:
    hidden = _HIDDEN_FACTOR * in_features
    return nn.Sequential(nn.Linear(in_features, hidden), nn.Mish(), nn.Linear(hidden, out_features))


def _group_norm(x: Tensor, norm: nn.GroupNorm, counted: Tensor | None) -> Tensor:
    """Returns the group norm of x [B, C, M, F] with mean and variance over the counted frames alone."""
    if counted is None:
        normalised: Tensor = norm(x)
        return normalised
    groups = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    groups = groups.unflatten(1, (norm.num_groups, -1))  # [B, G, C/G, M, F]
    weight = counted[:, None].to(groups.dtype)
    count = weight.sum((2, 3, 4), keepdim=True) * groups.shape[2] * groups.shape[3]
    mean = (groups * weight).sum((2, 3, 4), keepdim=True) / count
    centred = groups - mean
    variance = (centred.square() * weight).sum((2, 3, 4), keepdim=True) / count
    normalised = (centred * torch.rsqrt(variance + norm.eps)).flatten(1, 2).to(x.dtype)
    return normalised * norm.weight[:, None, None] + norm.bias[:, None, None]


def _cut(local: Tensor, frames: int) -> Tensor:
    if local.shape[-1] < frames:
        raise InputError(
            f"local condition: got {local.shape[-1]} frames for {frames} frames of x, expected as many; "
            "compute it from the same audio with the same mel definition"
        )
    return local[..., :frames]


def _check_sizes(n_mels: int, width: int, multipliers: Sequence[int], condition: MelCondition) -> None:
    multiple = 2 ** (len(multipliers) - 1)
    if not multipliers or min(multipliers) < 1 or n_mels < 1 or n_mels % multiple:
        raise InputError(
            f"MelUNet: got n_mels {n_mels} and multipliers {list(multipliers)}, expected one positive multiplier "
            "a level and bands that halve from level to level: n_mels a multiple of 2^(levels - 1)"
        )
    if width < _GROUPS or width % _GROUPS:
        raise InputError(
            f"MelUNet: got width {width}, expected a multiple of {_GROUPS}, the groups of its norms"
        )
    if condition.local_features not in (None, n_mels):
        raise InputError(
            f"MelUNet: got a local condition of {condition.local_features} features, expected {n_mels}, the bands "
            "of x: it is an image beside x"
        )
