"""Windows: the part of every aligned clip that the denoiser is trained on.

A text is aligned to the whole recording of it, which the denoiser need not see at once: Grad-TTS trains it on two
random seconds of every clip (Popov et al. 2021, section 4; arXiv 2105.06337). The losses of the conditioner are
those of the whole clip.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from audiodiff.conditioning.conditioner import Aligning
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion
from audiodiff.types import Condition


def window_frames(model: AudioDiffusion, seconds: float | None) -> int | None:
    """Returns the frames of a window of so many seconds; None for whole clips.

    Raises:
        InputError: a window below one frame, or of a model that aligns nothing, which segment_seconds is for.
    """
    if seconds is None:
        return None
    if not isinstance(model.conditioner, Aligning):
        raise InputError(
            "training.window_seconds is for models that are told a text; choose data.segment_seconds for this one"
        )
    frames = round(seconds * model.sample_rate / model.representation.hop_length)
    if frames < 1:
        raise InputError(f"training.window_seconds: got {seconds}, expected at least one frame, or null")
    return frames


def window(
    clean: Tensor, condition: Condition, length: int, chances: Tensor, stride: int = 1
) -> tuple[Tensor, Condition]:
    """Returns a part of every item and of what the network is told of it.

    Items that are no longer than the window come whole. Where in an item its part begins is uniform, among the places
    where a frame of what the network is told begins.

    Args:
        clean: [B, C, F].
        condition: of it; priors have F frames, local has one every stride frames of x, and perhaps one at its end.
        length: frames of the window, at least 1.
        chances: [B], uniform in [0, 1).
        stride: frames of x to one of condition.local.

    Raises:
        ValueError: the condition tells of other frames than those of x.
    """
    total = clean.shape[-1]
    if length >= total:
        return clean, condition
    frames = torch.full((len(clean),), total) if condition.frames is None else condition.frames.cpu()
    places = (frames - length + 1).clamp_min(1)
    starts = (chances.cpu().double() * -(-places // stride)).long()  # in frames of local

    def cut(x: Tensor | None, stride_of_x: int) -> Tensor | None:
        if x is None:
            return None
        of_x = -(-total // stride_of_x)
        if x.shape[-1] - of_x not in (0, int(stride_of_x > 1)):  # a centred mel has a frame at the very end
            raise ValueError(
                f"window: got {x.shape[-1]} frames of condition for {total} of x, expected {of_x}"
            )
        first = starts * (stride // stride_of_x)
        positions = (first[:, None] + torch.arange(-(-length // stride_of_x))).to(x.device)
        return x.gather(2, positions[:, None].expand(-1, x.shape[1], -1))

    kept = frames.clamp_max(length)
    part = cut(clean, 1)
    assert part is not None
    return part, replace(
        condition,
        local=cut(condition.local, stride),
        prior_mean=cut(condition.prior_mean, 1),
        prior_std=cut(condition.prior_std, 1),
        frames=None if bool((kept == length).all()) else kept,
    )


def condition_stride(model: AudioDiffusion) -> int:
    """Returns how many positions of x there are to a frame of what the model's network is told."""
    return getattr(model.denoiser.network, "hop_length", 1)
