"""Post-hoc EMA: exact for stored profiles, near for others, measured against averages of a recorded trajectory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from audiodiff.cli.app import app
from audiodiff.errors import InputError
from audiodiff.model import load
from audiodiff.training.loop import train
from audiodiff.training.posthoc_ema import (
    PostHocSettings,
    PowerAverages,
    exponent,
    mix,
    mixed_weights,
    posthoc_settings,
    profile,
    snapshots,
)
from tests.tiny import tiny_recipe

QUIET = Console(quiet=True)
UPDATES, EVERY, WEIGHTS = 1200, 60, 40
WIDTHS = (0.05, 0.1)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Snapshots of weights that wander, and the weights [UPDATES, WEIGHTS] themselves."""
    folder = tmp_path_factory.mktemp("walk")
    draw = torch.Generator().manual_seed(0)
    model = nn.Linear(WEIGHTS, 1, bias=False)
    averages = PowerAverages(model, PostHocSettings(WIDTHS, EVERY))
    position, trajectory = torch.randn(1, WEIGHTS, generator=draw), []
    for update in range(1, UPDATES + 1):
        position = 0.999 * position + 0.03 * torch.randn(1, WEIGHTS, generator=draw)
        with torch.no_grad():
            model.weight.copy_(position)
        trajectory.append(position[0].double().numpy())
        averages.update(model)
        if averages.due(update, UPDATES):
            averages.snapshot(folder)
    return folder, np.stack(trajectory)


def brute_force(trajectory: np.ndarray, update: int, width: float) -> np.ndarray:
    """The weighted mean of the weights of every update, weights by the definition."""
    power = exponent(width) + 1
    tau = np.arange(1, update + 1)
    shares = (tau**power - (tau - 1) ** power) / update**power
    return shares @ trajectory[:update]


def error(made: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(made - wanted) / np.linalg.norm(wanted))


def test_exponent_is_that_of_the_published_widths() -> None:
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)  # Karras et al. 2024, section 3.1
    assert exponent(0.1) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_width_is_the_standard_deviation_of_the_profile(width: float) -> None:
    edges = np.arange(100001.0)
    shares = profile(100000, exponent(width), edges)
    centres = (edges[1:] - 0.5) / 100000
    assert shares.sum() == pytest.approx(1)
    mean = shares @ centres
    assert np.sqrt(shares @ (centres - mean) ** 2) == pytest.approx(width, rel=1e-4)


def test_recursion_equals_the_weighted_mean_of_all_updates_and_forgets_the_start() -> None:
    draw = torch.Generator().manual_seed(1)
    model = nn.Linear(5, 1, bias=False).double()
    averages = PowerAverages(model, PostHocSettings((0.1,), 1))
    trajectory = []
    for _ in range(50):
        with torch.no_grad():
            model.weight.copy_(torch.randn(1, 5, generator=draw, dtype=torch.float64))
        trajectory.append(model.weight.detach()[0].numpy().copy())
        averages.update(model)
    (made,) = averages.state_dict()["averages"].values()
    assert error(made[0].numpy(), brute_force(np.stack(trajectory), 50, 0.1)) < 1e-12


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("update", [UPDATES, UPDATES - 3 * EVERY])
def test_stored_profiles_come_out_as_they_were_stored(
    walk: tuple[Path, np.ndarray], width: float, update: int
) -> None:
    folder, trajectory = walk
    mixture = mix(snapshots(folder), width, update)
    assert mixture.error < 1e-9
    made = mixed_weights(mixture)["weight"][0].double().numpy()
    assert error(made, brute_force(trajectory, update, width)) < 5e-4  # half precision is 2^-11


@pytest.mark.parametrize(
    ("width", "update", "bound"),
    [
        (0.03, UPDATES, 1e-2),
        (0.075, UPDATES, 1e-3),
        (0.15, UPDATES, 2e-3),
        (0.2, UPDATES, 1e-2),
        (0.075, UPDATES - 30, 2e-2),  # between two snapshots
    ],
)
def test_other_profiles_are_near_by_what_is_said_of_them(
    walk: tuple[Path, np.ndarray], width: float, update: int, bound: float
) -> None:
    folder, trajectory = walk
    mixture = mix(snapshots(folder), width, update)
    made = mixed_weights(mixture)["weight"][0].double().numpy()
    measured = error(made, brute_force(trajectory, update, width))
    assert measured < bound
    assert measured < mixture.error + 1e-3  # weights that wander differ less than profiles do


def test_more_snapshots_come_nearer(walk: tuple[Path, np.ndarray]) -> None:
    stored = snapshots(walk[0])
    assert mix(stored, 0.03).error < 0.5 * mix(stored[1::2], 0.03).error


def test_mixture_is_the_best_of_all_sums_of_stored_profiles(walk: tuple[Path, np.ndarray]) -> None:
    # Moving any coefficient makes the error larger: the definition of least squares, by trial.
    mixture = mix(snapshots(walk[0]), 0.03)
    edges = np.arange(UPDATES + 1.0)
    wanted = profile(UPDATES, exponent(0.03), edges)
    stored = [(profile(s.update, exponent(kept), edges), x) for s, kept, x in mixture.coefficients]
    rest = sum(x * p for p, x in stored) - wanted
    least = float(np.linalg.norm(rest))
    assert least / np.linalg.norm(wanted) == pytest.approx(mixture.error, rel=1e-6)
    for p, _ in stored:
        for move in (-1e-3, 1e-3):
            assert np.linalg.norm(rest + move * p) >= least - 1e-12


def test_snapshot_is_two_bytes_a_weight_and_as_large_as_it_says(walk: tuple[Path, np.ndarray]) -> None:
    averages = PowerAverages(nn.Linear(WEIGHTS, 1, bias=False), PostHocSettings(WIDTHS, EVERY))
    assert averages.snapshot_bytes == 2 * 2 * WEIGHTS
    sizes = [snapshot.path.stat().st_size for snapshot in snapshots(walk[0])]
    assert max(sizes) - averages.snapshot_bytes < 400  # names and shapes
    assert len(sizes) == UPDATES // EVERY


def test_state_goes_on_exactly_and_refuses_other_widths() -> None:
    draw = torch.Generator().manual_seed(2)
    model = nn.Linear(3, 2)
    first, second = (PowerAverages(model, PostHocSettings((0.05,), 5)) for _ in range(2))
    for update in range(20):
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 3, generator=draw))
        first.update(model)
        if update == 9:
            second.load_state_dict(first.state_dict())
        elif update > 9:
            second.update(model)
    for name, tensor in first.state_dict()["averages"].items():
        assert torch.equal(tensor, second.state_dict()["averages"][name])
    with pytest.raises(InputError, match=r"posthoc_ema.*out="):
        PowerAverages(model, PostHocSettings((0.1,), 5)).load_state_dict(first.state_dict())
    with pytest.raises(InputError, match="from the first"):
        second.load_state_dict(None)


def test_frozen_weights_are_not_stored() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    averages = PowerAverages(model, PostHocSettings((0.05,), 5))
    assert set(averages.state_dict()["averages"]) == {"0.05/weight"}


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"widths": [0.05, 0.05], "snapshot_every": 5}, "different widths"),
        ({"widths": [0.05], "snapshot_every": 0}, "interval"),
        ({"widths": [0.4], "snapshot_every": 5}, r"at most 0\.28"),
        ({"widths": [0.0], "snapshot_every": 5}, "above 0"),
        ({"width": [0.05]}, "expected"),
    ],
)
def test_settings_that_mean_nothing_are_refused(node: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        posthoc_settings(node)


def test_damaged_snapshot_is_named(walk: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "ema").mkdir()
    whole = snapshots(walk[0])[0].path.read_bytes()
    (tmp_path / "ema" / "update-00000060.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"update-00000060\.safetensors: cannot be read"):
        snapshots(tmp_path)


def test_update_beyond_the_snapshots_is_refused(walk: tuple[Path, np.ndarray]) -> None:
    with pytest.raises(InputError, match=f"from update 1 to {UPDATES}"):
        mix(snapshots(walk[0]), 0.05, UPDATES + 1)


def test_command_makes_a_model_of_the_run(mini_corpus: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("training.posthoc_ema={widths: [0.05, 0.1], snapshot_every: 2}")
    run = tmp_path / "run"
    train(recipe, mini_corpus, run, "test", QUIET)
    out = tmp_path / "averaged"
    result = CliRunner().invoke(app, ["ema", str(run), "--width", "0.1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "its profile is met to" in result.output
    facts = json.loads((out / "training.json").read_text())
    assert facts["ema_width"] == 0.1
    assert facts["ema_profile_error"] < 1e-6
    assert "validation_loss" not in facts
    state = torch.load(run / "checkpoints/update-00000006/training/state.pt", weights_only=True)
    kept = state["posthoc_ema"]["averages"]
    averaged, last = (dict(load(folder).named_parameters()) for folder in (out, run))
    for name, weight in averaged.items():
        torch.testing.assert_close(weight, kept[f"0.1/{name}"], rtol=2**-10, atol=1e-6)
    assert any(not torch.equal(weight, last[name]) for name, weight in averaged.items())
    with pytest.raises(InputError, match="the run itself"):
        CliRunner().invoke(
            app, ["ema", str(run), "--width", "0.1", "--out", str(run / "model")], catch_exceptions=False
        )


def test_run_without_snapshots_says_what_to_train_with(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training\.posthoc_ema"):
        CliRunner().invoke(
            app,
            ["ema", str(tmp_path), "--width", "0.1", "--out", str(tmp_path / "a")],
            catch_exceptions=False,
        )
