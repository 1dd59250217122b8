"""What is done to a waveform after sampling: the model's own hiss is subtracted, and silence is made silent.

A diffusion model of few steps hums and hisses a little by itself. Bias removal subtracts the magnitudes that it makes
of a silent mel from every frame of its spectrum and keeps the phases (the denoiser of WaveGlow, Prenger et al. 2018).
Silence: a frame whose bands all lie at the mel's floor says that nothing louder than the floor sounds within its
window, so its hop of audio is muted; between sound and silence the silent hop fades.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from audiodiff.audio.griffin_lim import analyse, padding, synthesize
from audiodiff.audio.mel import LogMel
from audiodiff.errors import InputError


@dataclass(frozen=True)
class Finish:
    """What a vocoder does to a waveform after sampling.

    Attributes:
        bias_removal: strength with which the model's own spectrum for silence is subtracted; 0 leaves it, 1 subtracts
            it once.
        silence_margin_db: frames whose bands all lie at most so many decibels above digital silence are silent; None
            leaves them as sampled.
    """

    bias_removal: float = 0.0
    silence_margin_db: float | None = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bias_removal) and self.bias_removal >= 0):
            raise InputError(
                f"bias removal: got {self.bias_removal}, expected 0 (none) or a strength such as 1"
            )
        margin = self.silence_margin_db
        if margin is not None and not (math.isfinite(margin) and margin >= 0):
            raise InputError(
                f"silence margin: got {margin} dB, expected 0 or more, or None to leave silence as sampled"
            )


class SilenceGate:
    """Mutes what the mel says is silent, of one waveform that comes whole or in pieces.

    Frame f has the samples from f * hop_length. A silent one is muted, but fades out after a sounding one and fades in
    before one, so its gain is known once the next frame is.
    """

    def __init__(self, log_mel: LogMel, margin_db: float) -> None:
        """Stands at the first frame.

        Args:
            log_mel: definition of the mels.
            margin_db: how far above digital silence is still silent.
        """
        self._log_mel = log_mel
        self._limit = log_mel.silence + margin_db * log_mel.decibel
        self._sounding = torch.zeros(0, dtype=torch.bool)  # of the frames from `_first`
        self._first = 0

    def hear(self, mel: Tensor) -> None:
        """Takes the next frames [n_mels, F]."""
        sounding = (mel > self._limit.to(mel)[:, None]).any(0).cpu()
        self._sounding = torch.cat([self._sounding, sounding])

    def over(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields the pieces [T] muted; what awaits the next frame comes with the piece after it."""
        held, start = torch.zeros(0), 0
        for piece in pieces:
            held = torch.cat([held.to(piece), piece])
            ready = min(max(self._known() - start, 0), held.shape[0])
            if ready:
                yield held[:ready] * self.gain(start, ready).to(held)
                held, start = held[ready:], start + ready
                self._forget(start)
        if held.shape[0]:
            yield held * self.gain(start, held.shape[0]).to(held)

    def gain(self, start: int, length: int) -> Tensor:
        """Returns the gain of the samples from `start` [length]; the last frame heard holds beyond itself."""
        hop = self._log_mel.hop_length
        first, last = start // hop, (start + length - 1) // hop
        frames = torch.arange(first, last + 1)
        before, now, after = (self._at(frames + shift) for shift in (-1, 0, 1))
        rise = 0.5 - 0.5 * torch.cos(torch.pi * (torch.arange(hop) + 0.5) / hop)
        fades = torch.maximum(before[:, None] * rise.flip(0), after[:, None] * rise)
        return torch.maximum(now[:, None], fades).flatten()[start - first * hop :][:length]

    def _at(self, frames: Tensor) -> Tensor:
        """Returns 1.0 where a frame sounds; before the first one as at it."""
        return self._sounding[(frames - self._first).clamp(0, len(self._sounding) - 1)].float()

    def _known(self) -> int:
        """Returns up to which sample the gain is known."""
        frames = self._first + len(self._sounding)
        waits = len(self._sounding) > 0 and not bool(self._sounding[-1])
        return (frames - waits) * self._log_mel.hop_length

    def _forget(self, start: int) -> None:
        """Drops the frames that no sample from `start` on needs."""
        frame = max(start // self._log_mel.hop_length - 1, 0)
        self._sounding, self._first = self._sounding[frame - self._first :], frame


def mean_spectrum(waveform: Tensor, log_mel: LogMel) -> Tensor:
    """Returns the mean magnitude of each bin [n_fft/2 + 1] of a waveform [T], with the mel's window."""
    return _spectrum(waveform, log_mel).abs().mean(1)


def subtract_spectrum(waveform: Tensor, spectrum: Tensor, log_mel: LogMel, strength: float) -> Tensor:
    """Returns the waveform [T] with `strength` times the magnitudes [n_fft/2 + 1] less in every frame."""
    frames = _spectrum(waveform, log_mel)
    magnitude = frames.abs()
    less = (magnitude - strength * spectrum.to(magnitude)[:, None]).clamp_min(0)
    made = synthesize(log_mel, frames * (less / magnitude.clamp_min(1e-12)))
    return made[padding(log_mel) :][: waveform.shape[-1]]


def _spectrum(waveform: Tensor, log_mel: LogMel) -> Tensor:
    """Returns the STFT [n_fft/2 + 1, F] of a waveform [T], zero around it, whose frames cover every sample."""
    before = padding(log_mel)
    hops = math.ceil(waveform.shape[-1] / log_mel.hop_length)
    after = hops * log_mel.hop_length + log_mel.n_fft - before - waveform.shape[-1]
    return analyse(log_mel, torch.nn.functional.pad(waveform, (before, after)))
