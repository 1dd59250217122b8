"""Laws of the mel representation: x is the mel of the definition, and its waveform has that mel again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.audio.griffin_lim import GriffinLim
from audiodiff.audio.mel import LogMel
from audiodiff.audio.mel_representation import MelRepresentation
from audiodiff.conditioning.conditioner import Unconditional
from audiodiff.diffusion.denoiser import Denoiser, StepIndex
from audiodiff.diffusion.parameterizations import epsilon
from audiodiff.diffusion.schedules import linear
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion
from audiodiff.networks.wavenet import WaveNet
from audiodiff.training import statistics
from audiodiff.types import Batch
from tests.tiny import MEL, MEL_VARIANTS

RATE, HOP, BANDS = MEL["sample_rate"], MEL["hop_length"], MEL["n_mels"]


def build(variant: str = "center", iterations: int = 60, scaled: bool = True) -> MelRepresentation:
    made = MelRepresentation(LogMel.from_definition(MEL | MEL_VARIANTS[variant]), RATE, iterations)
    if scaled:
        made.mean.copy_(torch.linspace(-6, -2, BANDS))
        made.std.copy_(torch.linspace(0.5, 2, BANDS))
    return made


def speech(data_dir: Path) -> Tensor:
    return io.read(data_dir / "fsdd/recordings/7_theo_3.flac")[0][None]  # [1, 1, T]


@pytest.mark.parametrize("variant", MEL_VARIANTS)
def test_x_is_the_mel_of_the_definition_normalised(variant: str, data_dir: Path) -> None:
    representation, waveform = build(variant), speech(data_dir)
    x = representation.encode(waveform)
    assert tuple(x.shape[1:]) == representation.shape(waveform.shape[-1])
    mel = x * representation.std[:, None] + representation.mean[:, None]
    torch.testing.assert_close(mel, representation.log_mel(waveform[:, 0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", MEL_VARIANTS)
def test_mel_of_the_decoded_waveform_is_near_the_mel_given(variant: str, data_dir: Path) -> None:
    representation, waveform = build(variant), speech(data_dir)
    log_mel, length = representation.log_mel, waveform.shape[-1]
    decoded = representation.decode(representation.encode(waveform), length)
    assert decoded.shape == waveform.shape
    power = 1 / log_mel.power
    given, found = (log_mel.magnitude(log_mel(each)) ** power for each in (waveform, decoded))
    assert float((given - found).norm() / given.norm()) < 0.2


def test_decoding_is_griffin_lim_of_the_mel(data_dir: Path) -> None:
    representation, waveform = build(iterations=5), speech(data_dir)
    length = waveform.shape[-1]
    decoded = representation.decode(representation.encode(waveform), length)
    mel = representation.log_mel(waveform[:, 0])
    expected = GriffinLim(representation.log_mel, 5)(mel, torch.tensor([length]))
    torch.testing.assert_close(decoded[:, 0], expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(decoded, representation.decode(representation.encode(waveform), length))


@pytest.mark.parametrize("variant", ["center", "same"])
@pytest.mark.parametrize("length", [1, HOP - 1, HOP, HOP + 1, 3 * HOP + 7, 1000])
def test_any_length_goes_in_and_comes_out(variant: str, length: int) -> None:
    representation = build(variant, iterations=2)
    waveform = torch.randn(2, 1, length, generator=torch.Generator().manual_seed(length)) / 4
    x = representation.encode(waveform)
    assert tuple(x.shape) == (2, *representation.shape(length))
    decoded = representation.decode(x, length)
    assert decoded.shape == waveform.shape
    assert decoded.isfinite().all()


@pytest.mark.parametrize("variant", ["center", "same"])
def test_frames_of_a_padded_item_equal_the_item_alone_where_no_window_reaches_its_end(variant: str) -> None:
    representation, generator = build(variant), torch.Generator().manual_seed(0)
    waveform = torch.randn(1, 1, 1500, generator=generator) / 4
    alone = representation.encode(waveform)
    padded = representation.encode(torch.nn.functional.pad(waveform, (0, 700)))
    reach = -(-MEL["n_fft"] // (2 * HOP))
    inner = alone.shape[-1] - reach
    torch.testing.assert_close(padded[..., :inner], alone[..., :inner], rtol=1e-4, atol=1e-4)


def test_an_item_is_decoded_the_same_alone_and_in_a_batch(data_dir: Path) -> None:
    representation = build(iterations=5)
    x = representation.encode(torch.cat([speech(data_dir), speech(data_dir).flip(-1)]))
    together = representation.decode(x, 1200)
    torch.testing.assert_close(representation.decode(x[1:], 1200), together[1:])


@pytest.mark.parametrize("scale", [1e3, -1e3])
@pytest.mark.parametrize("variant", MEL_VARIANTS)
def test_a_mel_beyond_full_scale_or_silence_decodes_to_finite_sound(variant: str, scale: float) -> None:
    representation = build(variant, iterations=2)
    x = torch.full((1, *representation.shape(800)), scale)
    decoded = representation.decode(x, 800)
    assert decoded.isfinite().all()
    assert (float(decoded.abs().max()) < 1e-2) == (scale < 0)


def test_what_is_not_finite_stays_visible_in_its_own_item() -> None:
    representation = build(iterations=1)
    x = torch.zeros(2, *representation.shape(800))
    x[0, 3, 5] = torch.nan
    decoded = representation.decode(x, 800)
    assert decoded[0].isnan().all()
    assert decoded[1].isfinite().all()


def test_measured_statistics_give_every_band_mean_zero_and_variance_one(data_dir: Path) -> None:
    representation = build(scaled=False)
    network = WaveNet(1, 8, 8, 1, audio_channels=BANDS)
    denoiser = Denoiser(network, linear(1e-4, 0.05, 50), epsilon, StepIndex())
    model = AudioDiffusion(representation, Unconditional(), denoiser)
    clips = [speech(data_dir), speech(data_dir)[..., 500:2500] * 0.1]
    batches = [Batch(clip, torch.tensor([clip.shape[-1]])) for clip in clips]
    statistics.apply(model, statistics.measure(model, batches))
    x = torch.cat([representation.encode(clip)[0] for clip in clips], dim=-1)
    torch.testing.assert_close(x.mean(-1), torch.zeros(BANDS), rtol=0, atol=1e-4)
    torch.testing.assert_close(representation.variances(x), torch.ones(BANDS), rtol=1e-3, atol=1e-3)
    again = statistics.measure(model, batches)  # they do not depend on what was set before
    torch.testing.assert_close(torch.tensor(again["std"]), representation.std)


def test_statistics_are_saved_and_the_filterbank_is_not() -> None:
    assert set(build().state_dict()) == {"mean", "std"}


def test_audio_of_another_sample_rate_or_of_two_channels_is_refused() -> None:
    with pytest.raises(InputError, match="mel of 8000 Hz for audio of 16000 Hz"):
        MelRepresentation(LogMel.from_definition(MEL), 16000)
    with pytest.raises(InputError, match=r"expected \[B, T\] or \[B, 1, T\]"):
        build().encode(torch.zeros(1, 2, 800))
    with pytest.raises(InputError, match="iterations"):
        build(iterations=-1)
