"""`audiodiff evaluate` from folders to tables: exact counts, kept numbers, clear refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import typer
import yaml
from typer.testing import CliRunner

from audiodiff.audio import io
from audiodiff.audio.mel import LogMel
from audiodiff.cli.evaluate import evaluate
from audiodiff.cli.judge import judge as judge_command
from audiodiff.data.manifests import labels_of, load_cuts
from audiodiff.errors import InputError
from audiodiff.evaluation.comparison import Comparison, compare
from audiodiff.evaluation.evaluate import make_griffin_lim, score_vocoder, summarize
from audiodiff.evaluation.journal import Journal
from audiodiff.evaluation.judge import Judge
from audiodiff.evaluation.metrics import load_metrics
from audiodiff.evaluation.metrics.lsd import lsd
from audiodiff.evaluation.set_comparison import SetComparison
from audiodiff.synthesis.cost import Cost

MEL = LogMel(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=40)
FACTS = {
    "experiment": "digits_test",
    "updates": 123,
    "train_seconds": 7200,
    "hardware": "a CPU, 2 threads",
    "seed": 4,
    "commit": "abc123",
    "train_hours": 0.5,
}


def write_samples(folder: Path, entries: list[dict], **record: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.json").write_text(json.dumps(record | {"files": entries}))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    features = {"_target_": "audiodiff.audio.mel.LogMel"} | MEL.definition()
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {}, "features": features}))
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "training.json").write_text(json.dumps(FACTS))
    return folder


@pytest.fixture
def vocoded(tmp_path: Path, data_dir: Path, model: Path) -> Path:
    """Three recordings with a little noise, as if a vocoder had made them."""
    folder, entries = tmp_path / "vocoded", []
    for path in sorted((data_dir / "fsdd" / "recordings").glob("3_theo_*.flac"))[:3]:
        waveform, rate = io.read(path)
        noisy = waveform + 0.01 * torch.randn(waveform.shape, generator=torch.Generator().manual_seed(0))
        io.write(folder / f"{path.stem}.wav", noisy, rate)
        entries.append({"file": f"{path.stem}.wav", "labels": {}, "reference": str(path)})
    return write_samples(
        folder, entries, model=str(model), seed=9, sampler={"step": "DDIM", "grid": "uniform(12)"}
    )


@pytest.fixture
def spoken(tmp_path: Path, mini: Path) -> Path:
    """The real test clips, as if they had been generated."""
    folder, entries = tmp_path / "spoken", []
    for cut in load_cuts(mini / "test.jsonl.gz"):
        folder.mkdir(exist_ok=True)
        shutil.copy(cut.recording.sources[0].source, folder / f"{cut.id}.wav")
        entries.append({"file": f"{cut.id}.wav", "labels": labels_of(cut), "reference": None})
    return write_samples(folder, entries, seed=1, sampler="ddim", steps=12)


@pytest.fixture
def judge_folder(judge: Judge, tmp_path: Path) -> Path:
    judge.save(tmp_path / "judge")
    return tmp_path / "judge"


def test_vocoder_report_holds_every_number_and_the_baseline(vocoded: Path, tmp_path: Path) -> None:
    text = compare(Comparison(vocoded), tmp_path / "out", "audiodiff evaluate vocoded")
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (tmp_path / "out" / "RESULTS.md").read_text() == text
    systems = content["vocoder"]["systems"]
    assert list(systems) == ["recording", "digits_test", "griffin-lim"]
    entries = json.loads((vocoded / "samples.json").read_text())["files"]
    for entry in entries:
        pair = [io.read(path)[0][0].numpy() for path in (entry["reference"], vocoded / entry["file"])]
        assert systems["digits_test"]["lsd"]["files"][entry["file"]] == lsd(*pair, 8000)
    for scores in systems.values():
        for score in scores.values():
            assert len(score["files"]) + len(score["not_measurable"]) == len(entries)
            if score["files"]:
                low, high = score["interval_95"]
                assert score["mean"] == pytest.approx(np.mean(list(score["files"].values())))
                assert low - 1e-9 <= score["mean"] <= high + 1e-9
    assert systems["recording"]["lsd"]["mean"] == 0
    for fact in ("123", "2.00", "a CPU, 2 threads", "abc123", "DDIM, uniform(12)", "not recorded"):
        assert fact in text
    assert (
        "PESQ-WB: not measurable on any of the 3 files (wideband PESQ needs material of at least 16 kHz)"
        in text
    )
    assert (tmp_path / "out" / "spectrograms.png").is_file()
    assert len(list((tmp_path / "out" / "griffin-lim").glob("*.wav"))) == 3


COST = Cost(1.5, 3.0, 24, 2_500_000, 4.2e9, 7 * 10**8, "one core").record()
COST_CELLS = "| 0.5 | 24 | 4.2 | 2.5 | 700 | one core |"


def with_cost(folder: Path) -> Path:
    """A samples folder that says what its sounds cost."""
    path = folder / "samples.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cost": COST}))
    return folder


def test_cost_stands_beside_the_scores(
    vocoded: Path, spoken: Path, mini: Path, judge_folder: Path, tmp_path: Path
) -> None:
    text = compare(Comparison(with_cost(vocoded)), tmp_path / "out", "")
    table = next(part for part in text.split("\n\n") if "| digits_test |" in part and "LSD" in part)
    rows = {line.split(" | ")[0]: line for line in table.splitlines()}
    assert "real-time factor ↓ | network evaluations ↓ | multiply-adds per s (G) ↓ |" in table
    assert rows["| digits_test"].endswith(COST_CELLS)
    assert rows["| griffin-lim"].endswith(" | n/a" * 6 + " |")
    assert "- **real-time factor**: Seconds of work per second of audio" in text
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["costs"] == {"digits_test": COST}

    text = compare(Comparison(with_cost(spoken), judge=judge_folder), tmp_path / "judged", "")
    assert next(line for line in text.splitlines() if line.startswith("| spoken ")).endswith(COST_CELLS)
    assert text.count(COST_CELLS) == 1

    text = compare(Comparison(spoken, sets=SetComparison(mini, "mel")), tmp_path / "sets", "")
    assert next(line for line in text.splitlines() if line.startswith("| spoken ")).endswith(COST_CELLS)
    assert text.count(COST_CELLS) == 1


def test_a_recording_of_as_many_frames_as_bands_has_a_baseline_too(tmp_path: Path) -> None:
    waveform = 0.1 * torch.sin(0.3 * torch.arange(MEL.n_mels * MEL.hop_length - 1))[None]
    assert MEL(waveform).shape[1:] == (MEL.n_mels, MEL.n_mels)
    io.write(tmp_path / "square.wav", waveform, MEL.sample_rate)
    made = make_griffin_lim({"square.wav": tmp_path / "square.wav"}, MEL, tmp_path / "made", seed=0)
    assert io.read(made["square.wav"])[0].shape == waveform.shape


def test_same_seed_gives_the_same_report(vocoded: Path, tmp_path: Path) -> None:
    texts = [compare(Comparison(vocoded), tmp_path / name, "again") for name in ("a", "b")]
    assert texts[0] == texts[1]
    contents = [(tmp_path / name / "metrics.json").read_bytes() for name in ("a", "b")]
    assert contents[0] == contents[1]


def test_references_may_come_from_a_folder_or_a_manifest(mini: Path, spoken: Path, tmp_path: Path) -> None:
    entries = json.loads((spoken / "samples.json").read_text())["files"][:4]
    write_samples(spoken, entries)
    recordings = Path(load_cuts(mini / "test.jsonl.gz")[0].recording.sources[0].source).parent
    for number, reference in enumerate((recordings, mini / "test.jsonl.gz")):
        compare(Comparison(spoken, reference=reference), tmp_path / str(number), "")
        systems = json.loads((tmp_path / str(number) / "metrics.json").read_text())["vocoder"]["systems"]
        assert systems["spoken"]["mcd"]["mean"] == 0
        assert "griffin-lim" not in systems
        assert "No Griffin-Lim row" in (tmp_path / str(number) / "RESULTS.md").read_text()


def test_another_system_is_a_row_of_its_own(vocoded: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for entry in json.loads((vocoded / "samples.json").read_text())["files"]:
        shutil.copy(entry["reference"], other)  # .flac under the same stem
    compare(Comparison(vocoded, others={"copy": other}), tmp_path / "out", "")
    systems = json.loads((tmp_path / "out" / "metrics.json").read_text())["vocoder"]["systems"]
    assert systems["copy"]["lsd"]["mean"] == 0


def test_reference_at_another_rate_is_resampled_and_said_so(vocoded: Path, tmp_path: Path) -> None:
    references = tmp_path / "references"
    for entry in json.loads((vocoded / "samples.json").read_text())["files"]:
        waveform, rate = io.read(entry["reference"], 16000)
        io.write(references / entry["file"], waveform, rate)
    text = compare(Comparison(vocoded, reference=references), tmp_path / "out", "")
    assert "3 recordings were resampled to 8000 Hz" in text


def test_real_test_clips_score_the_judges_own_accuracy(
    spoken: Path, judge: Judge, judge_folder: Path, tmp_path: Path
) -> None:
    compare(Comparison(spoken, judge=judge_folder, label="sound"), tmp_path / "out", "")
    system = json.loads((tmp_path / "out" / "metrics.json").read_text())["labels"]["systems"]["spoken"]
    assert system["accuracy"] == pytest.approx(judge.facts["test_accuracy"])
    assert system["diversity"] == pytest.approx(1, abs=1e-4)
    assert system["confusion"] == judge.facts["test_confusion"]
    right = [file["asked"] == file["recognised"] for file in system["files"].values()]
    assert np.mean(right) == pytest.approx(system["accuracy"])
    assert (tmp_path / "out" / "confusion_spoken.png").is_file()
    assert (tmp_path / "out" / "spectrograms_spoken.png").is_file()


def test_one_sound_repeated_has_no_diversity(spoken: Path, judge_folder: Path, tmp_path: Path) -> None:
    entries = json.loads((spoken / "samples.json").read_text())["files"]
    same = [entry for entry in entries if entry["labels"] == entries[0]["labels"]]
    for entry in same[1:]:
        shutil.copy(spoken / same[0]["file"], spoken / entry["file"])
    write_samples(spoken, same)
    compare(Comparison(spoken, judge=judge_folder), tmp_path / "out", "")
    system = json.loads((tmp_path / "out" / "metrics.json").read_text())["labels"]["systems"]["spoken"]
    assert system["diversity"] == pytest.approx(0, abs=1e-3)


def test_samples_at_another_rate_are_resampled_for_the_judge_and_said_so(
    spoken: Path, judge_folder: Path, tmp_path: Path
) -> None:
    entries = json.loads((spoken / "samples.json").read_text())["files"][:6]
    for entry in entries:
        waveform, _ = io.read(spoken / entry["file"], 16000)
        io.write(spoken / entry["file"], waveform, 16000)
    write_samples(spoken, entries)
    text = compare(Comparison(spoken, judge=judge_folder), tmp_path / "out", "")
    assert "6 samples were resampled to the judge's 8000 Hz" in text


def test_interval_of_equal_values_is_a_point_and_no_values_have_none() -> None:
    equal = summarize({"a": 2.0, "b": 2.0}, {}, 0)
    assert (equal.mean, equal.interval) == (2.0, (2.0, 2.0))
    empty = summarize({}, {"a": "too short"}, 0)
    assert (empty.mean, empty.interval) == (None, None)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator, covered = np.random.default_rng(0), 0
    for trial in range(200):
        values = dict(enumerate(generator.normal(3, 1, size=40)))
        interval = summarize({str(k): float(v) for k, v in values.items()}, {}, trial).interval
        assert interval is not None
        covered += interval[0] <= 3 <= interval[1]
    assert 0.88 <= covered / 200 <= 0.98


def _no_record(folder: Path) -> None:
    (folder / "samples.json").unlink()


def _damaged_record(folder: Path) -> None:
    (folder / "samples.json").write_text('{"files": [{"fil')


def _record_of_another_form(folder: Path) -> None:
    (folder / "samples.json").write_text('{"files": ["a.wav"]}')


def _no_files(folder: Path) -> None:
    (folder / "samples.json").write_text('{"files": []}')


def _gone_file(folder: Path) -> None:
    next(folder.glob("*.wav")).unlink()


def _one_reference_less(folder: Path) -> None:
    record = json.loads((folder / "samples.json").read_text())
    record["files"][1]["reference"] = None
    (folder / "samples.json").write_text(json.dumps(record))


def _gone_reference(folder: Path) -> None:
    record = json.loads((folder / "samples.json").read_text())
    record["files"][1]["reference"] = "/nowhere/a.wav"
    (folder / "samples.json").write_text(json.dumps(record))


def _other_recording(folder: Path) -> None:
    path = next(folder.glob("*.wav"))
    waveform, rate = io.read(path)
    io.write(path, waveform[:, : waveform.shape[-1] // 2], rate)


def _other_rate(folder: Path) -> None:
    path = max(folder.glob("*.wav"))
    io.write(path, io.read(path, 16000)[0], 16000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_record, "holds no samples.json"),
        (_damaged_record, "not a samples record"),
        (_record_of_another_form, "not a samples record"),
        (_no_files, "names no files"),
        (_gone_file, "1 of 3 files are gone"),
        (_one_reference_less, "1 of 3 files have no reference"),
        (_gone_reference, "no such file"),
        (_other_recording, "within 2 %"),
        (_other_rate, "16000 Hz"),
    ],
)
def test_a_bad_samples_folder_is_refused_and_leaves_no_report(
    damage: Callable[[Path], None], message: str, vocoded: Path, tmp_path: Path
) -> None:
    damage(vocoded)
    with pytest.raises(InputError, match=message):
        compare(Comparison(vocoded), tmp_path / "out", "")
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert not (tmp_path / "out" / "RESULTS.md").exists()


def test_what_cannot_be_compared_is_refused(
    vocoded: Path, spoken: Path, judge_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="nothing to score with"):
        compare(Comparison(spoken), out, "")
    with pytest.raises(InputError, match="no such folder"):
        compare(Comparison(tmp_path / "nowhere"), out, "")
    with pytest.raises(InputError, match="recognises 'sound', asked for is 'digit'"):
        compare(Comparison(spoken, judge=judge_folder, label="digit"), out, "")
    with pytest.raises(InputError, match="the judge knows"):
        compare(Comparison(vocoded, judge=judge_folder), out, "")
    with pytest.raises(InputError, match="files are missing"):
        compare(Comparison(vocoded, reference=spoken), out, "")
    with pytest.raises(InputError, match="taken"):
        compare(Comparison(vocoded, others={"griffin-lim": spoken}), out, "")
    with pytest.raises(InputError, match="holds no"):
        compare(Comparison(vocoded, model=spoken), out, "")


def test_commands_train_a_judge_and_score_with_it(mini: Path, spoken: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("evaluate")(evaluate)
    app.command("judge")(judge_command)
    folder, out = tmp_path / "made", tmp_path / "out"
    arguments = ["judge", str(mini), "--label", "sound", "--out", str(folder), "--updates", "2"]
    trained = CliRunner().invoke(app, arguments)
    assert trained.exit_code == 0, trained.output
    assert "real test clips" in trained.output
    assert (folder / "confusion.png").is_file()
    arguments = ["evaluate", str(spoken), "--judge", str(folder), "--out", str(out)]
    scored = CliRunner().invoke(app, arguments)
    assert scored.exit_code == 0, scored.output
    assert (out / "RESULTS.md").read_text() in scored.output
    for wrong in (["--system", "nameless"], ["--seed", "-1"], ["--label", "sound"]):
        refused = CliRunner().invoke(app, ["evaluate", str(spoken), "--out", str(out), *wrong])
        assert isinstance(refused.exception, InputError)


def _unpaired(folder: Path) -> Path:
    references = folder.parent / "others"
    for name in [*(f"x{i}" for i in range(12)), "3_theo_0"]:
        io.write(references / f"{name}.wav", torch.zeros(1, 900), 8000)
    return references


def test_names_that_do_not_pair_up_are_listed_on_both_sides(vocoded: Path, tmp_path: Path) -> None:
    asked = Comparison(vocoded, reference=_unpaired(vocoded))
    with pytest.raises(InputError) as caught:
        compare(asked, tmp_path / "out", "")
    text = str(caught.value)
    assert "2 of 3 files are missing (3_theo_1.wav, 3_theo_10.wav)" in text
    assert "x0.wav, x1.wav" in text
    assert text.endswith("and 2 more")
    assert not (tmp_path / "out").exists()


def test_two_recordings_of_one_name_are_refused(vocoded: Path, tmp_path: Path) -> None:
    references = tmp_path / "references"
    for entry in json.loads((vocoded / "samples.json").read_text())["files"]:
        for suffix in (".wav", ".flac"):
            io.write(references / f"{Path(entry['file']).stem}{suffix}", torch.zeros(1, 900), 8000)
    with pytest.raises(InputError, match="several files of one name"):
        compare(Comparison(vocoded, reference=references), tmp_path / "out", "")


def test_an_interrupted_evaluation_goes_on_where_it_was(vocoded: Path, tmp_path: Path) -> None:
    expected = compare(Comparison(vocoded), tmp_path / "whole", "")
    last = sorted(json.loads((vocoded / "samples.json").read_text())["files"], key=lambda each: each["file"])[
        -1
    ]
    broken = vocoded / last["file"]
    whole = broken.read_bytes()
    io.write(broken, io.read(broken)[0][:, :900], 8000)  # refused, after the others were scored
    with pytest.raises(InputError, match="within 2 %"):
        compare(Comparison(vocoded), tmp_path / "out", "")
    journal = tmp_path / "out" / "unfinished.jsonl"
    known = len(journal.read_text().splitlines())
    assert known == 3 + 2  # Griffin-Lim of three recordings, scores of two
    with journal.open("a") as file:
        file.write('["half a li')
    broken.write_bytes(whole)
    made = tmp_path / "out" / "griffin-lim" / last["file"]
    before = made.stat().st_mtime_ns
    assert compare(Comparison(vocoded), tmp_path / "out", "") == expected
    assert made.stat().st_mtime_ns == before
    assert not journal.exists()
    numbers = [(tmp_path / name / "metrics.json").read_bytes() for name in ("whole", "out")]
    assert numbers[0] == numbers[1]


def test_what_an_interrupted_evaluation_knows_of_files_that_changed_does_not_count(
    vocoded: Path, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    references = {
        e["file"]: Path(e["reference"]) for e in json.loads((vocoded / "samples.json").read_text())["files"]
    }
    files = {name: vocoded / name for name in references}

    def mcd_of(journal: Journal | None) -> dict[str, float]:
        found = score_vocoder(references, {"made": files}, load_metrics(), 0, journal=journal)
        return dict(found.systems["made"]["mcd"].values)

    first = mcd_of(journal)
    assert mcd_of(Journal(tmp_path / "j.jsonl")) == first
    changed = next(iter(files))
    io.write(files[changed], 0.5 * io.read(files[changed])[0].flip(-1), 8000)
    again = mcd_of(Journal(tmp_path / "j.jsonl"))
    assert again == mcd_of(None)
    assert again[changed] != first[changed]


def test_silent_and_unreadable_files_are_counted_and_the_rest_is_scored(
    vocoded: Path, tmp_path: Path
) -> None:
    names = [each["file"] for each in json.loads((vocoded / "samples.json").read_text())["files"]]
    (vocoded / names[0]).write_bytes(b"not audio")
    waveform, rate = io.read(vocoded / names[1])
    broken = waveform[0].clone()
    broken[:3] = np.nan
    soundfile.write(vocoded / names[2], broken.numpy(), rate, "FLOAT")
    io.write(vocoded / names[1], 0 * waveform, rate)
    text = compare(Comparison(vocoded), tmp_path / "out", "")
    assert f"digits_test: 1 files are silent, the first {names[1]}" in text
    lsd = json.loads((tmp_path / "out" / "metrics.json").read_text())["vocoder"]["systems"]["digits_test"][
        "lsd"
    ]
    assert list(lsd["files"]) == [names[1]]
    assert "NaN" in lsd["not_measurable"][names[2]]
    assert "not an audio file" in lsd["not_measurable"][names[0]]


def test_files_that_are_broken_alike_are_counted_together(vocoded: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(vocoded.glob("*.wav"))):
        waveform, rate = io.read(path)
        waveform[0, : number + 1] = np.nan
        soundfile.write(path, waveform[0].numpy(), rate, "FLOAT")
    text = compare(Comparison(vocoded), tmp_path / "out", "")
    assert "not measurable on any of the 3 files" in text or "n/a for 3 of 3 files" in text
    assert "the file cannot be read: samples are NaN or infinite; write the file again)" in text
