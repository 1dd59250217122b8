"""The convolutional autoencoder: any length, a margin that is what the layers need, no more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiodiff.audio.latent_representation import Autoencoder
from audiodiff.errors import InputError
from audiodiff.networks.autoencoder import ConvolutionalAutoencoder, Levels, Snake

STRIDES = [(2, 4, 4), (3, 5), (4,), (8, 1, 2)]


def made(strides: tuple[int, ...], channels: int = 2, units: int = 1) -> ConvolutionalAutoencoder:
    levels = Levels([4] * len(strides) + [6], [units] * len(strides), strides)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConvolutionalAutoencoder(8000, channels, 3, levels).double()


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
def test_any_length_gives_whole_frames_and_its_samples_back(strides: tuple[int, ...], length: int) -> None:
    autoencoder = made(strides)
    assert isinstance(autoencoder, Autoencoder)
    frames = -(-length // autoencoder.hop_length)
    latents = autoencoder.encode(draw(2, 2, length))
    assert latents.shape == (2, 3, frames)
    assert autoencoder.decode(latents).shape == (2, 2, frames * autoencoder.hop_length)


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("units", [0, 2])
def test_the_margin_is_the_reach_of_the_layers(strides: tuple[int, ...], units: int) -> None:
    autoencoder = made(strides, 1, units)
    hop, margin = autoencoder.hop_length, autoencoder.margin
    middle, frames = margin + 1, 2 * margin + 3
    waveform = draw(1, 1, frames * hop).requires_grad_()
    autoencoder.encode(waveform)[..., middle].sum().backward()
    latents = draw(1, 3, frames).requires_grad_()
    span = slice(middle * hop, (middle + 1) * hop)
    autoencoder.decode(latents)[..., span].abs().sum().backward()
    reaches = []
    for leaf, scale in ((waveform, hop), (latents, 1)):
        assert leaf.grad is not None
        seen = leaf.grad.abs().sum((0, 1)).nonzero().flatten() // scale
        reaches.append(max(middle - int(seen.min()), int(seen.max()) - middle))
    assert max(reaches) == margin


def test_encoding_is_the_mean_of_the_posterior_whose_deviation_is_bounded() -> None:
    autoencoder = made((4, 4))
    waveform = 1e4 * draw(1, 2, 64)
    with torch.inference_mode():
        mean, std = autoencoder.posterior(waveform)
    assert torch.equal(mean, autoencoder.encode(waveform))
    assert float(std.min()) >= torch.tensor(-8.0).exp()
    assert float(std.max()) <= torch.tensor(2.0).exp()


def test_snake_adds_a_squared_sine() -> None:
    snake, x = Snake(2).double(), draw(1, 2, 5)
    with torch.no_grad():
        snake.frequency.copy_(torch.tensor([[1.0], [3.0]]))
    expected = x + (torch.tensor([[1.0], [3.0]]) * x).sin() ** 2 / torch.tensor([[1.0], [3.0]])
    torch.testing.assert_close(snake(x), expected)


@pytest.mark.parametrize(
    ("widths", "units", "strides", "words"),
    [
        ([4], [], [], "one width more than strides"),
        ([4, 4], [1], [2, 2], "one width more than strides"),
        ([4, 4], [-1], [2], "0 or more"),
        ([4, 0], [1], [2], "positive numbers"),
        ([4, 4], [1], [0], "positive numbers"),
    ],
)
def test_levels_that_do_not_fit_are_refused(
    widths: list[int], units: list[int], strides: list[int], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        Levels(widths, units, strides)


def test_an_even_kernel_and_no_features_are_refused() -> None:
    with pytest.raises(InputError, match="kernel_size 4"):
        ConvolutionalAutoencoder(8000, 1, 3, Levels([4, 4], [1], [2]), kernel_size=4)
    with pytest.raises(InputError, match="0 features"):
        ConvolutionalAutoencoder(8000, 1, 0, Levels([4, 4], [1], [2]))
