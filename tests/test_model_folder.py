"""A saved model is a folder that is whole, gives the same audio, and is refused in one line when damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from audiodiff.errors import InputError
from audiodiff.files import writing_folder
from audiodiff.model import load
from tests.tiny_models import RECIPES, SAMPLERS, random_model, request


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; tests copy it before they damage it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    random_model().save(folder, RECIPES["frames and labels"], {"updates": 3}, "# card\n")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.parametrize("kind", RECIPES)
def test_a_saved_model_gives_the_same_audio(kind: str, tmp_path: Path) -> None:
    model, batch = random_model(kind), request([100, 33], kind)
    model.save(tmp_path / "run" / "model", RECIPES[kind], {"updates": 3}, "# card\n")
    expected = model.synthesize(batch, SAMPLERS["ancestral"], 2)
    for place in (tmp_path / "run", tmp_path / "run" / "model"):
        again = load(place)
        assert again.recipe == RECIPES[kind]
        assert not again.training
        for found, known in zip(again.synthesize(batch, SAMPLERS["ancestral"], 2), expected, strict=True):
            assert torch.equal(found, known)
    files = {file.name for file in (tmp_path / "run" / "model").iterdir()}
    assert files == {"model.safetensors", "config.yaml", "README.md", "training.json"}
    assert json.loads((tmp_path / "run" / "model" / "training.json").read_text()) == {"updates": 3}
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["model"]


def test_saving_again_replaces_the_model_whole(folder: Path) -> None:
    (folder / "leftover").write_text("of the old model")
    model = random_model("samples and labels")
    model.save(folder, RECIPES["samples and labels"], {}, "# new\n")
    assert load(folder).recipe == RECIPES["samples and labels"]
    assert not (folder / "leftover").exists()
    assert [entry.name for entry in folder.parent.iterdir()] == ["model"]


def test_saving_does_not_replace_what_is_no_model(tmp_path: Path) -> None:
    music = tmp_path / "music"
    music.mkdir()
    (music / "song.wav").write_bytes(b"precious")
    for place in (music, music / "song.wav"):
        with pytest.raises(InputError, match="holds something that is no model"):
            random_model().save(place, RECIPES["frames and labels"], {}, "")
    assert (music / "song.wav").read_bytes() == b"precious"
    empty = tmp_path / "empty"
    empty.mkdir()
    random_model().save(empty, RECIPES["frames and labels"], {}, "")
    load(empty)


class Interrupting(Mapping[str, Any]):
    """Facts during whose writing somebody presses Ctrl-C: weights and config are in the draft by then."""

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        raise KeyboardInterrupt


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_an_interrupted_save_leaves_the_old_model_whole(folder: Path) -> None:
    before = contents(folder.parent)
    with pytest.raises(KeyboardInterrupt):
        random_model().save(folder, RECIPES["frames and labels"], Interrupting(), "")
    assert contents(folder.parent) == before


def test_a_save_that_fails_between_its_two_renames_leaves_the_old_model_whole(folder: Path) -> None:
    before = contents(folder.parent)
    with pytest.raises(InputError, match="cannot be written"), writing_folder(folder) as draft:
        draft.rmdir()
    assert contents(folder.parent) == before


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from audiodiff.errors import InputError
from audiodiff.model import load
folder = Path(sys.argv[1])
model = load(folder)
torch.nn.init.zeros_(model.denoiser.network.head.bias)
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        model.save(folder, model.recipe, {"updates": 4}, "# card")
    except InputError as error:
        print("refused:", error)
"""


def test_a_full_disk_is_one_clear_line_and_leaves_the_old_model_whole(folder: Path) -> None:
    # No file may grow beyond the limit, as on a disk that fills up: at once, in the weights, in the config.
    before = contents(folder.parent)
    limits = [0, 300, len(before["model/config.yaml"]) - 1]
    assert len(before["model/model.safetensors"]) > limits[1]
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder), *map(str, limits)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True,
    )  # fmt: skip
    lines = result.stdout.splitlines()
    assert len(lines) == len(limits), result.stderr
    assert all(line.startswith(f"refused: {folder}: cannot be written (") for line in lines)
    assert contents(folder.parent) == before


def rewrite(folder: Path, **changes: Any) -> None:
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | changes))


def damage(folder: Path, how: str) -> Path:
    """Damages a model folder; returns the place to load."""
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    first = next(iter(tensors))
    if how == "no such folder":
        return folder / "nowhere"
    if how == "a file":
        return weights
    if how == "another folder":
        (folder.parent / "else").mkdir()
        return folder.parent / "else"
    if how.startswith("without "):
        (folder / how.removeprefix("without ")).unlink()
    elif how == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "cut in the header":
        weights.write_bytes(weights.read_bytes()[:50])
    elif how == "empty weights":
        weights.write_bytes(b"")
    elif how == "one weight missing":
        save_file({name: tensor for name, tensor in tensors.items() if name != first}, weights)
    elif how == "one weight more":
        save_file(tensors | {"extra": torch.zeros(1)}, weights)
    elif how == "another shape":
        save_file(tensors | {first: torch.zeros(3, 3, 3, 3)}, weights)
    elif how == "another architecture":
        rewrite(folder, model=RECIPES["samples and labels"]["model"])
    elif how == "config without model":
        (folder / "config.yaml").write_text("experiment: test\n")
    elif how == "config is a list":
        (folder / "config.yaml").write_text("- 1\n")
    elif how == "config is no yaml":
        (folder / "config.yaml").write_text("model: [1, 2\n")
    elif how == "config is binary":
        (folder / "config.yaml").write_bytes(b"\xff\xfe\x00\x01")
    elif how == "model is a number":
        rewrite(folder, model=3)
    elif how == "model is nothing":
        rewrite(folder, model=None)
    elif how == "model is another part":
        rewrite(folder, model={"_target_": "torch.nn.Identity"})
    elif how == "unknown argument":
        model = deepcopy(RECIPES["frames and labels"]["model"])
        model["denoiser"]["network"]["widht"] = 4
        rewrite(folder, model=model)
    return folder


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no such folder", "nowhere: does not exist; expected a model folder"),
        ("a file", "is a file, expected a model folder"),
        ("another folder", "else: holds no model.safetensors and config.yaml"),
        ("without model.safetensors", "holds no model.safetensors"),
        ("without config.yaml", "holds no model.safetensors and config.yaml"),
        ("truncated weights", "model.safetensors: cannot be read as safetensors"),
        ("cut in the header", "model.safetensors: cannot be read as safetensors"),
        ("empty weights", "model.safetensors: cannot be read as safetensors"),
        ("one weight missing", "1 weights do not fit"),
        ("one weight more", "1 weights do not fit the recipe in config.yaml, first extra"),
        ("another shape", "1 weights do not fit"),
        ("another architecture", "weights do not fit"),
        ("config without model", "config.yaml: has no key `model`"),
        ("config is a list", "config.yaml: has no key `model`"),
        ("config is no yaml", "config.yaml: cannot be read"),
        ("config is binary", "config.yaml: cannot be read"),
        ("model is a number", "recipe: "),
        ("model is nothing", "builds a NoneType"),
        ("model is another part", "builds a Identity, expected an AudioDiffusion"),
        ("unknown argument", "unexpected keyword argument 'widht'.* full_key: denoiser.network"),
    ],
)
def test_a_damaged_model_folder_is_one_clear_line(folder: Path, how: str, message: str) -> None:
    place = damage(folder, how)
    with pytest.raises(InputError, match=message):
        load(place)
