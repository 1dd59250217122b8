"""Sweeps: every run goes its way, failed ones too; folders named by what differs; one table of all."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from audiodiff.cli.app import app
from audiodiff.cli.train import sweep_naming
from audiodiff.errors import InputError
from audiodiff.training.status import standing
from audiodiff.training.sweep import sweep_table
from tests.tiny import TINY_MINI

PROGRAM = "from audiodiff.cli.app import main; main()"


def audiodiff(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def made_up(folder: Path, overrides: list[str], status: dict[str, Any] | None) -> None:
    """A run folder as Hydra and a run leave it, without the training."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if status is not None:
        content = {"experiment": "mini", "updates": 10, "written": 0.0, "host": "elsewhere", "process": 1}
        (folder / "status.json").write_text(json.dumps(content | status))


@pytest.fixture
def made_up_sweep(tmp_path: Path) -> Path:
    common = ["experiment=mini", "training.updates=10", "data_dir=data/mini"]
    best = {"name": "validation_loss", "value": 0.25, "update": 8}
    made_up(
        tmp_path / "optimizer.lr=1",
        [*common, "optimizer.lr=1"],
        {
            "state": "running",
            "update": 10,
            "validation_loss": 0.3,
            "best": best,
            "seconds": 1800.0,
            "parameters": 2500000,
        },
    )
    made_up(
        tmp_path / "optimizer.lr=2",
        [*common, "optimizer.lr=2"],
        {"state": "failed", "update": 3, "error": "loss is nan at\nupdate 3"},
    )
    made_up(
        tmp_path / "optimizer.lr=3",
        [*common, "optimizer.lr=3"],
        {"state": "interrupted", "update": 5, "validation_loss": 0.2},
    )
    made_up(tmp_path / "optimizer.lr=4", [*common, "optimizer.lr=4"], None)
    return tmp_path


def test_table_has_a_row_for_every_run_the_best_first(made_up_sweep: Path) -> None:
    table = sweep_table(made_up_sweep)
    rows = [dict(zip(table.headings, row, strict=True)) for row in table.rows]
    assert table.headings[0] == "optimizer.lr"
    assert "training.updates" not in table.headings
    assert [row["optimizer.lr"] for row in rows[:2]] == ["3", "1"]
    assert [row["status"] for row in rows] == ["interrupted", "stopped", "failed", "empty"]
    assert rows[1]["hours"] == "0.5"
    assert rows[1]["parameters"] == "2.5 M"
    assert rows[1]["best validation loss"] == "0.25 at 8"
    assert rows[2]["error"] == "loss is nan at update 3"
    assert table.summary == "4 runs: 1 empty, 1 failed, 1 interrupted, 1 stopped"


def test_files_say_what_the_terminal_says(made_up_sweep: Path) -> None:
    result = CliRunner().invoke(app, ["sweep-table", str(made_up_sweep)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "4 runs: " in result.output
    rows = list(csv.DictReader((made_up_sweep / "sweep.csv").open()))
    assert [row["optimizer.lr"] for row in rows[:2]] == ["3", "1"]
    lines = (made_up_sweep / "sweep.md").read_text().splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + 4
    assert lines[-1] == sweep_table(made_up_sweep).summary


def test_folder_without_runs_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no runs"):
        sweep_table(tmp_path)


def test_folders_are_named_by_what_is_swept_alone() -> None:
    words = [
        "-m",
        "experiment=mini",
        "optimizer.lr=1,2",
        "size=tiny,small",
        "training.freeze=[a,b]",
        "out=exp/x",
    ]
    (naming,) = sweep_naming(words)
    assert naming.partition("=")[2] == "['data_dir','experiment','out','training.freeze']"
    assert sweep_naming(words[1:]) == []
    own = "hydra.job.config.override_dirname.exclude_keys=[size]"
    assert sweep_naming([*words, own]) == []


def test_mistake_in_a_sweep_is_one_line(tmp_path: Path) -> None:
    result = audiodiff("train", "-m", "experiment=mini", "optimizer.lrr=1,2", folder=tmp_path)
    assert result.returncode == 2
    assert "optimizer.lrr" in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_run_that_fails_leaves_the_others_of_its_sweep_alone(mini_corpus: Path, tmp_path: Path) -> None:
    # A rate that ruins the weights at once, and no checkpoint to go back to.
    rates, strict = "optimizer.lr=1e30,0.001", ("training.patience=1", "training.checkpoint_every=4")
    words = [*TINY_MINI, *strict, "training.updates=4", "training.warmup_updates=0"]
    words += [f"data_dir={mini_corpus}", "out=sweep"]
    result = audiodiff("train", "-m", *words, rates, folder=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    folders = sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert folders == ["optimizer.lr=0.001", "optimizer.lr=1e+30"]
    assert standing(tmp_path / "sweep" / folders[0]).state == "finished"
    failed = standing(tmp_path / "sweep" / folders[1])
    assert failed.state == "failed"
    assert "not finite" in (failed.error or "")
    table = sweep_table(tmp_path / "sweep")
    assert dict(table.states) == {"failed": 1, "finished": 1}
    assert table.headings[0] == "optimizer.lr"
    assert table.rows[0][1] == "finished"


def test_precisions_can_be_swept_in_one_process(mini_corpus: Path, tmp_path: Path) -> None:
    words = [*TINY_MINI, "training.updates=1", f"data_dir={mini_corpus}", "out=sweep"]
    result = audiodiff("train", "-m", *words, "training.precision='no',bf16", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert dict(sweep_table(tmp_path / "sweep").states) == {"finished": 2}


def test_submitit_runs_the_jobs_of_a_sweep_in_processes_of_their_own(
    mini_corpus: Path, tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = [*TINY_MINI, "training.updates=2", f"data_dir={mini_corpus}", "out=sweep"]
    launcher = ("hydra/launcher=submitit_local", "hydra.launcher.cpus_per_task=1")
    result = audiodiff("train", "-m", *words, *launcher, "training.seed=0,1", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    table = sweep_table(tmp_path / "sweep")
    assert dict(table.states) == {"finished": 2}
    assert {row[0] for row in table.rows} == {"0", "1"}
    hosts = {
        json.loads((tmp_path / "sweep" / row[-2] / "status.json").read_text())["process"]
        for row in table.rows
    }
    assert len(hosts) == 2
