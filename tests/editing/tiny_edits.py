"""A tiny model that edits, and recordings to edit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from audiodiff.editing.restore import Recovery
from audiodiff.model import AudioDiffusion, build
from tests.tiny_models import FRAMES, LABELS, SAMPLES, convnext, recipe_of, wavenet

NOTHING = {"_target_": "audiodiff.conditioning.conditioner.Unconditional"}
RATE = 8000
QUICK = Recovery(steps=2, effort=1)


def tiny_model(kind: str = "frames", channels: int = 1) -> AudioDiffusion:
    """A model with random weights and training segments of 0.1 seconds."""
    recipe = {
        "frames": recipe_of(
            FRAMES | {"channels": channels}, NOTHING, convnext(None, None) | {"channels": channels}
        ),
        "samples": recipe_of(SAMPLES, NOTHING, wavenet(None, None)),
        "labels": recipe_of(FRAMES, LABELS, convnext(None, 4)),
    }[kind]
    recipe |= {"data": {"segment_seconds": 0.1}}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(recipe)
    return model.eval()


def save_tiny(folder: Path, kind: str = "frames", channels: int = 1) -> Path:
    model = tiny_model(kind, channels)
    model.save(folder, model.recipe, {"updates": 0}, "# test\n")
    return folder


def sound(seconds: float = 0.5, rate: int = RATE, channels: int = 1, seed: int = 0) -> Tensor:
    """Tones in a little noise [C, T], peak below 0.7."""
    length = round(seconds * rate)
    n = torch.arange(length) / rate
    noise = torch.randn(channels, length, generator=torch.Generator().manual_seed(seed))
    pitch = 220 * (1 + torch.arange(channels))[:, None]
    return 0.4 * torch.sin(2 * torch.pi * pitch * n) + 0.2 * torch.sin(2 * torch.pi * 560 * n) + 0.01 * noise


def write_sound(path: Path, waveform: Tensor, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, waveform.T.numpy(), rate, subtype=subtype)
    return path


def raw(path: Path, kind: str = "int32") -> np.ndarray:
    """The samples [T, C] as the file has them."""
    return soundfile.read(path, dtype=kind, always_2d=True)[0]
