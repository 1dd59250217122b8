"""A trained model becomes one that ships: rounded, measured, described, found by name, and the same sound again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import audiodiff
from audiodiff import model_folder
from audiodiff.audio import io
from audiodiff.cli.app import app
from audiodiff.conditioning.mel import Mel
from audiodiff.data.corpora import mini
from audiodiff.errors import InputError
from audiodiff.model import find_model, load
from audiodiff.release import picture
from audiodiff.release import release as release_module
from audiodiff.release.card import places, without_place
from audiodiff.release.release import Changes, Release, release
from audiodiff.release.rounding import fits, half_precision, signal_to_noise_db
from audiodiff.release.sounds import Instrument, read_recorded
from audiodiff.synthesis.sampling import SamplerChoice
from audiodiff.synthesis.vocoder import Vocoder
from tests.repeated import asked_files, controls_again, evaluate_again, figures_again, vocode_again
from tests.tiny import random_model, recipe_from, save_random_model
from tests.tiny_text import saved, text_recipe, vocoder_recipe

ROOT = Path(__file__).resolve().parents[2]
SOUNDS = ("experiment=mini", "size=tiny")
VOCODER = ("experiment=fsdd_vocoder", "size=tiny", "mel_iterations=2")
TOLD = {
    "experiment": "mini", "train_hours": 0.5, "hardware": "a CPU, 2 threads x 1", "updates": 7, "seed": 3,
    "train_seconds": 360.0, "commit": "abc", "command": "audiodiff train experiment=mini data_dir=data/mini",
    "median_seconds": 0.3, "validation_loss": 0.25,
}  # fmt: skip
CARD_ROWS = (
    "Task", "Main score", "Data", "Licence of the data", "Licence of the weights", "Split", "Audio", "Parameters",
    "Updates", "Training time", "Validation loss", "Seed", "Commit", "Sampler", "Network evaluations", "Speed",
    "Rounding",
)  # fmt: skip


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def trained(folder: Path, *overrides: str) -> Path:
    """A random model with the facts of a training; one that hears a mel knows what level to expect."""
    recipe = recipe_from(*overrides)
    model = random_model(recipe)
    for part in model.modules():
        if isinstance(part, Mel):
            part.mean.fill_(-7.0)
            part.std.fill_(2.0)
    model.save(folder, recipe, TOLD, "# test\n")
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of shipped models of a package that lies in another place."""
    monkeypatch.setattr(model_folder, "__file__", str(tmp_path / "package" / "audiodiff" / "model_folder.py"))
    return tmp_path / "package" / "models"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("run") / "model", *SOUNDS)


@pytest.fixture(scope="module")
def released(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of sounds, released without scores."""
    out = tmp_path_factory.mktemp("released") / "tiny"
    limits = out.parent / "limits.md"
    limits.write_text("It is random.\n")
    changes = Changes(SamplerChoice(steps=3), guidance=2.5)
    asked = Release(run_folder, "tiny", changes=changes, labels=["o"], limits=limits, rounds=1)
    release(asked, out, "audiodiff release ...", lambda line: None)
    return out


def test_matrices_are_rounded_and_everything_else_stays(run_folder: Path, released: Path) -> None:
    before, after = load_file(run_folder / "model.safetensors"), load_file(released / "model.safetensors")
    parameters = {name for name, _ in load(run_folder).named_parameters()}
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        if name in parameters and tensor.dim() > 1:
            assert tensor.dtype == torch.float16
            assert torch.equal(tensor, before[name].half())
        else:
            assert torch.equal(tensor, before[name])
    loaded = load(released).state_dict()
    assert all(tensor.dtype == before[name].dtype for name, tensor in loaded.items())
    assert all(torch.equal(tensor, after[name].to(tensor.dtype)) for name, tensor in loaded.items())
    assert (released / "model.safetensors").stat().st_size < 0.7 * (
        run_folder / "model.safetensors"
    ).stat().st_size


def test_the_recorded_sound_is_found_again(released: Path) -> None:
    recorded = read_recorded(released)
    found = Instrument(load(released))(recorded.asked, recorded.seed)[:, : recorded.waveform.shape[1]]
    assert recorded.asked.labels == {"sound": "o"}
    assert recorded.waveform.dtype == torch.float32
    assert float(recorded.waveform.abs().max()) > 0
    torch.testing.assert_close(found, recorded.waveform)


def test_the_model_keeps_what_was_chosen_for_synthesis(released: Path) -> None:
    model, sheet = load(released), json.loads((released / "release.json").read_text())
    assert model.recipe["sampler"]["grid"]["steps"] == 3
    assert model.steering.guidance.scale == 2.5
    assert (sheet["steps"], sheet["evaluations"], sheet["guidance"]) == (3, 6, 2.5)
    assert sheet["rounding"]["signal_to_noise_db"] > 40


def test_the_card_says_what_is_known_and_no_more(released: Path) -> None:
    card = (released / "README.md").read_text()
    rows = dict(
        line[2:].rstrip(" |").split(" | ", 1)
        for line in card.splitlines()
        if line.startswith("| ") and " | " in line[2:]
    )
    assert set(CARD_ROWS) <= set(rows)
    assert rows["Updates"].startswith("7 of ")
    assert rows["Seed"] == "3"
    assert rows["Main score"] == rows["Split"] == "not recorded"
    assert "audiodiff synthesize tiny --label sound=o --out sounds" in card
    assert card.index("## Limits") < card.index("It is random.")
    assert (released / "spectrograms.png").stat().st_size <= 75_000


def test_a_shipped_model_is_found_by_its_name(
    released: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mkdir(parents=True)
    (place / "tiny").symlink_to(released)
    monkeypatch.chdir(tmp_path)
    assert find_model("tiny") == place / "tiny"
    assert audiodiff.load("tiny").labels["sound"]
    assert "1 sounds in made" in run(
        "synthesize", "tiny", "--label", "a", "--seconds", "0.1", "--out", "made"
    )
    with pytest.raises(InputError, match=r"nothing: does not exist; .* or a shipped model: tiny"):
        find_model("nothing")
    (tmp_path / "tiny").mkdir()  # a folder of that name comes first, even when it holds no model
    with pytest.raises(
        InputError, match=r"tiny: holds no model.safetensors and config.yaml; it hides the shipped"
    ):
        find_model("tiny")
    save_random_model(tmp_path / "tiny" / "model", *SOUNDS)
    assert find_model("tiny") == Path("tiny/model")


def test_a_wheel_finds_the_models_inside_the_package(released: Path, place: Path) -> None:
    inside = place.parent / "audiodiff" / "models"
    inside.mkdir(parents=True)
    (inside / "tiny").symlink_to(released)
    (place / "other").mkdir(parents=True)
    assert find_model("tiny") == inside / "tiny"
    assert model_folder.shipped_models() == {"tiny": inside / "tiny"}


def test_wheel_and_source_archive_carry_the_models() -> None:
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    carried = targets["wheel"]["force-include"]
    assert (carried["recipes"], carried["models"]) == ("audiodiff/recipes", "audiodiff/models")
    assert {"audiodiff", "recipes", "models"} <= set(targets["sdist"]["include"])


def test_models_lists_them_and_prints_a_card(released: Path, place: Path) -> None:
    assert run("models") == "no models come with this copy of audiodiff\n"
    assert json.loads(run("models", "--json")) == []
    place.mkdir(parents=True)
    (place / "tiny").symlink_to(released)
    (listed,) = json.loads(run("models", "--json"))
    assert listed["name"] == "tiny"
    assert listed["bytes"] == sum(file.stat().st_size for file in released.iterdir())
    assert re.search(r"tiny +│ sounds by sound +│ +8000 +│", run("models"))
    assert run("models", "tiny") == (released / "README.md").read_text()


def test_models_are_listed_without_torch(released: Path, place: Path) -> None:
    place.mkdir(parents=True)
    (place / "tiny").symlink_to(released)
    code = (
        "import sys; from audiodiff import model_folder as m; "
        f"m.__file__ = {model_folder.__file__!r}; sys.argv = ['audiodiff', 'models']\n"
        "from audiodiff.cli.app import app\n"
        "app(standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tiny" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a vocoder with sounds and scores, as the recipes leave it."""
    folder = tmp_path_factory.mktemp("vocoder")
    trained(folder / "model", *VOCODER)
    for number, sound in enumerate(("a", "o", "u")):
        made = mini.synthesize(sound, 8000, np.random.default_rng(number))
        io.write(folder / "recordings" / f"{sound}.wav", torch.from_numpy(made)[None], 8000)
    for steps in (1, 2):
        samples = folder / f"samples_{steps}"
        invoke("vocode", folder, folder / "recordings", "--out", samples, "--steps", steps)
        invoke("evaluate", samples, "--out", folder / f"{steps}_steps")
    return folder


def invoke(*words: object) -> None:
    """Runs a command in this process with its line as it is recorded."""
    line, before = ["audiodiff", *map(str, words)], sys.argv
    sys.argv = line
    try:
        app(line[1:], standalone_mode=False)
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def vocoder(scored: Path) -> Path:
    """The vocoder of that run, released with its scores and published ones beside it."""
    out, published = scored / "released", scored / "published.json"
    published.write_text(json.dumps({"somebody's": {"pesq_wb": 3.8, "n": 16}}))
    results = [scored / "2_steps", scored / "1_steps"]
    asked = Release(scored, "voc", results, beside=[("Of a paper", published)], rounds=1)
    release(asked, out, "audiodiff release ...", lambda line: None)
    return out


def test_the_card_has_every_system_with_its_intervals(scored: Path, vocoder: Path) -> None:
    card = (vocoder / "README.md").read_text()
    assert "| evaluation |" in card
    for steps in (1, 2):
        numbers = json.loads((scored / f"{steps}_steps" / "metrics.json").read_text())
        part = card.split(f"## Results of mini ({steps}_steps)")[1]
        for system, scores in numbers["vocoder"]["systems"].items():
            values = [scores["lsd"]["mean"], *scores["lsd"]["interval_95"]]
            digits = 1 if values[0] >= 10 else 3 if values[0] < 1 else 2
            mean, low, high = (f"{value:.{digits}f}" for value in values)
            row = next(line for line in part.splitlines() if line.startswith(f"| {system} |"))
            assert f"{mean} [{low}, {high}]" in row
        assert numbers["command"] in part
    assert "| somebody's | 3.8 | 16 |" in card
    assert card.count("Metrics:") == 1
    sheet = json.loads((vocoder / "release.json").read_text())
    assert set(sheet["score"]["beside"]) == {"griffin-lim"}
    assert sheet["lookahead_seconds"] == Vocoder.load(vocoder).lookahead().seconds
    assert f"| Streaming | {sheet['lookahead_seconds']:.2f} s of mel ahead" in card


def test_recorded_commands_give_the_kept_numbers_again(scored: Path, vocoder: Path, tmp_path: Path) -> None:
    for evaluation in json.loads((vocoder / "results.json").read_text()):
        recordings = [scored / "recordings" / file for file in asked_files(evaluation)]
        assert len(recordings) == evaluation["asked"]["mini"]["sounds"] == 3
        # From the weights that were scored, which are not rounded.
        samples = tmp_path / evaluation["folder"].rpartition("/")[2]
        vocode_again(scored / "model", evaluation, recordings, samples)
        again = evaluate_again(scored / "model", evaluation, samples, tmp_path / f"{samples.name}_results")
        for system, scores in evaluation["vocoder"]["systems"].items():
            for key, score in scores.items():
                found = again["vocoder"]["systems"][system][key]["files"]
                assert found == pytest.approx(score["files"], rel=1e-6, abs=1e-6), (system, key)


def test_values_of_few_files_are_kept(scored: Path, vocoder: Path) -> None:
    numbers = json.loads((scored / "2_steps" / "metrics.json").read_text())
    many = {f"{n:02d}.wav": 1.0 * n for n in range(60)}
    numbers["vocoder"]["systems"]["mini"]["lsd"]["files"] = many
    (scored / "many").mkdir(exist_ok=True)
    (scored / "many" / "metrics.json").write_text(json.dumps(numbers))
    (scored / "many" / "RESULTS.md").write_text("# Results of mini\n\nNothing.\n")
    from audiodiff.release.results import kept_numbers, read_scored

    kept = kept_numbers(read_scored(scored / "many"))
    lsd = kept["vocoder"]["systems"]["mini"]["lsd"]
    assert len(lsd["files"]) <= 6
    assert set(lsd["files"].items()) <= set(many.items())
    assert lsd["mean"] == numbers["vocoder"]["systems"]["mini"]["lsd"]["mean"]


def test_sounds_of_asked_loudness_and_spoken_texts_are_made_again(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained(Path("drum"), "experiment=drums", "size=tiny")
    asked = ("--label", "kick", "--each", "loudness", "--guidance", 3, "--seed", 3)
    invoke("synthesize", "drum", *asked, "--seconds", 0.3, "--steps", 2, "--out", "levels")
    invoke("evaluate", "levels", "--out", "drum_results")
    known = {"data": {"name": "d", "licence": "none", "channels": 1}}
    saved(Path("words"), text_recipe("speakers") | known | {"training": {"global_batch_seconds": 1.0}})
    Path("texts.txt").write_text("One.\nTwo three.\n")
    for who in ("anna", "bob"):
        said = ("--text-file", "texts.txt", "--speaker", who, "--seed", 4)
        invoke("synthesize", "words", *said, "--out", f"said/{who}")
    invoke("evaluate", "said", "--out", "words_results")
    numbers = {}
    for name in ("drum", "words"):
        results, shown = [Path(f"{name}_results")], released / "spectrograms.png"
        release(
            Release(Path(name), name, results, picture=shown, rounds=1), Path("out"), "", lambda line: None
        )
        (numbers[name],) = json.loads(Path("out/results.json").read_text())
    compared = controls_again(Path("drum"), numbers["drum"], 3) | figures_again(
        Path("words"), numbers["words"], 3
    )
    assert [key[0] for key in compared] == ["loudness"] * 3 + ["seconds", "level"] * 3
    for recorded, found in compared.values():
        assert found == pytest.approx(recorded, rel=1e-3, abs=0.02)  # the wav files are rounded to 16 bits


def shipped(place: Path, name: str, recipe: dict[str, Any]) -> None:
    saved(place / name, recipe)
    (place / name / "release.json").write_text(json.dumps({"name": name}))


def test_a_text_model_takes_the_vocoder_that_it_names(place: Path, tmp_path: Path) -> None:
    shipped(place, "words-vocoder", vocoder_recipe())
    shipped(place, "words", text_recipe("mel") | {"vocoder": "words-vocoder"})
    tts = audiodiff.TextToSpeech.load("words")
    assert str(tts.route).endswith("by the vocoder words-vocoder, which this model names")
    told = audiodiff.TextToSpeech.load("words", "words-vocoder")
    assert str(told.route).endswith("by a vocoder")
    assert torch.equal(tts("Hello.").waveform, told("Hello.").waveform)
    said = run("synthesize", "words", "--text", "Hello.", "--out", tmp_path / "said")
    assert "by the vocoder words-vocoder" in said
    assert json.loads((tmp_path / "said" / "samples.json").read_text())["vocoder"] == "words-vocoder"
    shipped(place, "alone", text_recipe("mel") | {"vocoder": "gone"})
    with pytest.raises(InputError, match="no shipped model 'gone'; there are alone, words, words-vocoder"):
        audiodiff.TextToSpeech.load("alone")


def test_a_text_model_is_released_with_its_vocoder(place: Path, tmp_path: Path) -> None:
    known = {"data": {"name": "d", "licence": "CC BY-SA 4.0 (somebody)", "channels": 1}}
    known |= {"training": {"global_batch_seconds": 1.0}}
    shipped(place, "words-vocoder", vocoder_recipe())
    source = saved(tmp_path / "run", text_recipe("mel") | known)
    asked = Release(source, "words", changes=Changes(vocoder="words-vocoder"), text="Hello.", rounds=1)
    sheet = release(asked, place / "words", "audiodiff release ...", lambda line: None)
    assert (sheet["vocoder"], sheet["task"]) == ("words-vocoder", "text to speech")
    card = (place / "words" / "README.md").read_text()
    assert "share-alike: CC BY-SA 4.0 (somebody)" in card
    assert '--text "Hello."' in card
    recorded = read_recorded(place / "words")
    found = Instrument(load("words"))(recorded.asked, recorded.seed)[:, : recorded.waveform.shape[1]]
    torch.testing.assert_close(found, recorded.waveform)


def test_a_folder_that_is_too_large_is_refused_with_its_size(
    run_folder: Path, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_module, "MOST_BYTES", 50_000)
    shown, quick = released / "spectrograms.png", Changes(SamplerChoice(steps=1))
    asked = Release(run_folder, "tiny", changes=quick, picture=shown, rounds=1)
    with pytest.raises(InputError, match=r"0\.\d\d MB, 0\.\d\d of them weights: expected at most 0\.05 MB"):
        release(asked, tmp_path / "out", "", lambda line: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "a/b"}, "expected a plain name"),
        ({"results": [Path("nowhere")]}, "nowhere: holds no metrics.json and RESULTS.md"),
        ({"limits": Path("nowhere.md")}, "nowhere.md: cannot be read as text"),
        (
            {"beside": [("a paper", Path("nowhere.json"))]},
            "nowhere.json: expected JSON, system -> measure -> number",
        ),
        ({"picture": Path(__file__)}, "cannot be read as a picture"),
        ({"labels": ["x"]}, "label 'x' is unknown"),
        ({"changes": Changes(vocoder="nothing")}, "no shipped model 'nothing'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    changed: dict[str, Any], message: str, run_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        release(
            Release(run_folder, **({"name": "tiny", "rounds": 1} | changed)),
            tmp_path / "out",
            "",
            lambda line: None,
        )
    assert list(tmp_path.iterdir()) == []


def test_what_float16_cannot_hold_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(40, 30, generator=generator)
    assert fits(drawn)
    assert not fits(drawn * 1e5)  # beyond 65504
    assert not fits(drawn * 1e-7)  # few bits are left
    layer = torch.nn.Linear(30, 40)
    with torch.no_grad():
        layer.weight.copy_(drawn * 1e5)
    weights, kept = half_precision(layer)
    assert kept == ["weight"]
    assert torch.equal(weights["weight"], layer.weight)


def test_signal_to_noise_is_in_decibels() -> None:
    signal = torch.sin(torch.arange(1000.0))[None]
    assert signal_to_noise_db(signal, 0.9 * signal) == pytest.approx(20.0)
    assert signal_to_noise_db(signal, signal[:, :500]) == float("inf")


def test_a_picture_is_made_small_enough() -> None:
    from io import BytesIO

    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, format="png")
    made = picture.small(buffer.getvalue(), "noise")
    assert len(made) <= 75_000
    with Image.open(BytesIO(made)) as shown:
        assert shown.width / shown.height == pytest.approx(4 / 3, rel=0.02)


def test_no_machine_s_folders_are_published() -> None:
    here = Path("/home/somebody/project")
    told = {
        "command": "audiodiff train data_dir='/home/somebody/project/data/x' out=exp/x",
        "n": [1, "/home/other"],
    }
    assert without_place(told, here) == {
        "command": "audiodiff train data_dir='data/x' out=exp/x", "n": [1, "/home/other"],
    }  # fmt: skip
    said = (
        "`audiodiff train data_dir='/a/b' out=exp/x` see https://a.org/b/c, docs/x.md and/or /a/b, /c/d-e/f."
    )
    assert places(said) == ["/a/b", "/c/d-e/f."]
