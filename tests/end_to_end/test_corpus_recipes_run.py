"""The run.sh of corpora that are too large for a test, on small ones that were made up in their layout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import made_up

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--data", "data", "--exp", "exp", "--ngpu", "0", "size=tiny", "training.updates=2"]
TINY += ["training.global_batch_seconds=1.5"]


def run(recipe: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "AUDIODIFF": str(Path(sys.executable).parent / "audiodiff"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        ["bash", str(ROOT / "egs" / recipe / "run.sh"), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


def test_a_folder_of_sounds_tells_the_recipe_its_rate_and_classes(tmp_path: Path) -> None:
    made_up.folder(tmp_path / "in", rate=16000)
    arguments = ["--source", "in", "--prepare-args", "--sample-rate 16000", "--stop-stage", "3"]
    done = run("folder/sounds", tmp_path, *TINY, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    config = (tmp_path / "exp" / "model" / "config.yaml").read_text()
    assert re.search(r"class:\n +- blues\n +- hip hop\n", config)
    assert "sample_rate: 16000" in config


@pytest.mark.parametrize("recipe", ["folder/sounds", "common_voice/vocoder"])
def test_a_recipe_without_an_archive_asks_for_the_source(recipe: str, tmp_path: Path) -> None:
    refused = run(recipe, tmp_path, *TINY)
    assert refused.returncode == 2
    assert "name the folder that holds it with --source" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


# Recipe -> its row in the table of what was asked in numbers, and of how many sounds.
ASKED = {
    "drums/one_shots": r"loudness[^\n]*\n[-:| ]+\n\| control \| 36 ",
    "nsynth/notes": r"cents[^\n]*\n[-:| ]+\n\| control \| 39 ",
    "piano/notes": r"cents[^\n]*\n[-:| ]+\n\| piano \| 88 ",
}
# The classes that the made-up corpus has.
CLASSES = {
    "drums/one_shots": "data.labels.class=[kick,crash,tom]",
    "nsynth/notes": "data.labels.instrument_family=[guitar,vocal,bass]",
}


@pytest.mark.long
@pytest.mark.parametrize(
    "recipe",
    [
        "libritts/vocoder",
        "vctk/vocoder",
        "common_voice/vocoder",
        "maestro/vocoder",
        "musan/sounds",
        "folder/sounds",
        *ASKED,
    ],
)
def test_every_stage_runs_on_a_corpus_of_the_layout(recipe: str, tmp_path: Path) -> None:
    made_up.MAKERS[recipe.split("/")[0]](tmp_path / "in")
    small = (
        []
        if "vocoder" in recipe
        else ["--synthesize-args", "--count 1 --steps 2", "--judge-args", "--updates 2"]
    )
    if recipe in CLASSES:
        small += ["--control-args", "--seconds 0.2 --steps 2", CLASSES[recipe]]
    if recipe == "drums/one_shots":  # more of them held out, for a distribution
        for number in (15, 20, 25, 30):
            made_up.sound(tmp_path / "in" / "kit" / "kick" / f"kick{number}.wav", 22050, 0.2, seed=number)
    done = run(recipe, tmp_path, *TINY, *small, "--source", "in")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^stage (\d)", done.stdout, re.MULTILINE)[-1] == "6"
    table = (tmp_path / "exp" / "results" / "RESULTS.md").read_text()
    assert re.search(ASKED.get(recipe, ""), table)


@pytest.mark.long
def test_sounds_that_nothing_scores_end_with_samples(tmp_path: Path) -> None:
    made_up.music(tmp_path / "in")
    arguments = [*TINY, "--source", "in", "--synthesize-args", "--seconds 0.2 --steps 2 --count 2"]
    done = run("music/excerpts", tmp_path, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^stage (\d)", done.stdout, re.MULTILINE)[-1] == "4"
    assert len(list((tmp_path / "exp" / "samples").glob("*.wav"))) == 2
    assert "stage 4 synthesize: done already" in run("music/excerpts", tmp_path, *arguments).stdout
