"""A tiny prepared corpus and recipe to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from audiodiff.cli.train import recipe_of
from audiodiff.recipes_folder import recipes_folder

TINY = (
    "experiment=mini",
    "size=tiny",
    "training.updates=6",
    "training.batch_size=4",
    "training.warmup_updates=2",
    "training.log_every=2",
    "training.checkpoint_every=2",
    "training.validate_every=100",
    "training.sample_every=100",
    "training.validation_clips=4",
    "training.statistics_clips=16",
)


def tiny_recipe(*overrides: str) -> dict[str, Any]:
    """Returns the mini recipe at its tiny size, six updates long."""
    with initialize_config_dir(str(recipes_folder()), version_base="1.3"):
        return recipe_of(compose("train", [*TINY, *overrides]))


@pytest.fixture(scope="session")
def mini_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini corpus, prepared."""
    from typer.testing import CliRunner

    from audiodiff.cli.app import app

    folder = tmp_path_factory.mktemp("data") / "mini"
    result = CliRunner().invoke(app, ["prepare", "mini", "--out", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    return folder
