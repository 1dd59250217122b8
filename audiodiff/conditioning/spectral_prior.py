"""A log-mel, and noise whose spectrum follows it bin by bin and frame by frame.

Koizumi et al. 2022 (SpecGrad, arXiv 2203.16749) give the noise of a vocoder the time-varying spectral envelope of
the mel, by filtering it. Where x is a tight-frame STFT no filter is needed: the deviation of each coefficient is

    std[j, f] = scale[j] exp( sum_k A[j, k] log m[k, f] ),     m = mean magnitude of band k around frame f,

with A interpolating linearly between the centres of the bands, and one factor per bin, measured on training audio, that
makes the whitened coefficients of unit variance. How a prior enters the diffusion is said in `diffusion.priors`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from audiodiff.audio.mel import LogMel
from audiodiff.conditioning.mel import Mel
from audiodiff.errors import InputError
from audiodiff.types import Condition


@runtime_checkable
class Spectrum(Protocol):
    """What the prior must know of the Representation: a real STFT of n_fft features per channel and frame."""

    sample_rate: int
    hop_length: int
    n_fft: int
    channels: int

    def shape(self, length: int) -> tuple[int, int]:
        """Returns (features, frames) of x for a waveform of that many samples."""
        ...


class SpectralPrior(Mel):
    """Conditioner that hears a log-mel and tells a prior whose deviation follows the mel's spectral envelope."""

    interpolation: Tensor
    band_areas: Tensor
    scale: Tensor

    def __init__(self, log_mel: LogMel, representation: Spectrum) -> None:
        """Takes the mel definition and where the coefficients of x lie.

        Args:
            log_mel: the mel of the recipe.
            representation: a ComplexSTFT like the model's; only its grid is looked at.

        Raises:
            InputError: another kind of representation.
        """
        super().__init__(log_mel)
        if not isinstance(representation, Spectrum):
            raise InputError(
                f"spectral prior: needs the coefficients of an STFT, got {type(representation).__name__}; "
                "take model=convnext, or conditioner=mel_energy_prior"
            )
        bank = log_mel.filterbank.double()
        frequencies = torch.linspace(0, log_mel.sample_rate / 2, bank.shape[1], dtype=torch.float64)
        areas = bank.sum(1)
        bins = torch.linspace(0, representation.sample_rate / 2, representation.n_fft // 2 + 1)
        centres = (bank @ frequencies) / areas
        self.register_buffer(
            "interpolation", _interpolation(bins.double(), centres).float(), persistent=False
        )
        self.register_buffer("band_areas", areas.float(), persistent=False)
        self.register_buffer("scale", torch.ones(representation.channels * representation.n_fft))
        self._hop_length, self._n_fft = representation.hop_length, representation.n_fft
        self._channels, self._shape = representation.channels, representation.shape

    def hear(self, mel: Tensor, length: int) -> Condition:
        """Returns condition.local [B, n_mels, F'] and condition.prior_std [B, D, F] of a mel [B, n_mels, F']."""
        return replace(super().hear(mel, length), prior_std=self.envelope(mel, length) * self.scale[:, None])

    def envelope(self, mel: Tensor, length: int) -> Tensor:
        """Returns the magnitude [B, D, F] around each coefficient of x, for audio of that many samples.

        Args:
            mel: [B, n_mels, F'].
            length: samples.
        """
        bands = (self.log_mel.magnitude(mel) / self.band_areas[:, None]).clamp_min(1e-12)
        level = bands.log() / self.log_mel.power
        low, high, share = self._times(length, mel.shape[-1])
        level = torch.lerp(level[..., low], level[..., high], share)
        spectrum = (self.interpolation @ level).exp()  # [B, bins, F]
        # Real parts of all bins, then imaginary parts of all but the first and the last.
        return torch.cat([spectrum, spectrum[:, 1:-1]], dim=1).repeat(1, self._channels, 1)

    def set_scale(self, scale: Tensor) -> None:
        """Sets the factor of each coefficient [D]."""
        self.scale.copy_(scale)

    def _times(self, length: int, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the mel frames around each position of x and how near it lies to the later one."""
        positions = torch.arange(self._shape(length)[1], device=self.mean.device)
        samples = (positions - (self._n_fft // self._hop_length // 2 - 1)) * self._hop_length
        centre = 0.0 if self.log_mel.framing == "center" else 0.5
        place = (samples / self.log_mel.hop_length - centre).clamp(0, frames - 1)
        low = place.floor().long()
        return low, (low + 1).clamp(max=frames - 1), (place - low).float()


def _interpolation(places: Tensor, centres: Tensor) -> Tensor:
    """Returns [N, K]: linear interpolation at N places between K rising centres, held beyond the ends."""
    right = torch.searchsorted(centres, places).clamp(1, len(centres) - 1)
    left = right - 1
    share = ((places - centres[left]) / (centres[right] - centres[left])).clamp(0, 1)
    matrix = torch.zeros(len(places), len(centres), dtype=torch.float64)
    rows = torch.arange(len(places))
    matrix[rows, left] = 1 - share
    matrix[rows, right] = share
    return matrix
