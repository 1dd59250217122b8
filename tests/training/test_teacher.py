"""A teacher is a saved model as it samples, and must understand the student's x and condition."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console

from audiodiff.diffusion.guidance import Guidance
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, Steering, build
from audiodiff.training.initialization import freeze, initialize
from audiodiff.training.run import open_run
from audiodiff.training.teacher import Teacher
from audiodiff.training.updates import one_update, training_batches
from audiodiff.types import Batch
from tests.tiny import random_model, recipe_from, tiny_recipe

QUIET = Console(quiet=True)
BASE = ("experiment=mini", "size=tiny", "features=mel_8k40")
STUDENT = ("objective=progressive", "times=grid")


def saved(folder: Path, *overrides: str) -> AudioDiffusion:
    model = random_model(recipe_from(*BASE, *overrides))
    model.save(folder / "model", model.recipe, {"median_seconds": 0.3, "updates": 0}, "# test\n")
    return model


def student_of(folder: Path, *overrides: str) -> AudioDiffusion:
    model = build(recipe_from(*BASE, *overrides)).eval()
    initialize(model, folder)
    freeze(model, ["conditioner"])
    return model


@pytest.mark.parametrize("conditioner", ["labels", "mel_and_labels"])
def test_a_teacher_denoises_as_its_model_samples_guided(tmp_path: Path, conditioner: str) -> None:
    model = saved(tmp_path, f"conditioner={conditioner}", "guidance=2.0", "guidance_rescale=0.5")
    student = student_of(tmp_path, f"conditioner={conditioner}")
    waveform = torch.randn(2, 1, 800, generator=torch.Generator().manual_seed(0)) / 4
    batch = Batch(waveform, torch.tensor([800, 600]), {"sound": ("a", "u")})
    x = torch.randn(2, *model.representation.shape(800), generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    with torch.no_grad():
        for guidance in (None, 1.0, 3.0):
            scale = 2.0 if guidance is None else guidance
            denoise = model.bind(batch, Steering(Guidance(scale, 0.5)))[0]
            taught = Teacher(str(tmp_path), guidance).bind(student.condition(batch))
            assert torch.allclose(taught(x, t), denoise(x, t), rtol=1e-5, atol=1e-6)


def test_a_teacher_is_never_trained_and_learns_nothing(mini_corpus: Path, tmp_path: Path) -> None:
    saved(tmp_path / "teacher")
    recipe = tiny_recipe(
        "features=mel_8k40", *STUDENT, f"teacher={tmp_path / 'teacher'}", f"init={tmp_path / 'teacher'}",
        "training.freeze=[conditioner]",
    )  # fmt: skip
    run = open_run(recipe, mini_corpus, tmp_path / "run", "test", QUIET)
    teacher = run.accelerator.unwrap_model(run.step).objective.teacher
    before = {name: weight.clone() for name, weight in teacher.model.state_dict().items()}
    batches = training_batches(run)
    for _ in range(2):
        one_update(run, batches)
    assert not any(weight.requires_grad or weight.grad is not None for weight in teacher.model.parameters())
    for name, weight in teacher.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert not torch.equal(
        run.model.state_dict()["denoiser.network.head.weight"], before["denoiser.network.head.weight"]
    )


def test_a_teacher_starts_where_its_student_starts(tmp_path: Path) -> None:
    saved(tmp_path)
    Teacher(str(tmp_path)).check(student_of(tmp_path))


def test_a_student_with_another_conditioner_is_refused(mini_corpus: Path, tmp_path: Path) -> None:
    saved(tmp_path / "teacher")
    recipe = tiny_recipe(
        "features=mel_8k40", *STUDENT, f"teacher={tmp_path / 'teacher'}", "training.freeze=[conditioner]"
    )
    with pytest.raises(
        InputError, match=r"teacher: its representation is not the student's \(std\).*init=FOLDER"
    ):
        open_run(recipe, mini_corpus, tmp_path / "run", "test", QUIET)
    student = student_of(tmp_path / "teacher")
    student.conditioner.tables.sound.weight.data.add_(1)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"its conditioner is not the student's \(tables\.sound\.weight\)"):
        Teacher(str(tmp_path / "teacher")).check(student)


def test_a_student_whose_conditioner_is_trained_is_refused(mini_corpus: Path, tmp_path: Path) -> None:
    saved(tmp_path / "teacher")
    recipe = tiny_recipe(
        "features=mel_8k40", *STUDENT, f"teacher={tmp_path / 'teacher'}", f"init={tmp_path / 'teacher'}"
    )
    with pytest.raises(InputError, match=r"training\.freeze=\[conditioner\]"):
        open_run(recipe, mini_corpus, tmp_path / "run", "test", QUIET)


def test_a_distillation_without_a_teacher_is_refused() -> None:
    with pytest.raises(InputError, match="teacher=FOLDER"):
        Teacher(None)


def test_guidance_of_a_teacher_that_is_told_no_labels_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "conditioner=unconditional")
    with pytest.raises(InputError, match=r"guidance 2\.0 of a model that is told no labels"):
        Teacher(str(tmp_path), 2.0)
