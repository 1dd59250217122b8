"""Tiny models of sounds of any length: of bounded reach, strided, with attention, of latents, mono and stereo."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from audiodiff.audio.representation import ComplexSTFT, Waveform
from audiodiff.audio.wavelet import Wavelet
from audiodiff.conditioning.conditioner import Unconditional
from audiodiff.conditioning.label import Labels
from audiodiff.diffusion import parameterizations
from audiodiff.diffusion.denoiser import Denoiser, LogSnr, StepIndex
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.schedules import linear
from audiodiff.diffusion.times import UniformGrid
from audiodiff.model import AudioDiffusion
from audiodiff.networks.convnext import ConvNeXt
from audiodiff.networks.unet1d import ConditionShape as UNetCondition
from audiodiff.networks.unet1d import UNet1d
from audiodiff.networks.unet1d_levels import Levels
from audiodiff.networks.wavenet import ConditionShape, NoiseEmbedding, WaveNet

RATE, HOP = 8000, 16
DIGITS = {"digit": ("one", "two")}
SAMPLER = Sampler(DDIM(), UniformGrid(3))


def convnext(channels: int) -> ConvNeXt:
    return ConvNeXt(
        2 * HOP, 8, (1, 2), channels=channels, kernel_size=3, embedding_width=8, vector_features=4
    )


def wavenet(channels: int) -> WaveNet:
    small = NoiseEmbedding(dim=8, hidden_dim=8, out_dim=8)
    return WaveNet(3, 4, 4, 3, channels, small, ConditionShape(vector_features=4, upsample_factors=(4, 4)))


def unet(channels: int) -> UNet1d:
    levels = Levels(widths=(4, 8), factors=(1, 4), blocks=(1, 1), attention=(False, True))
    return UNet1d(channels, levels, condition=UNetCondition(vector_features=4))


KINDS: dict[str, Any] = {
    "convnext": lambda: (ComplexSTFT(RATE, 2 * HOP, HOP), convnext(1)),
    "convnext, stereo": lambda: (ComplexSTFT(RATE, 2 * HOP, HOP, 2), convnext(2)),
    "wavenet": lambda: (Waveform(RATE), wavenet(1)),
    "wavelet": lambda: (Wavelet(RATE, 1, "db4"), wavenet(2)),
    "unet": lambda: (Waveform(RATE), unet(1)),
    "unet, stereo": lambda: (Waveform(RATE, 2), unet(2)),
}
LOCAL = ["convnext", "convnext, stereo", "wavenet", "wavelet"]


def free_model(kind: str = "convnext", labels: bool = True) -> AudioDiffusion:
    """A model with random weights, whose training segments would be of 0.05 s."""
    representation, network = KINDS[kind]()
    conditioner = Labels(DIGITS, 4) if labels else Unconditional()
    if not labels:
        network = ConvNeXt(2 * HOP, 8, (1, 2), kernel_size=3, embedding_width=8)
    label = LogSnr() if isinstance(network, ConvNeXt | UNet1d) else StepIndex()
    denoiser = Denoiser(network, linear(1e-4, 0.05, 50), parameterizations.velocity, label)
    model = AudioDiffusion(representation, conditioner, denoiser).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("std"):
            buffer.copy_(torch.linspace(0.05, 0.15, buffer.numel()))
    sampler = {
        "_target_": "audiodiff.diffusion.samplers.Sampler",
        "step": {"_target_": "audiodiff.diffusion.samplers.DDIM", "eta": 0.0},
        "grid": {"_target_": "audiodiff.diffusion.times.UniformGrid", "steps": 3},
    }
    model.recipe = {"data": {"segment_seconds": 0.05}, "sampler": sampler}
    return model
