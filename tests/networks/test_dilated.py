"""Laws of the kinds of dilated convolution, in a layer and in the WaveNet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from audiodiff.networks.dilated import DilatedConvolution, FrequencyAware, Reflected, ZeroPadded
from audiodiff.networks.wavenet import NoiseEmbedding, WaveNet
from audiodiff.types import Condition

KINDS = [ZeroPadded(), Reflected(), FrequencyAware()]
NAMES = ["zeros", "reflection", "sub-bands"]


def build(convolution: DilatedConvolution, layers: int = 4, channels: int = 6) -> WaveNet:
    torch.manual_seed(0)
    embedding = NoiseEmbedding(dim=8, hidden_dim=12, out_dim=10)
    network = WaveNet(layers, channels, channels, 3, 2, embedding, convolution=convolution)
    nn.init.normal_(network.output_projection.weight)
    return network


def layer(convolution: DilatedConvolution, dilation: int = 2) -> nn.Conv1d:
    torch.manual_seed(0)
    made = convolution(3, 4, dilation)
    assert isinstance(made, nn.Conv1d)
    return made


@pytest.mark.parametrize("convolution", KINDS, ids=NAMES)
@torch.no_grad()
def test_item_in_a_padded_batch_equals_the_item_alone(convolution: DilatedConvolution) -> None:
    network, lengths = build(convolution), torch.tensor([20, 9, 1, 4])
    x, labels = torch.randn(4, 2, 21) * 10, torch.tensor([0.0, 17.5, 49.0, 3.0])
    together = network(x, labels, Condition(frames=lengths))
    for i, length in enumerate(lengths.tolist()):
        alone = network(x[i : i + 1, :, :length], labels[i : i + 1], Condition())
        torch.testing.assert_close(together[i : i + 1, :, :length], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("convolution", KINDS, ids=NAMES)
@torch.no_grad()
def test_lengths_are_exact_in_half_precision(convolution: DilatedConvolution) -> None:
    made, x = layer(convolution), torch.randn(1, 3, 301)
    mask = (torch.arange(301) < 299)[None, None].bfloat16()
    found = made.bfloat16()(x.bfloat16(), mask)[..., :299]
    torch.testing.assert_close(found, made(x[..., :299].bfloat16(), None), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("convolution", KINDS, ids=NAMES)
def test_receptive_field_is_where_the_gradient_is(convolution: DilatedConvolution) -> None:
    network = build(convolution, layers=4, channels=16).double()
    field = network.receptive_field()
    middle = 2 * field
    x = torch.randn(1, 2, 4 * field, dtype=torch.float64, requires_grad=True)
    network(x, torch.zeros(1), Condition())[0, 0, middle].backward()
    assert x.grad is not None
    touched = x.grad[0, 0].nonzero().flatten()
    assert int(touched[-1] - touched[0]) + 1 == field


@pytest.mark.parametrize("convolution", KINDS, ids=NAMES)
def test_gradient_reaches_every_parameter(convolution: DilatedConvolution) -> None:
    network = build(convolution)
    network(torch.randn(2, 2, 13), torch.tensor([2.0, 30.0]), Condition()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_reflection_is_that_of_numpy_at_any_length() -> None:
    import numpy as np

    made = layer(Reflected(), dilation=5)
    for length in (1, 2, 3, 5, 6, 20):
        x = torch.randn(2, 3, length)
        padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (5, 5)), mode="reflect"))
        expected = functional.conv1d(padded, made.weight, made.bias, dilation=5)
        torch.testing.assert_close(made(x, None), expected)
        torch.testing.assert_close(made(x, torch.ones(2, 1, length)), expected)


def haar(x: Tensor) -> Tensor:
    return torch.cat([x[..., ::2] + x[..., 1::2], x[..., ::2] - x[..., 1::2]], 1) / 2**0.5


@torch.no_grad()
def test_bands_of_the_output_are_the_convolution_of_the_bands_of_the_input() -> None:
    made, x = layer(FrequencyAware(), dilation=3), torch.randn(2, 3, 30)
    expected = functional.conv1d(haar(x), made.weight, made.bias, padding=3, dilation=3)
    torch.testing.assert_close(haar(made(x, None)), expected, rtol=1e-5, atol=1e-5)
    # An odd length is one of silence more.
    longer = functional.pad(x[..., :29], (0, 1))
    torch.testing.assert_close(made(x[..., :29], None), made(longer, None)[..., :29])
