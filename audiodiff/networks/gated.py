"""A stack of gated residual layers in training on a CPU, where memory traffic and not arithmetic takes the time.

Layer n computes, with dilation d and W_k the taps of its convolution, s its noise shift and c its condition:

    u = b + V c + sum_k W_k (x + s)[t + (k - 1) d]      h = tanh(u_1) sigmoid(u_2)
    x' = (x + R h) / sqrt(2)                            skips += S h

(Kong et al. 2021, "DiffWave", figure 2). All of it happens in tiles of some thousand samples that stay in the cache,
channels last, as matrix products that add to what is there. For the backward pass only x and the two sigmoids are
kept, tanh(a) being 1 - 2 sigmoid(-2 a). What does not change over time is never added to a signal: shifts and biases
travel along the stack as vectors, and enter a convolution through its bias, less what the taps beyond the ends miss.
The derivative of the gradient is not implemented.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Samples that are worked on at a time: a tile's activations fit the second-level cache of a core.
TILE = 2048
SHRINK = 1.0 / math.sqrt(2.0)


@dataclass(frozen=True)
class GatedLayer:
    """What one layer multiplies and adds.

    Attributes:
        dilation: of the convolution.
        taps: [2C, C, 3], weights of the zero-padded convolution.
        gate_bias: [1 or B, 2C], all that is added to the gate and does not change over time.
        shift: [B, C], added to x before the convolution.
        local: [2C, D], projection of the local condition; None for a layer that hears none.
        output: [C + S, C], the residual's weights and below them the skip's.
        output_bias: [C + S].
    """

    dilation: int
    taps: Tensor
    gate_bias: Tensor
    shift: Tensor
    local: Tensor | None
    output: Tensor
    output_bias: Tensor


def sum_of_skips(
    x: Tensor,
    locals_: Sequence[Tensor],
    layers: Sequence[GatedLayer],
    lengths: Sequence[int],
    in_residual: bool,
    keep_gates: bool,
) -> Tensor:
    """Returns the skips of all layers, added up, [B, T, S]; beyond an item's length they mean nothing.

    Args:
        x: [B, T, C], float32 or float64, on the CPU.
        locals_: local conditions [B, T, D], one for all layers, one for each, or none at all.
        layers: in order, of equal sizes.
        lengths: [B], valid samples of each item; those beyond count as zeros.
        in_residual: whether the shift is added to x itself, so that it also travels along the residual path.
        keep_gates: False computes the gates again in the backward pass, for memory.
    """
    channels = x.shape[-1]
    # u_1 is kept as -2 u_1, because 1 - 2 sigmoid(-2 a) is tanh(a) and sigmoid is much the faster of the two.
    signs = torch.cat([x.new_full((channels,), -2.0), x.new_ones(channels)])
    biases, lefts, rights, skip_bias = [], [], [], x.new_zeros(())
    carried = torch.zeros_like(x[:, 0])  # what is the same at all samples of x, which the tensor itself lacks
    for layer in layers:
        shift = carried + layer.shift
        left, centre, right = torch.einsum("oik,bi->kbo", layer.taps, shift)
        biases.append(layer.gate_bias + left + centre + right)
        lefts.append(left)
        rights.append(right)
        residual_bias = layer.output_bias[:channels]
        carried = SHRINK * ((shift if in_residual else carried) + residual_bias)
        skip_bias = skip_bias + layer.output_bias[channels:]
    output = torch.stack([layer.output for layer in layers]).transpose(1, 2)  # [N, C, C + S]
    projections = [layer.local for layer in layers if layer.local is not None]
    skips: Tensor = _Stack.apply(
        _Plan(tuple(layer.dilation for layer in layers), tuple(lengths), keep_gates),
        x,
        signs * torch.stack([torch.stack(biases), torch.stack(lefts), torch.stack(rights)]),
        signs
        * torch.stack([layer.taps for layer in layers]).permute(0, 3, 2, 1).contiguous(),  # [N, 3, C, 2C]
        SHRINK * output[..., :channels].contiguous(),
        output[..., channels:].contiguous(),
        signs * torch.stack(projections).transpose(1, 2).contiguous() if projections else None,  # [N, D, 2C]
        *locals_,
    )
    return skips + skip_bias


@dataclass(frozen=True)
class _Plan:
    """What is no tensor: dilation of each layer, valid samples of each item, whether gates are kept."""

    dilations: tuple[int, ...]
    lengths: tuple[int, ...]
    keep_gates: bool

    def tiles(self, item: int) -> Iterator[slice]:
        length = self.lengths[item]
        for start in range(0, length, TILE):
            yield slice(start, min(start + TILE, length))

    def reads(self, layer: int, item: int, tile: slice) -> Iterator[tuple[int, slice, slice]]:
        """Yields each tap with the samples of x that it reads and the places in the tile that they go to."""
        for tap, offset in enumerate((-self.dilations[layer], 0, self.dilations[layer])):
            start, stop = max(tile.start, -offset), min(tile.stop, self.lengths[item] - offset)
            if start < stop:
                yield tap, slice(start + offset, stop + offset), slice(start - tile.start, stop - tile.start)

    def ends(self, layer: int, item: int, tile: slice) -> Iterator[tuple[int, slice]]:
        """Yields 1 with the places in the tile whose left tap is beyond the start, 2 with those at the end."""
        size, beyond = tile.stop - tile.start, self.dilations[layer]
        if beyond > tile.start:
            yield 1, slice(0, min(beyond - tile.start, size))
        if tile.stop > self.lengths[item] - beyond:
            yield 2, slice(max(self.lengths[item] - beyond - tile.start, 0), size)


@dataclass(frozen=True)
class _Weights:
    """Weights of N layers: biases [3, N, B, 2C] (all; beyond the start; beyond the end), taps [N, 3, C, 2C],
    residual [N, C, C], skip [N, C, S], projection [N, D, 2C] or None."""

    biases: Tensor
    taps: Tensor
    residual: Tensor
    skip: Tensor
    projection: Tensor | None


class _Stack(torch.autograd.Function):
    """The layers, given as stacked weights; see `sum_of_skips`."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: _Plan,
        x: Tensor,
        biases: Tensor,
        taps: Tensor,
        residual: Tensor,
        skip: Tensor,
        projection: Tensor | None,
        *locals_: Tensor,
    ) -> Tensor:
        """Returns the sum of the skips [B, T, S]."""
        forward = _Forward(plan, _Weights(biases, taps, residual, skip, projection), x, locals_)
        skips = forward.run()
        ctx.plan = plan
        ctx.save_for_backward(
            biases, taps, residual, skip, projection, *locals_, *forward.states, *forward.gates
        )
        return skips

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_skips: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of forward's arguments."""
        weights, rest, layers = (
            _Weights(*ctx.saved_tensors[:5]),
            ctx.saved_tensors[5:],
            len(ctx.plan.dilations),
        )
        count = len(rest) - layers * (2 if ctx.plan.keep_gates else 1)
        locals_, states, gates = rest[:count], rest[count : count + layers], rest[count + layers :]
        backward = _Backward(ctx.plan, weights, locals_, grad_skips)
        backward.run(states, gates)
        found = backward.grads
        return (
            None,
            backward.grad,
            found.biases,
            found.taps,
            found.residual,
            found.skip,
            found.projection,
            *backward.grad_locals,
        )


class _Forward:
    """The forward pass and what it keeps."""

    def __init__(self, plan: _Plan, weights: _Weights, x: Tensor, locals_: Sequence[Tensor]) -> None:
        self.plan, self.weights, self.locals = plan, weights, locals_
        self.states: list[Tensor] = [x.contiguous()]
        self.gates: list[Tensor] = []

    def run(self) -> Tensor:
        """Returns the sum of the skips. Item by item, since one item's signals stay in the cache."""
        batch, length, channels = self.states[0].shape
        layers = len(self.plan.dilations)
        self.states += [torch.empty_like(self.states[0]) for _ in range(layers - 1)]
        if self.plan.keep_gates:
            self.gates = [self.states[0].new_empty(batch, length, 2 * channels) for _ in range(layers)]
        self.skips = self.states[0].new_zeros(batch, length, self.weights.skip.shape[-1])
        self.workspace = [self.skips.new_empty(TILE, width) for width in (2 * channels, channels)]
        for item in range(batch):
            for n in range(layers):
                self._layer(n, item)
        return self.skips

    def _layer(self, n: int, item: int) -> None:
        x, local = self.states[n][item], _of_layer(self.locals, n)
        for tile in self.plan.tiles(item):
            gate, gated = (each[: tile.stop - tile.start] for each in self.workspace)
            if self.plan.keep_gates:
                gate = self.gates[n][item, tile]
            _open_gate(self.plan, self.weights, (n, item, tile), x, local, gate)
            _gated(gate, gated)
            if n + 1 < len(self.states):
                out = self.states[n + 1][item, tile]
                torch.addmm(x[tile], gated, self.weights.residual[n], beta=SHRINK, out=out)
            self.skips[item, tile].addmm_(gated, self.weights.skip[n])


class _Backward:
    """The backward pass: what it finds is in `grad` (of x), `grads` (of the weights) and `grad_locals`."""

    def __init__(self, plan: _Plan, weights: _Weights, locals_: Sequence[Tensor], grad_skips: Tensor) -> None:
        self.plan, self.weights, self.locals = plan, weights, locals_
        self.grad_skips = grad_skips.contiguous()
        self.grads = _Weights(
            biases=torch.zeros_like(weights.biases),
            taps=torch.zeros_like(weights.taps),
            residual=torch.zeros_like(weights.residual),
            skip=torch.zeros_like(weights.skip),
            projection=None if weights.projection is None else torch.zeros_like(weights.projection),
        )
        batch, length, _ = grad_skips.shape
        channels = weights.residual.shape[-1]
        self.grad = grad_skips.new_zeros(batch, length, channels)
        # Gradients of one layer's output and of its input, which is the output of the layer before.
        self.d_next, self.d_x = (grad_skips.new_empty(length, channels) for _ in range(2))
        self.grad_locals = [torch.zeros_like(local) for local in locals_]
        # The derivative of 1 - 2 sigmoid(u_1) has the factor -2, which is left to the weights.
        self.factors = torch.cat([self.grad.new_full((channels,), -2.0), self.grad.new_ones(channels)])
        self.taps = (weights.taps * self.factors).transpose(2, 3)
        self.projection = None
        if weights.projection is not None:
            self.projection = (weights.projection * self.factors).transpose(1, 2)
        self.workspace = [
            self.grad.new_empty(TILE, width) for width in (2 * channels, channels, channels, 2 * channels)
        ]

    def run(self, states: Sequence[Tensor], gates: Sequence[Tensor]) -> None:
        """Goes back through all layers, item by item."""
        for item, length in enumerate(self.plan.lengths):
            self.d_next.zero_()
            for n in reversed(range(len(states))):
                self._layer(n, item, states[n][item], gates[n][item] if gates else None)
            self.grad[item, :length] = self.d_next[:length]
        for grad in (self.grads.biases, self.grads.taps, self.grads.projection):
            if grad is not None:
                grad.mul_(self.factors)

    def _layer(self, n: int, item: int, x: Tensor, gates: Tensor | None) -> None:
        torch.mul(self.d_next, SHRINK, out=self.d_x)
        for tile in self.plan.tiles(item):
            d_gate, d_gated, gated, gate = (each[: tile.stop - tile.start] for each in self.workspace)
            if gates is None:
                _open_gate(self.plan, self.weights, (n, item, tile), x, _of_layer(self.locals, n), gate)
            else:
                gate = gates[tile]
            self._output(n, item, tile, gate, gated, d_gated)
            _gate_gradient(gate, d_gated, gated, d_gate)
            self._inputs(n, item, tile, x, d_gate)
        self.d_next, self.d_x = self.d_x, self.d_next

    def _output(self, n: int, item: int, tile: slice, gate: Tensor, gated: Tensor, d_gated: Tensor) -> None:
        """Goes back through the output's weights, to what the gate let through."""
        d_skip, d_following = self.grad_skips[item, tile], self.d_next[tile]
        _gated(gate, gated)
        torch.mm(d_skip, self.weights.skip[n].t(), out=d_gated)
        self.grads.skip[n].addmm_(gated.t(), d_skip)
        if n + 1 < len(self.plan.dilations):
            d_gated.addmm_(d_following, self.weights.residual[n].t())
            self.grads.residual[n].addmm_(gated.t(), d_following)

    def _inputs(self, n: int, item: int, tile: slice, x: Tensor, d_gate: Tensor) -> None:
        """Goes back through all that the gate is made of."""
        self.grads.biases[0, n, item] += d_gate.sum(0)
        for end, places in self.plan.ends(n, item, tile):
            self.grads.biases[end, n, item] -= d_gate[places].sum(0)
        for tap, source, target in self.plan.reads(n, item, tile):
            self.grads.taps[n, tap].addmm_(x[source].t(), d_gate[target])
            self.d_x[source].addmm_(d_gate[target], self.taps[n, tap])
        local, d_local = _of_layer(self.locals, n), _of_layer(self.grad_locals, n)
        if local is None or d_local is None or self.projection is None or self.grads.projection is None:
            return
        self.grads.projection[n].addmm_(local[item, tile].t(), d_gate)
        d_local[item, tile].addmm_(d_gate, self.projection[n])


def _of_layer(locals_: Sequence[Tensor], n: int) -> Tensor | None:
    return locals_[min(n, len(locals_) - 1)] if locals_ else None


def _open_gate(
    plan: _Plan,
    weights: _Weights,
    place: tuple[int, int, slice],
    x: Tensor,
    local: Tensor | None,
    out: Tensor,
) -> None:
    """Writes sigmoid(u) of a tile."""
    n, item, tile = place
    bias = weights.biases[0, n, item]
    if local is None or weights.projection is None:
        out.copy_(bias.expand_as(out))
    else:
        torch.addmm(bias, local[item, tile], weights.projection[n], out=out)
    for tap, source, target in plan.reads(n, item, tile):
        out[target].addmm_(x[source], weights.taps[n, tap])
    for end, places in plan.ends(n, item, tile):
        out[places] -= weights.biases[end, n, item]
    out.sigmoid_()


def _gated(gate: Tensor, out: Tensor) -> Tensor:
    """Returns h = (1 - 2 p) q for gate = [p, q]."""
    p, q = gate.chunk(2, 1)
    return torch.addcmul(q, p, q, value=-2, out=out)


def _gate_gradient(gate: Tensor, d_gated: Tensor, scratch: Tensor, out: Tensor) -> None:
    """Writes the gradient of u, its first half divided by -2, with dh = d_gated, which it overwrites."""
    (p, q), (d_first, d_second) = gate.chunk(2, 1), out.chunk(2, 1)
    d_gated.mul_(q)
    torch.ops.aten.sigmoid_backward.grad_input(d_gated, p, grad_input=d_first)  # dh q p (1 - p)
    torch.addcmul(d_gated, d_gated, p, value=-2, out=scratch)  # dh q (1 - 2 p)
    torch.addcmul(scratch, scratch, q, value=-1, out=d_second)
