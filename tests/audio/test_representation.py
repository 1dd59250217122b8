"""Laws of the representations: nothing is lost, energy is kept, white noise stays white."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiodiff.audio.representation import ComplexSTFT, Representation, Waveform
from audiodiff.errors import InputError

FRAMINGS = st.tuples(st.integers(1, 12), st.sampled_from([2, 4, 6, 8])).map(
    lambda pair: (pair[0] * pair[1], pair[0])
)
LENGTHS, CHANNELS = st.integers(1, 100), st.integers(1, 3)
LAW = settings(max_examples=60, deadline=None)


TOLERANCE = 1e-6  # window and weights are float32


def stft(framing: tuple[int, int], channels: int = 1, scaled: bool = False) -> ComplexSTFT:
    made = ComplexSTFT(8000, *framing, channels).double()
    if scaled:
        made.std.copy_(torch.linspace(0.5, 2, made.std.numel()))
    return made


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(FRAMINGS, LENGTHS, CHANNELS, st.booleans())
@LAW
def test_decoding_what_was_encoded_gives_the_waveform_back(
    framing: tuple[int, int], length: int, channels: int, scaled: bool
) -> None:
    waveform = draw(2, channels, length)
    for representation in (stft(framing, channels, scaled), Waveform(8000, channels).double()):
        representation.std.mul_(1.7)
        x = representation.encode(waveform)
        assert tuple(x.shape[1:]) == representation.shape(length)
        torch.testing.assert_close(representation.decode(x, length), waveform, rtol=TOLERANCE, atol=TOLERANCE)


@given(FRAMINGS, LENGTHS, CHANNELS)
@LAW
def test_encoding_keeps_energy(framing: tuple[int, int], length: int, channels: int) -> None:
    waveform = draw(1, channels, length)
    energy = stft(framing, channels).encode(waveform).square().sum()
    torch.testing.assert_close(energy, waveform.square().sum(), rtol=TOLERANCE, atol=TOLERANCE)


@given(FRAMINGS, LENGTHS, CHANNELS)
@LAW
def test_decoding_is_the_adjoint_of_encoding(framing: tuple[int, int], length: int, channels: int) -> None:
    representation = stft(framing, channels)
    waveform, x = draw(1, channels, length), draw(1, *representation.shape(length), seed=1)
    inner = (representation.encode(waveform) * x).sum()
    torch.testing.assert_close(
        inner, (waveform * representation.decode(x, length)).sum(), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.parametrize(("framing", "length"), [((16, 8), 37), ((16, 4), 24), ((24, 4), 5), ((2, 1), 9)])
def test_white_noise_on_x_decodes_to_white_noise_of_variance_one(
    framing: tuple[int, int], length: int
) -> None:
    representation = stft(framing)
    features, frames = representation.shape(length)
    basis = torch.eye(features * frames, dtype=torch.float64).view(-1, features, frames)
    decoded = representation.decode(basis, length)[:, 0]  # row i: the waveform of x = e_i
    # Independent unit x have the covariance D^T D on the waveform.
    torch.testing.assert_close(
        decoded.T @ decoded, torch.eye(length, dtype=torch.float64), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.parametrize("framing", [(16, 8), (32, 8), (48, 8)])
def test_frames_are_centred_where_the_docstring_says(framing: tuple[int, int]) -> None:
    representation, length = stft(framing), 160
    n_fft, hop = framing
    position = torch.arange(length, dtype=torch.float64)
    x = torch.eye(length, dtype=torch.float64)[:, None]  # one impulse at each sample
    energy = representation.encode(x).square().sum(1)  # [impulse, F]: the squared window, frame by frame
    for frame in range(n_fft // hop, energy.shape[1] - n_fft // hop):
        centre = (energy[:, frame] * position).sum() / energy[:, frame].sum()
        # The window is symmetric about half a sample before the middle of its n_fft samples.
        assert float(centre) == pytest.approx((frame - n_fft / (2 * hop) + 1) * hop - 0.5, abs=1e-5)


@pytest.mark.parametrize("tone", [1, 3, 7])
def test_a_tone_between_bins_lies_in_its_bin(tone: int) -> None:
    representation = stft((16, 8))
    time = torch.arange(160, dtype=torch.float64)
    x = representation.encode(torch.cos(2 * torch.pi * tone * time / 16)[None, None])[0]
    power = x[:, 3:-3].square().mean(1)
    by_bin = power[:9].clone()
    by_bin[1:8] += power[9:]
    assert int(by_bin.argmax()) == tone


@given(FRAMINGS, st.integers(1, 60), st.integers(1, 60), CHANNELS)
@LAW
def test_frames_of_a_padded_item_equal_the_item_alone(
    framing: tuple[int, int], short: int, extra: int, channels: int
) -> None:
    representation = stft(framing, channels, scaled=True)
    waveform = draw(2, channels, short + extra)
    waveform[0, :, short:] = 0
    together, alone = representation.encode(waveform), representation.encode(waveform[:1, :, :short])
    torch.testing.assert_close(together[:1, :, : alone.shape[-1]], alone, rtol=1e-12, atol=1e-12)
    assert not together[0, :, alone.shape[-1] :].any()


@pytest.mark.parametrize("make", [lambda: Waveform(8000, 2), lambda: ComplexSTFT(8000, 16, 8, 2)])
def test_dividing_by_the_measured_deviation_gives_unit_variance(make: type[Representation]) -> None:
    representation = make()
    # Coloured noise, louder on one channel.
    generator = torch.Generator().manual_seed(0)
    waveform = torch.randn(1, 2, 20_000, generator=generator).cumsum(-1).diff(n=1, dim=-1)
    waveform = waveform + waveform.roll(1, -1)
    waveform[:, 1] *= 5
    variances = representation.variances(representation.encode(waveform)[0])
    assert variances.shape == representation.std.shape
    representation.std.copy_(variances.sqrt())
    x = representation.encode(waveform)[0]
    torch.testing.assert_close(representation.variances(x), torch.ones_like(variances), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(representation.decode(x[None], 19_999), waveform, rtol=1e-4, atol=1e-4)


def test_real_and_imaginary_part_of_a_bin_share_one_variance() -> None:
    representation = ComplexSTFT(8000, 8, 4, channels=2)
    x = torch.arange(1.0, 17)[:, None].expand(-1, 3)  # the mean square of feature d is (d + 1)^2
    found = representation.variances(x)
    for channel in (0, 8):
        squares = (torch.arange(1.0, 9) + channel) ** 2
        inner = (squares[1:4] + squares[5:8]) / 2
        expected = torch.cat([squares[:1], inner, squares[4:5], inner])
        torch.testing.assert_close(found[channel : channel + 8], expected)


@pytest.mark.parametrize(("n_fft", "hop"), [(16, 16), (24, 8), (16, 5), (0, 4), (16, 0), (8, -4), (7, 1)])
def test_framing_whose_squared_windows_do_not_add_up_is_refused(n_fft: int, hop: int) -> None:
    with pytest.raises(InputError, match=f"n_fft: got {n_fft} with hop_length {hop}"):
        ComplexSTFT(8000, n_fft, hop)


def test_statistics_are_saved_and_the_window_is_not() -> None:
    assert set(ComplexSTFT(8000, 16, 8).state_dict()) == {"std"}
    assert set(Waveform(8000).state_dict()) == {"std"}
