"""A run that is killed -9 again and again, also while it writes, ends as the run that was never killed.

One process imports everything and forks a trainer for every attempt, so that a kill costs the seconds of a training
and not those of an import. Moments are drawn from a seed; half of them wait for a checkpoint that is being written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from audiodiff.files import writing_folder
from audiodiff.training import checkpoint
from tests.conftest import ROOT

UPDATES = 12
KILLER = f"""
import os, random, signal, sys, time
from pathlib import Path
from rich.console import Console
from audiodiff.training.loop import train
from tests.tiny import tiny_recipe

corpus, folder, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
recipe = tiny_recipe(
    "training.updates={UPDATES}", "training.checkpoint_every=2", "training.log_every=1",
    "training.validate_every=4", "training.patience=3",
)

def trainer():
    number = os.fork()
    if number == 0:
        code = 1
        try:
            train(recipe, corpus, folder, "test", Console(quiet=True))
            code = 0
        finally:
            os._exit(code)
    return number

def ended(number):
    finished, status = os.waitpid(number, os.WNOHANG)
    return finished == number

dice, done = random.Random(seed), 0
while done < kills:
    number, began = trainer(), time.monotonic()
    writing, delay = done % 2 == 1, dice.uniform(0.0, 1.5)
    drafts = dice.randint(1, 3)
    while not ended(number):
        if writing and list(folder.glob("checkpoints/.update-*.part")):
            drafts -= 1
            time.sleep(dice.uniform(0.0, 0.01))
        if (drafts == 0) if writing else (time.monotonic() - began > delay):
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
            done += 1
            print("killed, drafts left:", len(list(folder.glob("checkpoints/.*.part"))), flush=True)
            break
        time.sleep(0.001)
    else:
        break  # it was done before it could be killed
number = trainer()
print("code", os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), "kills", done, flush=True)
"""


def trained(corpus: Path, folder: Path, kills: int, seed: int = 0) -> str:
    """Trains in a process that kills its trainers, and returns what it says."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", KILLER, str(corpus), str(folder), str(kills), str(seed)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    assert "code 0" in result.stdout, result.stdout + result.stderr
    return result.stdout


def assert_same(first: object, second: object, where: str) -> None:
    """Compares nested states bit for bit; times of day apart."""
    if isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys(), where
        for key in first.keys() - {"seconds"}:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor)
        assert torch.equal(first, second), where
    else:
        assert first == second, where


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves of a run that do not depend on the clock, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "log"), size_guidance={"scalars": 0})
    events.Reload()
    names = [name for name in events.Tags()["scalars"] if not name.startswith("throughput")]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


def assert_never_killed(folder: Path, whole: Path) -> None:
    """Compares weights, averages, moments, counts and curves of two finished runs."""
    names = [run / "checkpoints" / f"update-{UPDATES:08d}" for run in (folder, whole)]
    assert_same(checkpoint.read_state(names[0]), checkpoint.read_state(names[1]), "state")
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (folder, whole)]
    assert weights[0] == weights[1]
    assert scalars(folder) == scalars(whole)
    assert not [path for path in folder.rglob(".*") if path.suffix in (".part", ".old")]


@pytest.fixture(scope="module")
def whole(mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("never_killed")
    trained(mini_corpus, folder, 0)
    return folder


def test_five_kills_change_nothing(mini_corpus: Path, whole: Path, tmp_path: Path) -> None:
    said = trained(mini_corpus, tmp_path, 5)
    assert "kills 5" in said
    assert_never_killed(tmp_path, whole)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_kills_change_nothing(mini_corpus: Path, whole: Path, tmp_path: Path, seed: int) -> None:
    said = trained(mini_corpus, tmp_path, 20, seed)
    assert "kills" in said
    assert_never_killed(tmp_path, whole)


def test_what_a_killed_process_left_half_written_is_removed_and_what_it_replaced_put_back(
    tmp_path: Path,
) -> None:
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / ".update-00000004.77.part" / "training").mkdir(parents=True)
    (tmp_path / ".statistics.json.77.part").write_text("{")
    with writing_folder(tmp_path / "model") as draft:
        (draft / "config.yaml").write_text("whole")
    (tmp_path / "model").rename(tmp_path / ".model.77.old")  # killed between two renames
    checkpoint.clean_up(tmp_path)
    assert (tmp_path / "model" / "config.yaml").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoints", "config.yaml", "model"]
    assert json.dumps(checkpoint.newest(tmp_path)) == "null"
