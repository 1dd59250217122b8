"""WaveGrad's network: the condition is upsampled to audio, modulated at every rate by what the noisy audio says.

D blocks take the noisy audio down, from samples to nearly frames; U blocks take the condition up, from frames to
samples. At each rate a FiLM layer turns the audio's features plus an encoding of the noise level alpha =
sqrt(alpha-bar) into a shift and a scale of the U block's channels, U -> shift + scale * U. The encoding is
[sin | cos](scale * alpha * 10^(-4 k / half)). Chen et al. 2021, "WaveGrad", figures 2 to 5 (arXiv 2009.00713).
Without a local condition one more D block leads down to the frames and the U blocks start from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from audiodiff.errors import InputError
from audiodiff.networks.blocks import check_features, cover
from audiodiff.networks.streaming import Margins
from audiodiff.types import Condition

NEGATIVE_SLOPE = 0.2

Span = tuple[int, int]  # first and last position that something depends on


@dataclass(frozen=True)
class Blocks:
    """The blocks of the network; the defaults are the paper's base model, 15.8 M parameters with 80 mel bands.

    Attributes:
        factors: by which each U block multiplies the rate, from frames to samples; 1 keeps it. Their product
            is the hop length. The D blocks undo all but the first, from samples towards frames.
        frame_channels: channels in which the U blocks start, at the rate of the frames.
        up_channels: channels of each U block.
        up_dilations: dilations of the four convolutions of each U block.
        sample_channels: channels in which the D blocks start, at the rate of the samples, even.
        down_channels: channels of each D block, one fewer than U blocks, even.
        down_dilations: dilations of the convolutions of every D block.
        interpolate: whether features change their rate along straight lines between the centres of groups, as
            ivanvovk's do; False repeats a position on the way up and keeps a group's first on the way down,
            as lmnt's do.
        encoding_scale: phase of the fastest sine at alpha = 1, radians. The paper's C is 5000; lmnt has 1.
    """

    factors: Sequence[int] = (5, 5, 3, 2, 2)
    frame_channels: int = 768
    up_channels: Sequence[int] = (512, 512, 256, 128, 128)
    up_dilations: Sequence[Sequence[int]] = (*((1, 2, 1, 2),) * 2, *((1, 2, 4, 8),) * 3)
    sample_channels: int = 32
    down_channels: Sequence[int] = (128, 128, 256, 512)
    down_dilations: Sequence[int] = (1, 2, 4)
    interpolate: bool = False
    encoding_scale: float = 5000.0

    def __post_init__(self) -> None:
        blocks = len(self.factors)
        sizes = len(self.up_channels), len(self.up_dilations), len(self.down_channels) + 1
        if blocks == 0 or min(self.factors) < 1 or sizes != (blocks,) * 3:
            raise InputError(
                f"WaveGrad: got factors {list(self.factors)} with {sizes[0]} up_channels, {sizes[1]} up_dilations "
                f"and {sizes[2] - 1} down_channels, expected factors of 1 or more, as many up_channels and "
                "up_dilations, and one down_channels fewer"
            )
        if any(len(dilations) != 4 for dilations in self.up_dilations):
            raise InputError(f"WaveGrad: got up_dilations {list(self.up_dilations)}, expected four in each")
        inner = [self.sample_channels, *self.down_channels]
        if any(channels % 2 for channels in inner):
            raise InputError(
                f"WaveGrad: got sample_channels and down_channels {inner}, expected even numbers"
            )


BASE = Blocks()


class WaveGrad(nn.Module):
    """Maps noisy audio, its noise level and a condition to tensors of the audio's shape."""

    def __init__(
        self,
        blocks: Blocks = BASE,
        audio_channels: int = 1,
        outputs: int = 1,
        local_features: int | None = None,
        vector_features: int | None = None,
        checkpointing: bool = False,
    ) -> None:
        """Builds the network; its output is 0 until it is trained.

        Args:
            blocks: rates, widths and dilations.
            audio_channels: channels C of the audio, 1 for mono.
            outputs: tensors of the audio's shape that come back, stacked along the channels.
            local_features: D of condition.local (mel bands), None for a network that hears none.
            vector_features: D of condition.vector (class or speaker), None for a network that is told none.
            checkpointing: computes each block again in the backward pass rather than keep what is inside it.
        """
        super().__init__()
        self.blocks = blocks
        self.hop_length = math.prod(blocks.factors)
        self.local_features = local_features
        self.vector_features = vector_features
        self.checkpointing = checkpointing
        inner = (blocks.sample_channels, *blocks.down_channels)  # from samples down
        outer = (blocks.frame_channels, *blocks.up_channels)  # from frames up
        factors = blocks.factors
        self.first = _conv(audio_channels, inner[0], 5)
        self.down = nn.ModuleList(
            DownBlock(*channels, factor, blocks.down_dilations, blocks.interpolate)
            for channels, factor in zip(pairwise(inner), reversed(factors[1:]), strict=True)
        )
        self.films = nn.ModuleList(
            FiLM(*channels, blocks.encoding_scale, vector_features)
            for channels in zip(inner, reversed(blocks.up_channels), strict=True)
        )
        deepest = inner[-1], outer[0], factors[0], blocks.down_dilations, blocks.interpolate
        self.local = None if local_features is None else _conv(local_features, outer[0])
        self.deepest = DownBlock(*deepest) if local_features is None else None
        self.up = nn.ModuleList(
            UpBlock(*channels, factor, dilations, blocks.interpolate)
            for channels, factor, dilations in zip(pairwise(outer), factors, blocks.up_dilations, strict=True)
        )
        self.last = _conv(outer[-1], audio_channels * outputs)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        """Returns the prediction [B, C * outputs, T].

        Args:
            x: [B, C, T], any T.
            noise_label: [B], alpha = sqrt(alpha-bar), in (0, 1].
            condition: local [B, local_features, F] and vector [B, vector_features] where the network was
                built for them, and the valid samples. A rest of T shorter than one hop may lack its frame:
                the last one is repeated. Frames from ceil(T / hop) on are not used; in a padded batch, those
                from ceil(valid samples / hop) on, item by item.

        Raises:
            InputError: a condition is missing, not expected, of the wrong size, or too short for T.
        """
        return self._predict(x, noise_label, self._prepare(x, condition))

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns (x, noise_label) -> prediction, which projects the condition once for each length of x."""
        prepared: list[_Prepared] = []

        def predict(x: Tensor, noise_label: Tensor) -> Tensor:
            if not prepared or prepared[0].length != x.shape[-1]:
                prepared[:] = [self._prepare(x, condition)]
            return self._predict(x, noise_label, prepared[0])

        return predict

    def receptive_field(self) -> int:
        """Returns how many samples of x an output sample depends on, at the place in a frame with the most."""
        spans = [self._reach((sample, sample)) for sample in range(self.hop_length)]
        return max(last - first + 1 for first, last in spans)

    def margins(self) -> Margins:
        """Returns what a window has to show around the samples that are wanted."""
        hop, befores, afters = self.hop_length, [], []
        for sample in range(hop):
            low, high = self._reach((sample, sample))
            first, last = (0, 0) if self.local is None else self._frames_heard((sample, sample))
            befores.append(sample - min(low, first * hop))
            afters.append(max(high, (last + 1) * hop - 1) - sample)
        return Margins(max(befores), max(afters))

    def _frames_heard(self, span: Span) -> Span:
        """Returns which frames of the condition the output samples in the span depend on."""
        span = _widen(span, 1)
        for factor, dilations in zip(self.blocks.factors[::-1], self.blocks.up_dilations[::-1], strict=True):
            span = _read_by_up(_widen(span, sum(dilations)), factor, self.blocks.interpolate)
        return _widen(span, 1)

    def _reach(self, span: Span) -> Span:
        """Returns which samples of x the output samples in the span depend on."""
        blocks, span, modulations = self.blocks, _widen(span, 1), []
        for factor, (first, *rest) in zip(blocks.factors[::-1], blocks.up_dilations[::-1], strict=True):
            span = _widen(span, sum(rest))
            modulations.append(_widen(span, 2))  # the two convolutions of FiLM
            span = _read_by_up(_widen(span, first), factor, blocks.interpolate)
        audio = span if self.deepest is not None else None
        for factor, (low, high) in zip(blocks.factors, reversed(modulations), strict=True):
            if audio is not None:
                audio = _read_by_down(_widen(audio, sum(blocks.down_dilations)), factor, blocks.interpolate)
                low, high = min(low, audio[0]), max(high, audio[1])
            audio = low, high
        return _widen((low, high), 2)

    def _prepare(self, x: Tensor, condition: Condition) -> _Prepared:
        """Computes what the condition and the length of x alone determine."""
        check_features(condition, self.local_features, self.vector_features)
        length = x.shape[-1]
        frames = -(-length // self.hop_length)
        rates = [math.prod(self.blocks.factors[:n]) for n in range(len(self.films), -1, -1)]
        masks: list[Tensor | None] = [None for _ in rates]
        if condition.frames is not None:
            # To the frame, since an item alone is filled up to whole frames too.
            valid = (condition.frames.to(x.device) + self.hop_length - 1) // self.hop_length
            masks = [Condition(frames=valid * r).mask(x.new_empty(0, 0, frames * r)) for r in rates]
        start = None
        if self.local is not None and condition.local is not None:
            start = self.local(_zero(cover(condition.local, length, self.hop_length), masks[-1]))
        vectors = [film.project(condition.vector) for film in self.films]  # type: ignore[operator]
        return _Prepared(length, condition.mask(x), masks, start, vectors)

    def _predict(self, x: Tensor, noise_label: Tensor, prepared: _Prepared) -> Tensor:
        masks = prepared.masks
        x = self.first(functional.pad(_zero(x, prepared.valid), (0, -x.shape[-1] % self.hop_length)))
        modulations = []
        for n, film in enumerate(self.films):
            if n > 0:
                x = self._run(self.down[n - 1], x, masks[n])
            modulations.append(self._run(film, x, noise_label, prepared.vectors[n], masks[n]))
        x = self._run(self.deepest, x, masks[-1]) if prepared.start is None else prepared.start
        for n, block in enumerate(self.up):
            x = self._run(block, x, modulations[-1 - n], masks[-1 - n], masks[-2 - n])
        return _zero(self.last(_zero(x, masks[0]))[..., : prepared.length], prepared.valid)

    def _run(self, block: Any, *inputs: Any) -> Any:
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


@dataclass(frozen=True)
class _Prepared:
    """What depends on the condition and the length of x alone."""

    length: int
    valid: Tensor | None  # [B, 1, T]
    masks: list[Tensor | None]  # [B, 1, F] at every rate, from samples to frames
    start: Tensor | None  # [B, frame_channels, F], where the U blocks start
    vectors: list[Tensor | None]  # [B, C, 1], added to the encoding of each FiLM


class _Block(nn.Module):
    """A projected shortcut beside dilated convolutions, at a rate that is `factor` times another."""

    def __init__(
        self, in_channels: int, channels: int, factor: int, dilations: Sequence[int], interpolate: bool
    ) -> None:
        """Builds the layers; Args as in `Blocks`."""
        super().__init__()
        self.factor = factor
        self.interpolate = interpolate
        self.shortcut = _conv(in_channels, channels, 1)
        self.convs = nn.ModuleList(
            _conv(channels if n else in_channels, channels, dilation=dilation)
            for n, dilation in enumerate(dilations)
        )


class DownBlock(_Block):
    """D block: downsampling, then convolutions (figure 4)."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Returns [B, channels, F / factor] of x [B, in_channels, F], mask [B, 1, F / factor]."""
        x = _downsample(x, self.factor, self.interpolate)
        hidden = x
        for conv in self.convs:
            hidden = conv(_zero(_activate(hidden), mask))
        return hidden + self.shortcut(x)


class UpBlock(_Block):
    """U block: upsampling, then two residual pairs of convolutions, all but the first modulated (figure 3)."""

    def forward(
        self, x: Tensor, modulation: tuple[Tensor, Tensor], mask_in: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Returns [B, channels, F * factor].

        Args:
            x: [B, in_channels, F].
            modulation: shift and scale, each [B, channels, F * factor].
            mask_in: [B, 1, F], None when every position is valid.
            mask: [B, 1, F * factor].
        """
        shift, scale = modulation

        def modulated(n: int, x: Tensor) -> Tensor:
            return self.convs[n](_zero(_activate(shift + scale * x), mask))

        hidden = _upsample(_activate(x), self.factor, mask_in, self.interpolate)
        hidden = modulated(1, self.convs[0](_zero(hidden, mask)))
        # A convolution of one tap commutes with resampling, whose weights sum to 1, and costs less before it.
        hidden = hidden + _upsample(self.shortcut(x), self.factor, mask_in, self.interpolate)
        return hidden + modulated(3, modulated(2, hidden))


class FiLM(nn.Module):
    """Feature-wise linear modulation: features of the audio and its noise level -> shift and scale (figure 5)."""

    def __init__(
        self, in_channels: int, channels: int, encoding_scale: float, vector_features: int | None
    ) -> None:
        """Builds the layer for in_channels of the audio and channels of the U block; Args as in `WaveGrad`."""
        super().__init__()
        self.channels = channels
        self.encoding_scale = encoding_scale
        self.input = _conv(in_channels, in_channels)
        self.vector = None if vector_features is None else nn.Linear(vector_features, in_channels)
        self.output = _conv(in_channels, 2 * channels)

    def project(self, vector: Tensor | None) -> Tensor | None:
        """Returns what the vector [B, D] adds to the encoding, [B, in_channels, 1]."""
        return None if self.vector is None else self.vector(vector)[..., None]

    def forward(
        self, x: Tensor, noise_level: Tensor, vector: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns shift and scale [B, channels, F] for x [B, in_channels, F], noise_level [B], mask [B, 1, F]."""
        hidden = _activate(self.input(_zero(x, mask)))
        encoding = noise_level_encoding(noise_level, hidden.shape[1], self.encoding_scale)
        hidden = hidden + encoding[..., None].to(hidden.dtype)
        if vector is not None:
            hidden = hidden + vector
        shift, scale = self.output(_zero(hidden, mask)).split(self.channels, dim=1)
        return shift, scale


def noise_level_encoding(noise_level: Tensor, dim: int, scale: float) -> Tensor:
    """Returns [sin(p_k) | cos(p_k)], [B, dim], p_k = scale * noise_level * 10^(-4 k / half), half = dim / 2.

    Phases are float32 products of float32 frequencies, float64 ones for a float64 noise level [B]: with a scale
    of 5000, a frequency that is off by one unit in the last place turns the phase by 3e-4 radians.
    """
    dtype = torch.float64 if noise_level.dtype == torch.float64 else torch.float32
    half = dim // 2
    # The last bit of a float32 power depends on the machine, so powers are taken in float64, on the CPU because
    # not every accelerator has float64.
    powers = (torch.arange(half, dtype=torch.float64) / half).to(dtype).double()
    frequencies = (1e-4**powers).to(dtype).to(noise_level.device)
    phases = (scale * noise_level.to(dtype))[:, None] * frequencies
    return torch.cat([phases.sin(), phases.cos()], dim=1)


def _upsample(x: Tensor, factor: int, mask: Tensor | None, interpolate: bool) -> Tensor:
    """Returns [B, C, F * factor] of x [B, C, F]; lines are level beyond the first and the last valid centre."""
    if not interpolate:
        return x.repeat_interleave(factor, dim=-1)
    # By phases: the usual interpolation computes float32 positions, which lose their fractions in long audio.
    before = torch.cat([x[..., :1], x[..., :-1]], dim=-1)
    after = torch.cat([x[..., 1:], x[..., -1:]], dim=-1)
    if mask is not None:
        after = torch.where(functional.pad(mask[..., 1:], (0, 1)) > 0, after, x)
    offset = (torch.arange(factor, device=x.device, dtype=x.dtype) + 0.5) / factor - 0.5
    level = x[..., None] * (1 - offset.abs())
    slope = before[..., None] * (-offset).clamp(min=0) + after[..., None] * offset.clamp(min=0)
    return (level + slope).flatten(-2)  # [B, C, F, factor] -> [B, C, F * factor]


def _downsample(x: Tensor, factor: int, interpolate: bool) -> Tensor:
    """Returns [B, C, F / factor] of x [B, C, F]; a group of an even factor has its centre between two positions."""
    if not interpolate:
        return x[..., ::factor]
    return (x[..., (factor - 1) // 2 :: factor] + x[..., factor // 2 :: factor]) / 2


def _read_by_up(span: Span, factor: int, interpolate: bool) -> Span:
    low, high = ((2 * position + 1 - factor) / (2 * factor) for position in span)
    return (math.floor(low), math.ceil(high)) if interpolate else (span[0] // factor, span[1] // factor)


def _read_by_down(span: Span, factor: int, interpolate: bool) -> Span:
    low, high = ((factor - 1) // 2, factor // 2) if interpolate else (0, 0)
    return span[0] * factor + low, span[1] * factor + high


def _widen(span: Span, radius: int) -> Span:
    return span[0] - radius, span[1] + radius


def _conv(in_channels: int, channels: int, kernel_size: int = 3, dilation: int = 1) -> nn.Conv1d:
    padding = dilation * (kernel_size - 1) // 2
    conv = nn.Conv1d(in_channels, channels, kernel_size, dilation=dilation, padding=padding)
    nn.init.orthogonal_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _activate(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, NEGATIVE_SLOPE)


def _zero(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
