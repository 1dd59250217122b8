"""Updates that cannot be trusted change no weight, are counted, and lead back to a checkpoint when they go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from audiodiff.errors import InputError
from audiodiff.training.engine import LossScale
from audiodiff.training.guards import GUARDS, MOST_ROLLBACKS, SPIKES, Guard, forget_after, record
from audiodiff.training.loop import judge, train
from audiodiff.training.resuming import resume, roll_back, save_checkpoint
from audiodiff.training.run import Run, open_run
from audiodiff.training.updates import one_update, training_batches
from audiodiff.types import Batch
from tests.tiny import tiny_recipe

QUIET = Console(quiet=True)


def opened(mini_corpus: Path, folder: Path, *overrides: str) -> Run:
    return open_run(tiny_recipe(*overrides), mini_corpus, folder, "test", QUIET)


def poisoned(batches: Iterator[Batch], bad: set[int]) -> Iterator[Batch]:
    """The batches, with a sample that is not a number in some of them."""
    for number, batch in enumerate(batches):
        if number in bad:
            assert batch.waveform is not None
            batch.waveform[0, 0, 0] = torch.nan
        yield batch


def weights(run: Run) -> dict[str, torch.Tensor]:
    moments = {
        f"{number}.{name}": value.clone()
        for number, state in run.optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    return moments | {name: weight.clone() for name, weight in run.model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_update_that_is_not_finite_changes_nothing_but_its_number(
    mini_corpus: Path, tmp_path: Path
) -> None:
    run = opened(mini_corpus, tmp_path)
    batches = poisoned(training_batches(run), {1})
    first = one_update(run, batches)
    before = weights(run)
    second = one_update(run, batches)
    assert (first.skipped, second.skipped) == (False, True)
    assert same(weights(run), before)
    assert run.update == 2
    assert second.learning_rate == run.learning_rate(1) > first.learning_rate
    third = one_update(run, batches)
    assert not third.skipped
    assert not same(weights(run), before)


def test_skipped_updates_are_counted_written_down_and_part_of_the_record(
    mini_corpus: Path, tmp_path: Path
) -> None:
    run = opened(mini_corpus, tmp_path)
    batches = poisoned(training_batches(run), {1, 2})
    for _ in range(4):
        judge(run, one_update(run, batches), QUIET)
    assert (run.guard.skipped, run.guard.streak) == (2, 0)
    lines = [json.loads(line) for line in (tmp_path / GUARDS).read_text().splitlines()]
    assert [(line["update"], line["event"]) for line in lines] == [(2, "skipped"), (3, "skipped")]
    save_checkpoint(run)
    facts = json.loads((tmp_path / "checkpoints/update-00000004/training.json").read_text())
    assert (facts["skipped_updates"], facts["rollbacks"], facts["unreadable_clips"]) == (2, 0, 0)


def test_clips_that_cannot_be_read_are_counted_and_named(mini_corpus: Path, tmp_path: Path) -> None:
    run = opened(mini_corpus, tmp_path)
    batch = replace(next(training_batches(run)), problems=("cut a: header is damaged",))
    judge(run, one_update(run, iter([batch])), QUIET)
    assert run.guard.facts()["unreadable"] == ["cut a: header is damaged"]
    assert json.loads((tmp_path / GUARDS).read_text())["clip"] == "cut a: header is damaged"


def test_going_back_restores_everything_but_draws_other_noise(mini_corpus: Path, tmp_path: Path) -> None:
    run = opened(mini_corpus, tmp_path)
    batches = training_batches(run)
    for _ in range(2):
        one_update(run, batches)
    save_checkpoint(run)
    at_checkpoint = weights(run)
    once = one_update(run, batches)
    run.guard.skip(overflow=False)
    roll_back(run, QUIET)
    assert (run.update, run.rollbacks, run.guard.streak, run.guard.skipped) == (2, 1, 0, 1)
    assert same(weights(run), at_checkpoint)
    again = one_update(run, training_batches(run))
    assert again.ids == once.ids
    assert not torch.equal(again.times, once.times)
    assert not torch.equal(again.losses, once.losses)


def test_a_run_that_diverges_goes_back_three_times_and_then_stops_with_advice(
    mini_corpus: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        *("optimizer.lr=1e30", "training.warmup_updates=0", "training.patience=2", "training.updates=50"),
        *("training.checkpoint_every=1", "training.log_every=1"),
    )
    with pytest.raises(FloatingPointError, match=r"not finite, 3 times from update \d+; lower optimizer\.lr"):
        train(recipe, mini_corpus, tmp_path, "test", QUIET)
    events = [json.loads(line)["event"] for line in (tmp_path / GUARDS).read_text().splitlines()]
    assert events.count("rollback") == MOST_ROLLBACKS
    assert events.count("skipped") == 2 * (MOST_ROLLBACKS + 1)


def test_a_run_without_checkpoint_cannot_go_back(mini_corpus: Path, tmp_path: Path) -> None:
    run = opened(mini_corpus, tmp_path)
    with pytest.raises(FloatingPointError, match="no checkpoint to go back to"):
        roll_back(run, QUIET)


def test_counts_survive_a_restart(mini_corpus: Path, tmp_path: Path) -> None:
    run = opened(mini_corpus, tmp_path)
    batches = poisoned(training_batches(run), {0})
    for _ in range(3):
        judge(run, one_update(run, batches), QUIET)
    save_checkpoint(run)
    resumed = opened(mini_corpus, tmp_path)
    resume(resumed, QUIET)
    assert resumed.guard.state_dict() == run.guard.state_dict()
    assert resumed.guard.losses


def test_a_loss_far_above_the_others_is_a_spike_and_a_usual_one_is_not() -> None:
    guard = Guard(patience=3, spike_deviations=8.0)
    generator = torch.Generator().manual_seed(0)
    usual = (1 + 0.1 * torch.randn(2000, generator=generator)).tolist()
    assert not any(guard.accept(loss) for loss in usual)
    assert guard.accept(2.0)
    assert guard.spikes == 1
    assert guard.limit() == pytest.approx(1 + 8 * 0.1, abs=0.2)


def test_the_first_losses_of_a_run_are_no_spikes() -> None:
    guard = Guard(patience=3, spike_deviations=8.0)
    assert not any(guard.accept(loss) for loss in (1.0, 1.1, 0.9, 50.0))


def test_patience_counts_updates_in_a_row_and_not_those_of_the_loss_scale() -> None:
    guard = Guard(patience=2, spike_deviations=8.0)
    for _ in range(5):
        guard.skip(overflow=True)
    assert not guard.exhausted
    guard.skip(overflow=False)
    guard.accept(1.0)
    guard.skip(overflow=False)
    assert not guard.exhausted
    guard.skip(overflow=False)
    assert guard.exhausted
    assert (guard.skipped, guard.overflows) == (8, 5)


@pytest.mark.parametrize("settings", [(0, 8.0), (3, 0.0)])
def test_settings_out_of_range_are_refused(settings: tuple[int, float]) -> None:
    with pytest.raises(InputError, match=r"training\.patience"):
        Guard(*settings)


def test_lines_of_the_log_that_will_come_again_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / SPIKES
    for update in (3, 5, 8):
        record(path, {"update": update})
    with path.open("a") as file:
        file.write('{"update": 9, "cl')  # the process died here
    forget_after(path, 5)
    assert [json.loads(line)["update"] for line in path.read_text().splitlines()] == [3, 5]


def test_loss_scale_halves_on_overflow_and_doubles_after_two_thousand_good_updates() -> None:
    scale = LossScale()
    scale.learn(overflow=True)
    assert scale.value == 32768.0
    for _ in range(2000):
        scale.learn(overflow=False)
    assert scale.value == 65536.0
    for _ in range(16):
        scale.learn(overflow=True)
    assert scale.spent
