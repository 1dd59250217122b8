"""A text of tokens -> condition.local and condition.prior_std: what every moment of the audio should sound like.

For models of STFT coefficients or samples, which make audio straight from text. A text tells no mean of their x, since
its phases are as random as noise; it tells one of the log-mel, and how loud each coefficient is likely to be. So:

    local      mu_aligned, the mean frames of the normalised log-mel, to which tokens are aligned by monotonic alignment
               search with the losses "prior" and "duration" (Popov et al. 2021, "Grad-TTS", section 3.2;
               arXiv 2105.06337): the network stands where a vocoder stands, but hears what all ways to speak
               the text have in common, and chooses one;
    prior_std  s_aligned, the deviation at which x is likeliest under N(0, s_aligned^2), loss "deviation": the noise is
               speech-shaped from the first step on, as PriorGrad's (Lee et al. 2022, eq. 5; arXiv 2106.06406).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel
from audiodiff.conditioning.alignment import valid_positions
from audiodiff.conditioning.label import Labels
from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.text import EncodedText, TextEncoder
from audiodiff.conditioning.text_alignment import alignment_losses, predicted_alignment, speech_alignment
from audiodiff.conditioning.text_conditioner import SpokenText, held
from audiodiff.errors import InputError
from audiodiff.types import Batch, Condition


class Grid(Protocol):
    """What must be known of the Representation: where the positions of x lie."""

    hop_length: int

    def shape(self, length: int) -> tuple[int, int]:
        """Returns (features, frames) of x for a waveform of that many samples."""
        ...


class Deviation(nn.Module):
    """What an encoder says of a token -> deviation of x while it is spoken."""

    def __init__(self, width: int, features: int, std_min: float) -> None:
        """Builds a projection that begins at the deviation of all audio, which is 1.

        Args:
            width: of the encoder's hidden features.
            features: D of x.
            std_min: smallest deviation, which silence has.

        Raises:
            InputError: a smallest deviation outside 0 to 1.
        """
        super().__init__()
        if not 0 < std_min < 1:
            raise InputError(f"std_min: got {std_min}, expected a number between 0 and 1 such as 0.03")
        self.std_min = std_min
        self.projection = nn.Linear(width, features)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the deviation [B, D, F], above std_min, for hidden features [B, W, F]."""
        levels = self.projection(hidden.transpose(1, 2)).transpose(1, 2)
        return (levels.exp().square() + self.std_min**2).sqrt()


class AlignedText(SpokenText):
    """Conditioner that speaks a text to a model of audio."""

    def __init__(
        self,
        encoder: TextEncoder,
        log_mel: LogMel,
        representation: Grid,
        std_min: float | None = None,
        length_scale: float = 1.0,
        speaker: Labels | None = None,
    ) -> None:
        """Joins the parts.

        Args:
            encoder: tokens -> mean frames of the normalised log-mel, and durations.
            log_mel: what tokens are aligned to.
            representation: like the model's; only its grid is looked at.
            std_min: smallest deviation of the noise, 1 being that of all audio; None for white noise.
            length_scale: factor of every predicted duration; above 1 speaks slower.
            speaker: whose vector the encoder and the network hear, see SpokenText.

        Raises:
            InputError: an encoder of other features than the mel's bands, a mel whose hop is no multiple of that of x,
                a smallest deviation outside 0 to 1, or what SpokenText refuses.
        """
        super().__init__(encoder, length_scale, speaker)
        _check(encoder, log_mel, representation)
        self.mel = Mel(log_mel)
        features = representation.shape(representation.hop_length)[0]
        self.deviation = None if std_min is None else Deviation(encoder.width, features, std_min)
        self.hop_length = log_mel.hop_length
        self._shape, self._stride = representation.shape, log_mel.hop_length // representation.hop_length

    def forward(self, batch: Batch) -> Condition:
        """Returns the text as it would be spoken: local [B, n_mels, F'], prior_std [B, D, F], frames [B], and vector.

        Raises:
            InputError: no text, an empty one, an unknown token or speaker, or a length scale at which there are more
                tokens than frames.
        """
        vector = self._vector(batch)
        encoded = self._encode(batch, vector)
        alignment, mel_frames = predicted_alignment(encoded, self._scale(batch))
        lengths = [self._length(frames) for frames in mel_frames.tolist()]
        frames = torch.tensor([self._shape(length)[1] for length in lengths])
        local, std = self._spoken(encoded, alignment, mel_frames, int(frames.max()))
        return Condition(local, vector, frames, prior_std=std)

    def align(self, batch: Batch, clean: Tensor, frames: Tensor) -> tuple[Condition, Mapping[str, Tensor]]:
        """Returns the text as it was spoken, and the losses "prior", "duration" and "deviation".

        Args:
            batch: tokens, token counts, labels, and the recordings of the whole texts.
            clean: [B, D, F], the recordings as they are diffused.
            frames: [B], frames of each item.

        Raises:
            InputError: no text, an empty one, an unknown token or speaker, no recording, or more tokens than frames
                of its mel.
        """
        vector = self._vector(batch)
        encoded = self._encode(batch, vector)
        with torch.no_grad():
            mel = self.mel.normalize(self.mel.analyse(batch))
        counts = [max(self.mel.log_mel.frames(length), 1) for length in batch.lengths.tolist()]
        mel_frames = torch.tensor(counts)
        alignment = speech_alignment(encoded, mel, mel_frames)
        losses = alignment_losses(encoded, alignment, mel, mel_frames)
        local, std = self._spoken(encoded, alignment, mel_frames, clean.shape[2])
        if std is None:
            return Condition(local, vector, frames), losses
        losses |= {"deviation": deviation_loss(clean, std, frames)}
        # Told without gradient: the diffusion's loss is least where the noise drowns all that is to be learnt.
        return Condition(local, vector, frames, prior_std=std.detach()), losses

    def _spoken(
        self, encoded: EncodedText, alignment: Tensor, mel_frames: Tensor, positions: int
    ) -> tuple[Tensor, Tensor | None]:
        """Returns local [B, n_mels, F'], a frame every stride of x or one more, and the deviation [B, D, F]."""
        local_frames = -(-positions // self._stride)
        local = _fitted(encoded.mean @ alignment, mel_frames, local_frames)
        if self.deviation is None:
            return local, None
        std: Tensor = self.deviation(_fitted(encoded.hidden @ alignment, mel_frames, local_frames))
        return local, std.repeat_interleave(self._stride, 2)[..., :positions]

    def _length(self, frames: int) -> int:
        """Returns the samples of the shortest audio whose mel has so many frames, at least one hop."""
        log_mel = self.mel.log_mel
        return max(frames - log_mel.frames(0), 1) * log_mel.hop_length


def deviation_loss(clean: Tensor, std: Tensor, frames: Tensor) -> Tensor:
    """Returns -log N(clean; 0, std^2) in nats, without its constant, a mean over valid frames and features.

    Args:
        clean: [B, D, F].
        std: [B, D, F].
        frames: [B], frames of each item.
    """
    valid = valid_positions(frames.to(clean.device), clean.shape[2])
    surprise = 0.5 * (clean / std).square() + std.log()
    return (surprise * valid[:, None]).sum() / (valid.sum() * clean.shape[1])


def _fitted(spoken: Tensor, frames: Tensor, wanted: int) -> Tensor:
    """Returns spoken [B, C, F] with as many frames as are wanted, or more: each item's last one goes on."""
    going_on = held(spoken, frames)
    missing = max(wanted - going_on.shape[2], 0)
    return torch.cat([going_on, going_on[..., -1:].expand(-1, -1, missing)], 2)


def _check(encoder: TextEncoder, log_mel: LogMel, representation: Grid) -> None:
    bands, features = log_mel.n_mels, encoder.mean.out_features
    if bands != features:
        raise InputError(
            f"text encoder of {features} features, its mel has {bands} bands; choose features to match"
        )
    if log_mel.hop_length % representation.hop_length:
        raise InputError(
            f"mel with a frame every {log_mel.hop_length} samples, the model has one every "
            f"{representation.hop_length}; choose a hop of the mel that is a multiple of the model's"
        )
