"""Tiny recipes and models for tests: real classes, few numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from audiodiff.cli.train import recipe_of
from audiodiff.model import AudioDiffusion, build
from audiodiff.recipes_folder import recipes_folder

TINY_MINI = (
    "experiment=mini",
    "size=tiny",
    "training.updates=6",
    "training.global_batch_seconds=2.4",
    "training.warmup_updates=2",
    "training.log_every=2",
    "training.checkpoint_every=2",
    "training.validate_every=100",
    "training.sample_every=100",
    "training.validation_clips=4",
    "training.statistics_clips=16",
)

# One short mel definition and the ways in which projects differ from it.
MEL = {"sample_rate": 8000, "n_fft": 256, "win_length": 256, "hop_length": 64, "n_mels": 40}
MEL_VARIANTS = {
    "center": {},
    "same": {"framing": "same"},
    "short window": {"n_fft": 512, "win_length": 200},
    "normalized window": {"window_normalized": True},
    "power": {"power": 2},
    "decibels": {"log_base": "db20", "scale": 0.01, "offset": 1.0},
}


def recipe_from(*overrides: str) -> dict[str, Any]:
    """Returns the recipe that the overrides compose."""
    with initialize_config_dir(str(recipes_folder()), version_base="1.3"):
        return recipe_of(compose("train", list(overrides)))


def tiny_recipe(*overrides: str) -> dict[str, Any]:
    """Returns the mini recipe at its tiny size, six updates long."""
    return recipe_from(*TINY_MINI, *overrides)


def random_model(recipe: dict[str, Any], seed: int = 0) -> AudioDiffusion:
    """Returns the recipe's model with every weight drawn at random, so that nothing is zero by start."""
    generator = torch.Generator().manual_seed(seed)
    model = build(recipe).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    model.representation.std.mul_(0.02)  # so that the audio is not limited to full scale
    return model


def save_random_model(folder: Path, *overrides: str) -> Path:
    """Saves a random model of a recipe as `audiodiff train` would and returns its folder."""
    recipe = recipe_from(*overrides)
    random_model(recipe).save(folder, recipe, {"median_seconds": 0.3, "updates": 0}, "# test\n")
    return folder
