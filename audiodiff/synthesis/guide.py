"""A guide recording: the sound takes on its loudness over time and bands, or its chroma; all else is the model's own.

Choi et al. 2021 (ILVR, eq. 8) put the low frequencies of a reference picture into every estimate. Of a sound it is not
the waveform that is smoothed but the spectrogram: each clean estimate is scaled, by group of frequencies and moment, by

    log gain = strength / 2 (phi(log E_guide) - phi(log E_estimate)),

with E the energies of a view and phi a mean over a moment. The bands view has a few mel bands, which tell loudness and
colour but no pitch. The chroma view has the twelve pitch classes in a window that tells semitones apart, each as a
share of all twelve, so that it moves energy between pitches and leaves loudness alone; which octave and which
instrument sounds is left to the model. No gradient passes the network, so that any model can be guided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audiodiff.diffusion.constraints import Projection
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion
from audiodiff.synthesis.recordings import Recording

BANDS = 12
_WINDOW_SECONDS, _MOMENT_SECONDS = 0.032, 0.064  # of a spectrum; of the mean over time
_CHROMA_SECONDS = 0.19  # of a spectrum, whose lines then lie 5 Hz apart
_MOST_GAIN = math.log(100.0)  # of the amplitude, at one evaluation
_FLOOR = 1e-8  # of the energies, -80 dB
_SHARE_FLOOR = 1e-3  # of the shares: a pitch class 30 dB below the loudest one does not sound
MOST_SECONDS = 120.0


@dataclass(frozen=True)
class View:
    """What of a sound is looked at: the energies of groups of frequencies, moment by moment.

    Attributes:
        n_fft: window of the spectrum, a multiple of 4; the hop is a quarter of it.
        reach: frames on either side that a mean over time takes in.
        filters: [bins, K], how much a bin counts for a group.
        shares: [bins, K], how much of a group's gain a bin takes.
        relative: energies are shares of their sum.
    """

    n_fft: int
    reach: int
    filters: Tensor
    shares: Tensor
    relative: bool


def loudness_view(model: AudioDiffusion) -> View:
    """Returns the view of loudness over time and mel bands."""
    from librosa.filters import mel  # half a second, only where something is guided

    n_fft = _n_fft(_WINDOW_SECONDS, model.sample_rate)
    filters = torch.from_numpy(mel(sr=model.sample_rate, n_fft=n_fft, n_mels=BANDS, htk=True, norm=None)).T
    bins = torch.arange(n_fft // 2 + 1)
    # What lies outside the outermost centres belongs to the outermost bands.
    outside = filters.sum(1) < 1e-6
    filters[outside & (bins < len(bins) // 2), 0] = 1.0
    filters[outside & (bins >= len(bins) // 2), -1] = 1.0
    reach = max(1, round(_MOMENT_SECONDS * model.sample_rate / (n_fft // 4)) // 2)
    # A bin lies between two bands, and its logarithm between theirs.
    shares = filters / filters.sum(1, keepdim=True).clamp(min=1e-6)
    return View(n_fft, reach, filters.to(model.device), shares.to(model.device), relative=False)


def chroma_view(model: AudioDiffusion) -> View:
    """Returns the view of the pitch classes, C first, A at 440 Hz, that fades out far from the keyboard's middle."""
    from librosa.filters import chroma

    n_fft = _n_fft(_CHROMA_SECONDS, model.sample_rate)
    filters = torch.from_numpy(chroma(sr=model.sample_rate, n_fft=n_fft, tuning=0.0)).T
    heard = filters.sum(1, keepdim=True)
    # A class reaches into its neighbours; squared, it does not take their gain.
    shares = filters.square() / filters.square().sum(1, keepdim=True).clamp(min=1e-12) * heard / heard.max()
    return View(n_fft, 2, filters.float().to(model.device), shares.float().to(model.device), relative=True)


@dataclass(frozen=True)
class Guide:
    """Projection of the clean estimate, in the coordinates of the data.

    Attributes:
        model: whose representation x is of.
        view: what of the guide the estimate takes on.
        levels: [1, K, F] of the guide, logarithms of energies.
        samples: length of the guide; beyond it nothing is guided.
        strength: 0 guides nothing, 1 gives the estimate the guide's levels.
    """

    model: AudioDiffusion
    view: View
    levels: Tensor
    samples: int
    strength: float

    def __call__(self, clean: Tensor, t: Tensor) -> Tensor:
        """Returns the scaled estimate [B, D, F]."""
        representation = self.model.representation
        extra = representation.shape(representation.hop_length)[1] - 1
        length = (clean.shape[-1] - extra) * representation.hop_length
        waveform = representation.decode(clean, length)
        spectrum, levels = _analyse(waveform, self.view)
        known = min(levels.shape[-1], self.levels.shape[-1])
        gain = torch.zeros_like(levels)
        gain[..., :known] = self.levels[..., :known].to(levels) - levels[..., :known]
        gain = (self.strength / 2 * gain).clamp(-_MOST_GAIN, _MOST_GAIN)
        scaled = spectrum * torch.einsum("bkf,nk->bnf", gain, self.view.shares).exp()[:, None]
        change = _synthesize(scaled - spectrum, length, self.view.n_fft)
        return clean + representation.encode(change)[..., : clean.shape[-1]]


def mel_guide(model: AudioDiffusion, path: Path, strength: float) -> Projection:
    """Returns the projection towards the loudness of a guide recording, over time and bands.

    Args:
        model: of any representation of waveforms.
        path: the recording.
        strength: 0 to 1.

    Raises:
        InputError: a strength outside, a file that cannot be read or is too long.
    """
    return _guide(model, path, loudness_view(model), strength, "--guide-strength")


def chroma_guide(model: AudioDiffusion, path: Path, strength: float) -> Projection:
    """Returns the projection towards the chroma of a guide recording, moment by moment.

    Args:
        model: of any representation of waveforms.
        path: the recording.
        strength: 0 to 1.

    Raises:
        InputError: a strength outside, a file that cannot be read or is too long.
    """
    return _guide(model, path, chroma_view(model), strength, "--guide-chroma")


def distance(waveform: Tensor, guide: Guide) -> float:
    """Returns how far the levels of a waveform [C, T] lie from the guide's, root mean square in dB."""
    levels = _analyse(waveform[None].to(guide.levels.device), guide.view)[1]
    known = min(levels.shape[-1], guide.levels.shape[-1])
    difference = levels[..., :known] - guide.levels[..., :known]
    return 10 / math.log(10) * float(difference.square().mean().sqrt())


def _guide(model: AudioDiffusion, path: Path, view: View, strength: float, option: str) -> Guide:
    if not 0 <= strength <= 1:
        raise InputError(f"{option}: got {strength}, expected a number from 0 to 1")
    recording = Recording(path, model.sample_rate, model.representation.channels)
    if recording.info.seconds > MOST_SECONDS:
        raise InputError(
            f"{path}: a guide of {recording.info.seconds:.0f} s, expected at most {MOST_SECONDS:g} s"
        )
    waveform = recording.read(0, recording.samples).mean(0, keepdim=True)
    levels = _analyse(waveform.to(model.device), view)[1]
    return Guide(model, view, levels, recording.samples, strength)


def _analyse(waveform: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Returns the spectrum [B, C, bins, F] and the levels [B, K, F] of waveforms [B, C, T]."""
    half = view.n_fft // 2
    flat = torch.nn.functional.pad(waveform.flatten(0, 1), (half, half))
    window = torch.hann_window(view.n_fft, device=waveform.device)
    spectrum = torch.stft(
        flat, view.n_fft, view.n_fft // 4, window=window, center=False, return_complex=True
    ).unflatten(0, waveform.shape[:2])
    power = spectrum.abs().square().mean(1) / window.square().sum()
    energies = torch.einsum("bnf,nk->bkf", power, view.filters)
    smooth = torch.nn.functional.avg_pool1d(
        energies, 2 * view.reach + 1, stride=1, padding=view.reach, count_include_pad=False
    )
    smooth = smooth + _FLOOR
    if view.relative:
        smooth = smooth / smooth.sum(1, keepdim=True) + _SHARE_FLOOR
    return spectrum, smooth.log()


def _synthesize(spectrum: Tensor, length: int, n_fft: int) -> Tensor:
    """Returns waveforms [B, C, length] of spectra [B, C, bins, F]."""
    window = torch.hann_window(n_fft, device=spectrum.device)
    frames = torch.fft.irfft(spectrum.flatten(0, 1), n=n_fft, dim=1) * window[:, None]
    total = (spectrum.shape[-1] - 1) * (n_fft // 4) + n_fft
    summed = torch.nn.functional.fold(frames, (1, total), (1, n_fft), stride=(1, n_fft // 4))[:, 0, 0]
    # The squared Hann windows add up to 3/2 at a quarter of the window.
    waveform = summed[:, n_fft // 2 : n_fft // 2 + length] / 1.5
    waveform = torch.nn.functional.pad(waveform, (0, length - waveform.shape[-1]))
    return waveform.unflatten(0, spectrum.shape[:2])


def _n_fft(seconds: float, sample_rate: int) -> int:
    return 4 * max(8, round(seconds * sample_rate / 4))
