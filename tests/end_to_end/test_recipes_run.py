"""The recipes' own run.sh: all stages on the corpus made on the spot, and the first ones on real recordings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(ROOT.glob("egs/*/*/run.sh"))
MINI = ROOT / "egs" / "mini" / "sounds" / "run.sh"
TINY = ["--data", "data", "--exp", "exp", "--ngpu", "0", "--judge-args", "--updates 2"]
TINY += ["--synthesize-args", "--count 1 --steps 2", "size=tiny", "training.updates=4"]
STAGES = ["1 prepare", "2 statistics", "3 train", "4 synthesize", "5 judge", "5 evaluate", "6 pack"]


@dataclass(frozen=True)
class Outcome:
    """What a script said and how it ended."""

    code: int
    out: str
    err: str


def run(script: Path, folder: Path, *arguments: str) -> Outcome:
    environment = os.environ | {
        "AUDIODIFF": str(Path(sys.executable).parent / "audiodiff"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", str(script), *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def stages_of(outcome: Outcome, word: str = "") -> list[str]:
    """The stages that a run names in lines that end with `word`."""
    return re.findall(rf"^stage (\d \w+){re.escape(word)}$", outcome.out, re.MULTILINE)


def times(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole run, whose stage 2 failed at first."""
    folder = tmp_path_factory.mktemp("a run")  # a name that has to be quoted
    failed = run(MINI, folder, *TINY, "--launch", "false")
    assert failed.code == 1
    assert stages_of(failed) == STAGES[:2]
    whole = run(MINI, folder, *TINY)
    assert whole.code == 0, whole.out + whole.err
    assert stages_of(whole, ": done already, skipped") == STAGES[:1]
    assert stages_of(whole) == STAGES[1:]
    assert whole.out.splitlines()[-1] == f"all of it is in {folder / 'exp'}"
    return folder


def test_a_whole_run_leaves_sounds_pictures_a_table_and_a_packed_model(finished: Path) -> None:
    exp = finished / "exp"
    assert len(list((exp / "samples").glob("*.wav"))) == 8
    assert (exp / "samples" / "spectrograms.png").stat().st_size > 0
    table = (exp / "results" / "RESULTS.md").read_text()
    assert re.search(r"^\| mini \| 8 ", table, re.MULTILINE)
    assert re.search(r"^\| untrained \| 8 ", table, re.MULTILINE)
    with tarfile.open(exp / "mini.tar") as packed:
        names = packed.getnames()
    assert {"model/model.safetensors", "model/config.yaml", "results/RESULTS.md"} <= set(names)


def test_a_second_run_skips_every_stage_and_touches_nothing(finished: Path) -> None:
    before = times(finished)
    # From elsewhere, and with the folders named in another way.
    arguments = [str(finished / part) if part in ("data", "exp") else part for part in TINY]
    again = run(MINI, ROOT, *arguments)
    assert again.code == 0, again.err
    assert stages_of(again, ": done already, skipped") == STAGES
    assert times(finished) == before


def test_a_changed_sampling_argument_repeats_synthesis_alone(finished: Path) -> None:
    weights = (finished / "exp" / "model" / "model.safetensors").stat().st_mtime_ns
    changed = run(MINI, finished, *TINY, "--synthesize-args", "--steps 1", "--stop-stage", "4")
    assert changed.code == 0, changed.err
    assert stages_of(changed, ": done already, skipped") == STAGES[:3]
    assert "stage 4 synthesize: changed since the last time (< before, > now), done again\n" in changed.out
    assert (finished / "exp" / "model" / "model.safetensors").stat().st_mtime_ns == weights


def test_a_changed_recipe_trains_anew_and_keeps_the_run_before(finished: Path) -> None:
    exp = finished / "exp"
    before = (exp / "model" / "model.safetensors").read_bytes()
    arguments = [*TINY, "--stage", "2", "--stop-stage", "3", "optimizer.lr=0.5"]
    changed = run(MINI, finished, *arguments)
    assert changed.code == 0, changed.err
    assert "  >   lr: 0.5\n" in changed.out
    assert f"the run before is kept in {exp / 'before-1'}\n" in changed.out
    assert (exp / "before-1" / "model" / "model.safetensors").read_bytes() == before
    assert (exp / "model" / "model.safetensors").read_bytes() != before
    assert (exp / "checkpoints" / "update-00000004").is_dir()


def test_a_changed_sampler_is_kept_with_the_model_without_training_again(finished: Path) -> None:
    exp, arguments = finished / "exp", [*TINY, "--stage", "2", "--stop-stage", "3", "optimizer.lr=0.5"]
    weights = (exp / "model" / "model.safetensors").read_bytes()
    changed = run(MINI, finished, *arguments, "sampler.grid.steps=3")
    assert changed.code == 0, changed.err
    assert stages_of(changed, ": done already, skipped") == ["2 statistics"]
    assert "before-2" not in changed.out
    assert (exp / "model" / "model.safetensors").read_bytes() == weights
    assert re.search(r"^ +steps: 3$", (exp / "model" / "config.yaml").read_text(), re.MULTILINE)


def test_help_names_every_stage_and_makes_no_folder(tmp_path: Path) -> None:
    shown = run(MINI, tmp_path, "--data", "data", "--help")
    assert shown.code == 0
    named = re.findall(r"^ +(\d) (\w+)  ", shown.out, re.MULTILINE)
    steps = "download prepare statistics train synthesize evaluate pack"
    assert [name for _, name in named] == steps.split()
    assert [int(number) for number, _ in named] == list(range(7))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--stages", "1"], "unknown flag '--stages'"),
        (["--stage"], "--stage"),
        (["--stage", "two"], "--stage: got 'two'"),
        (["tiny"], "unknown argument 'tiny'"),
        (["out=elsewhere"], "--exp"),
        (["--stage", "1", "--source", "nowhere"], "nowhere"),
        (["--stage", "2", "size=huge"], "huge"),
        (["--stage", "2", "trainin.updates=1"], "trainin"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], word: str) -> None:
    refused = run(MINI, tmp_path, "--data", "data", "--exp", "exp", *arguments)
    assert refused.code == 2
    assert word in refused.err
    assert len(refused.err.splitlines()) == 1
    assert not (tmp_path / "exp" / "model").exists()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(ROOT / "egs").parent))
def test_a_recipe_is_short_sound_and_described(script: Path, tmp_path: Path) -> None:
    text = script.read_text()
    assert len(text.splitlines()) <= 30
    assert not script.is_symlink()
    for checked in (script, ROOT / "egs" / "common" / "run.sh"):
        subprocess.run(["bash", "-n", str(checked)], check=True)
    experiment = re.search(r"^experiment=(\w+)$", text, re.MULTILINE)
    assert experiment, "no line experiment=NAME"
    assert (ROOT / "recipes" / "experiment" / f"{experiment[1]}.yaml").is_file()
    shown = run(script, tmp_path, "--help")
    assert shown.out.startswith(f"egs/{script.relative_to(ROOT / 'egs')}: ")
    readme = (script.parent / "README.md").read_text()
    for part in ("## Data", "## Run", "## Results", "Licence"):
        assert part in readme


def real_digits(data_dir: Path, folder: Path) -> Path:
    """A corpus folder with one real clip for each digit and split."""
    recordings = folder / "fsdd" / "recordings"
    recordings.mkdir(parents=True)
    for digit in range(10):
        for index in (0, 5, 7):  # test, dev, train
            shutil.copy(data_dir / "fsdd" / "recordings" / f"{digit}_theo_{index}.flac", recordings)
    return recordings.parent


def test_the_digits_recipe_trains_on_real_recordings(data_dir: Path, tmp_path: Path) -> None:
    source = real_digits(data_dir, tmp_path)
    outcome = run(
        ROOT / "egs/fsdd/digits/run.sh", tmp_path, "--source", str(source), "--data", "data", "--exp", "exp",
        "--ngpu", "0", "--stop-stage", "3", "size=tiny", "training.updates=2", "training.global_batch_seconds=3.2",
    )  # fmt: skip
    assert outcome.code == 0, outcome.out + outcome.err
    assert stages_of(outcome) == STAGES[:3]
    assert (tmp_path / "exp" / "model" / "model.safetensors").is_file()


def test_a_downloaded_archive_is_prepared_without_source(data_dir: Path, tmp_path: Path) -> None:
    source = real_digits(data_dir, tmp_path)
    archive = tmp_path / "data" / "download" / "v1.0.10.tar.gz"  # as if stage 0 had just fetched it
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(source, "free-spoken-digit-dataset-1.0.10")
    outcome = run(ROOT / "egs/fsdd/digits/run.sh", tmp_path, "--data", "data", "--stop-stage", "1")
    assert outcome.code == 0, outcome.out + outcome.err
    assert stages_of(outcome) == ["0 download", "1 prepare"]
    assert outcome.out.splitlines()[-1] == f"the prepared corpus is in {tmp_path / 'data'}"


@pytest.mark.long
@pytest.mark.parametrize("recipe", ["fsdd/vocoder", "ljspeech/vocoder", "ljspeech/diffwave"])
def test_a_vocoder_recipe_scores_itself_beside_griffin_lim(
    data_dir: Path, tmp_path: Path, recipe: str
) -> None:
    source = data_dir / "ljspeech_excerpt" if "ljspeech" in recipe else real_digits(data_dir, tmp_path)
    outcome = run(
        ROOT / "egs" / recipe / "run.sh", tmp_path, "--source", str(source), "--data", "data", "--exp", "exp",
        "--ngpu", "0", "size=tiny", "training.updates=2", "training.global_batch_seconds=1.5",
    )  # fmt: skip
    assert outcome.code == 0, outcome.out + outcome.err
    table = (tmp_path / "exp" / "results" / "RESULTS.md").read_text()
    assert re.search(r"^\| griffin-lim \| ", table, re.MULTILINE)
