"""Fine-tuning as docs/finetuning.md tells it: commands, what they leave, and what they say to a mistake."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from audiodiff.audio import io
from audiodiff.cli.app import main
from audiodiff.model import load
from tests.tiny import TINY_MINI, save_random_model

COMMAND = [sys.executable, "-c", "from audiodiff.cli.app import main; main()"]
SPOKEN = "data.labels.sound=[pluck_low,pluck_mid,pluck_high,a,e,i,o]"
SEVEN_AND_ONE = "data.labels.sound=[pluck_low,pluck_mid,pluck_high,a,e,i,o,u]"


@dataclass(frozen=True)
class Outcome:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


def audiodiff(folder: Path, line: str) -> Outcome:
    done = subprocess.run(
        [*COMMAND, *shlex.split(line)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "2000"},
        capture_output=True,
        text=True,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def place(mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a base that lacks the sound u, the corpus, and a run of adapters."""
    pytest.importorskip("peft", reason="the extra audiodiff[lora] is not installed")
    folder = tmp_path_factory.mktemp("finetune")
    (folder / "data").symlink_to(mini_corpus)
    save_random_model(folder / "base" / "model", "experiment=mini", "size=tiny", SPOKEN)
    words = f"{' '.join(TINY_MINI)} data_dir=data '{SEVEN_AND_ONE}' lora=adapters 'lora.train=[conditioner]'"
    done = audiodiff(folder, f"train {words} out=tuned init=base")
    assert done.code == 0, done.err
    assert "1 extended: conditioner.tables.sound.weight" in done.out
    return folder


def test_a_fine_tuned_model_is_an_ordinary_one_that_knows_the_new_label(place: Path) -> None:
    done = audiodiff(place, "synthesize tuned --label u --count 1 --steps 2 --seconds 0.2 --out made")
    assert done.code == 0, done.err
    (made,) = (place / "made").glob("*.wav")
    assert io.probe(made).sample_rate == 8000
    assert audiodiff(place, "info tuned").out.count("base") >= 1


def test_merging_again_gives_the_model_that_training_left(place: Path) -> None:
    done = audiodiff(place, "merge base tuned --out merged")
    assert done.code == 0, done.err
    assert done.out == "model: merged\n"
    merged, tuned = load(place / "merged"), load(place / "tuned")
    for name, weight in tuned.state_dict().items():
        assert torch.allclose(merged.state_dict()[name], weight, rtol=0, atol=1e-6), name
    card = (place / "merged" / "README.md").read_text()
    assert "| Fine-tuned from | base (SHA-256 " in card
    assert "adapter counted 1 times" in card
    assert json.loads((place / "merged" / "training.json").read_text())["adapter_scale"] == 1


def test_half_an_adapter_lies_between_base_and_model(place: Path) -> None:
    done = audiodiff(place, "merge base/model tuned/adapter --scale 0.5 --out half")
    assert done.code == 0, done.err
    name = "denoiser.network.head.weight"
    base, half, tuned = (load(place / folder).state_dict()[name] for folder in ("base", "half", "tuned"))
    assert torch.allclose(half, (base + tuned) / 2, rtol=0, atol=1e-6)
    assert not torch.equal(base, tuned)


def test_an_adapted_model_can_be_fine_tuned_further(place: Path) -> None:
    words = f"{' '.join(TINY_MINI)} training.updates=1 data_dir=data '{SEVEN_AND_ONE}' training.freeze=[conditioner]"
    done = audiodiff(place, f"train {words} out=further init=tuned")
    assert done.code == 0, done.err
    facts = json.loads((place / "further" / "model" / "training.json").read_text())
    assert facts["init"] == "tuned"
    assert load(place / "further").recipe["lora"] is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("merge tuned tuned --out other", "is not the model that this adapter was trained on, base (sha256"),
        ("merge base base --out other", "holds no adapter.safetensors; expected an adapter"),
        ("merge base tuned --out base/model", "is the base itself"),
        ("merge nothing tuned --out other", "does not exist; expected a model folder"),
        ("merge base tuned --out data", "holds something that is no model"),
        ("train {tiny} out=a init=nothing", "does not exist; expected a model folder"),
        ("train {tiny} out=a lora=adapters", "name its folder with init=FOLDER"),
        ("train {tiny} out=a init=base 'training.freeze=[decoder]'", "'decoder' is no part of this model; choose from"),
        ("train {tiny} out=a init=base size=small", "its network is another one (width 192, the source 32"),
        ("train {tiny} out=a init=base lora=adapters lora.rnak=2", "lora.rnak"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(
    place: Path, line: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    tiny = f"{' '.join(TINY_MINI)} data_dir=data"
    monkeypatch.setattr("sys.argv", ["audiodiff", *shlex.split(line.format(tiny=tiny))])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    (said,) = [text for text in capsys.readouterr().err.splitlines() if text]
    assert said.startswith("audiodiff: ")
    assert words in said
    assert not (place / "other").exists()
    assert not (place / "a" / "model").exists()
