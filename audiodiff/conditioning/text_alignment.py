"""What an encoder says of tokens -> frames: aligned to a recording of the text, or as its durations predict.

The mean frame of every token is repeated as long as the token lasts: x_T ~ N(mu_aligned, I). Training finds the
durations by monotonic alignment search over log N(y_f; mu_l, I) and lowers two losses beside the diffusion's
(Popov et al. 2021, "Grad-TTS", section 3.2, eqs. 12-14; arXiv 2105.06337):

    prior     -log N(y_f; mu_aligned_f, I), mean over frames and features
    duration  (log d_l - predicted_l)^2, mean over tokens
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from audiodiff.conditioning.alignment import durations_to_alignment, monotonic_alignment, valid_positions
from audiodiff.conditioning.text import EncodedText
from audiodiff.errors import InputError


def log_prior(mean: Tensor, clean: Tensor) -> Tensor:
    """Returns log N(clean_f; mean_l, I) for every token l and frame f, [B, L, F].

    In float32 at least, also within autocast: alignments are decided by small differences of large numbers.

    Args:
        mean: [B, C, L], mean frame of every token.
        clean: [B, C, F], what was spoken.
    """
    precision = torch.promote_types(mean.dtype, torch.float32)
    mean, clean = mean.to(precision), clean.to(precision)
    with torch.autocast(mean.device.type, enabled=False):
        product = mean.transpose(1, 2) @ clean
        squares = mean.square().sum(1)[:, :, None] + clean.square().sum(1)[:, None]
    return product - 0.5 * (squares + mean.shape[1] * math.log(2 * math.pi))


def prior_loss(clean: Tensor, prior_mean: Tensor, frames: Tensor) -> Tensor:
    """Returns -log N(clean; prior_mean, I) in nats, a mean over valid frames and features.

    Args:
        clean: [B, C, F].
        prior_mean: [B, C, F].
        frames: [B], frames of each item.
    """
    valid = valid_positions(frames.to(clean.device), clean.shape[2])
    surprise = 0.5 * ((clean - prior_mean).square() + math.log(2 * math.pi))
    return (surprise * valid[:, None]).sum() / (valid.sum() * clean.shape[1])


def duration_loss(log_durations: Tensor, durations: Tensor, tokens: Tensor) -> Tensor:
    """Returns the squared error of predicted log-durations, a mean over tokens.

    Args:
        log_durations: [B, L], predicted.
        durations: [B, L] in frames, true ones; a token without frames is taught as one frame, which is what
            predictions are rounded up to.
        tokens: [B], tokens of each item.
    """
    valid = valid_positions(tokens.to(durations.device), durations.shape[1])
    error = log_durations - durations.clamp_min(1).log()
    return (error.square() * valid).sum() / valid.sum()


def align_to_speech(text: EncodedText, clean: Tensor, frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the prior mean of a recording of the text and the losses that teach the encoder: for training.

    Args:
        text: what the encoder says.
        clean: [B, C, F], the recordings as they are diffused.
        frames: [B], frames of each item.

    Returns:
        The prior mean [B, C, F], zero beyond an item's frames, and the losses "prior" and "duration".

    Raises:
        InputError: an item has more tokens than frames.
    """
    alignment = speech_alignment(text, clean, frames)
    prior_mean = text.mean @ alignment
    return prior_mean, alignment_losses(text, alignment, clean, frames)


def speech_alignment(text: EncodedText, clean: Tensor, frames: Tensor) -> Tensor:
    """Returns which token speaks which frame of a recording, [B, L, F] of ones and zeros, of the type of the means.

    Args and errors are those of `align_to_speech`.
    """
    alignment = monotonic_alignment(log_prior(text.mean.detach(), clean.detach()), text.tokens, frames)
    return alignment.to(text.mean.dtype)


def alignment_losses(
    text: EncodedText, alignment: Tensor, clean: Tensor, frames: Tensor
) -> dict[str, Tensor]:
    """Returns the losses "prior" and "duration" of a recording whose alignment [B, L, F] is known."""
    return {
        "duration": duration_loss(text.log_durations, alignment.sum(2), text.tokens),
        "prior": prior_loss(clean, text.mean @ alignment, frames),
    }


def align_by_durations(text: EncodedText, length_scale: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """Returns the prior mean of the text as it would be spoken, and its frames: for synthesis.

    Args:
        text: what the encoder says.
        length_scale: factor of every duration, or one per item [B, 1]; above 1 speaks slower.

    Returns:
        The prior mean [B, C, F], zero beyond an item's frames, and the frames [B] int64 of each item.

    Raises:
        InputError: a length scale that is not positive, or one at which there are more tokens than frames.
    """
    alignment, frames = predicted_alignment(text, length_scale)
    return text.mean @ alignment, frames


def predicted_alignment(text: EncodedText, length_scale: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """Returns the alignment [B, L, F] of the text as it would be spoken, of the means' type, and its frames [B] int64.

    Args and errors are those of `align_by_durations`.
    """
    durations = predicted_durations(text.log_durations, text.tokens, length_scale)
    frames = durations.sum(1).clamp_min(1).long()
    return durations_to_alignment(durations, frames).to(text.mean.dtype), frames


def predicted_durations(log_durations: Tensor, tokens: Tensor, length_scale: float | Tensor = 1.0) -> Tensor:
    """Returns ceil(exp(log_durations)) * length_scale, [B, L] in frames, zero beyond an item's tokens.

    Raises:
        InputError: a length scale that is not positive, or durations that are not finite.
    """
    scale = torch.as_tensor(length_scale)
    if not bool(((scale > 0) & scale.isfinite()).all()):
        raise InputError(f"length_scale: got {length_scale}, expected a number above 0 such as 1.0")
    valid = valid_positions(tokens.to(log_durations.device), log_durations.shape[1])
    durations = log_durations.to(torch.promote_types(log_durations.dtype, torch.float32)).exp()
    if not bool(durations.isfinite().all()):
        raise InputError(
            "predicted durations are not finite: the text encoder's weights are damaged or diverged"
        )
    return durations.ceil() * length_scale * valid
