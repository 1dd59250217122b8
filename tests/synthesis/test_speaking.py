"""Texts into a samples folder by the command line, and every mistake in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import audiodiff
from audiodiff.cli.app import main
from audiodiff.synthesis.speech import Manner
from tests.tiny import save_random_model
from tests.tiny_text import saved, text_recipe, vocoder_recipe


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in ("mel", "straight", "speakers"):
        saved(folder / kind, text_recipe(kind))
    saved(folder / "vocoder", vocoder_recipe())
    saved(folder / "other", vocoder_recipe(f_max=3000.0))
    save_random_model(folder / "digits", "experiment=fsdd_digits", "size=tiny")
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Returns a function that runs `audiodiff synthesize` and gives its exit code, output and errors."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["audiodiff", "synthesize", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    return command


def heard(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path)
    assert rate == 8000
    return samples


def test_a_text_becomes_a_samples_folder(run, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = "It is 9:05. Good morning."
    code, told, _ = run(
        models / "mel", "--text", text, "--vocoder", models / "vocoder", "--seed", 3, "--speed", 0.8,
        "--return-mel", "--out", out,
    )  # fmt: skip
    assert code == 0
    assert "1 texts" in told
    assert "by a vocoder" in told
    tts = audiodiff.TextToSpeech.load(models / "mel", models / "vocoder")
    expected = tts(text, seed=3, speed=0.8)
    assert np.abs(heard(out / "text_0000.wav") - expected.waveform.numpy()).max() < 1e-4
    np.testing.assert_allclose(
        np.load(out / "text_0000.npy"), tts.mel(text, Manner(seed=3, speed=0.8)).numpy(), atol=1e-4
    )
    record = json.loads((out / "samples.json").read_text())
    assert record["files"][0]["text"] == text
    assert (record["seed"], record["speed"], record["vocoder"]) == (3, 0.8, str(models / "vocoder"))
    sentences = record["spoken"][0]["sentences"]
    assert [one["normalized"] for one in sentences] == ["it is nine oh five.", "good morning."]
    assert [len(one["frames"]) for one in sentences] == [len(one["symbols"]) for one in sentences]
    with Image.open(out / "text_0000.alignment.png") as two_rows:
        assert two_rows.size[1] > 300
    assert (out / "spectrograms.png").is_file()


def test_a_text_is_streamed_sentence_by_sentence_into_a_file_or_a_pipe(
    models: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, said = "It is 9:05. Good morning.", tmp_path / "said.wav"
    expected = audiodiff.TextToSpeech.load(models / "mel")(text, seed=3).waveform.numpy()
    command = ["audiodiff", "synthesize", str(models / "mel"), "--text", text, "--seed", "3", "--stream"]
    for target in (str(said), "-"):
        monkeypatch.setattr("sys.argv", [*command, target])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
    out = capfdbinary.readouterr().out
    _, piped = out.split(b"\n", 1)  # what the first command said, then the samples of the second
    assert np.abs(heard(said) - expected).max() < 1e-4
    assert (np.frombuffer(piped, "<i2") == np.rint(heard(said) * 2.0**15)).all()


def test_each_line_of_a_file_is_a_text_and_empty_lines_are_counted(run, models: Path, tmp_path: Path) -> None:
    lines, out = tmp_path / "lines.txt", tmp_path / "out"
    lines.write_text("First line.\n\n  \r\nSecond 😀 line\n", encoding="utf-8")
    code, told, errors = run(models / "speakers", "--text-file", lines, "--speaker", "bob", "--out", out)
    assert code == 0
    assert "2 texts" in told
    assert "2 empty lines skipped" in told
    assert "Griffin-Lim, since no vocoder was named" in told
    assert "text_0001.wav: left out 1 x '😀' (GRINNING FACE)" in errors
    record = json.loads((out / "samples.json").read_text())
    assert [(file["text"], file["labels"]) for file in record["files"]] == [
        ("First line.", {"speaker": "bob"}), ("Second 😀 line", {"speaker": "bob"}),
    ]  # fmt: skip
    assert record["empty_lines"] == 2


def test_a_straight_model_needs_no_vocoder(run, models: Path, tmp_path: Path) -> None:
    code, told, _ = run(models / "straight", "--text", "Hello.", "--out", tmp_path / "out")
    assert code == 0
    assert "(text -> audio)" in told
    assert np.abs(heard(tmp_path / "out" / "text_0000.wav")).max() > 0


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("mel", [], "say what, with --text or --text-file"),
        ("mel", ["--text", ""], "is empty"),
        ("mel", ["--text", "😀"], "can say nothing"),
        ("mel", ["--text", "<b>Hi</b>"], "markup"),
        ("mel", ["--text", "a", "--text-file", "b"], "give one of the two"),
        ("mel", ["--text-file", "none.txt"], "none.txt: cannot be read"),
        ("mel", ["--text", "Hi", "--speaker", "anna"], "one voice"),
        ("mel", ["--text", "Hi", "--speed", "0"], "speed"),
        ("mel", ["--text", "Hi", "--label", "seven"], "--label: this model speaks"),
        ("mel", ["--text", "Hi", "--guidance", "2"], "--guidance: this model speaks"),
        ("mel", ["--text", "Hi", "--vocoder", "digits"], "not conditioned on a mel"),
        ("mel", ["--text", "Hi", "--vocoder", "other"], "f_max: 3000.0, expected 4000.0"),
        ("mel", ["--text", "Hi", "--stream", "said.mp3"], "ends in .wav, or - for stdout"),
        ("mel", ["--text", "Привет", "--stream", "said.wav"], "can say nothing"),
        (
            "mel",
            ["--text-file", "lines.txt", "--stream", "said.wav"],
            "--text-file: --stream speaks one --text",
        ),
        ("mel", ["--stream", "said.wav"], "say what, with --text"),
        ("straight", ["--text", "Hi", "--vocoder", "vocoder"], "leave the vocoder out"),
        ("straight", ["--text", "Hi", "--return-mel"], "no mel to return"),
        ("speakers", ["--text", "Hi", "--speaker", "eve"], "anna, bob"),
        ("digits", ["--text", "Hi"], "--text: this model is told no text"),
        ("digits", ["--speed", "2"], "--speed: this model is told no text"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    run,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    options: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(models)
    code, _, errors = run(model, *options, "--out", tmp_path / "out")
    lines = errors.strip().splitlines()
    assert code == 2, errors
    assert lines[-1].startswith("audiodiff: ")
    assert says in lines[-1]
    assert not (tmp_path / "out").exists()
    assert not [*models.glob("*said*")]


def test_a_line_that_cannot_be_spoken_is_named_by_its_number(run, models: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("One.\nПривет\n", encoding="utf-8")
    code, _, errors = run(models / "mel", "--text-file", lines, "--out", tmp_path / "out")
    assert code == 2
    assert "text 2 of 2" in errors
    lines.write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8" in run(models / "mel", "--text-file", lines)[2]
    lines.write_text("\n\n")
    assert "has no text in it" in run(models / "mel", "--text-file", lines)[2]
