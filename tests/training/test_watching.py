"""What a run lets be seen: curves equal what was trained, the best model, trackers; nothing waits for the device."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from audiodiff.errors import InputError
from audiodiff.evaluation.metrics.lsd import lsd
from audiodiff.model import build, load
from audiodiff.training.ema import averaged
from audiodiff.training.loop import train
from audiodiff.training.meter import LEVELS, Meter, level_figure
from audiodiff.training.posthoc_ema import PostHocSettings, PowerAverages
from audiodiff.training.run import open_run
from audiodiff.training.selection import Selection, check_selection, score
from audiodiff.training.trackers import open_trackers
from audiodiff.training.watching import Watch, synthesize_fixed, validation_loss
from tests.tiny import tiny_recipe

QUIET = Console(quiet=True)
CPU = torch.device("cpu")
SEEN = (
    "training.validate_every=3",
    "training.sample_every=3",
    "training.sample_clips=2",
    "sampler.grid.steps=2",
)


def alone(packed: Tensor) -> Tensor:
    return packed


def update_of(seed: int, size: int = 16) -> dict[str, Any]:
    """What one update might be, drawn at random."""
    draw = torch.Generator().manual_seed(seed)
    return {
        "losses": torch.rand(size, generator=draw),
        "times": torch.rand(size, generator=draw, dtype=torch.float64),
        "gradient_norm": torch.rand((), generator=draw),
        "audio_seconds": 9.6,
        "loader_seconds": 0.25,
    }


@pytest.fixture(scope="module")
def seen(mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seen")
    train(tiny_recipe(*SEEN), mini_corpus, folder, "test", QUIET)
    return folder


def events(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "log")).Reload()


def curve(run: Path, name: str) -> dict[int, float]:
    return {point.step: point.value for point in events(run).Scalars(name)}


def test_look_gives_means_by_tenth_of_time() -> None:
    meter, added = Meter(CPU), [update_of(seed) for seed in range(5)]
    for one in added:
        meter.add(**one)
    look = meter.look(alone, 1)
    losses, times = (torch.cat([one[name] for one in added]).numpy() for name in ("losses", "times"))
    assert look.loss == pytest.approx(losses.mean(), rel=1e-6)
    for level in range(LEVELS):
        inside = (times >= level / LEVELS) & (times < (level + 1) / LEVELS)
        assert look.loss_by_level[level] == pytest.approx(losses[inside].mean(), rel=1e-6)
    assert look.gradient_norm == pytest.approx(
        np.mean([float(one["gradient_norm"]) for one in added]), rel=1e-6
    )
    assert look.audio_seconds == pytest.approx(5 * 9.6)
    assert look.loader_seconds == pytest.approx(5 * 0.25)
    assert look.updates == 5


def test_look_of_several_ranks_is_that_of_their_items_together() -> None:
    one, other, both = Meter(CPU), Meter(CPU), Meter(CPU)
    for seed in range(4):
        (one if seed % 2 else other).add(**update_of(seed))
        both.add(**update_of(seed))
    packed: list[Tensor] = []
    other.look(lambda x: packed.append(x) or x, 2)  # type: ignore[func-returns-value]
    look, whole = one.look(lambda x: x + packed[0], 2), both.look(alone, 1)
    assert look.loss == pytest.approx(whole.loss, rel=1e-6)
    np.testing.assert_allclose(look.loss_by_level, whole.loss_by_level, rtol=1e-6)
    assert look.audio_seconds == pytest.approx(whole.audio_seconds)
    assert look.loader_seconds == pytest.approx(whole.loader_seconds / 2)  # the ranks wait at the same time


def test_parts_of_the_loss_are_means_over_updates_and_ranks() -> None:
    one, other = Meter(CPU), Meter(CPU)
    for seed, (mine, theirs) in enumerate([(1.0, 3.0), (2.0, 6.0)]):
        for meter, value in ((one, mine), (other, theirs)):
            meter.add(**update_of(seed))
            meter.add_parts({"duration": torch.tensor(value), "prior": torch.tensor(-value)})
    packed: list[Tensor] = []
    other.look(lambda x: packed.append(x) or x, 2)  # type: ignore[func-returns-value]
    assert one.look(lambda x: x + packed[0], 2).parts == {"duration": 3.0, "prior": -3.0}


def test_look_begins_anew_and_may_find_nothing() -> None:
    meter = Meter(CPU)
    meter.add(**update_of(0))
    meter.look(alone, 1)
    look = meter.look(alone, 1)
    assert look.loss is None
    assert look.gradient_norm is None
    assert np.isnan(look.loss_by_level).all()
    assert look.updates == 0


def test_numbers_that_are_not_finite_do_not_spoil_a_look() -> None:
    meter, one = Meter(CPU), update_of(0)
    spoiled = one["losses"].clone()
    spoiled[3], spoiled[5] = math.nan, math.inf
    meter.add(**one | {"losses": spoiled, "gradient_norm": torch.tensor(math.inf)})
    kept = [float(loss) for place, loss in enumerate(one["losses"]) if place not in (3, 5)]
    look = meter.look(alone, 1)
    assert look.loss == pytest.approx(np.mean(kept), rel=1e-6)
    assert look.gradient_norm is None


def test_times_at_both_ends_belong_to_the_outer_tenths() -> None:
    meter = Meter(CPU)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    meter.add(torch.tensor([1.0, 2.0]), times, torch.tensor(1.0), 1.0, 0.0)
    assert meter.look(alone, 1).loss_by_level[[0, -1]].tolist() == [1.0, 2.0]


def test_nothing_done_per_update_reads_from_the_device() -> None:
    # Tensors on "meta" have no numbers: whoever reads one, and so would wait for a GPU, fails.
    meta = torch.device("meta")
    meter = Meter(meta)
    meter.add(
        torch.empty(8, device=meta), torch.empty(8, device=meta), torch.empty((), device=meta), 1.0, 0.1
    )
    model = nn.Linear(3, 2, device=meta)
    average, power = averaged(model, 0.99), PowerAverages(model, PostHocSettings((0.05,), 10))
    for _ in range(3):
        average.update_parameters(model)
        power.update(model)
    assert int(average.n_averaged) == 3


def test_picture_of_the_levels_is_drawn_from_one_look_and_from_many() -> None:
    row = np.linspace(0.1, 1, LEVELS)
    row[3] = math.nan
    for count in (1, 30):
        assert level_figure(list(range(count)), [row] * count).axes


def test_log_has_the_curves_sounds_and_pictures(seen: Path) -> None:
    tags = events(seen).Tags()
    assert {
        "loss",
        "learning_rate",
        "gradient_norm",
        "validation_loss",
        "throughput/audio_seconds_per_second",
        "throughput/updates_per_second",
        "throughput/loader_share",
    } <= set(tags["scalars"])
    assert any(tag.startswith("loss_by_level/") for tag in tags["scalars"])
    assert {"samples", "loss_by_level"} <= set(tags["images"])
    assert len([tag for tag in tags["audio"] if tag.startswith("samples/")]) == 2
    assert sorted(curve(seen, "loss")) == [2, 4, 6]
    assert sorted(curve(seen, "validation_loss")) == [3, 6]
    assert 0 <= min(curve(seen, "throughput/loader_share").values()) <= 1


def test_levels_of_a_look_average_to_its_loss(seen: Path) -> None:
    # 2 updates of 4 clips: every level's loss lies among them, and so does the mean between the extremes.
    log = events(seen)
    names = [tag for tag in log.Tags()["scalars"] if tag.startswith("loss_by_level/")]
    for update, loss in curve(seen, "loss").items():
        values = [point.value for name in names for point in log.Scalars(name) if point.step == update]
        assert min(values) <= loss <= max(values)


def test_status_tells_what_the_log_tells(seen: Path) -> None:
    status = json.loads((seen / "status.json").read_text())
    assert status["state"] == "finished"
    assert status["loss"] == pytest.approx(curve(seen, "loss")[6], rel=1e-6)
    assert status["gradient_norm"] == pytest.approx(curve(seen, "gradient_norm")[6], rel=1e-6)
    assert status["validation_loss"] == pytest.approx(curve(seen, "validation_loss")[6], abs=1e-6)


def test_best_is_the_model_of_the_lowest_validation_loss(
    seen: Path, mini_corpus: Path, tmp_path: Path
) -> None:
    values = curve(seen, "validation_loss")
    best = json.loads((seen / "checkpoints" / "best" / "training.json").read_text())["selected"]
    assert best["update"] == min(values, key=values.__getitem__)
    run = open_run(tiny_recipe(), mini_corpus, tmp_path, "test", QUIET)
    run.average.module.load_state_dict(load(seen / "checkpoints" / "best").state_dict())
    assert validation_loss(run) == pytest.approx(best["value"], rel=1e-6)


def test_pruning_keeps_the_best(mini_corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        "training.validate_every=1", "training.checkpoint_every=1", "training.keep_checkpoints=1"
    )
    train(recipe, mini_corpus, tmp_path, "test", QUIET)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best", "update-00000006"]
    assert load(tmp_path / "checkpoints" / "best")


def test_finish_with_best_makes_it_the_model(mini_corpus: Path, tmp_path: Path) -> None:
    # A rate that ruins the weights after the first updates, so that best and last differ.
    recipe = tiny_recipe(
        "training.validate_every=1",
        "optimizer.lr=0.5",
        "training.warmup_updates=6",
        "training.finish_with=best",
    )
    train(recipe, mini_corpus, tmp_path, "test", QUIET)
    values = curve(tmp_path, "validation_loss")
    facts = json.loads((tmp_path / "model" / "training.json").read_text())
    assert facts["selected"]["update"] == min(values, key=values.__getitem__) < 6
    assert facts["finished_with"] == "best"
    assert facts["trained_updates"] == 6
    made, best, last = (
        load_file(tmp_path / folder / "model.safetensors")
        for folder in ("model", "checkpoints/best", "checkpoints/update-00000006")
    )
    assert all(torch.equal(made[name], best[name]) for name in made)
    assert any(not torch.equal(made[name], last[name]) for name in made)


def test_resumed_run_remembers_its_best(seen: Path, mini_corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(seen, tmp_path / "run")
    facts = tmp_path / "run" / "checkpoints" / "best" / "training.json"
    unbeatable = json.loads(facts.read_text())
    unbeatable["selected"] |= {"value": 1e-9, "update": 1}
    facts.write_text(json.dumps(unbeatable))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "update-00000006")
    train(tiny_recipe(*SEEN), mini_corpus, tmp_path / "run", "test", QUIET)
    assert json.loads(facts.read_text())["selected"]["update"] == 1
    # Events of the time before the restart, and of updates done twice, stand once.
    assert sorted(point.step for point in events(tmp_path / "run").Scalars("loss")) == [2, 4, 6]


def test_stored_averages_after_a_restart_equal_those_without_one(mini_corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("training.posthoc_ema={widths: [0.05, 0.1], snapshot_every: 3}")
    train(recipe, mini_corpus, tmp_path, "test", QUIET)
    stored = sorted((tmp_path / "ema").iterdir())
    assert [path.name for path in stored] == ["update-00000003.safetensors", "update-00000006.safetensors"]
    whole = stored[-1].read_bytes()
    stored[-1].unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "update-00000006")
    train(recipe, mini_corpus, tmp_path, "test", QUIET)
    assert stored[-1].read_bytes() == whole


def test_metric_of_the_samples_chooses_the_best_of_a_vocoder(mini_corpus: Path, tmp_path: Path) -> None:
    overrides = (
        *SEEN,
        "features=mel_8k40",
        "conditioner=mel",
        "training.select_by=lsd",
        "training.label_drop=0",
    )
    train(tiny_recipe(*overrides), mini_corpus, tmp_path / "run", "test", QUIET)
    values = curve(tmp_path / "run", "samples/lsd")
    assert sorted(values) == [3, 6]
    folder = tmp_path / "run" / "checkpoints" / "best"
    best = json.loads((folder / "training.json").read_text())["selected"]
    assert best["name"] == "lsd"
    assert best["update"] == min(values, key=values.__getitem__)
    run = open_run(tiny_recipe(*overrides), mini_corpus, tmp_path / "again", "test", QUIET)
    run.average.module.load_state_dict(load(folder).state_dict())
    _, recordings, made = synthesize_fixed(run)
    again = [lsd(r[0].numpy(), m[0].numpy(), 8000) for r, m in zip(recordings, made, strict=True)]
    assert np.mean(again) == pytest.approx(best["value"], rel=1e-5)
    assert (
        len([tag for tag in events(tmp_path / "run").Tags()["audio"] if tag.startswith("recordings/")]) == 2
    )


def test_higher_or_lower_is_better_as_the_metric_says(tmp_path: Path) -> None:
    lower, higher = Selection(tmp_path, "lsd"), Selection(tmp_path, "stoi")
    assert lower.better(3.0)
    lower.best = {"name": "lsd", "value": 2.0, "update": 1}
    higher.best = {"name": "stoi", "value": 0.8, "update": 1}
    assert (lower.better(1.9), lower.better(2.1)) == (True, False)
    assert (higher.better(0.7), higher.better(0.9)) == (False, True)
    assert not lower.better(math.nan)


def test_clips_that_cannot_be_measured_are_left_out() -> None:
    metric = Selection(Path("nowhere"), "lsd").metric
    assert metric is not None
    draw = torch.Generator().manual_seed(0)
    clip, short = torch.randn(1, 4000, generator=draw), torch.zeros(1, 10)
    assert score(metric, [clip, short], [clip, short], 8000) == 0.0
    assert score(metric, [short], [short], 8000) is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"select_by": "beauty"}, "expected one of validation_loss, .*lsd"),
        ({"select_by": "lsd"}, "told no mel"),
        ({"finish_with": "worst"}, "expected last or best"),
    ],
)
def test_choices_that_mean_nothing_are_refused(override: dict[str, str], words: str) -> None:
    recipe = tiny_recipe()
    with pytest.raises(InputError, match=words):
        check_selection(recipe["training"] | override, build(recipe), adapted=False)


def test_best_is_not_asked_of_an_adapter() -> None:
    recipe = tiny_recipe("training.finish_with=best")
    with pytest.raises(InputError, match="checkpoints/best"):
        check_selection(recipe["training"], build(recipe), adapted=True)


def test_samples_that_are_not_finite_do_not_end_a_training(mini_corpus: Path, tmp_path: Path) -> None:
    run = open_run(tiny_recipe(*SEEN), mini_corpus, tmp_path, "test", QUIET)
    with torch.no_grad():
        for weight in run.averaged_model.parameters():
            weight.fill_(math.nan)
    run.update = 3
    with Watch(run, QUIET) as watch:
        watch.after_update()
    assert not (tmp_path / "checkpoints" / "best").exists()  # NaN is not the best


def test_what_cannot_be_written_beside_a_run_does_not_end_it(mini_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "status.json").mkdir()
    (tmp_path / "ema").write_text("in the way")
    console = Console(record=True, file=io.StringIO())
    recipe = tiny_recipe("training.posthoc_ema={widths: [0.05], snapshot_every: 3}")
    train(recipe, mini_corpus, tmp_path, "test", console)
    assert load(tmp_path)
    assert "warning: no snapshot of the averages of update 3" in console.export_text()


def test_interest_in_a_run_does_not_change_it(seen: Path, mini_corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("training.tracker=none")
    train(recipe, mini_corpus, tmp_path, "test", QUIET)
    assert not (tmp_path / "log").exists()
    one, other = (load_file(run / "model" / "model.safetensors") for run in (seen, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_unknown_tracker_is_refused(mini_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tensorboard, wandb, both, none"):
        open_trackers("paper", tmp_path, 0, {})


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_absent_wandb_is_said_with_the_way_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pip install 'audiodiff\[wandb\]'"):
        open_trackers("wandb", tmp_path, 0, {})


def test_wandb_keeps_its_run_over_a_restart(
    mini_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    recipe = tiny_recipe(*SEEN, "training.tracker=both")
    train(recipe, mini_corpus, tmp_path, "test", QUIET)
    identity = json.loads((tmp_path / "log" / "wandb.json").read_text())["id"]
    shutil.rmtree(tmp_path / "checkpoints" / "update-00000006")
    train(recipe, mini_corpus, tmp_path, "test", QUIET)
    folders = [name for name in os.listdir(tmp_path / "log" / "wandb") if name.startswith("offline-run-")]
    assert folders
    assert {name.rpartition("-")[2] for name in folders} == {identity}


def test_status_counts_what_was_survived(mini_corpus: Path, tmp_path: Path) -> None:
    run = open_run(tiny_recipe(), mini_corpus, tmp_path, "test", QUIET)
    for overflow in (True, False, False):
        run.guard.skip(overflow)
    run.guard.unread(["a.wav: cut off"])
    run.rollbacks = 1
    with Watch(run, QUIET):
        pass
    status = json.loads((tmp_path / "status.json").read_text())
    counts = {name: status[name] for name in ("skipped", "overflows", "rollbacks", "corrupt_files")}
    assert counts == {"skipped": 2, "overflows": 1, "rollbacks": 1, "corrupt_files": 1}
    assert status["state"] == "interrupted"
