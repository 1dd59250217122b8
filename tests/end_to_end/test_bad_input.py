"""Every mistake of a user is one clear line on stderr and exit code 2, and leaves nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiodiff.cli.app import main
from tests.tiny import save_random_model


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("m") / "digits", "experiment=fsdd_digits", "size=tiny")


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("m") / "voc", "experiment=fsdd_vocoder", "size=tiny")


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Returns a function that runs a command line, which must be refused, and gives its one line."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["audiodiff", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        lines = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == 2, lines
        assert lines[-1].startswith("audiodiff: ")
        assert sum(line.startswith("audiodiff: ") for line in lines) == 1
        assert "Traceback" not in "".join(lines)
        return lines[-1]

    return run


def damaged_audio(folder: Path) -> dict[str, Path]:
    """Writes one file of each kind that cannot be vocoded."""
    good = 0.1 * np.random.default_rng(0).standard_normal(4000)
    soundfile.write(folder / "good.wav", good, 8000)
    content = (folder / "good.wav").read_bytes()
    (folder / "empty.wav").write_bytes(b"")
    (folder / "truncated.wav").write_bytes(content[: len(content) // 2])
    (folder / "text.wav").write_text("this is no audio" * 50)
    soundfile.write(folder / "zero.wav", np.zeros(0), 8000)
    soundfile.write(folder / "nan.wav", np.full(4000, np.nan), 8000, subtype="FLOAT")
    kinds = ("empty", "truncated", "text", "zero", "nan")
    return {kind: folder / f"{kind}.wav" for kind in kinds} | {"missing": folder / "missing.wav"}


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "text", "zero", "nan"])
def test_audio_that_cannot_be_used_is_named(refuse, vocoder: Path, tmp_path: Path, kind: str) -> None:
    file = damaged_audio(tmp_path)[kind]
    assert file.name in refuse("vocode", vocoder, file, "--out", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.wav"))


@pytest.mark.parametrize(
    ("mel", "words"),
    [
        (np.zeros((40, 40)), "layout cannot be told"),
        (np.zeros((80, 30)), "40 bands"),
        (np.zeros(30), "shape"),
        (np.full((40, 30), np.nan), "NaN"),
        (np.full((40, 30), 0.5), "0..1"),
        (np.full((40, 30), -80.0), "decibels"),
        (np.zeros((40, 30), dtype=np.int64), "int64"),
    ],
)
def test_mel_that_breaks_the_contract_is_explained(
    refuse, vocoder: Path, tmp_path: Path, mel: np.ndarray, words: str
) -> None:
    np.save(tmp_path / "mel.npy", mel)
    line = refuse("vocode", vocoder, tmp_path / "mel.npy", "--out", tmp_path / "out")
    assert "mel.npy" in line
    assert words in line


def test_input_with_another_suffix_is_refused(refuse, vocoder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert ".txt" in refuse("vocode", vocoder, tmp_path / "notes.txt")
    assert "no file with one of the suffixes" in refuse("vocode", vocoder, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--label", "eleven"], "zero, one, two"),
        (["--speaker", "nobody"], "george, jackson"),
        (["--sampler", "dpm"], "ancestral, ancestral_large"),
        (["--grid", "karas"], "uniform, trailing, linspace"),
        (["--steps", "0"], "at least 1"),
        (["--eta", "2", "--sampler", "ddim"], "eta"),
        (["--seconds", "0"], "--seconds"),
        (["--seed", "-1"], "--seed"),
        (["--count", "0"], "--count"),
        (["--each", "pitch"], "digit, speaker"),
        (["--grid", "bddm-vctk-8", "--steps", "3"], "own number of steps"),
    ],
)
def test_impossible_synthesis_is_refused_with_the_choices(
    refuse, digits: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    assert words in refuse("synthesize", digits, "--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_mel_model_does_not_synthesize_from_labels(refuse, vocoder: Path, tmp_path: Path) -> None:
    assert "conditioned on a mel" in refuse("synthesize", vocoder, "--out", tmp_path / "out")


def test_label_model_does_not_vocode(refuse, digits: Path, tmp_path: Path) -> None:
    assert "audiodiff synthesize" in refuse("vocode", digits, tmp_path, "--out", tmp_path / "out")


@pytest.mark.parametrize("damage", ["absent", "file", "empty", "cut", "pickle", "config", "swapped", "code"])
def test_checkpoint_that_is_none_is_refused(
    refuse, digits: Path, vocoder: Path, tmp_path: Path, damage: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(digits, model)
    weights, config = model / "model.safetensors", model / "config.yaml"

    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    if damage == "absent":
        shutil.rmtree(model)
    elif damage == "file":
        model = weights
    elif damage == "empty":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "pickle":
        torch.save({"weights": Attack()}, weights)
    elif damage == "config":
        config.write_text("model: [1, 2\n  x")
    elif damage == "swapped":
        shutil.copy(vocoder / "model.safetensors", weights)
    elif damage == "code":
        config.write_text(f"model:\n  _target_: pathlib.Path.touch\n  self: {tmp_path / 'ran'}\n")
    line = refuse("info", model)
    assert str(tmp_path) in line or "_target_" in line
    assert not (tmp_path / "ran").exists()


def test_unknown_experiment_key_and_missing_data_are_refused(refuse, tmp_path: Path) -> None:
    assert "fsdd_digits" in refuse("train", "experiment=nope")
    assert "training.batchsize" in refuse("train", "experiment=mini", "training.batchsize=3")
    assert "experiment" in refuse("train")
    line = refuse("train", "experiment=mini", f"data_dir={tmp_path / 'none'}", f"out={tmp_path / 'run'}")
    assert "audiodiff prepare" in line
    assert not (tmp_path / "run" / "model").exists()


def test_corpus_at_another_rate_says_how_to_convert_it(refuse, mini_corpus: Path, tmp_path: Path) -> None:
    line = refuse(
        "train", "experiment=mini", "data.sample_rate=16000", f"data_dir={mini_corpus}", f"out={tmp_path}"
    )
    assert "--sample-rate 16000" in line


def test_corpus_without_the_label_of_the_recipe_is_refused(refuse, mini_corpus: Path, tmp_path: Path) -> None:
    line = refuse(
        "train", "experiment=fsdd_digits", "size=tiny", f"data_dir={mini_corpus}", f"out={tmp_path}"
    )
    assert "digit" in line


def test_unknown_corpus_and_wrong_source_are_refused(refuse, tmp_path: Path) -> None:
    assert "ljspeech" in refuse("prepare", "nowhere", "--source", tmp_path)
    assert str(tmp_path) in refuse("prepare", "fsdd", "--source", tmp_path, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "train.jsonl.gz").exists()


def test_samples_without_their_record_are_not_scored(refuse, tmp_path: Path) -> None:
    assert "samples.json" in refuse("evaluate", tmp_path, "--out", tmp_path / "results")
    (tmp_path / "samples.json").write_text(json.dumps({"files": []})[:-3])
    refuse("evaluate", tmp_path, "--out", tmp_path / "results")
    assert not (tmp_path / "results" / "metrics.json").exists()


def test_place_that_cannot_be_written_is_named(refuse, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    line = refuse("synthesize", digits, "--steps", "2", "--out", tmp_path / "file" / "out")
    assert "file" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--guide-chroma", "1"], "--guide-chroma: belongs to --guide"),
        (["--guide-strength", "0.5"], "--guide-strength: belongs to --guide"),
        (["--guide", "GOOD", "--guide-strength", "1.5"], "--guide-strength: got 1.5"),
        (["--guide", "GOOD", "--guide-chroma", "-0.5"], "--guide-chroma: got -0.5"),
        (["--guide", "GOOD", "--loop"], "--guide"),
        (["--guide", "GOOD", "--stream", "-"], "--guide"),
        (["--guide", "GOOD", "--variation-of", "GOOD"], "--guide"),
        (["--guide", "GOOD", "--window", "1"], "--window: --guide guides"),
        (["--guide", "missing.wav"], "missing.wav"),
        (["--guide", "TEXT"], "text.wav"),
        (["--guide", "ZERO"], "zero.wav"),
    ],
)
def test_guides_that_cannot_be_followed_are_refused(
    refuse, digits: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    files = damaged_audio(tmp_path) | {"good": tmp_path / "good.wav"}
    given = [files.get(option.lower(), option) for option in options]
    assert words in refuse("synthesize", digits, "--label", "seven", "--out", tmp_path / "out", *given)
    assert not list((tmp_path / "out").glob("*.wav"))
