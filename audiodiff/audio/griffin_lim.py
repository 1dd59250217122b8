"""Griffin-Lim: a waveform from a log-mel without any training, the baseline of every vocoder table.

Mel -> linear magnitudes by non-negative least squares with the mel's own filterbank, in a fixed number of iterations,
then phases by the fast Griffin-Lim algorithm: alternate projections on the spectrograms of that magnitude and on those
of a real signal, with momentum 0.99 (Perraudin, Balazs and Sondergaard 2013, algorithm 2; Griffin and Lim 1984).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio.mel import LogMel
from audiodiff.audio.mel_conversion import linear_spectrum
from audiodiff.audio.mel_input import bands_first, check_layout
from audiodiff.errors import InputError

MOMENTUM = 0.99
# librosa's solver, which published scores of Griffin-Lim come from, stops where it begins on the mels of speech.
YARDSTICK = 1


class GriffinLim:
    """Turns log-mels of one definition into waveforms."""

    def __init__(
        self,
        log_mel: LogMel,
        iterations: int = 60,
        layout: str | None = None,
        spectrum_iterations: int = YARDSTICK,
    ) -> None:
        """Keeps the definition.

        Args:
            log_mel: the definition of the mels that will come.
            iterations: projections; 0 leaves the random phases.
            layout: of the mels: "bands_first", "frames_first", or None to tell it by the number of bands.
            spectrum_iterations: of the linear magnitudes, see `mel_conversion.non_negative`. With the default it
                scores as published; 50 meet the bands and score higher.

        Raises:
            InputError: a number of iterations is negative, or an unknown layout.
        """
        check_layout(layout)
        if min(iterations, spectrum_iterations) < 0:
            raise InputError(
                f"iterations: got {iterations} and {spectrum_iterations} of the spectrum, expected 0 or more"
            )
        self.log_mel = log_mel
        self.iterations = iterations
        self.layout = layout
        self.spectrum_iterations = spectrum_iterations

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms in hertz."""
        return self.log_mel.sample_rate

    def check(self, mel: Tensor | np.ndarray, name: str = "mel") -> Tensor:
        """Returns a mel from elsewhere as [B, n_mels, F], checked against the definition.

        Raises:
            InputError: layout, shape, bands or range that this definition cannot give.
        """
        return self.log_mel.check(bands_first(mel, self.log_mel.n_mels, self.layout, name), name)

    def __call__(
        self, mel: Tensor | np.ndarray, lengths: Tensor | Sequence[int] | None = None, seed: int = 0
    ) -> Tensor:
        """Returns waveforms [B, T]; each item is the same alone or in a batch.

        Args:
            mel: [B, n_mels, F], or as `layout` says; the batch axis may be left out.
            lengths: [B], samples of each item, which say how many of its frames are valid; T is the longest,
                and items are zero beyond their length. None: T = F * hop_length for all.
            seed: of the first phases, the same for every item.

        Raises:
            InputError: a mel that does not fit the definition, or lengths that do not fit the mel.
        """
        mel = self.check(mel)
        wanted = self._lengths(mel, lengths)
        waveforms = mel.new_zeros(mel.shape[0], max(wanted))
        for row, item, length in zip(waveforms, mel, wanted, strict=True):
            valid = item if lengths is None else item[:, : self.log_mel.frames(length)]
            row[:length] = self.item(valid, length, seed)
        return waveforms

    def item(self, mel: Tensor, length: int, seed: int = 0) -> Tensor:
        """Returns the waveform [length] of one mel, which is believed as it stands.

        Args:
            mel: [n_mels, F], finite.
            length: samples; those beyond the last frame are zero.
            seed: of the first phases.
        """
        made = self._signal(mel, seed)[:length]
        return torch.nn.functional.pad(made, (0, length - made.shape[0]))

    def _lengths(self, mel: Tensor, lengths: Tensor | Sequence[int] | None) -> list[int]:
        batch, _, frames = mel.shape
        if lengths is None:
            return [self.log_mel.samples(frames)] * batch
        wanted = [int(length) for length in lengths]
        # Whole hops, or audio that these frames were taken from: a rest of a hop, or a centred frame at its end.
        fits = (n <= self.log_mel.samples(frames) or self.log_mel.frames(n) <= frames for n in wanted)
        if len(wanted) != batch or not all(fits) or any(n < 1 or self.log_mel.frames(n) < 1 for n in wanted):
            raise InputError(
                f"lengths: got {wanted} samples for {batch} mels of {frames} frames at hop "
                f"{self.log_mel.hop_length}, expected one length per mel, of at most as many frames"
            )
        return wanted

    def _signal(self, mel: Tensor, seed: int) -> Tensor:
        """Returns the waveform [T'] that the frames of one mel [n_mels, F] cover, from its first sample."""
        magnitude = linear_spectrum(self.log_mel, mel, self.spectrum_iterations)
        generator = torch.Generator().manual_seed(seed)
        angle = 2 * torch.pi * torch.rand(magnitude.shape, generator=generator).to(mel.device)
        phase = torch.polar(torch.ones_like(angle), angle)
        before = torch.zeros_like(phase)
        for _ in range(self.iterations):
            rebuilt = analyse(self.log_mel, synthesize(self.log_mel, magnitude * phase))
            accelerated = rebuilt - MOMENTUM / (1 + MOMENTUM) * before
            phase = accelerated / accelerated.abs().clamp_min(1e-16)
            before = rebuilt
        return synthesize(self.log_mel, magnitude * phase)[padding(self.log_mel) :]


def padding(log_mel: LogMel) -> int:
    """Returns the samples before the first one that the first frame covers."""
    if log_mel.framing == "same":
        return (log_mel.n_fft - log_mel.hop_length) // 2
    return log_mel.n_fft // 2


def analyse(log_mel: LogMel, padded: Tensor) -> Tensor:
    """Returns the STFT [n_fft/2 + 1, F] of a signal [T'] with the plain window, framed from its first sample."""
    return torch.stft(
        padded,
        log_mel.n_fft,
        log_mel.hop_length,
        log_mel.win_length,
        log_mel.window.to(padded),
        center=False,
        return_complex=True,
    )


def synthesize(log_mel: LogMel, spectrum: Tensor) -> Tensor:
    """Returns the signal whose STFT is nearest to spectrum [n_fft/2 + 1, F] (Griffin and Lim, eq. 6).

    The signal [(F - 1) * hop_length + n_fft] includes the padding at both ends, so that every frame lies inside
    it whatever the framing.
    """
    size, hop = log_mel.n_fft, log_mel.hop_length
    left = (size - log_mel.win_length) // 2
    right = size - log_mel.win_length - left
    window = torch.nn.functional.pad(log_mel.window.to(spectrum.real), (left, right))
    pieces = torch.fft.irfft(spectrum, n=size, dim=0) * window[:, None]  # [n_fft, F]
    frames = pieces.shape[1]
    signal = _overlap_add(pieces, frames, hop)
    weight = _overlap_add(window.square()[:, None], frames, hop)
    return (signal / weight.clamp_min(1e-8))[: (frames - 1) * hop + size]


def _overlap_add(pieces: Tensor, frames: int, hop: int) -> Tensor:
    """Returns the sum [(frames + ceil(size / hop) - 1) * hop] of pieces [size, frames or 1], each a hop later."""
    overlap = -(-pieces.shape[0] // hop)
    rows = torch.nn.functional.pad(pieces, (0, 0, 0, overlap * hop - pieces.shape[0])).reshape(
        overlap, hop, -1
    )
    total = pieces.new_zeros(hop, frames + overlap - 1)
    for place, row in enumerate(rows):
        total[:, place : place + frames] += row
    return total.T.reshape(-1)
