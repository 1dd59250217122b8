"""`audiodiff status`: running, killed, interrupted, failed, finished and empty folders, without torch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from audiodiff.cli.app import app
from audiodiff.errors import InputError
from audiodiff.training.checkpoint import newest
from audiodiff.training.heartbeat import (
    RUNNING,
    alive,
    fail_before_start,
    process_start,
    read_status,
    write_status,
)
from audiodiff.training.loop import train
from audiodiff.training.status import duration, standing
from tests.tiny import TINY_MINI, tiny_recipe

PROGRAM = "from audiodiff.cli.app import main; main()"


def shown(*words: str) -> str:
    result = CliRunner().invoke(app, ["status", *words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def wait_for(what: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def finished(mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(tiny_recipe("training.validate_every=3"), mini_corpus, folder, "test", Console(quiet=True))
    return folder


@pytest.fixture
def endless(mini_corpus: Path, tmp_path: Path) -> tuple[Path, subprocess.Popen]:
    """A run of its own process that has logged."""
    overrides = [*TINY_MINI, "training.updates=100000", "training.checkpoint_every=4"]
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        "train",
        *overrides,
        f"data_dir={mini_corpus}",
        f"out={tmp_path}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(
        lambda: (read_status(tmp_path) or {}).get("update", 0) > 0 and newest(tmp_path) is not None,
        process,
    )
    yield tmp_path, process
    process.kill()
    process.wait()


def test_run_is_running_until_it_is_killed(endless: tuple[Path, subprocess.Popen]) -> None:
    folder, process = endless
    run = standing(folder)
    assert run.state == "running"
    assert run.updates == 100000
    assert run.seconds_left is not None
    assert run.loss is not None
    text = shown(str(folder))
    assert "running" in text
    assert "updates/s" in text
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = standing(folder)
    assert run.state == "stopped"
    assert run.seconds_left is None
    assert run.checkpoint is not None
    assert run.checkpoint % 4 == 0


def test_interrupted_run_says_so(endless: tuple[Path, subprocess.Popen]) -> None:
    folder, process = endless
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    run = standing(folder)
    assert run.state == "interrupted"
    assert run.checkpoint == run.update


def test_finished_run_has_its_model_and_its_best(finished: Path) -> None:
    run = standing(finished)
    assert run.state == "finished"
    assert (run.update, run.updates, run.checkpoint) == (6, 6, 6)
    assert run.model
    assert run.best is not None
    assert run.best["name"] == "validation_loss"
    assert run.best["update"] in (3, 6)
    text = shown(str(finished))
    assert "6 of 6 (100.0 %)" in text
    assert f"{finished}/model" in text


def test_run_whose_status_is_gone_or_damaged_is_read_from_what_it_left(finished: Path) -> None:
    path = finished / "status.json"
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"[1]"):
        path.write_bytes(content)
        run = standing(finished)
        assert (run.state, run.update, run.checkpoint, run.model) == ("finished", 6, 6, True)
        assert run.best is not None
    path.write_bytes(whole)


def test_empty_folder_is_empty_and_no_folder_a_mistake(tmp_path: Path) -> None:
    assert standing(tmp_path).state == "empty"
    assert "empty" in shown(str(tmp_path))
    with pytest.raises(InputError, match="is no folder"):
        standing(tmp_path / "nothing")


def test_failed_run_keeps_its_reason(mini_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        train(
            tiny_recipe("training.tracker=none", "training.select_by=lsd"),
            mini_corpus,
            tmp_path,
            "test",
            Console(quiet=True),
        )
    fail_before_start(tmp_path, "mini", "told no mel")
    run = standing(tmp_path)
    assert (run.state, run.error, run.update) == ("failed", "told no mel", 0)
    fail_before_start(tmp_path, "mini", "another")
    assert standing(tmp_path).error == "told no mel"


def test_mistake_in_the_folder_of_a_run_does_not_call_it_failed(finished: Path) -> None:
    fail_before_start(finished, "mini", "another recipe")
    assert standing(finished).state == "finished"


def test_many_runs_are_one_line_each_and_a_folder_of_runs_is_opened(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "empty").mkdir(parents=True)
    os.symlink(finished, tmp_path / "runs" / "a")
    os.symlink(finished, tmp_path / "runs" / "b")
    lines = shown(str(tmp_path / "runs")).splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["finished", str(tmp_path / "runs" / "a")],
        ["finished", str(tmp_path / "runs" / "b")],
    ]
    lines = shown(str(finished), str(tmp_path / "runs" / "empty")).splitlines()
    assert [line.split()[0] for line in lines] == ["finished", "empty"]


def test_machines_get_a_list_of_objects(finished: Path) -> None:
    (run,) = json.loads(shown(str(finished), "--json"))
    assert run["update"] == 6
    assert run["state"] == "finished"
    assert run["skipped"] == 0


def test_process_of_the_same_number_that_started_later_is_not_the_run(tmp_path: Path) -> None:
    write_status(tmp_path, RUNNING, {"update": 1})
    status = read_status(tmp_path)
    assert status is not None
    assert alive(status, 600)
    assert process_start(os.getpid()) is not None
    if Path("/proc/self/stat").exists():
        assert not alive(status | {"process_start": "1"}, 600)


def test_run_of_another_host_lives_until_it_has_been_silent_for_long(tmp_path: Path) -> None:
    write_status(tmp_path, RUNNING, {"update": 1})
    status = (read_status(tmp_path) or {}) | {"host": f"not-{socket.gethostname()}"}
    assert alive(status, 600)
    assert not alive(status | {"written": time.time() - 601}, 600)


def test_finished_without_a_model_is_not_finished(finished: Path, tmp_path: Path) -> None:
    status = read_status(finished) or {}
    dead = status | {"process_start": "1"}
    (tmp_path / "status.json").write_text(json.dumps(dead))
    assert standing(tmp_path).state == "stopped"


def test_status_needs_no_torch(finished: Path) -> None:
    code = (
        "import sys; sys.argv = ['audiodiff', 'status', sys.argv[1]]\n"
        "from audiodiff.cli.app import app\n"
        "try: app()\n"
        "except SystemExit: print([name for name in ('torch', 'numpy', 'lhotse') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code, str(finished)], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.6, "5 s"), (90, "1 min 30 s"), (3600, "1 h 0 min"), (90000, "1 d 1 h"), (59.9, "60 s")],
)
def test_durations_have_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words
