"""Generated training data: where it may go, what it says of itself, what is rejected, and who can read it."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from audiodiff.cli.app import app
from audiodiff.data.entries import Entry
from audiodiff.data.manifests import label_of, load_cuts
from audiodiff.errors import InputError
from audiodiff.evaluation.augmentation.attempts import Attempt, Attempts
from audiodiff.evaluation.augmentation.augment import Augmentation, Augmented, augment
from audiodiff.evaluation.augmentation.cells import Cell, Draw, cells_of, implied_labels, spread_names
from audiodiff.evaluation.augmentation.corpus import GENERATED
from audiodiff.evaluation.augmentation.filters import FilterChoice, Filters, Verdict
from audiodiff.evaluation.judge import Judge
from audiodiff.evaluation.judge_training import JudgeTraining, train_judge
from audiodiff.evaluation.samples import read_samples
from audiodiff.interval import Interval
from audiodiff.model import load
from audiodiff.synthesis.generation import Request
from audiodiff.synthesis.sampling import SamplerChoice
from tests.tiny import save_random_model

KNOWN = {"digit": ("one", "two", "three"), "speaker": ("theo", "lucas"), "loudness": Interval(-60, 0, 1)}
ANY = FilterChoice(nearest=(0.0, 100.0))
FEW = Request([], sampler=SamplerChoice("ddim", steps=2), batch=8)


def entry(number: int, samples: int = 800, **labels: str) -> Entry:
    return Entry(f"clip{number}", "clip.wav", 0, samples, 8000, (0,), labels)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("model"), "experiment=mini", "size=tiny")


@pytest.fixture(scope="module")
def judge_folder(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge") / "judge"
    judge.save(folder)
    return folder


def run(tiny: Path, mini: Path, out: Path, per_class: int = 2, **changes: Any) -> Augmented:
    asked = Augmentation(mini, per_class, **{"filters": ANY, "making": FEW, **changes})
    return augment(load(tiny), tiny, asked, out, "test")


@pytest.fixture(scope="module")
def made(tiny: Path, mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("augmented") / "mini_aug"
    run(tiny, mini, out)
    return out


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def sounds(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "audio").glob("*.wav"))}


def test_every_class_has_as_many_and_the_other_names_are_even() -> None:
    cells = cells_of(KNOWN, [], ["digit", "speaker"], 5)
    by = {name: Counter() for name in ("digit", "speaker")}
    for cell in cells:
        for name, counts in by.items():
            counts[cell.labels[name]] += cell.wanted
    assert set(by["digit"].values()) == {5}
    assert max(by["speaker"].values()) - min(by["speaker"].values()) <= 1


def test_lists_are_spread_by_default_the_judges_first_and_fixed_names_are_not() -> None:
    assert spread_names(KNOWN, [], [], None) == ["digit", "speaker"]
    assert spread_names(KNOWN, [], [], "speaker") == ["speaker", "digit"]
    assert spread_names(KNOWN, ["theo"], [], None) == ["digit"]
    assert spread_names(KNOWN, [], ["speaker"], None) == ["speaker"]


def test_what_a_cell_leaves_open_is_that_of_a_real_clip_of_it_drawn_by_seed() -> None:
    real = [
        entry(n, 100 + n, digit=("one", "two", "three")[n % 3], speaker="theo", loudness=f"-{n}.5")
        for n in range(30)
    ]
    cells = cells_of(KNOWN, ["speaker=theo"], ["digit"], 4)
    draw, again, other = (Draw(real, KNOWN, cells, seed) for seed in (1, 1, 2))
    there = {(each.labels["digit"], each.labels["loudness"], each.length) for each in real}
    drawn = [draw(item, None) for item in range(24)]
    assert {(each.labels["digit"], each.labels["loudness"], each.samples) for each in drawn} <= there
    assert [cells[item % 3].labels["digit"] for item in range(24)] == [each.labels["digit"] for each in drawn]
    assert drawn == [again(item, None) for item in range(24)]
    assert drawn != [other(item, None) for item in range(24)]
    assert {draw(item, 50).samples for item in range(5)} == {50}


def test_values_that_the_corpus_lacks_are_refused() -> None:
    real = [entry(n, digit="one", speaker="theo", loudness="-3") for n in range(3)]
    with pytest.raises(InputError, match="no training clip of this corpus has three, two; it has one"):
        Draw(real, KNOWN, cells_of(KNOWN, [], ["digit"], 1), 0)
    loud = [entry(n, digit="one", speaker="theo", loudness="7") for n in range(3)]
    with pytest.raises(InputError, match="no training clip has values that this model knows"):
        Draw(loud, KNOWN, cells_of(KNOWN, ["digit=one"], [], 1), 0)


def test_a_text_that_follows_from_a_label_is_taken_over_and_one_of_its_own_is_not() -> None:
    known = {"digit": ("one", "two")}
    real = [entry(n, digit=("one", "two")[n % 2], text=("1", "2")[n % 2], take=str(n)) for n in range(6)]
    assert implied_labels(real, known) == {"text": ("digit", {"one": "1", "two": "2"})}


def test_rejected_sounds_are_replaced_until_enough_or_the_attempts_are_spent(tmp_path: Path) -> None:
    cells = [Cell({"digit": "one"}, 2), Cell({"digit": "two"}, 2)]
    attempts = Attempts(tmp_path / "attempts.jsonl", tmp_path)
    for _ in range(20):
        missing = attempts.progress(cells, 3).missing
        if not missing:
            break
        # All of the second class are rejected, and the first sound of the first.
        verdicts = ["unsure" if item % 2 or item == 0 else "" for item in missing]
        new = [Attempt(item, {}, 1, Verdict(reason)) for item, reason in zip(missing, verdicts, strict=True)]
        attempts.add(new)
    progress = Attempts(tmp_path / "attempts.jsonl", tmp_path).progress(cells, 3)
    assert [[each.item for each in part] for part in progress.kept] == [[2, 4], []]
    assert [len(part) for part in progress.tried] == [3, 6]
    assert progress.rejected == {"unsure": 7}


def test_a_line_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "attempts.jsonl"
    attempts = Attempts(path, tmp_path)
    attempts.add([Attempt(0, {}, 1, Verdict("")), Attempt(1, {}, 1, Verdict(""))])
    path.write_bytes(path.read_bytes()[:-9])
    attempts = Attempts(path, tmp_path)
    assert attempts.progress([Cell({}, 2)], 1).missing == [1]
    attempts.add([Attempt(1, {}, 1, Verdict(""))])
    assert Attempts(path, tmp_path).progress([Cell({}, 2)], 1).done == 2


def test_filters_say_why_and_depend_on_percentiles(mini: Path, judge_folder: Path) -> None:
    train = load_cuts(mini / "train.jsonl.gz")
    names = [cut.id for cut in train]
    choice = FilterChoice(judge_folder, 0.5, (5.0, 95.0))
    filters = Filters(choice, mini, names, 8000, "sound")
    assert 0 < filters.low < filters.high
    copies = [torch.from_numpy(cut.load_audio()).float() for cut in train[:4]]
    classes = [label_of(cut, "sound") for cut in train[:4]]
    near = filters(copies, classes)
    assert [verdict.nearest for verdict in near] == names[:4]
    for verdict, name in zip(near, classes, strict=True):
        assert verdict.distance == pytest.approx(0, abs=1e-3)
        sure = verdict.confidence is not None and verdict.confidence >= 0.5
        assert verdict.reason == (
            "too near" if sure else "unsure" if verdict.recognised == name else "other class"
        )
    assert "too near" in {verdict.reason for verdict in near}
    assert filters.judge is not None
    wrong = next(name for name in filters.judge.names if name != near[0].recognised)
    assert filters(copies[:1], [wrong])[0].reason == "other class"
    odd = filters([torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))], classes[:1])[0]
    assert odd.distance is not None
    assert odd.distance > filters.low
    assert filters([torch.zeros(1, 900)], classes[:1])[0] == Verdict("silent")
    strict = Filters(FilterChoice(judge_folder, 1.0), mini, names, 8000, "sound")
    assert {verdict.reason for verdict in strict(copies, classes)} <= {"unsure", "other class"}
    with pytest.raises(InputError, match="does not know purple"):
        filters.check_classes(["purple"])


def test_nothing_generated_goes_to_dev_or_test_and_the_real_ones_are_untouched(
    made: Path, mini: Path
) -> None:
    for split in ("dev", "test"):
        assert (made / f"{split}.jsonl.gz").read_bytes() == (mini / f"{split}.jsonl.gz").read_bytes()
    train, real = lines(made / "train.jsonl.gz"), lines(mini / "train.jsonl.gz")
    assert train[: len(real)] == real
    assert all(GENERATED in (cut.get("custom") or {}) for cut in train[len(real) :])
    counts = Counter(cut["supervisions"][0]["custom"]["sound"] for cut in train[len(real) :])
    assert set(counts) == set(load(Path(read_samples(made / "audio").record["model"])).labels["sound"])
    assert set(counts.values()) == {2}


def test_every_file_says_how_it_was_made(made: Path, tiny: Path) -> None:
    new = [cut for cut in lines(made / "train.jsonl.gz") if GENERATED in (cut.get("custom") or {})]
    for cut in new:
        said = cut["custom"][GENERATED]
        assert {"model", "model_sha256", "seed", "item", "sampler", "guidance", "labels"} <= set(said)
        assert said["labels"] == {"sound": cut["supervisions"][0]["custom"]["sound"]}
        assert Path(said["model"]) == tiny
    assert len({cut["custom"][GENERATED]["item"] for cut in new}) == len(new)
    record = json.loads((made / "audio" / "samples.json").read_text())
    assert {each["id"] for each in record["files"]} == {cut["id"] for cut in new}
    assert len(read_samples(made / "audio").files) == len(new)


def test_the_report_counts_what_the_manifests_hold(made: Path, mini: Path) -> None:
    report, before = (json.loads((folder / "report.json").read_text()) for folder in (made, mini))
    assert set(before) <= set(report)
    for split, summary in report["splits"].items():
        assert summary["cuts"] == len(lines(made / f"{split}.jsonl.gz"))
    assert report["splits"]["test"] == before["splits"]["test"]
    assert report[GENERATED]["kept"] == report["splits"]["train"]["cuts"] - before["splits"]["train"]["cuts"]


def test_interrupted_it_goes_on_to_the_same_files(made: Path, tiny: Path, mini: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    model = load(tiny)
    plain, calls = model.synthesize, []

    def interrupted(*arguments: Any) -> Any:
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return plain(*arguments)

    model.synthesize = interrupted  # type: ignore[method-assign]
    asked = Augmentation(mini, 2, filters=ANY, making=FEW)
    with pytest.raises(KeyboardInterrupt):
        augment(model, tiny, asked, out, "test")
    first = sounds(out)
    assert first
    assert not (out / "train.jsonl.gz").exists()
    times = {name: (out / "audio" / name).stat().st_mtime_ns for name in first}
    run(tiny, mini, out)
    assert {name: (out / "audio" / name).stat().st_mtime_ns for name in first} == times
    assert sounds(out) == sounds(made)


def test_more_can_be_asked_of_a_folder_and_the_batch_changes_nothing(
    made: Path, tiny: Path, mini: Path, tmp_path: Path
) -> None:
    grown = tmp_path / "grown"
    run(tiny, mini, grown, 1, making=Request([], sampler=FEW.sampler, batch=3))
    run(tiny, mini, grown, 2)
    assert set(sounds(grown)) == set(sounds(made))
    for name, content in sounds(grown).items():
        one, other = (
            np.frombuffer(each[44:], dtype="<i2").astype(int) for each in (content, sounds(made)[name])
        )
        assert np.abs(one - other).max() <= 1  # sums over a batch may round differently


def test_rejections_are_counted_and_classes_that_fall_short_are_said(
    tiny: Path, mini: Path, judge_folder: Path, tmp_path: Path
) -> None:
    filters = FilterChoice(judge_folder, 0.3, (0.0, 100.0))  # noise is heard as one or two of the classes
    done = run(tiny, mini, tmp_path / "out", filters=filters, attempts=2)
    assert done.kept + sum(done.rejected.values()) == done.made
    assert done.short
    assert all(kept < wanted for _, kept, wanted in done.short)
    assert done.report[GENERATED]["rejected"] == done.rejected
    files = {path.name for path in (tmp_path / "out" / "audio").glob("*.wav")}
    assert len(files) == done.kept
    with pytest.raises(InputError, match=r"none of \d+ sounds passed the filters"):
        run(tiny, mini, tmp_path / "none", filters=FilterChoice(judge_folder, 1.0), attempts=1)
    assert not (tmp_path / "none" / "train.jsonl.gz").exists()


def test_others_can_read_it(made: Path, tmp_path: Path) -> None:
    from lhotse import load_manifest

    cuts = list(load_manifest(made / "train.jsonl.gz"))
    assert cuts[-1].load_audio().shape == (1, cuts[-1].num_samples)
    assert cuts[-1].custom[GENERATED]["seed"] == 0
    result = CliRunner().invoke(app, ["export-kaldi", str(made), "--out", str(tmp_path / "kaldi")])
    assert result.exit_code == 0, result.output
    utterances = (tmp_path / "kaldi" / "train" / "wav.scp").read_text().splitlines()
    assert len(utterances) == len(cuts)
    train, dev = (load_cuts(made / f"{split}.jsonl.gz") for split in ("train", "dev"))
    judge = train_judge(train, dev, "sound", 0, JudgeTraining(updates=2, batch_size=8))
    assert judge.facts["train_clips"] == len(cuts)


def test_only_generated_leaves_the_real_ones_out(tiny: Path, mini: Path, tmp_path: Path) -> None:
    done = run(tiny, mini, tmp_path / "out", 1, only_generated=True)
    assert len(load_cuts(tmp_path / "out" / "train.jsonl.gz")) == done.kept
    assert (tmp_path / "out" / "test.jsonl.gz").read_bytes() == (mini / "test.jsonl.gz").read_bytes()


def test_an_augmented_folder_is_a_corpus_whose_generated_clips_are_nobodys_neighbours(
    made: Path, tiny: Path, tmp_path: Path
) -> None:
    run(tiny, made, tmp_path / "twice", 1, making=Request([], sampler=FEW.sampler, seed=3))
    cuts = lines(tmp_path / "twice" / "train.jsonl.gz")
    new = [cut for cut in cuts if (cut.get("custom") or {}).get(GENERATED, {}).get("seed") == 3]
    assert new
    assert not [cut for cut in new if cut["custom"][GENERATED]["nearest"].startswith("generated")]


def test_the_command_says_what_it_kept(tiny: Path, mini: Path, tmp_path: Path) -> None:
    words = ["augment", str(tiny), "--data", str(mini), "--per-class", "1", "--out", str(tmp_path / "out")]
    words += ["--steps", "2", "--nearest", "0", "100", "--sampler", "ddim", "--seconds", "0.1"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert "none rejected" in result.output
    assert {cut.duration for cut in load_cuts(tmp_path / "out" / "train.jsonl.gz") if cut.custom} == {0.1}


def test_what_does_not_fit_is_refused(tiny: Path, mini: Path, judge: Judge, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="--per-class: got 0"):
        run(tiny, mini, out, 0)
    with pytest.raises(InputError, match="--attempts: got 0"):
        run(tiny, mini, out, attempts=0)
    with pytest.raises(InputError, match="unknown label name"):
        run(tiny, mini, out, each=["digit"])
    unlabelled = save_random_model(
        tmp_path / "prior", "experiment=mini", "size=tiny", "conditioner=unconditional"
    )
    with pytest.raises(InputError, match="without labels"):
        run(unlabelled, mini, out)
    vocoder = save_random_model(tmp_path / "vocoder", "experiment=fsdd_vocoder", "size=tiny")
    with pytest.raises(InputError, match="is told a text or a mel"):
        run(vocoder, mini, out)
    other = Judge("digit", ["one", "two"], judge.log_mel)
    other.save(tmp_path / "digit")
    with pytest.raises(InputError, match="recognises 'digit', the class that is made is 'sound'"):
        run(tiny, mini, out, filters=FilterChoice(tmp_path / "digit"))
    with pytest.raises(InputError, match="--confidence"):
        FilterChoice(confidence=1.5)
    with pytest.raises(InputError, match="--nearest"):
        FilterChoice(nearest=(99.0, 1.0))
    digits = save_random_model(tmp_path / "digits", "experiment=fsdd_digits", "size=tiny")
    with pytest.raises(InputError, match="no label 'digit', which this model is told; it has: sound"):
        run(digits, mini, out)
    faster = save_random_model(tmp_path / "fast", "experiment=mini", "size=tiny", "data.sample_rate=16000")
    with pytest.raises(InputError, match="sample rate 8000 Hz, model needs 16000 Hz"):
        run(faster, mini, out)
    assert not out.exists()


def test_folders_that_hold_something_else_are_left_alone(
    made: Path, tiny: Path, mini: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    for out, reason in (
        (tmp_path / "thesis", "holds something else"),
        (mini, "is the corpus itself"),
    ):
        with pytest.raises(InputError, match=reason):
            run(tiny, mini, out)
    copy = shutil.copytree(made, tmp_path / "copy")
    with pytest.raises(InputError, match="asked for otherwise"):
        run(tiny, mini, copy, making=Request([], sampler=FEW.sampler, seed=9))
    spoilt = shutil.copytree(made, tmp_path / "spoilt")
    (spoilt / "test.jsonl.gz").write_bytes((made / "train.jsonl.gz").read_bytes())
    with pytest.raises(InputError, match="generated clips, which belong in train alone"):
        run(tiny, spoilt, tmp_path / "new")
