"""A clean signal from one in Gaussian noise of known strength, other in every channel, by a trained denoiser.

While the diffusion is noisier than a channel was recorded, x is the recording with as much noise more, as in Kawar et
al. 2022 (DDRM), eq. 8; from there on the channel goes down its probability flow by DDIM (Song, Meng and Ermon 2021, eq.
12). So each is denoised from its own level on. Where all have the same and it is the only one, the result is the
posterior mean (Tweedie); with many levels it is where the flow ends. DDRM's own rule below a channel's level takes the
recording instead of x, and with many levels ends at the recording.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.process import expand, time_of_ratio
from audiodiff.diffusion.samplers import NoiseSource
from audiodiff.diffusion.schedules import NoiseSchedule


def without_noise(
    denoise: Denoise,
    schedule: NoiseSchedule,
    observed: Tensor,
    ratios: Tensor,
    levels: Sequence[float],
    noise: NoiseSource,
    inside: Callable[[Tensor], Tensor] = lambda change: change,
) -> Tensor:
    """Returns the clean estimate [B, D, F] of a noisy observation.

    Args:
        denoise: of the prior.
        schedule: that of denoise.
        observed: [B, D, F], clean signal and noise.
        ratios: [D, 1], deviation of the noise in each channel, in units of the clean signal, as sigma / alpha is.
        levels: sigma / alpha at which the denoiser is asked, falling.
        noise: standard normal [B, D, F] for a step and a draw.
        inside: projects a change [B, D, F] to those that the recording could have; for coefficients that are more than
            the samples, whose noise fills only a part of the space that the diffusion's fills.
    """
    ratios = ratios.to(observed).clamp(min=torch.finfo(observed.dtype).tiny)
    x, before, clean = observed, math.inf, None
    for step, level in enumerate(levels):
        fresh = noise(step, 0)
        within = inside(fresh)
        noisier = observed + (level**2 - ratios**2).clamp(min=0).sqrt() * within
        if clean is None:
            x = noisier
        else:
            begun = ratios >= before  # on their way down; the others set out from the recording
            start, height = torch.where(begun, x, observed), ratios.clamp(max=before)
            flow = clean + (level / height) * inside(start - clean)
            x = torch.where(ratios <= level, noisier, flow)
        t = time_of_ratio(schedule, torch.tensor(level, dtype=torch.float64))
        clean = denoise(expand(schedule.alpha(t), x) * (x + level * (fresh - within)), t)
        before = level
    if clean is None:
        raise ValueError("without_noise: got no levels, expected at least one")
    return clean
