"""Nothing that a downloaded model folder says is executed: its recipe builds parts of a model and no more."""

from __future__ import annotations

import json
import os
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, build, instantiate, load
from tests.tiny_models import RECIPES, random_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder."""
    random_model().save(tmp_path / "model", RECIPES["frames and labels"], {}, "")
    return tmp_path / "model"


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_pickle_in_place_of_the_weights_is_not_executed(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load(folder)
    torch.save({"weights": Payload(marker)}, folder / "model.safetensors")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load(folder)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists(), "the payload is harmless; the test shows nothing"


def test_python_tags_in_the_config_are_not_executed(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    text = f"model: !!python/object/apply:os.mkdir ['{marker}']\n"
    (folder / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config.yaml: cannot be read"):
        load(folder)
    assert not marker.exists()
    yaml.load(text, yaml.UnsafeLoader)
    assert marker.exists(), "the payload is harmless; the test shows nothing"


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "builtins.eval", "torch.save", "torch.load", "pathlib.Path.touch",
        # Through modules of this package that may be built from, and modules that they import.
        "audiodiff.model.os.system", "audiodiff.model.importlib.import_module", "audiodiff.model.torch.save",
        "audiodiff.model.load", "audiodiff.model.load_file", "audiodiff.model.build",
        "audiodiff.audio.mel.Path", "audiodiff.audio.representation.torch.save",
        "audiodiff.diffusion.times.warnings.warn", "audiodiff.diffusion.noise.np.save",
        "audiodiff.networks.blocks.torch.save", "torch.nn.modules.module.torch.save",
        "torch.nn.functional.torch.save",
        # Parts of this package that touch files or the network.
        "audiodiff.data.download.download", "audiodiff.audio.io.write", "audiodiff.audio.pictures.write_png",
        "audiodiff.files.write_whole", "audiodiff.training.loop.train", "audiodiff.cli.app.main",
        # Names that are none.
        "", ".", "torch.nn.", "torch.nn..Linear", "audiodiff.diffusion", "audiodiff.diffusionx.y",
        "audiodiff.networks.convnext.Nothing", "audiodiff.networks.nothing.ConvNeXt",
        ["torch.save"], {"_target_": "torch.save"}, None, 3,
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(
    "wrap",
    [
        lambda node: node,
        lambda node: {"_target_": "torch.nn.Sequential", "_args_": [node]},
        lambda node: {"_target_": "torch.nn.Identity", "a": {"b": [[node]]}},
        lambda node: {"_target_": "torch.nn.Identity", "_partial_": True, "_recursive_": False, "a": node},
    ],
    ids=["bare", "in arguments", "deep in a keyword", "partial"],
)
def test_recipe_builds_nothing_but_the_parts_of_a_model(target: Any, wrap: Any, tmp_path: Path) -> None:
    node = wrap({"_target_": target, "_args_": ["x", str(tmp_path / "executed")]})
    with pytest.raises(InputError, match="recipe: _target_"):
        instantiate(node)
    assert not list(tmp_path.iterdir())


INTERPOLATED = "${oc.create:{_target_:torch.save,_args_:[x,MARKER]}}"


@pytest.mark.parametrize("node", [
    {"_target_": "torch.nn.Identity", "a": INTERPOLATED},
    {"_target_": "torch.nn.Identity", "_args_": [[INTERPOLATED]]},
    {"_target_": "${evil}", "evil": "torch.save"},
    {"_target_": "torch.nn.Identity", "a": "${oc.env:HOME}"},
])  # fmt: skip
def test_interpolations_that_could_make_a_target_of_text_are_refused(node: Any, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    node = json.loads(json.dumps(node).replace("MARKER", str(marker)))
    with pytest.raises(InputError, match=r"recipe: .* (is an interpolation|is refused)"):
        instantiate(node)
    assert not marker.exists()


def test_the_interpolation_that_is_refused_is_one_that_would_run(tmp_path: Path) -> None:
    from hydra.utils import instantiate as hydra_instantiate

    marker = tmp_path / "executed"
    hydra_instantiate({"_target_": "torch.nn.Identity", "a": INTERPOLATED.replace("MARKER", str(marker))})
    assert marker.exists()


def test_a_model_with_a_foreign_target_is_refused_on_loading(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    model = deepcopy(RECIPES["frames and labels"]["model"])
    model["denoiser"]["noise_label"] = {"_target_": "torch.save", "_args_": ["x", str(marker)]}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": model}))
    with pytest.raises(InputError, match=r"_target_ 'torch.save' is refused"):
        load(folder)
    assert not marker.exists()


def test_parts_of_a_model_and_torch_layers_are_built() -> None:
    assert isinstance(
        instantiate({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}), nn.Linear
    )
    for recipe in RECIPES.values():
        assert isinstance(build(recipe), AudioDiffusion)


def test_a_model_may_not_build_augmentations_which_read_files() -> None:
    node = {"_target_": "audiodiff.data.augmentation.Polarity"}
    with pytest.raises(InputError, match="is refused"):
        instantiate(node)
    assert instantiate(node, ("audiodiff.data.augmentation.",)) is not None
