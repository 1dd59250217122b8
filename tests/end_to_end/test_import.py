"""`audiodiff import`: what it says, what can be done with the folder, and every mistake in one clear line."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from audiodiff.audio import io
from audiodiff.cli.app import app, main
from audiodiff.interop.projects import PROJECTS
from audiodiff.model import load
from tests.interop.foreign_files import WRITERS, lmnt_diffwave

Refuse = Callable[..., str]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refuse:
    """Returns a function that imports, which must be refused and leave nothing, and gives its one line."""

    def run(*arguments: object, out: Path = tmp_path / "out") -> str:
        before = sorted(out.rglob("*")) if out.exists() else None
        monkeypatch.setattr("sys.argv", ["audiodiff", "import", *map(str, arguments), "--out", str(out)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        lines = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == 2, lines
        assert len(lines) == 1, lines
        assert lines[0].startswith("audiodiff: ")
        assert (sorted(out.rglob("*")) if out.exists() else None) == before
        assert not list(out.parent.glob(f".{out.name}*")), "a draft was left"
        return lines[0]

    return run


def run(*arguments: object) -> str:
    """Runs a command that must succeed and returns what it prints."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def weights(fixtures_dir: Path) -> dict[str, Tensor]:
    """A small model of lmnt's DiffWave."""
    return load_file(fixtures_dir / "lmnt_diffwave" / "small_weights.safetensors")


@pytest.fixture
def checkpoint(fixtures_dir: Path, tmp_path: Path) -> Path:
    """The same as the project's `.pt`."""
    return lmnt_diffwave(tmp_path, fixtures_dir)[0]


def saved(folder: Path, content: Any, name: str = "changed.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


def test_imported_vocoder_vocodes_and_tells_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    said = run("import", "lmnt_diffwave", checkpoint, "--out", model)
    for phrase in ("78 tensors are now 78 weights", "22050 Hz", "80 bands", "6 steps", "Apache-2.0"):
        assert phrase in said
    assert f"audiodiff vocode {model}" in said
    told = run("info", model)
    for phrase in ("WaveNet", "Ancestral", "lmnt-com/diffwave", "Apache-2.0"):
        assert phrase in told
    io.write(tmp_path / "noise.wav", torch.randn(1, 3000) / 8, 22050)
    run("vocode", model, tmp_path / "noise.wav", "--out", tmp_path / "vocoded")
    assert io.probe(tmp_path / "vocoded" / "noise.wav").length == 3000


def test_imported_unconditional_model_synthesizes(fixtures_dir: Path, tmp_path: Path) -> None:
    file = fixtures_dir / "philsyn_unconditional" / "123.pkl"
    said = run("import", "philsyn_diffwave", file, "--out", tmp_path / "model")
    assert "--corrected" in said  # the file does not say how it was trained
    assert f"audiodiff synthesize {tmp_path / 'model'}" in said
    sounds = tmp_path / "sounds"
    run("synthesize", tmp_path / "model", "--count", "2", "--seconds", "0.1", "--steps", "3", "--out", sounds)
    assert [io.probe(file).length for file in sorted(sounds.glob("*.wav"))] == [1600, 1600]


def test_training_goes_on_from_an_import(
    weights: dict[str, Tensor], mini_corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "params.json").write_text(json.dumps({"sample_rate": 8000, "dilation_cycle_length": 4}))
    model, out = tmp_path / "model", tmp_path / "run"
    file = saved(tmp_path, weights)
    run("import", "lmnt_diffwave", file, "--config", tmp_path / "params.json", "--out", model)
    few = ["training.updates=2", "training.global_batch_seconds=1.2", "training.statistics_clips=4"]
    arguments = [
        *("--config-dir", str(model), "experiment=lmnt_diffwave", "data=mini", f"data_dir={mini_corpus}"),
        *(f"init={model}", f"out={out}", *few, "training.validation_clips=2"),
    ]
    code = "from audiodiff.cli.app import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "train", *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    trained, before = load(out / "model"), load(model)
    assert trained.recipe["objective"]["_target_"].endswith("MeanAbsoluteError")
    distance = [
        float((after - start).detach().abs().max())
        for after, start in zip(trained.parameters(), before.parameters(), strict=True)
    ]
    assert 0 < max(distance) < 0.01  # it moved, and from where the import was


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "module"])
def test_half_precision_and_data_parallel_files_are_accepted(
    kind: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    changed = {
        f"module.{key}" if kind == "module" else key: value
        if kind == "module"
        else value.to(getattr(torch, kind))
        for key, value in weights.items()
    }
    run("import", "lmnt_diffwave", saved(tmp_path, changed), "--out", tmp_path / "changed")
    run("import", "lmnt_diffwave", saved(tmp_path, weights, "plain.pt"), "--out", tmp_path / "plain")
    ours, theirs = (load(tmp_path / name).state_dict() for name in ("changed", "plain"))
    for key, value in theirs.items():
        assert ours[key].dtype == torch.float32
        torch.testing.assert_close(ours[key], value, rtol=0 if kind == "module" else 2**-7, atol=1e-6)


def test_unknown_project_lists_the_choices(refuse: Refuse, checkpoint: Path) -> None:
    line = refuse("diffwave", checkpoint)
    assert all(name in line for name in PROJECTS)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_checkpoint_of_another_project_is_named(
    kind: str, refuse: Refuse, fixtures_dir: Path, tmp_path: Path
) -> None:
    project, write = WRITERS[kind]
    file, _ = write(tmp_path, fixtures_dir)
    other = "lmnt_wavegrad" if project != "lmnt_wavegrad" else "lmnt_diffwave"
    line = refuse(other, file)
    assert "looks like a checkpoint of" in line
    assert f"not of {other}" in line
    named = line.split("looks like a checkpoint of ")[1].split(",")[0].split(" or ")
    assert project in named


def test_params_tell_lmnts_diffwave_from_priorgrad(
    refuse: Refuse, checkpoint: Path, fixtures_dir: Path, tmp_path: Path
) -> None:
    assert "looks like a checkpoint of lmnt_diffwave, not of priorgrad" in refuse("priorgrad", checkpoint)
    other, _ = WRITERS["priorgrad"][1](tmp_path, fixtures_dir)
    assert "looks like a checkpoint of priorgrad, not of lmnt_diffwave" in refuse("lmnt_diffwave", other)


def test_missing_and_unexpected_parameters_are_listed_and_counted(
    refuse: Refuse, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    lost = [key for key in weights if ".output_projection." in key]
    assert len(lost) > 6
    changed = {key: value for key, value in weights.items() if key not in lost} | {"surplus": torch.zeros(1)}
    line = refuse("lmnt_diffwave", saved(tmp_path, changed))
    assert sorted(lost)[0] in line
    assert f"and {len(lost) - 6} more" in line
    assert "unexpected: surplus" in line


def test_wrong_sizes_name_layer_got_and_expected(
    refuse: Refuse, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    line = refuse(
        "lmnt_diffwave",
        saved(tmp_path, weights | {"residual_layers.1.dilated_conv.bias": torch.zeros(2)}),
    )
    assert "layers.1.dilated.bias is [2], expected [32]" in line
    line = refuse("lmnt_diffwave", saved(tmp_path, weights | {"input_projection.weight": torch.zeros(3)}))
    assert "no model of lmnt_diffwave" in line


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused(
    suffix: str, share: float, refuse: Refuse, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(weights, path)  # type: ignore[operator]
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "not a checkpoint" in refuse("lmnt_diffwave", path)


class Malicious:
    """Unpickles to a call that makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_not_run(refuse: Refuse, weights: dict[str, Tensor], tmp_path: Path) -> None:
    trap = Malicious(tmp_path / "made")
    old = tmp_path / "old.pt"
    old.write_bytes(pickle.dumps({"model": trap}))
    for file in (saved(tmp_path, {"model": weights, "params": trap}), old):
        line = refuse("lmnt_diffwave", file)
        assert "nothing in a checkpoint is run" in line
        assert "weights_only" not in line  # torch's advice how to run it after all
    assert not (tmp_path / "made").exists()


def test_file_that_is_absent_or_text_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    assert "no such file" in refuse("lmnt_diffwave", tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("these are no weights")
    assert "not a checkpoint" in refuse("lmnt_diffwave", tmp_path / "text.pt")


def test_place_that_holds_something_else_is_left_alone(
    refuse: Refuse, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("dear diary")
    assert "no imported model" in refuse("lmnt_diffwave", checkpoint, out=tmp_path / "notes")
    (tmp_path / "file").write_text("in the way")
    assert "no imported model" in refuse("lmnt_diffwave", checkpoint, out=tmp_path / "file")
    model = tmp_path / "model"
    run("import", "lmnt_diffwave", checkpoint, "--out", model)
    run("import", "lmnt_diffwave", checkpoint, "--out", model)  # an earlier import is replaced
    (model / "training.json").write_text(json.dumps({"updates": 1000}))  # a trained model is not
    assert "no imported model" in refuse("lmnt_diffwave", checkpoint, out=model)


@pytest.mark.parametrize(
    ("project", "option", "value"),
    [
        ("lmnt_diffwave", "--stats", "stats"),
        ("lmnt_diffwave", "--sample-size", "65536"),
        ("speechbrain_diffwave", "--schedule", "betas.pt"),
        ("philsyn_diffwave", "--sample-rate", "22050"),
        ("dance_diffusion", "--config", "config.json"),
    ],
)
def test_option_that_says_nothing_about_the_project_is_refused(
    project: str, option: str, value: str, refuse: Refuse, checkpoint: Path
) -> None:
    line = refuse(project, checkpoint, option, value)
    assert option in line
    assert f"--{PROJECTS[project].options[0].replace('_', '-')}" in line  # those that it takes


def test_flag_of_one_project_is_refused_for_another(refuse: Refuse, checkpoint: Path) -> None:
    assert "--corrected" in refuse("lmnt_diffwave", checkpoint, "--legacy-inplace")


@pytest.mark.parametrize(
    "content", [None, "{", "[1, 2]", "a: !!python/object/apply:os.getcwd []", '{"n_fft": "x"}']
)
def test_configuration_that_is_none_is_refused(
    content: str | None, refuse: Refuse, checkpoint: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    if content is not None:
        config.write_text(content)
    line = refuse("lmnt_diffwave", checkpoint, "--config", config)
    assert "config.yaml" in line or "n_fft" in line or "'x'" in line


def test_dance_diffusion_of_unknown_rate_asks_for_it(
    refuse: Refuse, fixtures_dir: Path, tmp_path: Path
) -> None:
    file, _ = WRITERS["dance_diffusion"][1](tmp_path, fixtures_dir)
    assert "sample rate" in refuse("dance_diffusion", file)
