"""A released student that is kept as low-rank changes of a shipped teacher is the student itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open

from audiodiff import model_folder
from audiodiff.errors import InputError
from audiodiff.model import load
from audiodiff.release.release import Release, release
from audiodiff.release.rounding import signal_to_noise_db
from audiodiff.release.sounds import Instrument, read_recorded
from audiodiff.training.initialization import provenance
from audiodiff.training.loop import train
from audiodiff.weights import read_weights, with_changes
from tests.tiny import random_model, recipe_from, tiny_recipe

pytest.importorskip("peft", reason="the extra audiodiff[lora] is not installed")

FACTS = {"median_seconds": 0.3, "updates": 0, "experiment": "mini", "train_hours": 0.1}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of shipped models of a package that lies in another place, with a teacher."""
    monkeypatch.setattr(model_folder, "__file__", str(tmp_path / "package" / "audiodiff" / "model_folder.py"))
    models = tmp_path / "package" / "models"
    teacher = random_model(recipe_from("experiment=mini", "size=tiny"))
    teacher.save(tmp_path / "teacher", teacher.recipe, FACTS, "# test\n")
    released(tmp_path / "teacher", models / "teacher")
    return models


def released(source: Path, out: Path, **changes: bool) -> list[str]:
    """Releases a model, and returns what was told meanwhile."""
    told: list[str] = []
    asked = Release(source, out.name, labels=["o"], rounds=1, **changes)
    release(asked, out, "audiodiff release ...", told.append)
    return told


@pytest.fixture
def student(place: Path, mini_corpus: Path, tmp_path: Path) -> Path:
    """Some updates of adapters on the shipped teacher, its labels trained whole."""
    recipe = tiny_recipe("init=teacher", "lora=adapters", "lora.rank=2", "lora.train=[conditioner]")
    train(recipe, mini_corpus, tmp_path / "student", "test", Console(quiet=True))
    return tmp_path / "student"


@pytest.mark.parametrize("half", [True, False])
def test_what_is_kept_is_small_and_becomes_the_student(place: Path, student: Path, half: bool) -> None:
    told = released(student, place / "fast", half=half)
    assert "kept as changes to the shipped model teacher" in told
    whole, teacher = load(student).state_dict(), load("teacher").state_dict()
    with safe_open(place / "fast" / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
        assert file.metadata() == {"base": "teacher", "base_sha256": provenance("teacher")["init_sha256"]}
    assert names.isdisjoint({name for name in whole if torch.equal(whole[name], teacher[name])})
    assert "conditioner.tables.sound.weight" in names
    assert "denoiser.network.blocks.0.expand.weight.up" in names
    found = load("fast").state_dict()
    for name, weight in whole.items():
        change, error = (weight - teacher[name]).norm(), (found[name] - weight).norm()
        # Rounded are the changes, or the tensors that were trained whole; what they are added to is not.
        allowed = 2e-3 * float(change if f"{name}.up" in names else weight.norm()) if half else 0.0
        assert float(error) <= allowed + 1e-5 * float(weight.norm()), name
        assert found[name].dtype == weight.dtype
    recorded = read_recorded(place / "fast")
    again = Instrument(load("fast"))(recorded.asked, recorded.seed)[:, : recorded.waveform.shape[1]]
    torch.testing.assert_close(again, recorded.waveform)
    plain = Instrument(load(student))(recorded.asked, recorded.seed)[:, : recorded.waveform.shape[1]]
    assert signal_to_noise_db(plain, again) > 30
    sheet = json.loads((place / "fast" / "release.json").read_text())
    assert sheet["base"] == "teacher"
    assert (
        "| Kept as | low-rank changes of the shipped model `teacher`"
        in (place / "fast" / "README.md").read_text()
    )
    saved = (place / "fast" / "model.safetensors").stat().st_size
    assert saved < 0.6 * (place / "teacher" / "model.safetensors").stat().st_size * (1 if half else 2)


def test_the_student_of_another_model_is_kept_whole(place: Path, student: Path) -> None:
    shutil.rmtree(place / "teacher")
    assert not [line for line in released(student, place / "fast") if "changes" in line]
    whole, found = load(student).state_dict(), load("fast").state_dict()
    assert all((whole[name] - found[name]).norm() <= 1e-3 * whole[name].norm() for name in whole)


def test_changes_need_the_model_that_they_belong_to(place: Path, student: Path, tmp_path: Path) -> None:
    released(student, place / "fast")
    kept = (place / "teacher" / "model.safetensors").read_bytes()
    other = random_model(recipe_from("experiment=mini", "size=tiny"))
    other.save(tmp_path / "other", other.recipe, FACTS, "# test\n")
    (place / "teacher" / "model.safetensors").write_bytes(
        (tmp_path / "other" / "model.safetensors").read_bytes()
    )
    with pytest.raises(InputError, match="changes to another version of the shipped model teacher"):
        load("fast")
    (place / "teacher" / "model.safetensors").write_bytes(kept)
    load("fast")
    shutil.rmtree(place / "teacher")
    with pytest.raises(InputError, match="changes to the shipped model teacher, which is not there"):
        load(place / "fast")


def test_an_adapter_of_another_model_is_not_taken_for_the_own(place: Path, student: Path) -> None:
    model = load(student)
    with torch.no_grad():
        model.denoiser.network.blocks[0].expand.weight.add_(0.01)
    model.save(student / "model", model.recipe, FACTS, "# test\n")
    with pytest.raises(InputError, match="is not what the adapter beside it makes of its base"):
        released(student, place / "fast")


def test_changes_that_do_not_fit_are_named(place: Path, student: Path) -> None:
    released(student, place / "fast")
    base, fast = read_weights(place / "teacher"), place / "fast" / "model.safetensors"
    with safe_open(fast, framework="pt") as file:
        changes = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = next(name for name in changes if name.endswith(".up"))
    for damaged in (
        {key: tensor for key, tensor in changes.items() if key != name},
        changes | {name: changes[name][1:]},
        {f"nowhere.{key}": tensor for key, tensor in changes.items()},
    ):
        with pytest.raises(InputError, match=r"the change of .* does not fit the model"):
            with_changes(base, damaged, "file")
