"""The spectral prior: noise with the envelope of the mel, bin by bin and frame by frame."""

from __future__ import annotations

import pytest
import torch

from audiodiff.audio.mel import preset
from audiodiff.audio.representation import ComplexSTFT, Waveform
from audiodiff.conditioning.spectral_prior import SpectralPrior
from audiodiff.errors import InputError
from audiodiff.types import Batch


def prior(features: str, hop_length: int, n_fft: int, channels: int = 1) -> tuple[SpectralPrior, ComplexSTFT]:
    log_mel = preset(features)
    representation = ComplexSTFT(log_mel.sample_rate, n_fft, hop_length, channels)
    return SpectralPrior(log_mel, representation), representation


def batch(waveform: torch.Tensor) -> Batch:
    return Batch(waveform=waveform, lengths=torch.tensor([waveform.shape[-1]] * len(waveform)), labels={})


@pytest.mark.parametrize(("features", "hop", "n_fft"), [("mel_8k40", 64, 128), ("hifigan_22k80", 256, 512)])
def test_a_gain_of_the_audio_is_the_same_gain_of_the_noise(features: str, hop: int, n_fft: int) -> None:
    part, representation = prior(features, hop, n_fft)
    waveform = 0.05 * torch.randn(2, 1, 20 * hop, generator=torch.Generator().manual_seed(0))
    quiet, loud = (part(batch(gain * waveform)).prior_std for gain in (1, 4))
    assert quiet.shape == (2, *representation.shape(20 * hop))
    torch.testing.assert_close(loud, 4 * quiet, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("features", "hop", "n_fft"), [("mel_8k40", 64, 128), ("hifigan_22k80", 256, 512)])
def test_the_envelope_of_white_noise_is_flat_within_the_bands(features: str, hop: int, n_fft: int) -> None:
    part, representation = prior(features, hop, n_fft)
    noise = 0.1 * torch.randn(1, 1, 400 * hop, generator=torch.Generator().manual_seed(0))
    std = part(batch(noise)).prior_std[0]
    assert std.shape == representation.shape(400 * hop)
    level = std.mean(1)[2:-2]
    # Rayleigh magnitudes averaged over 400 frames, each band of one or more bins: a few per cent.
    assert float((level / level.median() - 1).abs().max()) < 0.15


def test_a_tone_is_loud_in_its_bins_and_a_click_in_its_frames() -> None:
    part, _ = prior("mel_8k40", 64, 128)
    time = torch.arange(6400) / 8000
    tone = 0.3 * torch.sin(2 * torch.pi * 1000 * time)
    std = part(batch(tone[None, None])).prior_std[0].mean(1)
    assert abs(int(std[:65].argmax()) - 16) <= 1  # 1000 Hz of 62.5 Hz bins
    torch.testing.assert_close(std[1:64], std[65:], rtol=0, atol=0)  # real and imaginary parts alike
    click = torch.zeros(1, 1, 6400)
    click[..., 3200] = 0.9
    assert abs(int(part(batch(click)).prior_std[0].mean(0).argmax()) - 3200 // 64) <= 1


def test_an_items_prior_is_its_own_in_a_padded_batch() -> None:
    part, _ = prior("mel_8k40", 64, 128)
    waveform = 0.1 * torch.randn(2, 1, 1280, generator=torch.Generator().manual_seed(0))
    waveform[1, :, 640:] = 0
    both = part(Batch(waveform=waveform, lengths=torch.tensor([1280, 640]), labels={})).prior_std
    alone = part(batch(waveform[1:, :, :640])).prior_std
    torch.testing.assert_close(both[1:, :, : alone.shape[-1]], alone)


def test_the_factor_of_each_bin_multiplies_its_noise() -> None:
    part, _ = prior("mel_8k40", 64, 128, channels=2)
    waveform = 0.1 * torch.randn(1, 2, 640, generator=torch.Generator().manual_seed(0))
    before = part(batch(waveform)).prior_std
    factors = torch.linspace(0.5, 2, 256)
    part.set_scale(factors)
    torch.testing.assert_close(part(batch(waveform)).prior_std, before * factors[:, None])


def test_silence_has_a_prior_above_zero() -> None:
    part, _ = prior("hifigan_22k80", 256, 512)
    std = part(batch(torch.zeros(1, 1, 5120))).prior_std
    assert bool(std.isfinite().all())
    assert float(std.min()) > 0


def test_a_waveform_has_no_spectrum_to_shape() -> None:
    with pytest.raises(InputError, match=r"STFT.*model=convnext"):
        SpectralPrior(preset("mel_8k40"), Waveform(8000))
