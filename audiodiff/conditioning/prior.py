"""A log-mel, and noise that is as loud as it: the data-dependent prior of PriorGrad.

    std = max((min(e, energy_max) - energy_min) / (energy_max - energy_min), std_min)     e = sqrt(sum_m exp(mel_m))

per frame, repeated over the positions of x (Lee et al. 2022, section 4.1, and its released code). FreGrad gives each
half of the bands a deviation of its own, for the low and the high sub-band (Nguyen et al. 2024, section 3.3). How
the prior enters the diffusion is said in `diffusion.priors`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel
from audiodiff.conditioning.mel import Mel
from audiodiff.errors import InputError
from audiodiff.types import Condition

# FreGrad's code filters the deviations, one number a frame, as if they were a sub-band's samples. Hertz.
_SUBBAND_RATE, _HIGH_PASS, _LOW_PASS = 11025, 15.0, 5500.0


class Positions(Protocol):
    """What a prior must know of the Representation: where its positions lie."""

    @property
    def hop_length(self) -> int:
        """Samples from one position to the next."""
        ...

    def shape(self, length: int) -> tuple[int, int]:
        """Returns (features, positions) of x for a waveform of that many samples."""
        ...


class MelEnergyPrior(Mel):
    """Conditioner that hears a log-mel and tells a prior whose deviation follows the mel's energy."""

    energy_min: Tensor

    def __init__(
        self, log_mel: LogMel, representation: Positions, energy_max: float = 4.0, std_min: float = 0.1
    ) -> None:
        """Takes the mel definition; the least energy is that of silence until statistics are set.

        Args:
            log_mel: the mel of the recipe.
            representation: a Representation like the model's; only its positions are looked at.
            energy_max: energy from which on the deviation is 1; 4 suits speech whose peak is near full scale, in the
                mel of HiFi-GAN.
            std_min: smallest deviation.

        Raises:
            InputError: numbers out of their bounds.
        """
        super().__init__(log_mel)
        if not 0 < std_min <= 1:
            raise InputError(f"std_min: got {std_min}, expected a deviation above 0, at most 1")
        self.energy_max = energy_max
        self.std_min = std_min
        self._hop_length, self._shape = representation.hop_length, representation.shape
        silence = log_mel.from_magnitude(torch.zeros(1, log_mel.n_mels, 1))
        self.register_buffer("energy_min", torch.zeros(()))
        self.set_energy_min(float(self.energy(silence)))

    def hear(self, mel: Tensor, length: int) -> Condition:
        """Returns condition.local [B, n_mels, F'] and condition.prior_std [B, 1, F] of a mel [B, n_mels, F']."""
        return replace(super().hear(mel, length), prior_std=self._spread(self.deviation(mel), length))

    def energy(self, mel: Tensor) -> Tensor:
        """Returns the energy [B, 1, F] of a mel [B, n_mels, F], the root of the sum of its linear bands."""
        return self.log_mel.magnitude(mel).sum(1, keepdim=True).sqrt()

    def deviation(self, mel: Tensor) -> Tensor:
        """Returns the deviation of the noise [B, 1, F] at the frames of a mel [B, n_mels, F]."""
        return self._normalized(self.energy(mel).clamp(max=self.energy_max))

    def set_energy_min(self, energy: float) -> None:
        """Sets the energy of the quietest frame.

        Raises:
            InputError: it is not below energy_max, so that no frame could be told from another.
        """
        if not 0 <= energy < self.energy_max:
            raise InputError(
                f"prior: the quietest frame has the energy {energy:.4g}, expected 0 or more and less than energy_max "
                f"({self.energy_max}); set energy_max to the energy of loud frames in this mel definition"
            )
        self.energy_min.fill_(energy)

    def _normalized(self, energy: Tensor) -> Tensor:
        span = self.energy_max - self.energy_min
        return ((energy - self.energy_min) / span).clamp(min=self.std_min)

    def _spread(self, deviation: Tensor, length: int) -> Tensor:
        """Returns deviation [B, D, F'] at the positions of x for audio of that many samples, [B, D, F].

        A position spans `overlap` hops and is centred where sample (p - overlap/2 + 1) hop is, or spans its own hop
        alone; beyond the last frame, that one holds.
        """
        overlap = self._shape(self._hop_length)[1]
        positions = torch.arange(self._shape(length)[1], device=deviation.device)
        samples = (positions - max(overlap // 2 - 1, 0)) * self._hop_length
        frames = (samples // self.log_mel.hop_length).clamp(0, deviation.shape[-1] - 1)
        return deviation[..., frames]


class SubbandEnergyPrior(MelEnergyPrior):
    """FreGrad's prior: one deviation for the low band of a Haar transform and one for the high band, of mono audio.

    They follow the energies of the lower and of the upper half of the mel bands. As in the released code, the upper
    is not limited to energy_max, and both pass a high-pass that forgets a steady level within a second or two.
    """

    def deviation(self, mel: Tensor) -> Tensor:
        """Returns the deviations of the noise [B, 2, F] at the frames of a mel [B, n_mels, F]."""
        half = mel.shape[1] // 2
        lower, upper = (
            part.sum(1).sqrt() for part in self.log_mel.magnitude(mel).split((half, mel.shape[1] - half), 1)
        )
        both = self._normalized(torch.stack([lower.clamp(max=self.energy_max), upper], 1))
        passed = _second_order(_second_order(both, _HIGH_PASS, -1), _LOW_PASS, 1)
        return passed.clamp(min=self.std_min)


def _second_order(values: Tensor, cutoff: float, sign: int) -> Tensor:
    """Returns values [..., F] through a second-order filter of Q = 0.707 that starts at rest, limited to [-1, 1].

    Bristow-Johnson's audio equalizer cookbook, as the project has it from torchaudio.

    Args:
        values: one number a frame.
        cutoff: Hz.
        sign: 1 for a low-pass, -1 for a high-pass.
    """
    # In float32, as there: the high-pass lies so low that its cosine is 1 but for the last digits.
    phase = torch.tensor(2 * math.pi * cutoff / _SUBBAND_RATE)
    slope, cosine = phase.sin() / (2 * 0.707), phase.cos()
    outer = (1 - sign * cosine) / 2 / (1 + slope)
    first, second = 2 * cosine / (1 + slope), (slope - 1) / (1 + slope)
    padded = nn.functional.pad(values.to("cpu", torch.float64), (2, 0))
    driven = outer * (padded[..., 2:] + 2 * sign * padded[..., 1:-1] + padded[..., :-2])
    passed = [torch.zeros_like(driven[..., 0])] * 2
    for drive in driven.unbind(-1):
        passed.append(drive + first * passed[-1] + second * passed[-2])
    return torch.stack(passed[2:], -1).clamp(-1, 1).to(values)
