"""Small models of every kind, with random weights, and batches to synthesize with them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.model import AudioDiffusion, build
from audiodiff.types import Batch

RATE, HOP = 8000, 16
SAMPLERS = {"ddim": Sampler(DDIM(), UniformGrid(3)), "ancestral": Sampler(Ancestral(), UniformGrid(3))}
MEL = {
    "_target_": "audiodiff.audio.mel.LogMel", "sample_rate": RATE, "n_fft": 64, "win_length": 64,
    "hop_length": HOP, "n_mels": 6,
}  # fmt: skip
LABELS = {
    "_target_": "audiodiff.conditioning.label.Labels",
    "values": {"digit": ["one", "two"]},
    "features": 4,
}
HEARS = {"_target_": "audiodiff.conditioning.mel.Mel", "log_mel": MEL}
BOTH = {"_target_": "audiodiff.conditioning.conditioner.Joint", "parts": [HEARS, LABELS]}
FRAMES = {
    "_target_": "audiodiff.audio.representation.ComplexSTFT", "sample_rate": RATE, "n_fft": 2 * HOP,
    "hop_length": HOP,
}  # fmt: skip
SAMPLES = {"_target_": "audiodiff.audio.representation.Waveform", "sample_rate": RATE}


def convnext(local: int | None, vector: int | None) -> dict[str, Any]:
    return {
        "_target_": "audiodiff.networks.convnext.ConvNeXt", "features": 2 * HOP, "width": 8, "dilations": [1, 2],
        "kernel_size": 3, "embedding_width": 8, "local_features": local, "vector_features": vector,
    }  # fmt: skip


def wavenet(local: int | None, vector: int | None) -> dict[str, Any]:
    return {
        "_target_": "audiodiff.networks.wavenet.WaveNet", "residual_layers": 3, "residual_channels": 4,
        "skip_channels": 4, "dilation_cycle": 3,
        "condition": {
            "_target_": "audiodiff.networks.wavenet.ConditionShape", "local_features": local,
            "vector_features": vector, "upsample_factors": [4, 4],
        },
    }  # fmt: skip


def recipe_of(
    representation: dict[str, Any], conditioner: dict[str, Any], network: dict[str, Any]
) -> dict[str, Any]:
    label = "LogSnr" if "convnext" in network["_target_"] else "StepIndex"
    model = {
        "_target_": "audiodiff.model.AudioDiffusion",
        "representation": representation,
        "conditioner": conditioner,
        "denoiser": {
            "_target_": "audiodiff.diffusion.denoiser.Denoiser",
            "network": network,
            "schedule": {
                "_target_": "audiodiff.diffusion.schedules.linear", "beta_start": 1e-4, "beta_end": 0.05,
                "steps": 50,
            },
            "parameterization": {"_target_": "audiodiff.diffusion.parameterizations.epsilon", "_partial_": True},
            "noise_label": {"_target_": f"audiodiff.diffusion.denoiser.{label}"},
        },
    }  # fmt: skip
    return {"experiment": "test", "model": deepcopy(model)}


RECIPES = {
    "frames and labels": recipe_of(FRAMES, LABELS, convnext(None, 4)),
    "frames, mel and labels": recipe_of(FRAMES, BOTH, convnext(6, 4)),
    "samples and labels": recipe_of(SAMPLES, LABELS, wavenet(None, 4)),
    "samples and mel": recipe_of(SAMPLES, HEARS, wavenet(6, None)),
}


def random_model(kind: str = "frames and labels") -> AudioDiffusion:
    """A model with random weights, also where a fresh one has zeros, and statistics that are not one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(RECIPES[kind])
        for parameter in model.parameters():
            if not parameter.any() or not parameter.sub(1).any():
                nn.init.normal_(parameter, std=0.4)
    for name, buffer in model.named_buffers():
        if name.endswith("std"):
            buffer.copy_(torch.linspace(0.5, 1.5, buffer.numel()))
    return model.eval()


def request(lengths: list[int], kind: str = "frames and labels") -> Batch:
    """Something to synthesize: labels in turn, and for models that hear a mel some audio to take it from."""
    waveform = torch.zeros(len(lengths), 1, max(lengths))
    for i, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(length + i)
        waveform[i, :, :length] = torch.randn(1, length, generator=generator) / 4
    labels = {"digit": tuple(("one", "two", "")[i % 3] for i in range(len(lengths)))}
    mel = "mel" in kind
    return Batch(waveform if mel else None, torch.tensor(lengths), labels if "labels" in kind else {})
