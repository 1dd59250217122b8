"""A WaveNet without gradients on a CPU: tiles of samples that pass through all layers while they are in the cache.

Layer n works on the newest samples that its dilation d lets it, d behind the layer before it, and keeps the 2 d
columns that its next tile looks back to. So memory does not grow with the length, and nothing is allocated but the
output. What does not change over time is never added to a signal: noise embedding and biases travel along the stack
as vectors, u_n = c_n + s_n with c_n+1 = (c_n + b_n) / sqrt(2), and enter a convolution through its bias, less what
the taps beyond the ends miss. The condition joins the convolution's sum as one more product, its bias as a column of
ones. The gate is one sigmoid over both halves: tanh(a) sigmoid(b) = 2 (sigmoid(2 a) - 1/2) sigmoid(b).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from audiodiff.networks.blocks import FrameUpsampler, check_features, cover, step_embedding
from audiodiff.networks.dilated import _CausalConv1d, _ZeroPaddedConv1d
from audiodiff.networks.upsampled_rows import UpsampledRows, shift
from audiodiff.types import Condition

if TYPE_CHECKING:
    from audiodiff.networks.wavenet import ResidualLayer, WaveNet

TILE_VALUES = 2**18  # of the gate in one tile: 1 MiB of float32, about what a core's second-level cache holds
KEPT_BYTES = 64 * 2**20  # of upsampled conditions; beyond, they are made again in every evaluation
_SHRINK = math.sqrt(0.5)


def runs_in_tiles(network: WaveNet, x: Tensor) -> bool:
    """Returns whether `TiledWaveNet` can take the network's place for x, here and now."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.dtype == network.input_projection.weight.dtype
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and all(layer.is_plain() and _offsets(layer.dilated) for layer in _layers(network))
        and all(type(upsampler) is FrameUpsampler for upsampler in network.upsamplers)
    )


class TiledWaveNet:
    """A WaveNet and one condition: (x, noise_label) -> prediction, from the weights as they were when it was made."""

    def __init__(
        self,
        network: WaveNet,
        condition: Condition,
        tile_values: int = TILE_VALUES,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """Arranges the weights.

        Args:
            network: one for which `runs_in_tiles`.
            condition: what it is told.
            tile_values: values of the gate in one tile.
            kept_bytes: memory that upsampled conditions may take from one call to the next.

        Raises:
            InputError: the condition is not of the network's sizes.
        """
        shape = network.condition_shape
        check_features(condition, shape.local_features, shape.vector_features)
        self._network = network
        self._condition = condition
        self._tile = max(1, tile_values // (2 * _layers(network)[0].channels))
        self._kept_bytes = kept_bytes
        self._length = -1
        with torch.inference_mode(False), torch.no_grad():  # tensors that serve in either mode
            self._weights = _Weights.of(network)
            self._told = _vector_biases(network, condition)

    def __call__(self, x: Tensor, noise_label: Tensor) -> Tensor:
        """Returns the prediction [B, C, T] for x [B, C, T] and noise_label [B]."""
        items, length = x.shape[0], x.shape[-1]
        if length != self._length:
            with torch.inference_mode(False), torch.no_grad():
                self._stream = _Stream(self._weights, min(self._tile, max(length, 1)))
                self._locals = self._local_rows(items, length)
            self._length = length
        lengths = [length] * items
        if self._condition.frames is not None:
            lengths = self._condition.frames.clamp(0, length).expand(items).tolist()
        output = x.new_zeros(items, len(self._weights.output), length)
        gates, missing = self._biases(noise_label)
        for item, valid in enumerate(lengths):
            own = min(item, len(gates) - 1)
            self._stream.run(
                x[item], output[item], valid, gates[own], missing[own], self._begin_local(item, valid)
            )
        return output

    def _biases(self, noise_label: Tensor) -> tuple[Tensor, Tensor]:
        """Returns each layer's bias of the gate [B, N, 2C], and each tap's part in it for the shift, [B, N, 3, 2C]."""
        weights, network = self._weights, self._network
        settings = network.noise_embedding
        embedding = network.embedding(step_embedding(noise_label, settings.dim, settings.exponent))
        shifts = torch.addmm(weights.step_bias, embedding, weights.step).unflatten(
            1, (len(weights.offsets), -1)
        )
        added = weights.residual_bias + shifts if settings.in_residual else weights.residual_bias
        seen = weights.carried @ added + shifts
        missing = (seen[:, :, None, None] @ weights.taps)[:, :, :, 0]
        return weights.gate_bias + self._told + missing.sum(2), missing

    def _local_rows(self, items: int, length: int) -> list[list[UpsampledRows]]:
        """Returns each item's upsampled condition for each upsampler; where it is not kept, one for all items."""
        network, local = self._network, self._condition.local
        if local is None:
            return []
        hop_length = network.hop_length
        covered = cover(local, length, hop_length).expand(items, -1, -1)
        self._covered = [item.contiguous() for item in covered]
        whole, upsamplers = -(-length // hop_length) * hop_length, len(network.upsamplers)
        row_bytes = (local.shape[1] + 1) * local.element_size()
        keeps = items * upsamplers * whole * row_bytes <= self._kept_bytes
        span = self._stream.tile + (self._stream.lag if upsamplers == 1 else 0)
        capacity = whole if keeps else min(whole, span + 2 * hop_length)
        return [
            [
                UpsampledRows(upsampler, hop_length, local.new_ones(capacity, local.shape[1] + 1))  # type: ignore[arg-type]
                for upsampler in network.upsamplers
            ]
            for _ in range(items if keeps else 1)
        ]

    def _begin_local(self, item: int, valid: int) -> list[UpsampledRows]:
        if not self._locals:
            return []
        rows = self._locals[min(item, len(self._locals) - 1)]
        for each in rows:
            each.begin(self._covered[item], -(-valid // self._network.hop_length))
        return rows


@dataclass(frozen=True)
class _Weights:
    """A network's N layers as their products take them: rows are what goes in, columns what comes out.

    Whatever reaches the first half of a gate is doubled, and so is what follows the gate. C channels of the
    residual path, S of the skips, E features of the noise embedding, D of the local condition, A and O channels
    of x and of the prediction.
    """

    offsets: tuple[tuple[int, ...], ...]  # of each layer's taps, in samples
    input: Tensor  # [A, C]
    input_bias: Tensor  # [C]
    step: Tensor  # [E, N C]
    step_bias: Tensor  # [N C]
    carried: Tensor  # [N, N], what is left at layer n of a constant added to the residual path by layer m
    taps: Tensor  # [N, 3, C, 2C]
    gate_bias: Tensor  # [N, 2C]
    local: Tensor | None  # [N, D, 2C]
    residual: Tensor  # [N, C, C], the division by sqrt(2) included
    residual_bias: Tensor  # [N, C]
    skip: Tensor  # [N, C, S]
    last: Tensor  # [S, S]
    last_bias: Tensor  # [S]
    output: Tensor  # [O, S]
    output_bias: Tensor  # [O, 1]

    @classmethod
    def of(cls, network: WaveNet) -> _Weights:
        """Returns copies of the network's weights."""
        layers = _layers(network)
        channels, count = layers[0].channels, len(layers)
        outputs = torch.stack([2 * _matrix(layer.output_projection) for layer in layers])
        output_bias = torch.stack([_bias(layer.output_projection) for layer in layers])
        gate_bias = torch.stack([_bias(layer.dilated) for layer in layers])
        local = None
        if network.upsamplers:
            gate_bias = gate_bias + torch.stack([_bias(layer.local_projection) for layer in layers])
            local = _doubled(torch.stack([_matrix(layer.local_projection) for layer in layers]), channels)
        taps = torch.stack([layer.dilated.get_parameter("weight").permute(2, 1, 0) for layer in layers])
        ages = torch.arange(count)[:, None] - torch.arange(count)
        last = _matrix(network.skip_projection) / math.sqrt(count)
        return cls(
            offsets=tuple(_offsets(layer.dilated) for layer in layers),
            input=_matrix(network.input_projection).contiguous(),
            input_bias=_bias(network.input_projection).clone(),
            step=torch.cat([layer.step_projection.weight for layer in layers]).T.contiguous(),
            step_bias=torch.cat([_bias(layer.step_projection) for layer in layers]),
            carried=torch.where(ages > 0, _SHRINK ** ages.double(), 0.0).to(outputs.dtype),
            taps=_doubled(taps, channels),
            gate_bias=_doubled(gate_bias, channels),
            local=local,
            residual=_SHRINK * outputs[:, :, :channels],
            residual_bias=output_bias[:, :channels].contiguous(),
            skip=outputs[:, :, channels:].contiguous(),
            last=last.contiguous(),
            last_bias=_bias(network.skip_projection) + output_bias[:, channels:].sum(0) @ last,
            output=_matrix(network.output_projection).T.contiguous(),
            output_bias=_bias(network.output_projection)[:, None].clone(),
        )


class _Stream:
    """The buffers between the layers, and how far each layer has come."""

    def __init__(self, weights: _Weights, tile: int) -> None:
        count, channels = weights.taps.shape[0], weights.taps.shape[2]
        skips, new, local = weights.skip.shape[2], weights.taps.new_empty, weights.local
        self.tile = tile
        self.lag = sum(offsets[-1] for offsets in weights.offsets)
        self._weights = weights
        self._local = None if local is None else torch.cat([local, new(count, 1, 2 * channels)], 1)
        self._inputs = [new(offsets[-1] - offsets[0] + tile, channels) for offsets in weights.offsets]
        self._gate = new(tile, 2 * channels)
        self._gated = new(tile, channels)
        self._skips = new(tile + self.lag, skips)
        self._last = new(tile, skips)
        self._done = [0] * (count + 1)  # samples that the input projection and each layer have put out

    def run(
        self,
        x: Tensor,
        output: Tensor,
        length: int,
        gates: Tensor,
        missing: Tensor,
        local_rows: Sequence[UpsampledRows],
    ) -> None:
        """Computes one item.

        Args:
            x: [A, T].
            output: [O, T], whose valid samples are filled.
            length: valid samples.
            gates: [N, 2C], bias of each gate.
            missing: [N, 3, 2C], what of it is due to each tap.
            local_rows: the local condition, one for all layers, one for each, or none.
        """
        if self._local is not None:
            self._local[:, -1] = gates
        self._done = [0] * len(self._done)
        for buffer, offsets in zip(self._inputs, self._weights.offsets, strict=True):
            buffer[: -offsets[0]].zero_()
        tile = -(-length // max(1, -(-length // self.tile)))  # as even as whole tiles can be
        while (given := self._done[-1]) < length:
            self._take(x, min(tile, length - self._done[0]))
            for n in range(len(self._inputs)):
                rows = self._ready(n, tile, length)
                if rows > 0:
                    self._convolve(n, rows, length, gates, missing, local_rows)
                    self._pass_on(n, rows, length, given)
            self._give(output, given)

    def _take(self, x: Tensor, rows: int) -> None:
        """Projects the next samples of x and puts them before the first layer."""
        done = self._done[0]
        start = done - self._done[1] - self._weights.offsets[0][0]
        taken = self._inputs[0][start : start + rows]
        torch.addmm(
            self._weights.input_bias, x[:, done : done + rows].T, self._weights.input, out=taken
        ).relu_()
        self._done[0] += rows

    def _ready(self, n: int, tile: int, length: int) -> int:
        """Returns how many positions layer n can put out now; beyond the last sample it sees zeros."""
        before, done, offsets = self._done[n], self._done[n + 1], self._weights.offsets[n]
        if before < length:
            return min(tile, before - offsets[-1] - done)
        rows = min(tile, length - done)
        self._inputs[n][length - done - offsets[0] : rows + offsets[-1] - offsets[0]].zero_()
        return rows

    def _convolve(
        self,
        n: int,
        rows: int,
        length: int,
        gates: Tensor,
        missing: Tensor,
        local_rows: Sequence[UpsampledRows],
    ) -> None:
        """Fills the gate of layer n, before its sigmoid."""
        gate, buffer, done = self._gate[:rows], self._inputs[n], self._done[n + 1]
        offsets, taps = self._weights.offsets[n], self._weights.taps[n]
        if self._local is None:
            torch.addmm(gates[n], buffer[:rows], taps[0], out=gate)
        else:
            shared = len(local_rows) == 1
            keep = self._done[-1] if shared else done
            local = local_rows[0 if shared else n].rows(done, done + rows, keep)
            torch.mm(local, self._local[n], out=gate).addmm_(buffer[:rows], taps[0])
        for tap, offset in enumerate(offsets):
            if tap > 0:
                start = offset - offsets[0]
                gate.addmm_(buffer[start : start + rows], taps[tap])
            if done < -offset:
                gate[: -offset - done].sub_(missing[n, tap])
            if offset > length - done - rows:
                gate[max(0, length - offset - done) :].sub_(missing[n, tap])

    def _pass_on(self, n: int, rows: int, length: int, given: int) -> None:
        """Adds the gate's signal to the skips and to the residual path, and moves layer n's buffer on."""
        gate, gated, buffer = self._gate[:rows].sigmoid_(), self._gated[:rows], self._inputs[n]
        channels, weights, done = gated.shape[1], self._weights, self._done[n + 1]
        torch.mul(gate[:, :channels], gate[:, channels:], out=gated).sub_(gate[:, channels:], alpha=0.5)
        skips = self._skips[done - given : done - given + rows]
        if n == 0:
            torch.mm(gated, weights.skip[n], out=skips)
        else:
            skips.addmm_(gated, weights.skip[n])
        behind = -weights.offsets[n][0]
        if n + 1 < len(self._inputs):
            start = done - self._done[n + 2] - weights.offsets[n + 1][0]
            onward = self._inputs[n + 1][start : start + rows]
            torch.addmm(buffer[behind : behind + rows], gated, weights.residual[n], beta=_SHRINK, out=onward)
        if done + rows < length:
            shift(buffer, rows, behind + self._done[n] - done - rows)
        self._done[n + 1] += rows

    def _give(self, output: Tensor, given: int) -> None:
        """Turns the sums of skips that are whole into the prediction."""
        done, weights = self._done[-1], self._weights
        rows = done - given
        if rows == 0:
            return
        last = torch.addmm(weights.last_bias, self._skips[:rows], weights.last, out=self._last[:rows]).relu_()
        torch.addmm(weights.output_bias, weights.output, last.T, out=output[:, given:done])
        if done < self._done[1]:
            shift(self._skips, rows, self._done[1] - done)


def _layers(network: WaveNet) -> list[ResidualLayer]:
    return list(network.layers)  # type: ignore[arg-type]


def _matrix(convolution: nn.Module | None) -> Tensor:
    """Returns the weights [in, out] of a convolution of size 1."""
    assert isinstance(convolution, nn.Conv1d)
    return convolution.weight[..., 0].T


def _bias(layer: nn.Module | None) -> Tensor:
    assert isinstance(layer, nn.Conv1d | nn.Linear)
    assert layer.bias is not None
    return layer.bias


def _offsets(dilated: nn.Module) -> tuple[int, ...]:
    """Returns how far each tap lies from the position it serves, () for a convolution that is more than its taps."""
    if type(dilated) is _ZeroPaddedConv1d:
        return (-dilated.reach, 0, dilated.reach)
    if type(dilated) is _CausalConv1d:
        return (-2 * dilated.reach, -dilated.reach, 0)
    return ()


def _vector_biases(network: WaveNet, condition: Condition) -> Tensor:
    """Returns what the vector adds to each layer's gate, [B, N, 2C], or 0."""
    layers = _layers(network)
    if condition.vector is None:
        return network.input_projection.weight.new_zeros(())
    told = [layer.vector_projection(condition.vector) for layer in layers]  # type: ignore[misc]
    return _doubled(torch.stack(told, dim=1), layers[0].channels)


def _doubled(values: Tensor, channels: int) -> Tensor:
    """Returns values [..., 2C] with the first half of the gate doubled."""
    first, second = values.split(channels, dim=-1)
    return torch.cat([2 * first, second], dim=-1)
