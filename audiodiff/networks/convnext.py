"""A frame-level denoiser: ConvNeXt blocks over the features of each frame.

Depthwise convolution across frames, then a two-layer perceptron within each frame (Liu et al. 2022; for
audio frames Siuzdak 2024, Vocos), modulated by the noise level and the item's label through adaptive layer
norm (Peebles and Xie 2023). One evaluation costs a fraction of a sample-level WaveNet's, since it runs once
per hop. The output adds the input times a gain that follows the noise level: what passes straight through
(the noise, when there is little signal) does not have to fit through the width of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from audiodiff.errors import InputError
from audiodiff.networks.blocks import EmbeddingMLP, sinusoidal_embedding
from audiodiff.networks.streaming import Margins, Memory, Past, look_back
from audiodiff.types import Condition

_NOISE_WAVES = 64  # sines and cosines of the noise label
_NOISE_DECADES = 1.5  # their frequencies: 1 to 10^1.5, for labels of order one
_OVERHANG = 4  # frames by which a mel may end before x
_OUTER_TAPS = 3  # of the convolutions that read x and the mel


class ConvNeXt(nn.Module):
    """Network (x [B, D, F], noise_label [B], condition) -> [B, D, F]."""

    def __init__(
        self,
        features: int,
        width: int,
        dilations: Sequence[int],
        *,
        channels: int = 1,
        outputs: int = 1,
        kernel_size: int = 7,
        expansion: int = 3,
        embedding_width: int = 256,
        local_features: int | None = None,
        vector_features: int | None = None,
        causal: bool = False,
        checkpointing: bool = False,
    ) -> None:
        """Builds one block per dilation.

        Args:
            features: D of x per audio channel.
            width: channels of the blocks.
            dilations: dilation of each block's depthwise convolution, in frames.
            channels: audio channels that x holds.
            outputs: tensors of x's shape that it gives, stacked along the features; 2 for a learned variance.
            kernel_size: taps of the depthwise convolution, odd.
            expansion: hidden width of a block over its width.
            embedding_width: width of the noise embedding.
            local_features: D of condition.local (n_mels), None for a network that hears none.
            vector_features: D of condition.vector, None for a network that is told none.
            causal: whether no frame of the output depends on a later one of x or of the mel.
            checkpointing: whether training recomputes each block in the backward pass, for memory.
        """
        super().__init__()
        if kernel_size % 2 == 0:
            raise InputError(f"kernel_size: got {kernel_size}, expected an odd number")
        features = features * channels
        self.outputs = outputs
        self.causal = causal
        self.checkpointing = checkpointing
        self.dilations = tuple(dilations)
        self.kernel_size = kernel_size
        self.noise_embedding = EmbeddingMLP(_NOISE_WAVES, embedding_width, embedding_width)
        self.embed = nn.Conv1d(2 * features, width, _OUTER_TAPS, padding=0 if causal else _OUTER_TAPS // 2)
        self.local = None if local_features is None else nn.Conv1d(local_features, width, _OUTER_TAPS)
        self.vector = None if vector_features is None else nn.Linear(vector_features, embedding_width)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(width, kernel_size, dilation, expansion, embedding_width, causal)
            for dilation in self.dilations
        )
        self.modulation = nn.Linear(embedding_width, 2 * width)
        self.head = nn.Linear(width, 2 * outputs * features)  # offset and gain of each frame
        self.level_gain = nn.Linear(
            embedding_width, outputs * features
        )  # gain of all frames, from the noise level
        for layer in (self.modulation, self.head, self.level_gain):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        # At first the prediction is the input itself: right where all is noise.
        with torch.no_grad():
            self.level_gain.bias[:features] = 1

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        """Returns the prediction [B, outputs * D, F].

        Args:
            x: [B, D, F].
            noise_label: [B], of order one (a quarter of the log-SNR).
            condition: `local` [B, n_mels, F'] with F' at most one hop's rounding from F, `vector` [B, D].
        """
        return self.bind(condition)(x, noise_label)

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns (x, noise_label) -> prediction with the condition projected once."""
        return self._bind(condition, None)

    def resume(self, condition: Condition, memory: Memory) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns (x, noise_label) -> prediction of a causal network for the piece after the one remembered."""
        return self._bind(condition, memory)

    def _bind(self, condition: Condition, memory: Memory | None) -> Callable[[Tensor, Tensor], Tensor]:
        local = None if self.local is None else self._project(_required(condition.local, "local"), memory)
        vector = None if self.vector is None else self.vector(_required(condition.vector, "vector"))

        def network(x: Tensor, noise_label: Tensor) -> Tensor:
            waves = sinusoidal_embedding(noise_label, _NOISE_WAVES, _NOISE_DECADES)
            embedding = self.noise_embedding(waves)
            if vector is not None:
                embedding = embedding + vector
            embedding = functional.silu(embedding)
            mask, past = condition.mask(x), None if memory is None else memory.past()
            features = torch.cat([x, x.abs()], dim=1)
            features = features if mask is None else features * mask
            hidden = self.embed(look_back(features, _OUTER_TAPS - 1, past) if self.causal else features)
            if local is not None:
                hidden = hidden + _fit(local, x.shape[-1])
            hidden = hidden.transpose(1, 2)  # [B, F, width]: the perceptrons are matrix products
            frame_mask = None if mask is None else mask.transpose(1, 2)
            for block in self.blocks:
                if self.checkpointing and self.training:
                    hidden = checkpoint(block, hidden, embedding, frame_mask, use_reentrant=False)
                else:
                    hidden = block(hidden, embedding, frame_mask, past)
            scale, shift = self.modulation(embedding)[:, None].chunk(2, dim=-1)
            hidden = functional.layer_norm(hidden, hidden.shape[-1:]) * (1 + scale) + shift
            offset, gain = self.head(hidden).transpose(1, 2).chunk(2, dim=1)
            return offset + (gain + self.level_gain(embedding)[:, :, None]) * x.repeat(1, self.outputs, 1)

        return network

    def _project(self, local: Tensor, memory: Memory | None) -> Tensor:
        """Returns what the mel adds to each frame of x [B, width, F], and with no memory some frames more."""
        assert self.local is not None
        if memory is not None:
            projected: Tensor = self.local(look_back(local, _OUTER_TAPS - 1, memory.past()))
            return projected
        extended = _extend(local)
        return self.local(look_back(extended[..., :-1], 1, None) if self.causal else extended)

    def margins(self) -> Margins:
        """Returns what a window has to show around the frames that are wanted."""
        field = self.receptive_field() - 1
        return Margins(field, 0) if self.causal else Margins(field // 2, field // 2)

    def receptive_field(self) -> int:
        """Returns the number of frames that one output frame depends on."""
        return _OUTER_TAPS + sum((self.kernel_size - 1) * dilation for dilation in self.dilations)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, adaptive layer norm, perceptron, gate, residual."""

    def __init__(
        self,
        width: int,
        kernel_size: int,
        dilation: int,
        expansion: int,
        embedding_width: int,
        causal: bool = False,
    ) -> None:
        """Builds the block; it starts as the identity, since its gate starts at zero."""
        super().__init__()
        self.look_back = dilation * (kernel_size - 1) if causal else 0
        padding = 0 if causal else dilation * (kernel_size // 2)
        self.depthwise = nn.Conv1d(
            width, width, kernel_size, padding=padding, dilation=dilation, groups=width
        )
        self.modulation = nn.Linear(embedding_width, 3 * width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, embedding: Tensor, mask: Tensor | None, past: Past | None = None) -> Tensor:
        """Returns [B, F, width] for x [B, F, width], embedding [B, E] and mask [B, F, 1] or None; see `Past`."""
        scale, shift, gate = self.modulation(embedding)[:, None].chunk(3, dim=-1)
        hidden = (x if mask is None else x * mask).transpose(1, 2)
        hidden = look_back(hidden, self.look_back, past) if self.look_back else hidden
        hidden = self.depthwise(hidden).transpose(1, 2)
        hidden = functional.layer_norm(hidden, hidden.shape[-1:]) * (1 + scale) + shift
        return x + gate * self.contract(functional.gelu(self.expand(hidden)))


def _required(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise InputError(f"the network needs condition.{name}; the conditioner of this model gives none")
    return value


def _extend(local: Tensor) -> Tensor:
    """Returns local [B, D, F'] with one zero frame before and its last frame repeated after.

    A mel and the diffused frames of the same audio differ by the rounding of one hop and the frames of
    overlap at the end, which the repeated frame fills.
    """
    return torch.cat(
        [torch.zeros_like(local[..., :1]), local, local[..., -1:].expand(-1, -1, _OVERHANG)], dim=-1
    )


def _fit(local: Tensor, frames: int) -> Tensor:
    given = local.shape[-1] - _OVERHANG + 1
    if not given - _OVERHANG < frames < given + _OVERHANG:
        raise InputError(
            f"condition has {given} frames for {frames} frames of x; "
            "expected the same hop length and the same audio"
        )
    return local[..., :frames]
