"""`audiodiff evaluate --data`: sets of sounds beside real ones, controls, SC09; what cannot be read is counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from audiodiff.audio import io
from audiodiff.data.corpora import speech_commands
from audiodiff.data.manifests import labels_of, load_cuts
from audiodiff.data.preparation import PrepareOptions
from audiodiff.errors import InputError
from audiodiff.evaluation.comparison import Comparison, compare
from audiodiff.evaluation.distributions.frechet import frechet_distance
from audiodiff.evaluation.features import describe_split, judge_features, mel_features
from audiodiff.evaluation.judge import Judge
from audiodiff.evaluation.judge_training import JudgeTraining, examine_judge, train_judge
from audiodiff.evaluation.set_comparison import SetComparison


def copied(folder: Path, manifest: Path, labelled: bool = True) -> Path:
    """Returns a samples folder with the clips of a split, as if they had been generated."""
    folder.mkdir()
    entries = []
    for cut in load_cuts(manifest):
        waveform, rate = io.read(cut.recording.sources[0].source)
        io.write(folder / f"{cut.id}.wav", waveform, rate)
        entries.append({"file": f"{cut.id}.wav", "labels": labels_of(cut) if labelled else {}})
    (folder / "samples.json").write_text(json.dumps({"seed": 1, "files": entries}))
    return folder


@pytest.fixture
def judge_folder(judge: Judge, tmp_path: Path) -> Path:
    judge.save(tmp_path / "judge")
    return tmp_path / "judge"


def numbers(out: Path) -> dict[str, Any]:
    return json.loads((out / "metrics.json").read_text())


def test_training_clips_given_out_as_samples_are_real_and_found_to_be_copies(
    mini: Path, judge: Judge, judge_folder: Path, tmp_path: Path
) -> None:
    samples = copied(tmp_path / "stolen", mini / "train.jsonl.gz")
    text = compare(Comparison(samples, judge=judge_folder, sets=SetComparison(mini)), tmp_path / "out", "")
    rows = numbers(tmp_path / "out")["sets"]["rows"]
    stolen, train, test = (rows[name] for name in ("stolen", "real training split", "real test split"))
    features = judge_features(judge, judge_folder)
    real = [describe_split(features, mini, split, judge.label) for split in ("test", "train")]
    expected = frechet_distance(real[0].features, real[1].features)
    for row in (stolen, train):  # the same sounds
        assert row["values"]["frechet"] == pytest.approx(expected, rel=1e-3)
        assert row["values"]["inception"] == pytest.approx(train["values"]["inception"], rel=1e-3)
    count, against = len(real[1].names), len(real[0].names)
    name = f"frechet (judge sound, {count} of {count} sounds against {against} clips)"
    assert stolen["names"]["frechet"] == name
    assert test["values"]["accuracy"] == pytest.approx(judge.facts["test_accuracy"])
    assert test["values"]["diversity"] == pytest.approx(1)
    assert test["nearest_training_clip"]["median_ratio"] == pytest.approx(1)
    near = stolen["nearest_training_clip"]
    assert near["median_ratio"] < 0.05
    assert near["near_share"] > 0.9
    assert np.mean([Path(file).stem == found["clip"] for file, found in near["files"].items()]) > 0.9
    for heading in ("Fréchet distance ↓", "coverage ↑", "real training split", "nearest training clip"):
        assert heading in text


def test_features_of_a_corpus_are_kept_until_something_changes(
    mini: Path, judge: Judge, judge_folder: Path
) -> None:
    features = judge_features(judge, judge_folder)
    first = describe_split(features, mini, "test", judge.label)
    kept = set((mini / ".index").glob("features_test_*.npz"))
    again = describe_split(features, mini, "test", judge.label)
    assert np.array_equal(first.features, again.features)
    assert first.names == again.names
    assert set((mini / ".index").glob("features_test_*.npz")) == kept
    describe_split(mel_features(8000), mini, "test", judge.label)
    assert len(set((mini / ".index").glob("features_test_*.npz"))) == len(kept) + 1


def test_what_cannot_be_read_is_not_recognised_and_left_out_of_the_set(
    mini: Path, judge: Judge, judge_folder: Path, tmp_path: Path
) -> None:
    samples = copied(tmp_path / "made", mini / "test.jsonl.gz")
    files = sorted(samples.glob("*.wav"))
    soundfile.write(files[0], np.full(8000, np.nan, np.float32), 8000, "FLOAT")
    files[1].write_bytes(b"RIFF")
    io.write(files[2], torch.zeros(1, 8000), 8000)
    text = compare(Comparison(samples, judge=judge_folder, sets=SetComparison(mini)), tmp_path / "out", "")
    content = numbers(tmp_path / "out")
    row, system = content["sets"]["rows"]["made"], content["labels"]["systems"]["made"]
    assert set(row["unreadable"]) == set(system["unreadable"]) == {files[0].name, files[1].name}
    assert row["silent"] == system["silent"] == [files[2].name]
    assert (row["sounds"], row["asked"]) == (len(files) - 2, len(files))
    assert system["accuracy"] == pytest.approx(row["values"]["accuracy"])
    assert system["files"][files[0].name] == {
        **system["files"][files[0].name],
        "recognised": "unreadable",
        "probability": 0,
    }
    assert f"{len(files) - 2} of {len(files)}" in text
    assert "2 sounds could not be read" in text


def test_sets_need_no_judge_and_no_labels(mini: Path, tmp_path: Path) -> None:
    samples = copied(tmp_path / "made", mini / "test.jsonl.gz", labelled=False)
    (samples / "samples.json").unlink()  # any folder of audio
    compare(Comparison(samples, sets=SetComparison(mini, "mel")), tmp_path / "out", "")
    row = numbers(tmp_path / "out")["sets"]["rows"]["made"]
    assert row["values"]["frechet"] == pytest.approx(0, abs=1e-3)
    assert row["values"]["coverage"] == 1
    assert "accuracy" not in row["values"]
    assert "labels" not in numbers(tmp_path / "out")


def test_a_users_own_features_are_taken_from_files(spoken_matrices: Path, mini: Path, tmp_path: Path) -> None:
    samples = copied(tmp_path / "made", mini / "test.jsonl.gz")
    compare(Comparison(samples, sets=SetComparison(None, str(spoken_matrices))), tmp_path / "out", "")
    content = numbers(tmp_path / "out")["sets"]
    test, made = (np.load(spoken_matrices / f"{name}.npy") for name in ("test", "made"))
    assert content["rows"]["made"]["values"]["frechet"] == pytest.approx(frechet_distance(test, made))
    assert content["features"]["name"] == spoken_matrices.name
    (spoken_matrices / "made.npy").unlink()
    with pytest.raises(InputError, match=r"made\.npy: no such file"):
        compare(Comparison(samples, sets=SetComparison(None, str(spoken_matrices))), tmp_path / "out", "")


@pytest.fixture
def spoken_matrices(tmp_path: Path) -> Path:
    folder = tmp_path / "embedding"
    folder.mkdir()
    for number, (name, rows) in enumerate((("test", 30), ("train", 60), ("made", 20))):
        np.save(folder / f"{name}.npy", np.random.default_rng(number).normal(size=(rows, 4)))
    return folder


def test_sounds_asked_for_by_numbers_are_measured_without_judge_or_reference(tmp_path: Path) -> None:
    folder, entries = tmp_path / "notes", []
    for key in (48, 60, 72):
        t = torch.arange(16000) / 16000
        wave = 0.1 * (key / 48) ** 4 * torch.sin(2 * torch.pi * 440 * 2 ** ((key - 69) / 12) * t)
        io.write(folder / f"{key}.wav", wave, 16000)
        entries.append({"file": f"{key}.wav", "labels": {"pitch": str(key), "loudness": str(key - 80)}})
    (folder / "samples.json").write_text(json.dumps({"files": entries}))
    text = compare(Comparison(folder), tmp_path / "out", "")
    control = numbers(tmp_path / "out")["control"]
    assert control["pitch"]["notes"]["within_50_cents"] == 1
    assert control["pitch"]["notes"]["octave_errors"] == 0
    assert control["loudness"]["notes"]["spearman"] == pytest.approx(1)
    assert "within 50 cents" in text


def test_one_file_is_compared_with_one_recording(data_dir: Path, tmp_path: Path) -> None:
    recording = data_dir / "fsdd" / "recordings" / "3_theo_0.flac"
    made = tmp_path / "one" / "made.wav"
    made.parent.mkdir()
    shutil.copy(recording, made.with_suffix(".flac"))
    compare(Comparison(made.with_suffix(".flac"), reference=recording), tmp_path / "out", "")
    assert numbers(tmp_path / "out")["vocoder"]["systems"]["made.flac"]["lsd"]["mean"] == 0
    with pytest.raises(InputError, match="pass --reference DIR"):
        compare(Comparison(made.with_suffix(".flac")), tmp_path / "out", "")


def test_a_sample_that_cannot_be_read_has_no_score_and_is_counted(data_dir: Path, tmp_path: Path) -> None:
    folder, references = tmp_path / "made", data_dir / "fsdd" / "recordings"
    folder.mkdir()
    for name in ("3_theo_0", "3_theo_1"):
        waveform, rate = io.read(references / f"{name}.flac")
        io.write(folder / f"{name}.wav", waveform, rate, "FLOAT")
    soundfile.write(folder / "3_theo_1.wav", np.full(4000, np.nan, np.float32), 8000, "FLOAT")
    text = compare(Comparison(folder, reference=references), tmp_path / "out", "")
    score = numbers(tmp_path / "out")["vocoder"]["systems"]["made"]["lsd"]
    assert list(score["files"]) == ["3_theo_0.wav"]
    assert "NaN" in score["not_measurable"]["3_theo_1.wav"]
    assert "cannot be read" in text


def test_sc09_is_scored_by_the_protocol_that_was_named(data_dir: Path, tmp_path: Path) -> None:
    prepared = tmp_path / "sc09"
    speech_commands.prepare(data_dir / "speech_commands_excerpt", prepared, PrepareOptions())
    train, dev, test = (load_cuts(prepared / f"{split}.jsonl.gz") for split in ("train", "dev", "test"))
    judge = train_judge(train, dev, "digit", 0, JudgeTraining(updates=4, batch_size=16))
    examine_judge(judge, test)
    judge.save(tmp_path / "judge")
    samples = copied(tmp_path / "made", prepared / "train.jsonl.gz", labelled=False)
    for protocol, scores in (("diffwave", 5), ("sashimi", 4)):
        sets = SetComparison(prepared, sc09=protocol)
        text = compare(Comparison(samples, judge=tmp_path / "judge", sets=sets), tmp_path / protocol, "")
        content = numbers(tmp_path / protocol)["sc09"]
        assert content["judge_test_accuracy"] == judge.facts["test_accuracy"]
        row = content["rows"]["made"]
        assert len(row["values"]) == scores
        assert "not comparable with published rows" in row["name"]
        assert row["values"]["FID"] == pytest.approx(0, abs=1e-3)
        assert f"## SC09, {content['protocol']} protocol" in text


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (SetComparison(None, "mel"), "needs --data"),
        (SetComparison(None, "judge"), "needs a judge"),
        (SetComparison(None, "vggish"), "expected judge, mel, or a folder"),
        (SetComparison(None, None, "diffwave"), "needs --judge"),
        (SetComparison(None, None, "wavenet"), "expected one of"),
        (SetComparison(Path("nowhere")), "no such file"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    sets: SetComparison, message: str, mini: Path, tmp_path: Path
) -> None:
    samples = copied(tmp_path / "made", mini / "test.jsonl.gz")
    with pytest.raises(InputError, match=message):
        compare(Comparison(samples, sets=sets), tmp_path / "out", "")
    assert not (tmp_path / "out" / "RESULTS.md").exists()
