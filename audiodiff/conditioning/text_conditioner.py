"""A text of tokens -> condition.local and condition.prior_mean: what every frame should sound like.

The mean frame of each token lasts as long as the token: x_T ~ N(mu_aligned, I), and the network hears mu_aligned
(Popov et al. 2021, "Grad-TTS", section 3.2; arXiv 2105.06337). Training finds the durations in the recording by
monotonic alignment search, synthesis predicts them, so that they tell how long the speech will be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from audiodiff.conditioning.label import Labels
from audiodiff.conditioning.text import EncodedText, TextEncoder
from audiodiff.conditioning.text_alignment import align_by_durations, align_to_speech, predicted_durations
from audiodiff.errors import InputError
from audiodiff.types import Batch, Condition


class SpokenText(nn.Module):
    """What conditioners that speak a text share: how it is read, how long its tokens last, and whose voice it has.

    Attributes:
        hop_length: samples of the frames that durations count; None for the frames of what is diffused.
    """

    hop_length: int | None = None

    def __init__(
        self, encoder: TextEncoder, length_scale: float = 1.0, speaker: Labels | None = None
    ) -> None:
        """Joins the parts.

        Args:
            encoder: tokens -> mean frames and durations.
            length_scale: factor of every predicted duration; above 1 speaks slower.
            speaker: whose vector the encoder and the network hear; None for an encoder that is told no speaker. For
                such an encoder beside a network that is told one, join this and Labels in a Joint.

        Raises:
            InputError: a length scale that is not positive, an encoder that hears a speaker and no speaker, or
                the reverse.
        """
        super().__init__()
        if not (length_scale > 0 and math.isfinite(length_scale)):
            raise InputError(f"length_scale: got {length_scale}, expected a number above 0 such as 1.0")
        if (speaker is None) != (encoder.speaker_features is None):
            raise InputError(
                f"text: got {'no speaker' if speaker is None else 'a speaker'} for an encoder of "
                f"speaker_features {encoder.speaker_features}; give both or neither"
            )
        self.encoder = encoder
        self.length_scale = length_scale
        self.speaker = speaker

    def durations(self, batch: Batch) -> Tensor:
        """Returns how many frames each token lasts as it would be spoken, [B, L]; zero beyond an item's tokens.

        Raises:
            InputError: no text, an empty one, or an unknown token or speaker.
        """
        encoded = self._encode(batch, self._vector(batch))
        return predicted_durations(encoded.log_durations, encoded.tokens, self._scale(batch))

    def null(self, batch: Batch) -> Condition:
        """Returns the same speech, of which the network is not told the speaker: guidance steers by labels."""
        vector = None if self.speaker is None else self.speaker.null(batch).vector
        condition: Condition = self(batch)
        return replace(condition, vector=vector)

    def _scale(self, batch: Batch) -> float | Tensor:
        """Returns the factor of every duration, of each item [B, 1] where items have their own speeds."""
        if batch.speeds is None:
            return self.length_scale
        return self.length_scale / batch.speeds.to(self.encoder.embedding.weight.device)[:, None]

    def _vector(self, batch: Batch) -> Tensor | None:
        return None if self.speaker is None else self.speaker(batch).vector

    def _encode(self, batch: Batch, vector: Tensor | None) -> EncodedText:
        tokens, counts = batch.tokens, batch.token_counts
        if tokens is None or counts is None:
            raise InputError("this model speaks a text: give tokens and token_counts, one text an item")
        if tokens.dim() != 2 or tokens.is_floating_point() or len(tokens) != batch.size:
            raise InputError(
                f"text: got tokens of shape {list(tokens.shape)} ({tokens.dtype}), expected whole numbers of shape "
                f"[{batch.size}, L], a row an item"
            )
        empty = (counts < 1).nonzero().flatten().tolist()
        if empty:
            name = batch.ids[empty[0]] if batch.ids else f"item {empty[0]}"
            raise InputError(f"text of {name}: is empty, expected at least one token")
        encoded: EncodedText = self.encoder(tokens.to(self.encoder.embedding.weight.device), counts, vector)
        return encoded


class Text(SpokenText):
    """Conditioner that speaks a text to a model of mels, whose noise has the text's mean frames as its mean."""

    def forward(self, batch: Batch) -> Condition:
        """Returns the text as it would be spoken: local and prior_mean [B, C, F], frames [B], and vector.

        Raises:
            InputError: no text, an empty one, an unknown token or speaker, or a length scale at which there are more
                tokens than frames.
        """
        vector = self._vector(batch)
        prior_mean, frames = align_by_durations(self._encode(batch, vector), self._scale(batch))
        return Condition(held(prior_mean, frames), vector, frames.cpu(), prior_mean)

    def align(self, batch: Batch, clean: Tensor, frames: Tensor) -> tuple[Condition, Mapping[str, Tensor]]:
        """Returns the text as it was spoken, and the losses "prior" and "duration" that teach the encoder.

        Args:
            batch: tokens, token counts and labels.
            clean: [B, C, F], recordings of the whole texts.
            frames: [B], frames of each item.

        Raises:
            InputError: no text, an empty one, an unknown token or speaker, or more tokens than frames.
        """
        vector = self._vector(batch)
        prior_mean, losses = align_to_speech(self._encode(batch, vector), clean, frames)
        return Condition(held(prior_mean, frames), vector, frames, prior_mean), losses


def held(mean: Tensor, frames: Tensor) -> Tensor:
    """Returns mean [B, C, F] with each item's last frame repeated over its padding, as that of a mel is."""
    positions = torch.arange(mean.shape[2], device=mean.device)
    index = torch.minimum(positions, frames.to(positions)[:, None] - 1)  # [B, F]
    return mean.gather(2, index[:, None].expand_as(mean))
