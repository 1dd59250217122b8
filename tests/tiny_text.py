"""Small models that speak, with random weights: by a mel or straight, of one voice or two, and a vocoder for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from audiodiff.audio.mel_representation import MelRepresentation
from audiodiff.conditioning.mel import Mel
from audiodiff.model import AudioDiffusion, build
from audiodiff.text.front_end import TextFrontEnd
from tests.tiny_models import FRAMES, HOP, MEL, RATE, RECIPES, recipe_of

FRONT_END = TextFrontEnd()
SAMPLER = {
    "_target_": "audiodiff.diffusion.samplers.Sampler",
    "step": {"_target_": "audiodiff.diffusion.samplers.DDIM"},
    "grid": {"_target_": "audiodiff.diffusion.times.UniformGrid", "steps": 2},
}
TEXT = {
    "_target_": "audiodiff.text.front_end.TextFrontEnd",
    "language": "en",
    "kind": "graphemes",
    "symbols": FRONT_END.symbols,
    "blank": False,
}
SPEAKERS = {
    "_target_": "audiodiff.conditioning.label.Labels",
    "values": {"speaker": ["anna", "bob"]},
    "features": 4,
}
MEL_FRAMES = {
    "_target_": "audiodiff.audio.mel_representation.MelRepresentation", "log_mel": MEL, "sample_rate": RATE,
    "iterations": 2,
}  # fmt: skip


def _text(features: int, speaker: bool) -> dict[str, Any]:
    size = {
        "_target_": "audiodiff.conditioning.text.TextEncoderSize", "channels": 8, "filter_channels": 16,
        "layers": 1, "prenet_layers": 1, "duration_channels": 8,
    }  # fmt: skip
    encoder = {
        "_target_": "audiodiff.conditioning.text.TextEncoder", "vocabulary": FRONT_END.vocabulary,
        "features": features, "size": size, "speaker_features": 4 if speaker else None,
    }  # fmt: skip
    return {
        "_target_": "audiodiff.conditioning.text_conditioner.Text",
        "encoder": encoder,
        "length_scale": 3.0,
        "speaker": SPEAKERS if speaker else None,
    }


def _network(features: int, local: int, vector: int | None) -> dict[str, Any]:
    return {
        "_target_": "audiodiff.networks.convnext.ConvNeXt", "features": features, "width": 8, "dilations": [1, 2],
        "kernel_size": 3, "embedding_width": 8, "local_features": local, "vector_features": vector,
    }  # fmt: skip


def text_recipe(kind: str) -> dict[str, Any]:
    """Returns a recipe: "mel", "speakers" (which makes mels in two voices), "straight", or "aligned" to a mel."""
    if kind == "aligned":
        return _aligned_recipe()
    features, representation = (2 * HOP, FRAMES) if kind == "straight" else (6, MEL_FRAMES)
    several = kind == "speakers"
    network = _network(features, features, 4 if several else None)
    return recipe_of(representation, _text(features, several), network) | {"sampler": SAMPLER, "text": TEXT}


def _aligned_recipe() -> dict[str, Any]:
    told = _text(6, True) | {
        "_target_": "audiodiff.conditioning.aligned_text.AlignedText", "log_mel": MEL, "representation": FRAMES,
        "std_min": 0.03,
    }  # fmt: skip
    return recipe_of(FRAMES, told, _network(2 * HOP, 6, 4)) | {"sampler": SAMPLER, "text": TEXT}


def vocoder_recipe(**mel: Any) -> dict[str, Any]:
    """Returns the recipe of a vocoder that hears the models' mel, with some fields changed."""
    recipe = recipe_of(
        FRAMES, {**RECIPES["samples and mel"]["model"]["conditioner"]}, _network(2 * HOP, 6, None)
    )
    recipe["model"]["conditioner"]["log_mel"] = MEL | mel
    return recipe | {"sampler": SAMPLER, "mel_iterations": 0}


def random_weights(recipe: dict[str, Any]) -> AudioDiffusion:
    """Returns the model of a recipe with random weights, quiet enough for audio and for any mel's level."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(recipe)
        for parameter in model.parameters():
            if not parameter.any() or not parameter.sub(1).any():
                nn.init.normal_(parameter, std=0.2)
    diffused = model.representation
    if isinstance(diffused, MelRepresentation):
        diffused.mean.fill_(-7.0)
        diffused.std.fill_(0.2)
    else:
        diffused.std.mul_(0.02)
    for part in model.modules():
        if isinstance(part, Mel):
            part.mean.fill_(-5.0)
            part.std.fill_(3.0)
    return model.eval()


def saved(folder: Path, recipe: dict[str, Any]) -> Path:
    """Saves a random model of a recipe and returns its folder."""
    random_weights(recipe).save(folder, recipe, {"updates": 0}, "# test\n")
    return folder
