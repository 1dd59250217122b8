"""Laws of the latents: chunks give the whole, padding changes nothing, the autoencoder stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from audiodiff.audio.latent_representation import LatentRepresentation
from audiodiff.audio.mel import LogMel
from audiodiff.audio.mel_representation import MelRepresentation
from audiodiff.audio.representation import ComplexSTFT, Waveform
from audiodiff.audio.wavelet import Wavelet
from audiodiff.errors import InputError
from audiodiff.networks.autoencoder import ConvolutionalAutoencoder, Levels


class Folded(nn.Module):
    """A user's own autoencoder, lossless: a frame's samples are its latents; in training mode it adds a bias."""

    sample_rate, channels, hop_length, features, margin = 8000, 2, 8, 16, 0

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.longest = 0

    def encode(self, waveform: Tensor) -> Tensor:
        items, _, length = waveform.shape
        self.longest = max(self.longest, length)
        return (
            self.gain * waveform.reshape(items, 2, -1, 8).permute(0, 1, 3, 2).reshape(items, 16, -1)
            + self.training
        )

    def decode(self, latents: Tensor) -> Tensor:
        items = latents.shape[0]
        self.longest = max(self.longest, latents.shape[-1] * 8)
        return (latents / self.gain).reshape(items, 2, 8, -1).permute(0, 1, 3, 2).reshape(items, 2, -1)


def convolutional(chunk_seconds: float = 10.0) -> LatentRepresentation:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = ConvolutionalAutoencoder(8000, 2, 3, Levels([4, 4, 6], [1, 1], [4, 4]))
    made = LatentRepresentation(autoencoder, 8000, 2, chunk_seconds).double()
    made.std.copy_(torch.linspace(0.5, 2, 3))
    made.mean.copy_(torch.linspace(-1, 1, 3))
    return made


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 999, 4001])
def test_chunks_give_what_the_whole_gives(length: int) -> None:
    whole, chunked = convolutional(), convolutional(chunk_seconds=0.01)
    assert chunked.chunk_frames == 5
    waveform = draw(2, 2, length)
    x = whole.encode(waveform)
    assert x.shape[1:] == whole.shape(length)
    torch.testing.assert_close(chunked.encode(waveform), x, rtol=1e-12, atol=1e-12)
    decoded = whole.decode(x, length)
    assert decoded.shape == waveform.shape
    torch.testing.assert_close(chunked.decode(x, length), decoded, rtol=1e-12, atol=1e-12)


def test_a_margin_that_is_too_small_is_noticed_by_that_law() -> None:
    whole, chunked = convolutional(), convolutional(chunk_seconds=0.01)
    chunked.autoencoder.margin -= 1  # type: ignore[operator, assignment]
    waveform = draw(1, 2, 999)
    assert float((chunked.encode(waveform) - whole.encode(waveform)).abs().max()) > 1e-9


def test_the_autoencoder_sees_no_more_than_a_chunk_and_its_margins_at_a_time() -> None:
    autoencoder = Folded()
    representation = LatentRepresentation(autoencoder, 8000, 2, chunk_seconds=0.02)
    waveform = draw(1, 2, 5003).float()
    x = representation.encode(waveform)
    torch.testing.assert_close(representation.decode(x, 5003), waveform)
    assert autoencoder.longest == 160
    autoencoder.margin = None  # all depends on all: nothing can be cut
    torch.testing.assert_close(representation.encode(waveform), x)
    assert autoencoder.longest == 5008


def test_frames_of_a_padded_item_equal_the_item_alone() -> None:
    representation, waveform = convolutional(), draw(2, 2, 500)
    waveform[0, :, 203:] = 0
    together, alone = representation.encode(waveform), representation.encode(waveform[:1, :, :203])
    torch.testing.assert_close(together[:1, :, : alone.shape[-1]], alone, rtol=1e-12, atol=1e-12)


def test_the_autoencoder_is_frozen_and_stays_in_evaluation_mode() -> None:
    representation = LatentRepresentation(Folded(), 8000, 2)
    model = nn.ModuleDict({"representation": representation, "network": nn.Linear(2, 2)})
    waveform = draw(1, 2, 80).float()
    before = representation.encode(waveform)
    model.train()
    assert torch.equal(representation.encode(waveform), before)
    assert not any(weight.requires_grad for weight in representation.parameters())
    assert not before.requires_grad


def test_decoding_passes_gradients_on_to_x() -> None:
    representation = convolutional(chunk_seconds=0.01)
    x = draw(1, 3, 40).requires_grad_()
    representation.decode(x, 640).square().sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).any(1).all())


def test_half_precision_around_it_does_not_reach_the_autoencoder() -> None:
    representation, waveform = convolutional().float(), draw(1, 2, 300).float()
    exact = representation.encode(waveform)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(representation.encode(waveform), exact)
        decoded = representation.decode(exact, 300)
    assert torch.equal(decoded, representation.decode(exact, 300))


def test_statistics_and_weights_are_saved_together() -> None:
    names = set(convolutional().state_dict())
    assert {"mean", "std"} < names
    assert all(name.startswith("autoencoder.") for name in names - {"mean", "std"})


def test_dividing_by_the_measured_deviation_gives_unit_variance() -> None:
    representation = convolutional()
    representation.mean.zero_()
    representation.std.fill_(1)
    latents = representation.encode(draw(1, 2, 4000))[0]
    representation.mean.copy_(latents.mean(-1))
    representation.std.copy_(latents.std(-1, correction=0))
    x = representation.encode(draw(1, 2, 4000))[0]
    torch.testing.assert_close(
        representation.variances(x), torch.ones(3, dtype=torch.float64), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(x.mean(-1), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_every_representation_says_whether_decoding_gives_the_waveform_back() -> None:
    mel = LogMel(sample_rate=8000, n_fft=64, win_length=64, hop_length=16, n_mels=8)
    latents = convolutional().float()
    representations: list[Any] = [
        Waveform(8000, 2), ComplexSTFT(8000, 32, 16, 2), Wavelet(8000, 2), MelRepresentation(mel, 8000), latents,
    ]  # fmt: skip
    for representation in representations:
        waveform = draw(1, representation.channels, 333).float() / 8
        with torch.inference_mode():
            back = representation.decode(representation.encode(waveform), 333)
        same = torch.allclose(back, waveform, atol=1e-5)
        assert representation.exact == same, type(representation).__name__


@pytest.mark.parametrize(
    ("rate", "channels", "words"), [(16000, 2, "8000 Hz and 2 channel"), (8000, 1, "choose data to match it")]
)
def test_audio_that_the_autoencoder_does_not_take_is_refused(rate: int, channels: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        LatentRepresentation(Folded(), rate, channels)


def test_a_waveform_of_other_channels_chunks_of_no_length_and_what_is_no_autoencoder_are_refused() -> None:
    with pytest.raises(InputError, match=r"waveform of 1 channel\(s\), the autoencoder takes 2"):
        LatentRepresentation(Folded(), 8000, 2).encode(torch.zeros(1, 1, 80))
    with pytest.raises(InputError, match="chunk_seconds"):
        LatentRepresentation(Folded(), 8000, 2, chunk_seconds=0.0)
    with pytest.raises(InputError, match="a Linear has not all of encode"):
        LatentRepresentation(nn.Linear(2, 2), 8000, 2)
