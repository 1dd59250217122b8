"""Training: exact resume after any death, comparable validation, checkpoints that are whole."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from audiodiff.errors import InputError
from audiodiff.model import load
from audiodiff.training import checkpoint
from audiodiff.training.loop import train
from audiodiff.training.resuming import save_checkpoint
from audiodiff.training.run import open_run
from audiodiff.training.updates import one_update, training_batches
from audiodiff.training.watching import validation_loss
from tests.tiny import TINY_MINI, tiny_recipe

QUIET = Console(quiet=True)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.fixture(scope="module")
def whole_run(mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(tiny_recipe(), mini_corpus, folder, "test", QUIET)
    return folder


def test_four_updates_and_a_resume_equal_six_bit_for_bit(
    whole_run: Path, mini_corpus: Path, tmp_path: Path
) -> None:
    # A run that stops at 4 of 6 has the learning rates of six, so it is stopped, not shortened.
    stopped = open_run(tiny_recipe(), mini_corpus, tmp_path, "test", QUIET)
    batches = training_batches(stopped)
    for _ in range(4):
        one_update(stopped, batches)
    save_checkpoint(stopped)
    train(tiny_recipe(), mini_corpus, tmp_path, "test", QUIET)
    assert_same(weights(tmp_path / "model"), weights(whole_run / "model"))
    raw = [
        torch.load(run / "checkpoints/update-00000006/training/state.pt", weights_only=True)
        for run in (tmp_path, whole_run)
    ]
    assert_same(raw[0]["raw"], raw[1]["raw"])
    moments = [state["optimizer"]["state"][0]["exp_avg_sq"] for state in raw]
    assert torch.equal(moments[0], moments[1])


def test_killed_run_goes_on_from_its_last_checkpoint_to_the_same_weights(
    whole_run: Path, mini_corpus: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", "from audiodiff.cli.app import main; main()", "train"]
    command += [*TINY_MINI, f"data_dir={mini_corpus}", f"out={tmp_path}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = tmp_path / "checkpoints" / "update-00000002"
    deadline = time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert_same(weights(tmp_path / "model"), weights(whole_run / "model"))
    assert not [path for path in tmp_path.rglob("*.part") if (tmp_path / "model") in path.parents]


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 2, "interrupted"),
        (signal.SIGTERM, 2, "interrupted"),
        (signal.SIGUSR1, 75, "preempted"),
    ],
)
def test_a_signal_saves_at_an_update_and_says_how_to_go_on(
    mini_corpus: Path, tmp_path: Path, number: int, code: int, word: str
) -> None:
    command = [sys.executable, "-c", "from audiodiff.cli.app import main; main()", "train"]
    command += [*TINY_MINI, "training.updates=100000", f"data_dir={mini_corpus}", f"out={tmp_path}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoints").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    message = process.communicate(timeout=60)[1].strip().splitlines()[-1]
    assert process.returncode == code
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    assert message.startswith(f"audiodiff: {word} at update")
    assert f"update {int(newest.name.removeprefix('update-'))}," in message


def test_checkpoint_is_a_model_folder_with_the_facts_of_its_run(whole_run: Path) -> None:
    checkpoints = sorted((whole_run / "checkpoints").glob("update-*"))
    assert [folder.name for folder in checkpoints] == ["update-00000004", "update-00000006"]  # two are kept
    assert_same(weights(checkpoints[-1]), weights(whole_run / "model"))
    facts = json.loads((whole_run / "model" / "training.json").read_text())
    assert facts["updates"] == 6
    assert facts["corpus"] == "mini"
    assert facts["train_hours"] > 0.05
    model = load(whole_run / "model")
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sizes.tiny.width=24", r"another model; give a new folder with out="),
        ("optimizer.name=Adam", r"another optimizer\.name"),
        ("training.freeze=[conditioner]", r"another training\.freeze"),
        ("training.updates=3", "6 updates, asked for are 3"),
    ],
)
def test_a_run_is_not_resumed_with_what_its_checkpoint_does_not_fit(
    whole_run: Path, mini_corpus: Path, override: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        train(tiny_recipe(override), mini_corpus, whole_run, "test", QUIET)


def test_keys_that_change_the_result_are_named_when_a_run_goes_on_with_others(
    whole_run: Path, mini_corpus: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    console = Console(file=io.StringIO())
    changed = ("training.updates=7", "optimizer.lr=0.002", "training.log_every=7", "checkpointing=true")
    train(tiny_recipe(*changed), mini_corpus, folder, "test", console)
    said = console.file.getvalue()
    assert "warning: goes on with another optimizer.lr, training.updates than the run began with" in said
    assert (folder / "checkpoints" / "update-00000007").is_dir()


def test_finished_run_keeps_what_it_recorded(whole_run: Path, mini_corpus: Path) -> None:
    facts = whole_run / "model" / "training.json"
    before = json.loads(facts.read_text())
    train(tiny_recipe(), mini_corpus, whole_run, "test", QUIET)
    after = json.loads(facts.read_text())
    assert after["validation_loss"] == before["validation_loss"]
    assert after["updates"] == before["updates"]


def test_validation_is_the_same_number_at_every_call(mini_corpus: Path, tmp_path: Path) -> None:
    run = open_run(tiny_recipe(), mini_corpus, tmp_path, "test", QUIET)
    first = validation_loss(run)
    torch.rand(5)  # the global generator must not matter
    assert validation_loss(run) == first


def test_opening_a_run_leaves_the_global_generator_alone(mini_corpus: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    open_run(tiny_recipe(), mini_corpus, tmp_path, "test", QUIET)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_learns(mini_corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("training.updates=60", "training.checkpoint_every=60", "optimizer.lr=0.003")
    run = open_run(recipe, mini_corpus, tmp_path, "test", QUIET)
    before = validation_loss(run)
    batches = training_batches(run)
    for _ in range(60):
        one_update(run, batches)
    assert validation_loss(run) < 0.8 * before


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_can_be_finished_later(
    whole_run: Path, mini_corpus: Path, tmp_path: Path
) -> None:
    # From the first checkpoint on no file may grow beyond what a TensorBoard event needs.
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from audiodiff.training import loop; save = loop.save_or_warn;\n"
        "def filling(run, console):\n"
        "    save(run, console)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (50000, resource.RLIM_INFINITY))\n"
        "loop.save_or_warn = filling\n"
        "from audiodiff.cli.app import main; main()"
    )
    arguments = ["train", *TINY_MINI, f"data_dir={mini_corpus}", f"out={tmp_path}"]
    result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "warning: no checkpoint of update 4" in result.stdout
    assert "the next is tried in 2 updates" in result.stdout
    last = result.stderr.strip().splitlines()[-1]
    assert "update-00000006: cannot be written" in last
    assert [folder.name for folder in sorted((tmp_path / "checkpoints").glob("update-*"))] == [
        "update-00000002"
    ]
    assert not (tmp_path / "model").exists()
    train(tiny_recipe(), mini_corpus, tmp_path, "test", QUIET)
    assert_same(weights(tmp_path / "model"), weights(whole_run / "model"))
