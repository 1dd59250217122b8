"""What an autoencoder's training minimises: how far what comes back is from what went in, and how loosely it is packed.

    spectra at several resolutions + mel + waveform + share * KL(N(mean, std^2) || N(0, 1))

Spectral convergence and log magnitudes (Yamamoto et al. 2020, eqs. 4-6) and the L1 distance of log-mels, both of the
middle and the side of a stereo signal, which hear what left and right have in common (Steinmetz et al. 2021); the
waveform's relative L1 distance, which alone knows the phase; and the divergence of the posterior from a unit Gaussian,
which keeps the latents bounded and smooth (Rombach et al. 2022, section 3.1). No adversary: what the spectra cannot
tell apart is averaged, which is heard as dull transients and a rough high end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel
from audiodiff.diffusion.objectives import stft_loss

_QUIET = 1e-3  # mean absolute sample below which a clip counts as this loud


class ReconstructionLoss(nn.Module):
    """Parts of the loss by name, each [B] and weighted: their sum is minimised."""

    def __init__(
        self,
        log_mel: LogMel,
        resolutions: Sequence[Sequence[int]],
        floor: float,
        mel_share: float,
        waveform_share: float,
        divergence_share: float,
    ) -> None:
        """Takes the weights.

        Args:
            log_mel: at the audio's sample rate.
            resolutions: (n_fft, hop_length, win_length) of each spectrum, samples.
            floor: smallest magnitude that counts; a full-scale sine has win_length / 4.
            mel_share: of the mels' distance.
            waveform_share: of the waveforms' distance.
            divergence_share: of the divergence, in nats per latent.
        """
        super().__init__()
        self.log_mel, self.floor = log_mel, floor
        self.resolutions = tuple((int(n_fft), int(hop), int(window)) for n_fft, hop, window in resolutions)
        self.mel_share, self.waveform_share, self.divergence_share = (
            mel_share,
            waveform_share,
            divergence_share,
        )

    def forward(
        self, estimate: Tensor, clean: Tensor, lengths: Tensor, mean: Tensor, std: Tensor
    ) -> Mapping[str, Tensor]:
        """Returns the parts.

        Args:
            estimate: what came back, [B, C, T].
            clean: what went in, [B, C, T].
            lengths: [B], valid samples.
            mean: of the latents' posterior, [B, D, F].
            std: of it.
        """
        lengths = lengths.to(clean.device)
        valid = (torch.arange(clean.shape[-1], device=clean.device) < lengths[:, None])[:, None]
        estimate, clean = estimate.float() * valid, clean.float() * valid
        made, wanted = _middle_and_side(estimate), _middle_and_side(clean)
        spectra = [stft_loss(made, wanted, lengths, *sizes, self.floor) for sizes in self.resolutions]
        mels = [
            self.log_mel(signal.flatten(0, 1)).unflatten(0, signal.shape[:2]) for signal in (made, wanted)
        ]
        size = clean.abs().flatten(1).sum(1).maximum(_QUIET * clean.shape[1] * lengths)
        divergence = (mean.square() + std.square() - 1) / 2 - std.log()
        return {
            "spectra": torch.stack(spectra).mean(0),
            "mel": self.mel_share * (mels[0] - mels[1]).abs().flatten(1).mean(1),
            "waveform": self.waveform_share * (estimate - clean).abs().flatten(1).sum(1) / size,
            "divergence": self.divergence_share * divergence.float().flatten(1).mean(1),
        }


def _middle_and_side(waveform: Tensor) -> Tensor:
    """Returns (L + R) / sqrt 2 and (L - R) / sqrt 2 of a stereo waveform [B, 2, T], others as they are."""
    if waveform.shape[1] != 2:
        return waveform
    left, right = waveform.unbind(1)
    return torch.stack([left + right, left - right], dim=1) / 2**0.5
