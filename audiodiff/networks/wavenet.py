"""DiffWave's WaveNet: a stack of dilated, gated, non-causal convolutions at the sample rate.

Layer n convolves x plus the projected noise embedding with dilation 2^(n mod dilation_cycle), adds what the
condition says, gates with tanh(first half) * sigmoid(second half), and splits a 1x1 into a residual,
x' = (x + residual) / sqrt(2), and a skip; the skips are summed and divided by sqrt(layers).
Kong et al. 2021, "DiffWave", figure 2 and appendix C (arXiv 2009.09761). The two published dialects differ
in weights, not in structure: `audiodiff.interop` rearranges theirs into this one network. Which dilated
convolution the layers have is a part of its own (`dilated`): FreGrad's runs on two sub-bands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from audiodiff.errors import InputError
from audiodiff.networks.blocks import EmbeddingMLP, FrameUpsampler, check_features, cover, step_embedding
from audiodiff.networks.dilated import KERNEL_SIZE, DilatedConvolution, LookingBack, ZeroPadded
from audiodiff.networks.streaming import Margins, Memory, Past
from audiodiff.networks.wavenet_tiles import TiledWaveNet, runs_in_tiles
from audiodiff.networks.wavenet_training import predict_in_tiles, trains_in_tiles
from audiodiff.types import Condition

# Beyond this, projecting the condition again at every step costs less than the memory of keeping it.
BOUND_BYTES = 512 * 2**20


@dataclass(frozen=True)
class NoiseEmbedding:
    """How the noise label enters.

    Attributes:
        dim: features of the sinusoidal embedding.
        hidden_dim: features between the two shared layers.
        out_dim: features that every residual layer projects to its channels.
        exponent: decades that the frequencies span; 4 in the paper, -4 in its first author's code.
        in_residual: whether the projected embedding is added to x itself, so that it also travels along the
            residual path. In the paper only the convolution sees it. The weights that the paper's first
            author published need True: that code adds in place.
    """

    dim: int = 128
    hidden_dim: int = 512
    out_dim: int = 512
    exponent: float = 4.0
    in_residual: bool = False


@dataclass(frozen=True)
class ConditionShape:
    """What the network is told besides the noise label; the default is nothing.

    Attributes:
        local_features: D of condition.local (mel bands), None for a network that hears none.
        upsample_factors: time strides of the upsampler; their product is the hop length of the frames.
        shared_upsampler: True for one upsampler, False for one in each residual layer.
        vector_features: D of condition.vector (class or speaker), None for a network that is told none.
    """

    local_features: int | None = None
    upsample_factors: tuple[int, ...] = (16, 16)
    shared_upsampler: bool = True
    vector_features: int | None = None


PAPER_EMBEDDING = NoiseEmbedding()
UNCONDITIONAL = ConditionShape()
ZERO_PADDED = ZeroPadded()


class WaveNet(nn.Module):
    """Maps noisy audio, a step of the noise table and a condition to a tensor of the audio's shape."""

    def __init__(
        self,
        residual_layers: int = 30,
        residual_channels: int = 64,
        skip_channels: int = 64,
        dilation_cycle: int = 10,
        audio_channels: int = 1,
        embedding: NoiseEmbedding = PAPER_EMBEDDING,
        condition: ConditionShape = UNCONDITIONAL,
        *,
        convolution: DilatedConvolution = ZERO_PADDED,
        outputs: int = 1,
        checkpointing: bool = False,
    ) -> None:
        """Builds the network; its output is 0 until it is trained.

        Args:
            residual_layers: number of layers.
            residual_channels: channels C of the residual path; the gate has 2 C.
            skip_channels: channels of the skip path.
            dilation_cycle: layers after which the dilation starts again at 1.
            audio_channels: channels of the audio, 1 for mono.
            embedding: how the noise label enters.
            condition: which conditions it takes.
            convolution: the kind of the layers' dilated convolutions; with LookingBack nothing looks ahead, the
                upsampler of the frames included.
            outputs: tensors of the audio's shape that it gives, stacked along the channels; 2 for a learned variance.
            checkpointing: whether training recomputes each layer in the backward pass, for memory.

        Raises:
            InputError: residual_layers or dilation_cycle is below 1.
        """
        super().__init__()
        if residual_layers < 1 or dilation_cycle < 1:
            raise InputError(
                f"WaveNet: got residual_layers {residual_layers} and dilation_cycle {dilation_cycle}, "
                "expected both to be 1 or more"
            )
        self.dilations = tuple(2 ** (n % dilation_cycle) for n in range(residual_layers))
        self.convolution = convolution
        self.checkpointing = checkpointing
        self.noise_embedding = embedding
        self.condition_shape = condition
        self.hop_length = math.prod(condition.upsample_factors)
        self.input_projection = _conv(audio_channels, residual_channels)
        self.embedding = EmbeddingMLP(embedding.dim, embedding.hidden_dim, embedding.out_dim)
        upsamplers = (
            0 if condition.local_features is None else 1 if condition.shared_upsampler else residual_layers
        )
        self.upsamplers = nn.ModuleList(
            FrameUpsampler(condition.upsample_factors, self.causal) for _ in range(upsamplers)
        )
        self.layers = nn.ModuleList(
            ResidualLayer(residual_channels, skip_channels, dilation, embedding, condition, convolution)
            for dilation in self.dilations
        )
        self.skip_projection = _conv(skip_channels, skip_channels)
        self.output_projection = nn.Conv1d(skip_channels, outputs * audio_channels, 1)
        nn.init.zeros_(self.output_projection.weight)
        nn.init.zeros_(self.output_projection.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        """Returns the prediction [B, C, T].

        Args:
            x: [B, C, T], any T.
            noise_label: [B], row of the noise table counted from 0, fractions allowed.
            condition: local [B, local_features, F] and vector [B, vector_features] where the network was
                built for them, and the valid samples. A rest of T shorter than one hop may lack its frame:
                the last one is repeated. Frames from ceil(T / hop) on are not used; in a padded batch, those
                from ceil(valid samples / hop) on, item by item.

        Raises:
            InputError: a condition is missing, not expected, of the wrong size, or too short for T.
        """
        if trains_in_tiles(self, x):
            return predict_in_tiles(self, x, noise_label, condition)
        return self._predict(x, noise_label, condition, self._biases(condition, x.shape[-1]))

    def bind(self, condition: Condition) -> BoundWaveNet:
        """Returns (x, noise_label) -> prediction, which upsamples and projects the condition only once."""
        return BoundWaveNet(self, condition)

    @property
    def causal(self) -> bool:
        """Whether no sample of the output depends on a later one of x, nor on a later frame."""
        return isinstance(self.convolution, LookingBack)

    def resume(self, condition: Condition, memory: Memory) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns (x, noise_label) -> prediction of a causal network for the piece after the one remembered."""
        past, biases = memory.past(), list[Tensor | None]()

        def predict(x: Tensor, noise_label: Tensor) -> Tensor:
            biases[:] = biases or self._biases(condition, x.shape[-1], past)
            return self._predict(x, noise_label, condition, biases, memory.past())

        return predict

    def margins(self) -> Margins:
        """Returns what a window has to show around the samples that are wanted."""
        before, after = self.upsamplers[0].reach() if self.upsamplers else (0, 0)  # type: ignore[operator]
        before, after, width = before * self.hop_length, after * self.hop_length, self.convolution.width
        if self.causal:
            return Margins(before + self.receptive_field() - 1, after)
        side = width * (1 + sum(self.dilations)) - 1
        return Margins(before + side, after + side, width)

    def receptive_field(self) -> int:
        """Returns how many input samples one output sample depends on, itself included."""
        return self.convolution.width * (1 + (KERNEL_SIZE - 1) * sum(self.dilations))

    def bound_bytes(self, x: Tensor) -> int:
        """Returns the memory that the projected condition takes for x [B, C, T], were it kept."""
        length = 1 if self.condition_shape.local_features is None else x.shape[-1]
        layer = self.layers[0]
        assert isinstance(layer, ResidualLayer)
        return len(self.layers) * x.shape[0] * 2 * layer.channels * length * x.element_size()

    def _predict(
        self,
        x: Tensor,
        noise_label: Tensor,
        condition: Condition,
        biases: Iterable[Tensor | None],
        past: Past | None = None,
    ) -> Tensor:
        mask = condition.mask(x)
        rows = step_embedding(noise_label, self.noise_embedding.dim, self.noise_embedding.exponent)
        embedding = self.embedding(rows)
        x = torch.relu(self.input_projection(x))
        skips: Tensor | None = None
        for layer, bias in zip(self.layers, biases, strict=True):
            if self.checkpointing and self.training:
                x, skip = checkpoint(layer, x, embedding, bias, mask, use_reentrant=False)
            else:
                x, skip = layer(x, embedding, bias, mask, past)
            skips = skip if skips is None else skips + skip
        assert skips is not None
        hidden = torch.relu(self.skip_projection(skips / math.sqrt(len(self.layers))))
        output: Tensor = self.output_projection(hidden)
        return output if mask is None else output * mask

    def _biases(self, condition: Condition, length: int, past: Past | None = None) -> Iterator[Tensor | None]:
        """Yields what the condition adds to each layer's gate, [B, 2C, T], [B, 2C, 1] or None."""
        check_features(condition, self.condition_shape.local_features, self.condition_shape.vector_features)
        local: Tensor | None = None
        for n, layer in enumerate(self.layers):
            if n < len(self.upsamplers):
                local = self._upsample(n, condition, length, past)
            assert isinstance(layer, ResidualLayer)
            yield layer.condition_bias(local, condition.vector)

    def _upsample(self, n: int, condition: Condition, length: int, past: Past | None = None) -> Tensor:
        """Returns the local condition [B, D, T] through upsampler n, cut to the frames that T needs."""
        assert condition.local is not None
        frames = None if condition.frames is None else _frames(condition.frames, self.hop_length)
        local = cover(condition.local, length, self.hop_length)
        upsampled: Tensor = self.upsamplers[n](local, frames, past)
        return upsampled[..., :length]


class BoundWaveNet:
    """A WaveNet and one condition: (x, noise_label) -> prediction.

    Without gradients on a CPU it runs in tiles, with the weights that the network has at the first call. Elsewhere,
    at the first call, and again only if the length of x changes, it computes what every layer adds for the
    condition and keeps it, residual_layers tensors of [B, 2C, T], unless they take more than BOUND_BYTES.
    """

    def __init__(self, network: WaveNet, condition: Condition) -> None:
        self._network = network
        self._condition = condition
        self._tiled: TiledWaveNet | None = None
        self._length = -1
        self._biases: tuple[Tensor | None, ...] = ()

    def __call__(self, x: Tensor, noise_label: Tensor) -> Tensor:
        """Returns the prediction [B, C, T] for x [B, C, T] and noise_label [B]."""
        if runs_in_tiles(self._network, x):
            self._tiled = self._tiled or TiledWaveNet(self._network, self._condition)
            return self._tiled(x, noise_label)
        if self._network.bound_bytes(x) > BOUND_BYTES:
            return self._network(x, noise_label, self._condition)
        if x.shape[-1] != self._length:
            self._biases = tuple(self._network._biases(self._condition, x.shape[-1]))
            self._length = x.shape[-1]
        return self._network._predict(x, noise_label, self._condition, self._biases)


class ResidualLayer(nn.Module):
    """One gated dilated convolution with its residual and skip outputs."""

    def __init__(
        self,
        channels: int,
        skip_channels: int,
        dilation: int,
        embedding: NoiseEmbedding,
        condition: ConditionShape,
        convolution: DilatedConvolution = ZERO_PADDED,
    ) -> None:
        """Builds the layer; Args as in `WaveNet`."""
        super().__init__()
        self.channels = channels
        self.in_residual = embedding.in_residual
        self.step_projection = nn.Linear(embedding.out_dim, channels)
        self.dilated = convolution(channels, 2 * channels, dilation)
        local, vector = condition.local_features, condition.vector_features
        self.local_projection = None if local is None else _conv(local, 2 * channels)
        self.vector_projection = None if vector is None else nn.Linear(vector, 2 * channels)
        self.output_projection = _conv(channels, channels + skip_channels)

    def condition_bias(self, local: Tensor | None, vector: Tensor | None) -> Tensor | None:
        """Returns what the conditions add to the gate: [B, 2C, T], [B, 2C, 1] or None.

        Args:
            local: [B, D, T], already at the sample rate.
            vector: [B, D].
        """
        bias: Tensor | None = None
        if self.local_projection is not None:
            bias = self.local_projection(local)
        if self.vector_projection is not None:
            projected: Tensor = self.vector_projection(vector)[..., None]
            bias = projected if bias is None else bias + projected
        return bias

    def is_plain(self) -> bool:
        """Returns whether the layer is no more than its weights: no other convolution, adapter, shard or hook."""
        return type(self) is ResidualLayer and all(
            isinstance(part, nn.Conv1d | nn.Linear)
            and all(type(weight) is nn.Parameter for weight in part.parameters())
            and not part._forward_hooks
            and not part._forward_pre_hooks
            for part in self.children()
        )

    def forward(
        self,
        x: Tensor,
        embedding: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
        past: Past | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the next x [B, C, T] and the skip [B, S, T].

        Args:
            x: [B, C, T].
            embedding: [B, out_dim] of the noise label.
            bias: from `condition_bias`.
            mask: [B, 1, T], 1 at valid samples; None when all are.
            past: of a causal layer, where x goes on from samples before.
        """
        noisy = x + self.step_projection(embedding)[..., None]
        gate = self.dilated(noisy, mask) if past is None else self.dilated(noisy, mask, past)
        if bias is not None:
            gate = gate + bias
        gated = torch.tanh(gate[:, : self.channels]) * torch.sigmoid(gate[:, self.channels :])
        output = self.output_projection(gated)
        residual, skip = output[:, : self.channels], output[:, self.channels :]
        return ((noisy if self.in_residual else x) + residual) / math.sqrt(2.0), skip


def _conv(in_channels: int, out_channels: int) -> nn.Conv1d:
    conv = nn.Conv1d(in_channels, out_channels, 1)
    nn.init.kaiming_normal_(conv.weight)
    return conv


def _frames(samples: Tensor, hop_length: int) -> Tensor:
    return (samples + hop_length - 1) // hop_length
