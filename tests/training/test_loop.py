"""Training: exact resume after any death, comparable validation, checkpoints that are whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from audiodiff.errors import InputError
from audiodiff.model import load
from audiodiff.training import draws
from audiodiff.training.draws import drop_labels
from audiodiff.training.loop import (
    one_update,
    open_run,
    train,
    training_batches,
    validation_loss,
)
from audiodiff.types import Batch
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
        stopped.update += 1
    from audiodiff.training.loop import save_checkpoint

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


def test_interrupt_saves_at_an_update_and_says_how_to_go_on(mini_corpus: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from audiodiff.cli.app import main; main()", "train"]
    command += [*TINY_MINI, "training.updates=100000", f"data_dir={mini_corpus}", f"out={tmp_path}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoints").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=60)[1].strip().splitlines()[-1]
    assert process.returncode == 2
    newest = sorted((tmp_path / "checkpoints").iterdir())[-1]
    assert message.startswith("audiodiff: interrupted at update")
    assert f"update {int(newest.name.removeprefix('update-'))}," in message


def test_checkpoint_is_a_model_folder_with_the_facts_of_its_run(whole_run: Path) -> None:
    checkpoints = sorted((whole_run / "checkpoints").iterdir())
    assert [folder.name for folder in checkpoints] == ["update-00000004", "update-00000006"]  # two are kept
    assert_same(weights(checkpoints[-1]), weights(whole_run / "model"))
    facts = json.loads((whole_run / "model" / "training.json").read_text())
    assert facts["updates"] == 6
    assert facts["corpus"] == "mini"
    assert facts["train_hours"] > 0.05
    model = load(whole_run / "model")
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())


def test_run_of_another_recipe_is_refused(whole_run: Path, mini_corpus: Path) -> None:
    with pytest.raises(InputError, match=r"another model.*out="):
        train(tiny_recipe("sizes.tiny.width=24"), mini_corpus, whole_run, "test", QUIET)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.batch_size=5", r"training\.batch_size"),
        ("training.updates=3", "6 updates, asked for are 3"),
    ],
)
def test_run_is_not_resumed_with_other_training(
    whole_run: Path, mini_corpus: Path, override: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        train(tiny_recipe(override), mini_corpus, whole_run, "test", QUIET)


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


def test_accumulated_halves_equal_the_whole_batch(mini_corpus: Path, tmp_path: Path) -> None:
    # Plain SGD would be needed to compare weights of different losses; here the same generator draws per
    # batch, so only the count of batches consumed is a law.
    run = open_run(tiny_recipe("training.accumulate=3"), mini_corpus, tmp_path, "test", QUIET)
    batches = training_batches(run)
    one_update(run, batches)
    number, _ = next(batches)
    assert number == 3


def test_training_learns(mini_corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("training.updates=60", "training.checkpoint_every=60", "optimizer.lr=0.003")
    run = open_run(recipe, mini_corpus, tmp_path, "test", QUIET)
    before = validation_loss(run)
    batches = training_batches(run)
    for _ in range(60):
        one_update(run, batches)
        run.update += 1
    assert validation_loss(run) < 0.8 * before


def test_loss_that_is_not_finite_stops_with_advice(mini_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"optimizer\.lr"):
        train(
            tiny_recipe("optimizer.lr=1e30", "training.warmup_updates=0"), mini_corpus, tmp_path, "t", QUIET
        )


def test_labels_are_dropped_all_or_singly_at_the_given_rates() -> None:
    size = 20000
    labels = {"digit": ("one",) * size, "speaker": ("theo",) * size}
    batch = Batch(None, torch.ones(size, dtype=torch.int64), labels)
    dropped = drop_labels(batch, 0.1, torch.Generator().manual_seed(0)).labels
    pairs = list(zip(dropped["digit"], dropped["speaker"], strict=True))
    # All labels: 0.1 + 0.1 / 4; one of the two: 0.1 / 4 each. Four standard deviations of a share of 20000.
    assert pairs.count(("", "")) / size == pytest.approx(0.125, abs=0.01)
    assert pairs.count(("", "theo")) / size == pytest.approx(0.025, abs=0.005)
    assert pairs.count(("one", "")) / size == pytest.approx(0.025, abs=0.005)


def test_no_label_is_dropped_at_rate_zero() -> None:
    batch = Batch(None, torch.ones(3, dtype=torch.int64), {"digit": ("one", "two", "six")})
    assert drop_labels(batch, 0.0, torch.Generator()) == replace(batch)


def test_generators_differ_by_purpose_batch_and_rank(mini_corpus: Path, tmp_path: Path) -> None:
    run = open_run(tiny_recipe(), mini_corpus, tmp_path, "test", QUIET)
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    drawn = set()
    for purpose, number, rank in keys:
        generator = draws.generator(0, purpose, number, run.accelerator, rank)
        drawn.add(float(torch.rand(1, generator=generator, dtype=torch.float64)))
    assert len(drawn) == len(keys)


def test_full_disk_keeps_the_last_checkpoint(mini_corpus: Path, tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200000, 200000));"
        "from audiodiff.cli.app import main; main()"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "train",
        *TINY_MINI,
        f"data_dir={mini_corpus}",
        f"out={tmp_path}",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 2, result.stderr
    assert "cannot be written" in result.stderr.strip().splitlines()[-1]
    assert not list((tmp_path / "checkpoints").glob("update-*"))
    assert not (tmp_path / "model").exists()
