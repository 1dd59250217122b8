"""Laws of the wavelet representation: nothing is lost, energy is kept, white noise stays white."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiodiff.audio.wavelet import LOW_PASS, Wavelet
from audiodiff.errors import InputError

WAVELETS, LENGTHS, CHANNELS = st.sampled_from(list(LOW_PASS)), st.integers(1, 60), st.integers(1, 3)
LAW = settings(max_examples=60, deadline=None)
TOLERANCE = 1e-6  # the filters are float32


def bands(wavelet: str, channels: int = 1) -> Wavelet:
    return Wavelet(8000, channels, wavelet).double()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("wavelet", LOW_PASS)
def test_filter_is_orthogonal_to_itself_moved_by_two_and_passes_what_is_constant(wavelet: str) -> None:
    low = torch.tensor(LOW_PASS[wavelet], dtype=torch.float64)
    for shift in range(0, len(low), 2):
        product = float((low[: len(low) - shift] * low[shift:]).sum())
        assert product == pytest.approx(float(shift == 0), abs=1e-12)
    assert float(low.sum()) == pytest.approx(2**0.5, abs=1e-12)
    # A Daubechies filter of L taps sees nothing of polynomials below degree L / 2 in its high band.
    signs, taps = (-1.0) ** torch.arange(len(low)), torch.arange(len(low), dtype=torch.float64)
    for degree in range(len(low) // 2):
        assert float((signs * low.flip(0) * taps**degree).sum()) == pytest.approx(0, abs=1e-7)


@given(WAVELETS, LENGTHS, CHANNELS)
@LAW
def test_decoding_what_was_encoded_gives_the_waveform_back(wavelet: str, length: int, channels: int) -> None:
    representation, waveform = bands(wavelet, channels), draw(2, channels, length)
    representation.std.copy_(torch.linspace(0.5, 2, 2 * channels))
    x = representation.encode(waveform)
    assert tuple(x.shape[1:]) == representation.shape(length)
    torch.testing.assert_close(representation.decode(x, length), waveform, rtol=TOLERANCE, atol=TOLERANCE)


@given(WAVELETS, LENGTHS, CHANNELS)
@LAW
def test_encoding_keeps_energy_and_decoding_is_its_adjoint(wavelet: str, length: int, channels: int) -> None:
    representation, waveform = bands(wavelet, channels), draw(1, channels, length)
    encoded = representation.encode(waveform)
    assert float(encoded.square().sum()) == pytest.approx(float(waveform.square().sum()), rel=TOLERANCE)
    x = draw(1, *representation.shape(length), seed=1)
    inner = (waveform * representation.decode(x, length)).sum()
    torch.testing.assert_close((encoded * x).sum(), inner, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("wavelet", LOW_PASS)
@pytest.mark.parametrize("length", [1, 8, 21])
def test_white_noise_on_x_decodes_to_white_noise_of_variance_one(wavelet: str, length: int) -> None:
    representation = bands(wavelet)
    features, positions = representation.shape(length)
    basis = torch.eye(features * positions, dtype=torch.float64).view(-1, features, positions)
    decoded = representation.decode(basis, length)[:, 0]  # row i: the waveform of x = e_i
    # Independent unit x have the covariance D^T D on the waveform.
    identity = torch.eye(length, dtype=torch.float64)
    torch.testing.assert_close(decoded.T @ decoded, identity, rtol=TOLERANCE, atol=TOLERANCE)


def test_haar_bands_are_sums_and_differences_of_pairs() -> None:
    waveform = torch.tensor([[[1.0, 2.0, 5.0, 1.0, 4.0], [0.0, 1.0, 0.0, 0.0, -2.0]]])
    sums = torch.tensor([[3.0, 6.0, 4.0], [1.0, 0.0, -2.0]])
    differences = torch.tensor([[-1.0, 4.0, 4.0], [-1.0, 0.0, -2.0]])
    expected = torch.cat([sums, differences])[None] / 2**0.5
    torch.testing.assert_close(Wavelet(8000, 2).encode(waveform), expected)


@given(WAVELETS, st.integers(1, 40), st.integers(1, 40), CHANNELS)
@LAW
def test_positions_of_a_padded_item_equal_the_item_alone(
    wavelet: str, short: int, extra: int, channels: int
) -> None:
    representation, waveform = bands(wavelet, channels), draw(2, channels, short + extra)
    waveform[0, :, short:] = 0
    together, alone = representation.encode(waveform), representation.encode(waveform[:1, :, :short])
    torch.testing.assert_close(together[:1, :, : alone.shape[-1]], alone, rtol=1e-12, atol=1e-12)
    assert not together[0, :, alone.shape[-1] :].any()


@pytest.mark.parametrize("wavelet", LOW_PASS)
def test_every_position_spans_the_two_samples_it_is_named_by(wavelet: str) -> None:
    representation, length = bands(wavelet), 20
    impulses = torch.eye(length, dtype=torch.float64)[:, None]
    touched = representation.encode(impulses).abs().sum(1) > 0  # [sample, position]
    for position in range(representation.shape(length)[1]):
        samples = touched[:, position].nonzero().flatten()
        assert int(samples[-1]) == min(2 * position + 1, length - 1)
        assert int(samples[0]) == max(2 * position + 2 - representation.filters.shape[-1], 0)


def test_bands_of_all_channels_share_one_deviation_and_get_unit_variance() -> None:
    representation = Wavelet(8000, 2)
    waveform = draw(1, 2, 20_000).float().cumsum(-1)  # almost all in the low band
    waveform[:, 1] *= 5
    variances = representation.variances(representation.encode(waveform)[0])
    assert variances.shape == representation.std.shape
    assert float(variances[0]) == float(variances[1]) > 1000 * float(variances[2])
    representation.std.copy_(variances.sqrt())
    x = representation.encode(waveform)[0]
    torch.testing.assert_close(representation.variances(x), torch.ones(4), rtol=1e-3, atol=1e-3)


def test_statistics_are_saved_and_the_filters_are_not() -> None:
    assert set(Wavelet(8000).state_dict()) == {"std"}


def test_unknown_wavelet_is_refused() -> None:
    with pytest.raises(InputError, match="wavelet: got 'db9', expected one of haar, db2, db4"):
        Wavelet(8000, wavelet="db9")
