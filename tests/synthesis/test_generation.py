"""Samples folders: labels, files, records, and audio that depends on the seed alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiodiff.diffusion.guidance import Guidance
from audiodiff.errors import InputError
from audiodiff.interval import Interval
from audiodiff.model import Steering, load
from audiodiff.synthesis.generation import Request, generate, label_sets
from audiodiff.synthesis.sampling import SamplerChoice
from tests.tiny import save_random_model

KNOWN = {"digit": ["one", "two"], "speaker": ["theo", "lucas", "two"]}
LEVELS = {"class": ["kick"], "loudness": Interval(-60, 0, 3)}
FEW = SamplerChoice("ddim", steps=3)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("digits"), "experiment=fsdd_digits", "size=tiny")


def test_each_makes_every_combination_in_order() -> None:
    sets = label_sets(KNOWN, ["digit=one"], ["speaker"], 2)
    assert [label["speaker"] for label in sets] == ["theo", "theo", "lucas", "lucas", "two", "two"]
    assert {label["digit"] for label in sets} == {"one"}


def test_each_of_numbers_makes_the_part_that_is_named() -> None:
    assert len(label_sets(LEVELS, [], ["loudness"], 1)) == 21
    for text, numbers in (("-9:0", ["-9", "-6", "-3", "0"]), ("-40:-20:10", ["-40", "-30", "-20"])):
        sets = label_sets(LEVELS, [], ["class", f"loudness={text}"], 1)
        assert sets == [{"class": "kick", "loudness": number} for number in numbers]


@pytest.mark.parametrize(
    ("each", "message"),
    [
        ("loudness=-9", "LOW:HIGH"),
        ("loudness=a:b", "LOW:HIGH"),
        ("loudness=-70:0", "from -60 to 0"),
        ("loudness=-9:-12", "low < high"),
        ("loudness=-9:0:0", "step above 0"),
        ("class=kick", "is no number"),
    ],
)
def test_parts_that_are_not_there_are_refused(each: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        label_sets(LEVELS, [], [each], 1)


def test_value_alone_finds_its_name() -> None:
    assert label_sets(KNOWN, ["theo", "one"], [], 1) == [{"speaker": "theo", "digit": "one"}]


@pytest.mark.parametrize(
    ("wanted", "each", "count", "message"),
    [
        (["seven"], [], 1, "one, two; speaker"),
        (["two"], [], 1, "digit or speaker"),
        (["pitch=3"], [], 1, "digit, speaker"),
        (["digit=seven"], [], 1, "one, two"),
        ([], ["pitch"], 1, "digit, speaker"),
        (["digit=one"], ["digit"], 1, "already fixed"),
        ([], [], 0, "at least 1"),
    ],
)
def test_labels_that_are_not_there_are_refused_with_the_choices(
    wanted: list[str], each: list[str], count: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        label_sets(KNOWN, wanted, each, count)


def test_same_seed_gives_the_same_files_at_any_batch_size(digits: Path, tmp_path: Path) -> None:
    model = load(digits)
    labels = label_sets(model.labels, [], ["digit"], 1)
    folders = []
    for batch in (1, 4, 16):
        folders.append(tmp_path / str(batch))
        generate(model, digits, Request(labels, 0.2, FEW, seed=5, batch=batch), folders[-1], "test")
    for name in (sample["file"] for sample in record(folders[0])["files"]):
        first, *rest = (soundfile.read(folder / name)[0] for folder in folders)
        for other in rest:
            # Sums over a batch may round differently in the last bit of a float, so in one step of 16 bits.
            assert np.abs(first - other).max() <= 1 / 32768


def test_other_seed_gives_other_audio(digits: Path, tmp_path: Path) -> None:
    model = load(digits)
    for seed in (0, 1):
        generate(model, digits, Request([{}], 0.2, FEW, seed=seed), tmp_path / str(seed), "test")
    first, second = (soundfile.read(tmp_path / str(seed) / "sound_0000.wav")[0] for seed in (0, 1))
    assert np.abs(first - second).max() > 1e-3


def test_folder_says_how_it_was_made(digits: Path, tmp_path: Path) -> None:
    model = load(digits)
    request = Request([{"digit": "six", "speaker": "theo"}] * 2, None, FEW, Steering(Guidance(1.5)), seed=3)
    samples = generate(model, digits, request, tmp_path, "audiodiff synthesize")
    content = record(tmp_path)
    assert [sample.file for sample in samples] == ["six_theo_0000.wav", "six_theo_0001.wav"]
    assert content["seed"] == 3
    assert content["guidance"]["scale"] == 1.5
    assert "steps=3" in content["sampler"]["grid"]
    assert content["files"][0]["seconds"] == 0.3  # the training clips' median, which the model recorded
    info = soundfile.info(tmp_path / "six_theo_0000.wav")
    assert (info.samplerate, info.channels, info.frames) == (8000, 1, 2400)
    assert (tmp_path / "spectrograms.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([{}], seconds=0.0), "--seconds"),
        (Request([{}], seconds=-1.0), "--seconds"),
        (Request([{}], seed=-1), "--seed"),
        (Request([{}], batch=0), "--batch"),
    ],
)
def test_impossible_requests_are_refused(
    digits: Path, tmp_path: Path, request_: Request, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        generate(load(digits), digits, request_, tmp_path / "out", "test")
    assert not (tmp_path / "out").exists()


def record(folder: Path) -> dict:
    return json.loads((folder / "samples.json").read_text())


def test_model_that_is_told_no_label_takes_none(tmp_path: Path) -> None:
    folder = save_random_model(
        tmp_path / "m", "experiment=fsdd_digits", "size=tiny", "conditioner=unconditional"
    )
    model = load(folder)
    assert model.labels == {}
    with pytest.raises(InputError, match="no labels"):
        label_sets(model.labels, ["seven"], [], 1)
    assert len(generate(model, folder, Request([{}], 0.2, FEW), tmp_path / "out", "test")) == 1
