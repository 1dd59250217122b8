"""Spoken texts from folders to a report: a small recogniser of three real digits, and its own sequences as samples."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from audiodiff.audio import io
from audiodiff.cli.app import app
from audiodiff.data import corpora
from audiodiff.data.manifests import load_cuts
from audiodiff.data.preparation import PrepareOptions
from audiodiff.errors import InputError
from audiodiff.evaluation.comparison import Comparison, compare
from audiodiff.evaluation.judge_training import JudgeTraining, train_judge
from audiodiff.evaluation.samples import read_samples
from audiodiff.evaluation.speech_scores import deranged, figures_of
from audiodiff.evaluation.spoken_references import words_of
from audiodiff.evaluation.word_recognition import WordRecognizer
from audiodiff.evaluation.word_training import (
    PAUSE_SECONDS,
    SpokenSequences,
    WordTraining,
    examine_recognizer,
    train_recognizer,
)

DIGITS = {6: "six", 1: "one", 0: "zero"}
SEQUENCES = range(12)


@pytest.fixture(scope="module")
def corpus(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three digits of one speaker, prepared."""
    folder = tmp_path_factory.mktemp("digits")
    recordings = folder / "source" / "recordings"
    recordings.mkdir(parents=True)
    for digit in DIGITS:
        for index in range(40):
            shutil.copy(data_dir / "fsdd" / "recordings" / f"{digit}_theo_{index}.flac", recordings)
    corpora.load("fsdd").prepare(folder / "source", folder / "data", PrepareOptions())
    return folder / "data"


@pytest.fixture(scope="module")
def recognizer(corpus: Path) -> WordRecognizer:
    train, dev, test = (load_cuts(corpus / f"{split}.jsonl.gz") for split in ("train", "dev", "test"))
    judge = train_judge(train, dev, "digit", 0, JudgeTraining(updates=30, batch_size=16))
    trained = train_recognizer(judge, train, "speaker", WordTraining(updates=25, batch_size=24))
    examine_recognizer(trained, test, "speaker", 18)
    trained.judge.save(corpus / "recognizer")
    return trained


@pytest.fixture(scope="module")
def said(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A samples folder in two parts, as of two speakers; what is said in it is real."""
    folder = tmp_path_factory.mktemp("said")
    sequences = SpokenSequences(
        load_cuts(corpus / "dev.jsonl.gz"), "digit", "speaker", PAUSE_SECONDS, True, 3
    )
    for part in ("first", "second"):
        entries = []
        for number in [n for n in SEQUENCES if (n % 2 == 0) == (part == "first")]:
            spoken = sequences[number]
            io.write(folder / part / f"text_{number:04d}.wav", spoken.waveform[None], 8000)
            labels = {"speaker": "theo"}
            entries.append(
                {"file": f"text_{number:04d}.wav", "labels": labels, "text": " ".join(spoken.words)}
            )
        record = {"seed": 1, "command": f"audiodiff synthesize {part}", "files": entries}
        (folder / part / "samples.json").write_text(json.dumps(record))
    return folder


def test_a_recogniser_hears_real_words_without_being_told_how_many(recognizer: WordRecognizer) -> None:
    facts = recognizer.judge.facts
    assert facts["test_words"] == 18 * 3.5
    assert facts["test_word_error_rate"] < 0.25
    low, high = facts["test_word_error_rate_interval_95"]
    assert low <= facts["test_word_error_rate"] <= high


def test_a_saved_recogniser_hears_the_same_alone_and_among_others(
    recognizer: WordRecognizer, corpus: Path, said: Path
) -> None:
    waveforms = [io.read(path)[0] for path in sorted(said.glob("*/*.wav"))]
    together = WordRecognizer.load(corpus / "recognizer").recognize(waveforms)
    assert [each.words for each in together] == [recognizer.recognize([w])[0].words for w in waveforms]
    for each in together:
        assert all(start < end for start, end in each.segments)
        assert all(a[1] <= b[0] for a, b in zip(each.segments, each.segments[1:], strict=False))


def test_folders_of_samples_are_read_as_one(said: Path) -> None:
    samples = read_samples(said)
    assert len(samples.files) == len(samples.texts) == len(SEQUENCES)
    assert next(iter(samples.files)) == "first/text_0000.wav"
    assert samples.record == {"seed": 1, "command": "audiodiff synthesize first (the first of 2)"}


def test_real_words_as_samples_score_as_real_words(
    recognizer: WordRecognizer, corpus: Path, said: Path, tmp_path: Path
) -> None:
    noisy = tmp_path / "noisy"
    for path in said.glob("*/*.wav"):
        noise = 0.3 * torch.randn(io.read(path)[0].shape, generator=torch.Generator().manual_seed(0))
        io.write(noisy / path.relative_to(said), noise, 8000)
    asked = Comparison(said, reference=corpus, judge=corpus / "recognizer", others={"noise": noisy})
    table = compare(asked, tmp_path / "out", "audiodiff evaluate")
    speech = json.loads((tmp_path / "out" / "metrics.json").read_text())["speech"]
    ours, noise, real = (speech["systems"][name] for name in (said.name, "noise", "real concatenations"))
    assert ours["words"]["words"] == real["words"]["words"] == 42
    assert ours["words"]["word_error_rate"] < 0.3 < noise["words"]["word_error_rate"]
    assert real["words"]["word_error_rate"] < 0.3
    assert real["mcd_dtw"]["mean"] == 0
    assert ours["mcd_dtw"]["mean"] < ours["mcd_dtw_other_text"]["mean"]
    assert ours["figures"]["seconds_per_word"]["mean"] == pytest.approx(
        real["figures"]["seconds_per_word"]["mean"], rel=0.3
    )
    for row in ("the recogniser on real speech", "real concatenations", said.name, "noise"):
        assert re.search(rf"^\| {row} \| \d+ \| [\d.]+ \[", table, re.MULTILINE)
    assert (tmp_path / "out" / "spectrograms.png").stat().st_size > 0


def test_texts_of_a_corpus_find_their_recordings(corpus: Path, tmp_path: Path) -> None:
    arguments = ["texts", str(corpus / "test.jsonl.gz"), "--out", str(tmp_path / "texts"), "--by", "speaker"]
    done = CliRunner().invoke(app, [*arguments, "--most", "6"])
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "texts" / "theo.txt").read_text().splitlines()
    assert len(lines) == 6
    entries = []
    for number, text in enumerate(lines):
        digit = next(digit for digit, word in DIGITS.items() if word == text)
        take = next(cut for cut in load_cuts(corpus / "test.jsonl.gz") if cut.id.startswith(f"{digit}_"))
        shutil.copy(take.recording.sources[0].source, tmp_path / f"text_{number}.flac")
        entries.append({"file": f"text_{number}.flac", "labels": {}, "text": f" {text.upper()}!"})
    (tmp_path / "samples.json").write_text(json.dumps({"files": entries}))
    compare(Comparison(tmp_path, reference=corpus), tmp_path / "out", "audiodiff evaluate")
    speech = json.loads((tmp_path / "out" / "metrics.json").read_text())["speech"]
    ours = speech["systems"][tmp_path.name]
    assert speech["real"] == "recordings"
    assert ours["mcd_dtw"]["mean"] == 0
    assert ours["mcd_dtw_other_text"]["interval_95"][0] > 1
    assert ours["figures"] == speech["systems"]["recordings"]["figures"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "eleven"}, "knows one, six, zero"),
        ({"text": "?"}, "no word"),
        ({"text": None}, "have a text"),
    ],
)
def test_texts_that_cannot_be_scored_are_refused(
    recognizer: WordRecognizer, corpus: Path, said: Path, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    shutil.copytree(said / "first", tmp_path / "said")
    record = json.loads((tmp_path / "said" / "samples.json").read_text())
    record["files"][0] |= change
    (tmp_path / "said" / "samples.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=message):
        compare(Comparison(tmp_path / "said", judge=corpus / "recognizer"), tmp_path / "out", "")


def test_a_system_that_says_other_texts_is_refused(said: Path, tmp_path: Path) -> None:
    shutil.copytree(said / "first", tmp_path / "other")
    record = (tmp_path / "other" / "samples.json").read_text()
    (tmp_path / "other" / "samples.json").write_text(record.replace('"text": "', '"text": "and ', 1))
    with pytest.raises(InputError, match="speak the same texts"):
        compare(Comparison(said / "first", others={"x": tmp_path / "other"}), tmp_path / "out", "")


def test_no_recording_of_any_text_is_said(said: Path, corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(said / "second", tmp_path / "said")
    record = json.loads((tmp_path / "said" / "samples.json").read_text())
    for entry in record["files"]:
        entry["text"] = "nobody said this"
    (tmp_path / "said" / "samples.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="no recording of any"):
        compare(Comparison(tmp_path / "said", reference=corpus), tmp_path / "out", "")


def test_exchanged_texts_are_others_of_the_same_speaker_and_each_is_used_once() -> None:
    texts = {f"{who}{n}": f"text {n % 4}" for who in "ab" for n in range(8)}
    speakers = {name: name[0] for name in texts}
    exchanged = deranged(texts, speakers, list(texts), seed=1)
    assert sorted(exchanged.values()) == sorted(texts)
    assert all(texts[name] != texts[other] and name[0] == other[0] for name, other in exchanged.items())
    assert exchanged == deranged(texts, speakers, list(texts), seed=1)
    assert exchanged != deranged(texts, speakers, list(texts), seed=2)


def test_a_speaker_of_one_text_exchanges_it_with_another_speaker() -> None:
    texts = {"a": "one", "b": "two", "c": "three"}
    exchanged = deranged(texts, {"a": "x", "b": "y", "c": "z"}, list(texts), seed=0)
    assert sorted(exchanged.values()) == ["a", "b", "c"]
    assert deranged({"a": "one"}, {}, ["a"], seed=0) == {}


def test_the_figures_of_a_tone_are_its_own() -> None:
    time = np.arange(16000) / 8000
    voice = 0.1 * sum(np.sin(2 * np.pi * 150 * n * time) / n for n in range(1, 20))
    found = figures_of(voice, 8000, words=4)
    assert found["seconds"] == 2
    assert found["seconds_per_word"] == 0.5
    assert found["f0_median"] == pytest.approx(150, rel=0.01)
    assert found["f0_spread"] == pytest.approx(0, abs=0.1)
    assert found["level"] == pytest.approx(20 * np.log10(np.sqrt(np.mean(voice**2))))
    assert "f0_median" not in figures_of(np.zeros(8000), 8000, words=1)


def test_words_are_what_is_left_without_case_and_punctuation() -> None:
    assert words_of(' "Don\'t, he said: 9 O’Clock!" ') == ("don't", "he", "said", "9", "o’clock")
