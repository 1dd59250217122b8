"""Every model in models/ loads, makes the sound that was recorded with it, and says of itself what is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from audiodiff.audio import io
from audiodiff.cli.app import app
from audiodiff.evaluation.metrics import load_metrics
from audiodiff.model import load
from audiodiff.model_folder import folder_bytes, read_recipe, read_sheet
from audiodiff.release.card import places
from audiodiff.release.release import MOST_BYTES, SCORES
from audiodiff.release.sounds import Instrument, read_recorded
from tests.release.test_release import CARD_ROWS
from tests.repeated import (
    COMMANDS,
    asked_files,
    controls_again,
    evaluate_again,
    figures_again,
    options_of,
    own_system,
    recording_of,
    sounds_command,
    vocode_again,
)

ROOT = Path(__file__).resolve().parents[1]
MODELS = sorted(sheet.parent for sheet in ROOT.glob("models/*/release.json"))
MOST_IN_ALL = 40_000_000
# Where a corpus lies among real audio, and how its recipe prepares it.
SOURCES = {
    "fsdd": ("fsdd", ()),
    "drums": ("drums_osdk", ("--sample-rate", "22050", "--mono")),
    "piano": ("piano_salamander", ("--sample-rate", "22050", "--mono", "--peak", "0.5")),
}

each_model = pytest.mark.parametrize(
    "folder",
    MODELS or [pytest.param(None, marks=pytest.mark.skip(reason="models/ holds no model yet"))],
    ids=lambda folder: folder.name if folder else "none",
)


def evaluations(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / SCORES).read_text()))


@each_model
def test_it_makes_the_sound_that_was_recorded(folder: Path) -> None:
    recorded, model = read_recorded(folder), load(folder)
    assert all(tensor.dtype != torch.float16 for tensor in model.state_dict().values())
    found = Instrument(model)(recorded.asked, recorded.seed)[:, : recorded.waveform.shape[1]]
    peak = float(recorded.waveform.abs().max())
    assert peak > 0.01
    # Float32 sums in another order (threads, processors), through every step of the sampler.
    torch.testing.assert_close(found, recorded.waveform, rtol=0, atol=2e-3 * peak)


@each_model
def test_it_is_small_and_named_as_its_folder(folder: Path) -> None:
    assert folder_bytes(folder) <= MOST_BYTES
    assert (folder / "spectrograms.png").stat().st_size <= 75_000
    assert read_sheet(folder)["name"] == folder.name


@pytest.mark.skipif(not MODELS, reason="models/ holds no model yet")
def test_all_together_are_small() -> None:
    assert sum(folder_bytes(folder) for folder in MODELS) <= MOST_IN_ALL


@each_model
def test_its_card_has_all_rows_and_every_system_that_was_scored(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    rows = dict(
        line[2:].rstrip(" |").split(" | ", 1)
        for line in card.splitlines()
        if line.startswith("| ") and " | " in line[2:]
    )
    assert set(CARD_ROWS) <= set(rows)
    unknown = [name for name in CARD_ROWS if name != "Validation loss" and "not recorded" in rows[name]]
    assert not unknown, f"not recorded: {unknown}"
    assert read_recipe(folder)["data"]["licence"] in rows["Licence of the data"]
    assert "## Limits" in card
    assert evaluations(folder), "no evaluation stands in the card"
    for evaluation in evaluations(folder):
        for system in evaluation["facts"]:
            assert f"| {system} |" in card, f"{system} has no row"
        assert evaluation["command"] in card
        assert sounds_command(evaluation) in card


@each_model
def test_no_folder_of_a_machine_is_in_it(folder: Path) -> None:
    for file in folder.iterdir():
        if file.suffix in (".md", ".json", ".yaml"):
            assert places(file.read_text()) == [], file.name


@each_model
def test_recorded_commands_give_the_table_s_values_again_on_a_few_files(folder: Path, data_dir: Path) -> None:
    compared: dict[tuple[str, str], tuple[float, float]] = {}
    evaluation = evaluations(folder)[0]
    if "vocoder" in evaluation:
        compared |= _vocoded_again(folder, evaluation, data_dir)
    if "speech" in evaluation:
        compared |= figures_again(folder, evaluation, 2)
    if "control" in evaluation:
        compared |= controls_again(folder, evaluation, 2)
    if not compared:
        pytest.skip("needs a judge that was trained on the recordings: pytest -m long")
    for (measure, file), (recorded, found) in compared.items():
        assert found == pytest.approx(recorded, rel=0.01, abs=TOLERANCE.get(measure, 0.01)), (measure, file)


# Beyond one per cent: what rounding the weights may change.
TOLERANCE = {"loudness": 0.3, "pitch": 0.05, "level": 0.3, "seconds": 0.03}


def _vocoded_again(
    folder: Path, evaluation: dict[str, Any], data: Path
) -> dict[tuple[str, str], tuple[float, float]]:
    """Perceived quality and log-spectral distance of the shortest of the kept files, recorded and found."""
    from tempfile import TemporaryDirectory

    asked = {file: recording_of(file, data) for file in asked_files(evaluation)}
    found = {file: path for file, path in asked.items() if path is not None}
    file = min(found, key=lambda file: io.probe(found[file]).seconds)
    scores = evaluation["vocoder"]["systems"][own_system(evaluation)]
    rate = evaluation["vocoder"]["sample_rate"]
    compared = {}
    with TemporaryDirectory() as place:
        vocode_again(folder, evaluation, [found[file]], Path(place))
        estimate = io.read(Path(place) / file, rate)[0][0].numpy()
    reference = io.read(found[file], rate)[0][0].numpy()
    for metric in load_metrics():
        if metric.key in ("pesq_wb", "pesq_nb", "lsd") and file in scores.get(metric.key, {}).get(
            "files", {}
        ):
            value = scores[metric.key]["files"][file]
            compared[metric.key, file] = value, metric.function(reference, estimate, rate)
    return compared


@pytest.mark.long
def test_the_demo_speaks_from_every_model_that_makes_sounds_by_itself(tmp_path: Path) -> None:
    script = ROOT / "egs" / "common" / "shipped.sh"
    environment = os.environ | {"AUDIODIFF": str(Path(sys.executable).parent / "audiodiff")}
    done = subprocess.run(
        ["bash", str(script), str(tmp_path / "out")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    sounding = {folder.name for folder in MODELS if read_sheet(folder)["task"] != "mel to waveform"}
    found = {folder.name for folder in tmp_path.glob("out/*") if any(folder.glob("*.wav"))}
    assert found == sounding
    assert sounding or "models/ holds none" in done.stdout


@pytest.mark.long
@each_model
def test_the_recorded_evaluation_gives_its_table_again(folder: Path, data_dir: Path, tmp_path: Path) -> None:
    evaluation = evaluations(folder)[0]
    if "vocoder" in evaluation:
        _evaluate_vocoder(folder, evaluation, data_dir, tmp_path)
    elif "labels" in evaluation:
        _evaluate_labels(folder, evaluation, data_dir, tmp_path)
    else:
        pytest.skip("its table is re-derived file by file in the quick test")


def _evaluate_vocoder(folder: Path, evaluation: dict[str, Any], data: Path, place: Path) -> None:
    recordings = [path for file in asked_files(evaluation) if (path := recording_of(file, data)) is not None]
    assert recordings
    vocode_again(folder, evaluation, recordings, place / "samples")
    again = evaluate_again(folder, evaluation, place / "samples", place / "results")
    system = own_system(evaluation)
    for key, score in evaluation["vocoder"]["systems"][system].items():
        found = again["vocoder"]["systems"][system][key]["files"]
        for file, value in found.items():
            assert value == pytest.approx(score["files"][file], rel=0.03, abs=0.05), (key, file)


def _evaluate_labels(folder: Path, evaluation: dict[str, Any], data: Path, place: Path) -> None:
    """A judge trained here hears as many right as the table says, as far as so few sounds can tell."""
    corpus, label = read_recipe(folder)["data"]["name"], evaluation["labels"]["label"]
    source, options = SOURCES[corpus]
    run("prepare", corpus, "--source", data / source, "--out", place / "data", *options)
    run("judge", place / "data", "--label", label, "--out", place / "judge")
    asked = options_of(sounds_command(evaluation))
    kinds = evaluation["asked"][own_system(evaluation)]["sounds"] // (asked["count"] or 1)
    changed = {"model": folder, "out": place / "samples", "count": max(1, 60 // kinds)}
    COMMANDS["synthesize"].callback(**(asked | changed))
    run(
        "evaluate",
        place / "samples",
        "--model",
        folder,
        "--judge",
        place / "judge",
        "--out",
        place / "results",
    )
    again = json.loads((place / "results" / "metrics.json").read_text())["labels"]["systems"][
        own_system(evaluation)
    ]
    recorded = evaluation["labels"]["systems"][own_system(evaluation)]["accuracy"]
    deviation = (max(recorded * (1 - recorded), 0.02) / len(again["files"])) ** 0.5
    assert abs(again["accuracy"] - recorded) <= 3.5 * deviation


def run(*words: str | Path) -> None:
    app([str(word) for word in words], standalone_mode=False)
