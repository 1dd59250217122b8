"""Several processes train one model as one would, share its weights if asked, and stop when one of them dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from audiodiff.model import load
from audiodiff.training import checkpoint
from tests.tiny import TINY_MINI

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PROGRAM = "from audiodiff.cli.app import main; main()"
# Eight clips of different lengths per update; the moments after one update are then a tenth of its gradient.
ONE_UPDATE = ("training.updates=1", "training.global_batch_seconds=4.8", "training.clip_norm=null")


def command(tmp_path: Path, corpus: Path, out: Path, *overrides: str, processes: int = 2) -> list[str]:
    script = tmp_path / "audiodiff_main.py"
    script.write_text(PROGRAM)
    launch = LAUNCH if processes == 2 else [sys.executable]
    return [*launch, str(script), "train", *TINY_MINI, *overrides, f"data_dir={corpus}", f"out={out}"]


def trained(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result


def state_of(run: Path) -> dict[str, Any]:
    newest = checkpoint.newest(run)
    assert newest is not None
    return checkpoint.read_state(newest)


def moments(run: Path) -> dict[int, torch.Tensor]:
    return {number: state["exp_avg"] for number, state in state_of(run)["optimizer"]["state"].items()}


@pytest.fixture(scope="module")
def alone(mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One update in one process and one pass."""
    folder = tmp_path_factory.mktemp("alone")
    trained(command(folder, mini_corpus, folder / "run", *ONE_UPDATE, processes=1))
    return folder / "run"


@pytest.mark.parametrize(
    ("processes", "overrides"),
    [
        pytest.param(1, ("training.pass_seconds=2.4",), id="two passes"),
        pytest.param(2, (), id="two processes"),
        pytest.param(
            2, ("training.sharding=fsdp", "training.pass_seconds=1.2"), id="sharded, two passes each"
        ),
    ],
)
def test_the_gradient_of_an_update_is_the_same_however_it_is_shared(
    alone: Path, mini_corpus: Path, tmp_path: Path, processes: int, overrides: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    trained(command(tmp_path, mini_corpus, run, *ONE_UPDATE, *overrides, processes=processes))
    expected, found = moments(alone), moments(run)
    assert expected.keys() == found.keys()
    for number, gradient in expected.items():
        worst = float((found[number] - gradient).abs().max())
        assert worst <= 1e-6 * float(gradient.abs().max()), number
    averages = [load(folder / "model").state_dict() for folder in (alone, run)]
    for name, weight in averages[0].items():
        assert averages[1][name].shape == weight.shape


def test_two_processes_train_save_and_resume(mini_corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(command(tmp_path, mini_corpus, run, "training.updates=4"))
    said = trained(command(tmp_path, mini_corpus, run)).stdout
    assert said.count("4 clips per update, 2.4 s of audio, on 2 process(es) in 1 pass(es) of 2 clips") == 1
    facts = json.loads((run / "model" / "training.json").read_text())
    assert facts["updates"] == 6
    assert facts["hardware"].endswith("x 2")
    model = load(run)
    assert all(bool(weight.isfinite().all()) for weight in model.state_dict().values())
    assert [path.name for path in sorted((run / "checkpoints").glob("update-*"))] == [
        "update-00000004",
        "update-00000006",
    ]
    assert not any(name.startswith("module.") for name in state_of(run)["raw"])


@pytest.mark.long
def test_a_sharded_run_goes_on_in_one_process(mini_corpus: Path, tmp_path: Path) -> None:
    sharded, whole = tmp_path / "sharded", tmp_path / "whole"
    short = "training.updates=4"
    trained(command(tmp_path, mini_corpus, sharded, short, "training.sharding=fsdp"))
    trained(command(tmp_path, mini_corpus, sharded, processes=1))
    trained(command(tmp_path, mini_corpus, whole, short, processes=1))
    trained(command(tmp_path, mini_corpus, whole, processes=1))
    first, second = (state_of(run)["raw"] for run in (sharded, whole))
    for name, weight in second.items():
        # Adam turns the rounding of gradients near zero into a share of the learning rate, 0.001 here.
        assert torch.allclose(first[name], weight, rtol=1e-3, atol=1e-4), name


def processes_of(launcher: int, count: int) -> list[int]:
    """The trainers that a launcher has started, once all of them are there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        listed = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        if len(listed) == count:
            return [int(number) for number in listed]
        time.sleep(0.05)
    raise TimeoutError("the launcher started no trainers")


def test_when_one_process_is_killed_the_other_exits_and_the_run_goes_on(
    mini_corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = command(tmp_path, mini_corpus, run, "training.updates=100000", "training.log_every=1")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )
    trainers = processes_of(launcher.pid, 2)
    deadline = time.monotonic() + 200
    while checkpoint.newest(run) is None and launcher.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(trainers[1], signal.SIGKILL)
    killed = time.monotonic()
    said = launcher.communicate(timeout=120)[1]
    assert launcher.returncode != 0
    assert time.monotonic() - killed < 60
    assert not any(Path(f"/proc/{number}").exists() for number in trainers)
    assert "another process of this training died" in said or "interrupted at update" in said
    update = state_of(run)["update"]
    trained(command(tmp_path, mini_corpus, run, f"training.updates={update + 2}"))
    assert state_of(run)["update"] == update + 2


def test_a_signal_to_one_process_stops_both_at_the_same_update(mini_corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = command(tmp_path, mini_corpus, run, "training.updates=100000")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )
    trainers = processes_of(launcher.pid, 2)
    deadline = time.monotonic() + 200
    while checkpoint.newest(run) is None and launcher.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(trainers[1], signal.SIGUSR1)
    said = launcher.communicate(timeout=120)[1]
    lines = {line for line in said.splitlines() if line.startswith("audiodiff: preempted at update")}
    assert len(lines) == 1
    assert f"at update {state_of(run)['update']}," in lines.pop()


def test_processes_with_different_weights_are_found_out(tmp_path: Path) -> None:
    script = tmp_path / "differ.py"
    script.write_text(
        "import torch, torch.distributed as dist\n"
        "from audiodiff.training.engine import check_agreement\n"
        "dist.init_process_group('gloo')\n"
        "torch.manual_seed(0)\n"
        "module = torch.nn.Linear(3, 2)\n"
        "check_agreement(module)\n"
        "print('agree', flush=True)\n"
        "if dist.get_rank():\n"
        "    module.bias.data[1] += 1e-6\n"
        "check_agreement(module)\n"
    )
    result = subprocess.run([*LAUNCH, str(script)], capture_output=True, text=True)
    assert result.returncode != 0
    assert result.stdout.count("agree") == 2
    assert "different weights in 1 tensors, first bias" in result.stderr
