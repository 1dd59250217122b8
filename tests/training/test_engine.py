"""Precision, compiled networks and signals of launchers change how a training computes, not what it trains."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console

from audiodiff.errors import InputError
from audiodiff.training.engine import join_processes
from audiodiff.training.interruption import StopRequest
from audiodiff.training.resuming import save_checkpoint
from audiodiff.training.run import open_run
from audiodiff.training.updates import Observed, one_update, training_batches
from tests.tiny import tiny_recipe

QUIET = Console(quiet=True)


def first_update(mini_corpus: Path, folder: Path, *overrides: str) -> Observed:
    run = open_run(tiny_recipe(*overrides), mini_corpus, folder, "test", QUIET)
    return one_update(run, training_batches(run))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_has_the_same_loss_and_gradient_to_its_rounding(
    mini_corpus: Path, tmp_path: Path, precision: str
) -> None:
    exact = first_update(mini_corpus, tmp_path / "float32")
    rounded = first_update(mini_corpus, tmp_path / precision, f"training.precision={precision}")
    assert not rounded.skipped
    assert rounded.loss == pytest.approx(exact.loss, rel=0.02)
    assert float(rounded.gradient_norm) == pytest.approx(float(exact.gradient_norm), rel=0.05)


def test_an_overflow_in_fp16_lowers_the_loss_scale_and_tries_no_patience(
    mini_corpus: Path, tmp_path: Path
) -> None:
    run = open_run(tiny_recipe("training.precision=fp16"), mini_corpus, tmp_path, "test", QUIET)
    assert run.scale is not None
    run.scale.value = 2.0**126
    batches = training_batches(run)
    first = one_update(run, batches)
    assert (first.skipped, first.overflow) == (True, True)
    assert run.scale.value == 2.0**125
    run.scale.value = 1024.0
    assert not one_update(run, batches).skipped


def test_a_compiled_network_trains_alike_and_is_saved_under_the_same_names(
    mini_corpus: Path, tmp_path: Path
) -> None:
    plain = open_run(tiny_recipe(), mini_corpus, tmp_path / "plain", "test", QUIET)
    compiled = open_run(tiny_recipe("training.compile=true"), mini_corpus, tmp_path / "c", "test", QUIET)
    losses = [one_update(run, training_batches(run)).loss for run in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert plain.model.state_dict().keys() == compiled.model.state_dict().keys()
    save_checkpoint(compiled)
    again = open_run(tiny_recipe(), mini_corpus, tmp_path / "c", "test", QUIET)
    for name, weight in again.model.state_dict().items():
        assert weight.shape == compiled.model.state_dict()[name].shape


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.precision=half", r"training\.precision: got 'half', expected one of no, bf16, fp16"),
        ("training.sharding=zero", r"training\.sharding: got 'zero', expected null or fsdp"),
        ("training.sharding=fsdp", r"start several with torchrun"),
    ],
)
def test_settings_of_the_engine_that_cannot_be_are_refused(
    mini_corpus: Path, tmp_path: Path, override: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        open_run(tiny_recipe(override), mini_corpus, tmp_path, "test", QUIET)


def test_processes_join_only_where_submitit_started_several(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "SUBMITIT_EXECUTOR", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    join_processes()
    assert "WORLD_SIZE" not in os.environ
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    join_processes()
    assert "WORLD_SIZE" not in os.environ


def test_tasks_of_a_slurm_job_get_the_same_address_and_their_own_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = {
        "SUBMITIT_EXECUTOR": "slurm",
        **{"SLURM_JOB_ID": "41", "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"},
        **{"SLURM_NODEID": "1", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "d1,d2"},
    }
    for name, value in task.items():
        monkeypatch.setenv(name, value)
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name in names:  # set and unset again, so that what is exported here is undone afterwards
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    join_processes()
    exported = [os.environ[name] for name in names[:-1]]
    assert exported == ["4", "3", "1", "2", "d1"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ or os.environ["CUDA_VISIBLE_DEVICES"] != "1"


def test_the_handler_of_a_launcher_is_called_after_the_checkpoint_and_not_before() -> None:
    called: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: called.append(number))
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGUSR2)
            assert (stop.stopping, stop.preempted, called) == (True, True, [])
            stop.tell_launcher()
        assert called == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_dropout_of_an_update_does_not_depend_on_what_was_drawn_before(
    mini_corpus: Path, tmp_path: Path
) -> None:
    run = open_run(tiny_recipe(), mini_corpus, tmp_path, "test", QUIET)
    states = []
    for noise in (0, 5):
        torch.rand(noise)
        run.update = 0
        one_update(run, training_batches(run))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
