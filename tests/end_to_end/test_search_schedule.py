"""audiodiff search-schedule from the command line: found, written, used, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from audiodiff.cli.app import app, main
from audiodiff.model import load
from tests.tiny import save_random_model

FEW = ["--clips", "2", "--test-clips", "2", "--rounds", "1", "--seconds", "0.2"]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_grid_is_found_and_synthesize_uses_it(mini_corpus: Path, tmp_path: Path) -> None:
    model = save_random_model(tmp_path / "model", "experiment=mini", "size=tiny")
    output = run("search-schedule", model, "--steps", 2, "--data", mini_corpus, *FEW)
    assert "Trajectory error, lower is better" in output
    assert "held-out, 2 clips" in output
    assert (model / "schedule.png").is_file()
    times = load(model).recipe["searched_grids"]["2"]["times"]
    run("synthesize", model, "--out", tmp_path / "samples", "--seconds", 0.1)
    sampler = json.loads((tmp_path / "samples" / "samples.json").read_text())["sampler"]
    assert str(times[0]) in sampler["grid"]
    assert "goes on after" in run("search-schedule", model, "--steps", 2, "--data", mini_corpus, *FEW)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--steps", "0"], "--steps"), (["--steps", "2", "--score", "lsd"], "hears no mel")],
)
def test_a_mistake_is_one_line(
    mini_corpus: Path, tmp_path: Path, arguments: list[str], words: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = save_random_model(tmp_path / "model", "experiment=mini", "size=tiny")
    command = ["audiodiff", "search-schedule", str(model), "--data", str(mini_corpus), *arguments]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as stop:
        main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert len(lines) == 1
    assert words in lines[0]
