"""The run.sh of recipes that speak: scored by the words that are heard, or against recordings of the same texts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import audiodiff
from audiodiff.audio import io

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--data", "data", "--exp", "exp", "--ngpu", "0", "size=tiny", "training.updates=2"]
SCRIPT = """set -euo pipefail
recipe={recipe}
corpus=fsdd
experiment=spoken_numbers
task=speak
label=digit
texts={texts}
source {common} "$@"
"""


def run(script: Path, folder: Path, *arguments: str) -> str:
    environment = os.environ | {
        "AUDIODIFF": str(Path(sys.executable).parent / "audiodiff"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", str(script), *TINY, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_spoken_numbers_are_scored_by_the_words_that_are_heard(data_dir: Path, tmp_path: Path) -> None:
    recordings = tmp_path / "fsdd" / "recordings"
    recordings.mkdir(parents=True)
    for digit in range(10):
        for index in (0, 1, 5, 7, 8, 9):  # test, dev, train
            shutil.copy(data_dir / "fsdd" / "recordings" / f"{digit}_theo_{index}.flac", recordings)
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "theo.txt").write_text("seven nine\ntwo zero two\n")
    script = tmp_path / "egs" / "fsdd" / "numbers" / "run.sh"
    script.parent.mkdir(parents=True)
    common = ROOT / "egs" / "common" / "run.sh"
    script.write_text(SCRIPT.format(recipe=script.parent, texts=texts, common=common))
    small = ["--judge-args", "--updates 2", "--recognizer-args", "--updates 2 --sequences 6"]
    small += ["training.global_batch_seconds=4.8", "--synthesize-args", "--steps 2"]
    told = run(script, tmp_path, "--source", str(recordings.parent), *small)
    stages = re.findall(r"^stage (\d \w+)$", told, re.MULTILINE)
    assert stages[-4:] == ["5 judge", "5 recognizer", "5 evaluate", "6 pack"]
    speech = json.loads((tmp_path / "exp" / "results" / "metrics.json").read_text())["speech"]
    assert list(speech["systems"]) == ["real concatenations", "spoken_numbers"]
    assert speech["systems"]["spoken_numbers"]["words"]["words"] == 5
    again = run(script, tmp_path, "--source", str(recordings.parent), *small)
    assert len(re.findall(r"^stage \d \w+: done already, skipped$", again, re.MULTILINE)) == len(stages)


@pytest.mark.long
def test_a_reader_of_sentences_is_compared_with_the_recordings(data_dir: Path, tmp_path: Path) -> None:
    script = ROOT / "egs" / "ljspeech" / "tts" / "run.sh"
    arguments = ["--source", str(data_dir / "ljspeech_excerpt"), "text=graphemes"]
    arguments += ["training.global_batch_seconds=10", "--synthesize-args", "--steps 2"]
    run(script, tmp_path, *arguments)
    speech = json.loads((tmp_path / "exp" / "results" / "metrics.json").read_text())["speech"]
    assert speech["real"] == "recordings"
    assert len(speech["systems"]["ljspeech_tts"]["mcd_dtw"]["files"]) == len(speech["texts"])


RATE = 24000  # of both corpora's recipes, hertz


def librispeech(data_dir: Path) -> list[tuple[str, Path, str]]:
    """(reader, file, text) of each clip of an excerpt of LibriSpeech."""
    folder = data_dir / "librispeech_excerpt" / "LibriSpeech"
    clips = []
    for transcripts in sorted(folder.glob("*/*/*/*.trans.txt")):
        for line in transcripts.read_text().splitlines():
            name, text = line.split(" ", 1)
            clips.append((name.split("-")[0], transcripts.parent / f"{name}.flac", text.capitalize() + "."))
    return clips


def as_libritts(data_dir: Path, root: Path) -> None:
    for number, (reader, path, text) in enumerate(librispeech(data_dir)):
        subset = {0: "dev-clean", 1: "test-clean"}.get(number, "train-clean-100")
        place = root / "LibriTTS" / subset / reader / "1" / f"{reader}_1_000001_{number:06d}.wav"
        io.write(place, *io.read(path, RATE))
        place.with_suffix(".normalized.txt").write_text(text)


def as_vctk(data_dir: Path, root: Path) -> None:
    for number, (reader, path, text) in enumerate(librispeech(data_dir)):
        name = f"p{reader}_{number:03d}"
        place = root / "wav48_silence_trimmed" / f"p{reader}" / f"{name}_mic1.flac"
        io.write(place, *io.read(path, RATE))
        transcript = root / "txt" / f"p{reader}" / f"{name}.txt"
        transcript.parent.mkdir(parents=True, exist_ok=True)
        transcript.write_text(text)


@pytest.mark.long
@pytest.mark.parametrize(("recipe", "lay_out"), [("libritts", as_libritts), ("vctk", as_vctk)])
def test_readers_of_real_speech_are_learnt_and_speak_as_themselves(
    recipe: str, lay_out: Callable[[Path, Path], None], data_dir: Path, tmp_path: Path
) -> None:
    lay_out(data_dir, tmp_path / "in")
    script = ROOT / "egs" / recipe / "tts" / "run.sh"
    arguments = ["--source", "in", "training.global_batch_seconds=10", "--synthesize-args", "--steps 2"]
    told = run(script, tmp_path, *arguments)
    assert re.findall(r"^stage (\d \w+)$", told, re.MULTILINE)[-3:] == [
        "4 synthesize",
        "5 evaluate",
        "6 pack",
    ]
    speech = json.loads((tmp_path / "exp" / "results" / "metrics.json").read_text())["speech"]
    sentences = (ROOT / "egs" / "common" / "sentences.txt").read_text().splitlines()
    assert list(speech["texts"].values()) == sentences
    assert len(list((tmp_path / "exp" / "samples").glob("text_*.alignment.png"))) == len(sentences)
    tts = audiodiff.TextToSpeech.load(tmp_path / "exp")
    assert tts.speakers
    first, *others = (tts("Hello.", speaker=speaker).waveform for speaker in (*tts.speakers, None))
    assert all(other.shape != first.shape or bool((other != first).any()) for other in others)
