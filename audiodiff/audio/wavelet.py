"""Two half-rate bands of the waveform: one level of an orthonormal discrete wavelet transform.

    low_k = sum_n h_n x_(2k - n_0 + n)     high_k = sum_n (-1)^n h_(L-1-n) x_(2k - n_0 + n),     n_0 = L - 2

with a filter h of L taps that is orthogonal to itself moved by two samples (Daubechies 1992, section 5.1; Haar is
L = 2). All coefficients that touch the waveform are kept, so decoding is the adjoint of encoding, any length comes
back, and white noise on the bands is white noise on the waveform. FreGrad diffuses the Haar bands (Nguyen et al. 2024).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiodiff.errors import InputError

_ROOT_2, _ROOT_3 = math.sqrt(2.0), math.sqrt(3.0)
LOW_PASS: dict[str, tuple[float, ...]] = {
    "haar": (1 / _ROOT_2, 1 / _ROOT_2),
    # Daubechies 1992, table 6.1
    "db2": tuple(number / (4 * _ROOT_2) for number in (1 + _ROOT_3, 3 + _ROOT_3, 3 - _ROOT_3, 1 - _ROOT_3)),
    "db4": (
        *(0.2303778133088965, 0.7148465705529157, 0.6308807679298589, -0.027983769416859854),
        *(-0.18703481171909309, 0.030841381835560764, 0.0328830116668852, -0.010597401785069032),
    ),
}
"""The low-pass filter of each wavelet."""


class Wavelet(nn.Module):
    """The low and the high band of every channel, each band divided by one standard deviation.

    x holds the low bands of all channels, then the high bands. Position k spans L samples, the last two of which
    are 2k and 2k + 1; with Haar it is just these.
    """

    exact = True
    hop_length = 2
    filters: Tensor
    std: Tensor

    def __init__(self, sample_rate: int, channels: int = 1, wavelet: str = "haar") -> None:
        """Builds the filters; the bands stay as they are until statistics are set.

        Args:
            sample_rate: hertz.
            channels: audio channels; x holds twice as many.
            wavelet: one of LOW_PASS.

        Raises:
            InputError: an unknown wavelet.
        """
        super().__init__()
        if wavelet not in LOW_PASS:
            raise InputError(f"wavelet: got {wavelet!r}, expected one of {', '.join(LOW_PASS)}")
        self.sample_rate = sample_rate
        self.channels = channels
        low = torch.tensor(LOW_PASS[wavelet], dtype=torch.float64)
        high = low.flip(0)
        high[1::2] *= -1
        self.register_buffer("filters", torch.stack([low, high])[:, None].float(), persistent=False)
        self.register_buffer("std", torch.ones(2 * channels))

    def encode(self, waveform: Tensor) -> Tensor:
        """Returns x [B, 2C, F] of waveform [B, C, T]."""
        items, channels, length = waveform.shape
        positions = self.shape(length)[1]
        before = self.filters.shape[-1] - 2
        padded = functional.pad(waveform.reshape(-1, 1, length), (before, 2 * positions - length))
        bands = functional.conv1d(padded, self.filters, stride=2)  # [B C, 2, F]
        return self._exchange(bands, items, channels) / self.std[:, None]

    def decode(self, x: Tensor, length: int) -> Tensor:
        """Returns the waveform [B, C, length] of x [B, 2C, F], the adjoint of encode at std = 1."""
        items, features, positions = x.shape
        bands = self._exchange(x * self.std[:, None], items, 2).view(-1, 2, positions)
        waveform = functional.conv_transpose1d(bands, self.filters, stride=2).view(items, features // 2, -1)
        before = self.filters.shape[-1] - 2
        return waveform[..., before : before + length]

    def shape(self, length: int) -> tuple[int, int]:
        """Returns (2 channels, positions): every coefficient that touches a sample."""
        return 2 * self.channels, -(-(length + self.filters.shape[-1] - 2) // 2)

    def variances(self, x: Tensor) -> Tensor:
        """Returns the mean square of unscaled x [D, F] per band, shared by the channels, as [D]."""
        bands = x.view(2, -1).square().mean(1)
        return bands.repeat_interleave(self.channels)

    def _exchange(self, values: Tensor, items: int, outer: int) -> Tensor:
        """Returns [B, outer * inner, F] as [B, inner * outer, F]: bands within channels <-> channels within bands."""
        positions = values.shape[-1]
        return values.reshape(items, outer, -1, positions).transpose(1, 2).reshape(items, -1, positions)
