"""A guide recording: the sound takes on its loudness over time and bands, and is otherwise the model's own.

Choi et al. 2021 (ILVR, eq. 8) put the low frequencies of a reference picture into every estimate. Of a sound it is not
the waveform that is smoothed but the spectrogram: each clean estimate is scaled, by band and moment, by

    log gain = strength / 2 (phi(log E_guide) - phi(log E_estimate)),

with E the energies of a few mel bands and phi a mean over a moment. No gradient passes the network, so that any model
can be guided. What pitch sounds is left to the model: so few bands do not tell it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torchaudio
from torch import Tensor

from audiodiff.diffusion.constraints import Projection
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion
from audiodiff.synthesis.recordings import Recording

BANDS = 12
_WINDOW_SECONDS, _MOMENT_SECONDS = 0.032, 0.064  # of a spectrum; of the mean over time
_MOST_GAIN = math.log(100.0)  # of the amplitude, at one evaluation
_FLOOR = 1e-8  # of the energies, -80 dB
MOST_SECONDS = 120.0


@dataclass(frozen=True)
class MelGuide:
    """Projection of the clean estimate, in the coordinates of the data.

    Attributes:
        model: whose representation x is of.
        energies: [1, BANDS, F] of the guide, in logarithms.
        samples: length of the guide; beyond it nothing is guided.
        strength: 0 guides nothing, 1 gives the estimate the guide's energies.
    """

    model: AudioDiffusion
    energies: Tensor
    samples: int
    strength: float

    def __call__(self, clean: Tensor, t: Tensor) -> Tensor:
        """Returns the scaled estimate [B, D, F]."""
        representation = self.model.representation
        extra = representation.shape(representation.hop_length)[1] - 1
        length = (clean.shape[-1] - extra) * representation.hop_length
        waveform = representation.decode(clean, length)
        spectrum, energies = _analyse(waveform, self.model.sample_rate)
        known = min(energies.shape[-1], self.energies.shape[-1])
        gain = torch.zeros_like(energies)
        gain[..., :known] = self.energies[..., :known].to(energies) - energies[..., :known]
        gain = (self.strength / 2 * gain).clamp(-_MOST_GAIN, _MOST_GAIN)
        filters = _filters(self.model.sample_rate, waveform.device)
        # A bin lies between two bands, and its logarithm between theirs.
        shares = filters / filters.sum(1, keepdim=True).clamp(min=1e-6)
        scaled = spectrum * torch.einsum("bkf,nk->bnf", gain, shares).exp()[:, None]
        change = _synthesize(scaled - spectrum, length, self.model.sample_rate)
        return clean + representation.encode(change)[..., : clean.shape[-1]]


def mel_guide(model: AudioDiffusion, path: Path, strength: float) -> Projection:
    """Returns the projection towards a guide recording.

    Args:
        model: of any representation of waveforms.
        path: the recording.
        strength: 0 to 1.

    Raises:
        InputError: a strength outside, a file that cannot be read or is too long.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"--guide-strength: got {strength}, expected a number from 0 to 1")
    recording = Recording(path, model.sample_rate, model.representation.channels)
    if recording.info.seconds > MOST_SECONDS:
        raise InputError(
            f"{path}: a guide of {recording.info.seconds:.0f} s, expected at most {MOST_SECONDS:g} s"
        )
    waveform = recording.read(0, recording.samples).mean(0, keepdim=True)
    energies = _analyse(waveform.to(model.device), model.sample_rate)[1]
    return MelGuide(model, energies, recording.samples, strength)


def distance(model: AudioDiffusion, waveform: Tensor, guide: MelGuide) -> float:
    """Returns how far the energies of a waveform [C, T] lie from the guide's, root mean square in dB."""
    energies = _analyse(waveform[None].to(guide.energies.device), model.sample_rate)[1]
    known = min(energies.shape[-1], guide.energies.shape[-1])
    difference = energies[..., :known] - guide.energies[..., :known]
    return 10 / math.log(10) * float(difference.square().mean().sqrt())


def _analyse(waveform: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Returns the spectrum [B, C, bins, F] and the log-energies [B, BANDS, F] of waveforms [B, C, T]."""
    n_fft = _n_fft(sample_rate)
    flat = torch.nn.functional.pad(waveform.flatten(0, 1), (n_fft // 2, n_fft // 2))
    window = torch.hann_window(n_fft, device=waveform.device)
    spectrum = torch.stft(flat, n_fft, n_fft // 4, window=window, center=False, return_complex=True)
    spectrum = spectrum.unflatten(0, waveform.shape[:2])
    power = spectrum.abs().square().mean(1) / window.square().sum()
    energies = torch.einsum("bnf,nk->bkf", power, _filters(sample_rate, waveform.device))
    reach = max(1, round(_MOMENT_SECONDS * sample_rate / (n_fft // 4)) // 2)
    smooth = torch.nn.functional.avg_pool1d(
        energies, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False
    )
    return spectrum, (smooth + _FLOOR).log()


def _synthesize(spectrum: Tensor, length: int, sample_rate: int) -> Tensor:
    """Returns waveforms [B, C, length] of spectra [B, C, bins, F]."""
    n_fft = _n_fft(sample_rate)
    window = torch.hann_window(n_fft, device=spectrum.device)
    frames = torch.fft.irfft(spectrum.flatten(0, 1), n=n_fft, dim=1) * window[:, None]
    total = (spectrum.shape[-1] - 1) * (n_fft // 4) + n_fft
    summed = torch.nn.functional.fold(frames, (1, total), (1, n_fft), stride=(1, n_fft // 4))[:, 0, 0]
    # The squared Hann windows add up to 3/2 at a quarter of the window.
    waveform = summed[:, n_fft // 2 : n_fft // 2 + length] / 1.5
    waveform = torch.nn.functional.pad(waveform, (0, length - waveform.shape[-1]))
    return waveform.unflatten(0, spectrum.shape[:2])


def _filters(sample_rate: int, device: torch.device) -> Tensor:
    """Returns the bands [bins, BANDS]; those without a bin of their own are empty."""
    bins = _n_fft(sample_rate) // 2 + 1
    filters = torchaudio.functional.melscale_fbanks(bins, 0.0, sample_rate / 2, BANDS, sample_rate)
    # What lies outside the outermost centres belongs to the outermost bands.
    outside = filters.sum(1) < 1e-6
    filters[outside & (torch.arange(bins) < bins // 2), 0] = 1.0
    filters[outside & (torch.arange(bins) >= bins // 2), -1] = 1.0
    return filters.to(device)


def _n_fft(sample_rate: int) -> int:
    return 4 * max(8, round(_WINDOW_SECONDS * sample_rate / 4))
