"""Whether the parts of a model fit one another."""

from __future__ import annotations

from typing import Any

from audiodiff.audio.mel import LogMel
from audiodiff.conditioning.text_conditioner import Text
from audiodiff.diffusion.denoiser import Denoiser
from audiodiff.errors import InputError


def check_mel(log_mel: LogMel, representation: Any, denoiser: Denoiser) -> None:
    """Refuses a mel whose frames do not lie where the network looks for them."""
    # A sample-level network has a hop of its own, the stride of its upsampler.
    hop_length = representation.hop_length * getattr(denoiser.network, "hop_length", 1)
    ours, theirs = (representation.sample_rate, hop_length), (log_mel.sample_rate, log_mel.hop_length)
    if ours != theirs:
        raise InputError(
            f"mel of {theirs[0]} Hz with a frame every {theirs[1]} samples, the model makes audio of "
            f"{ours[0]} Hz and takes a frame every {ours[1]} samples; choose features, data and hop to match"
        )


def check_text(text: Text, representation: Any) -> None:
    """Refuses a text whose tokens do not sound like what is diffused."""
    ours, theirs = representation.shape(representation.hop_length)[0], text.encoder.mean.out_features
    if ours != theirs:
        raise InputError(
            f"text encoder of {theirs} features, the model diffuses {ours}; choose features to match"
        )
