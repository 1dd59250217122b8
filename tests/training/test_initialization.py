"""Fine-tuning starts as the model that it came from, says what is new, and refuses what does not fit."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, build, load
from audiodiff.training.initialization import Taken, freeze, initialize, provenance
from audiodiff.training.loop import train
from audiodiff.training.resuming import save_checkpoint
from audiodiff.training.run import open_run
from audiodiff.training.updates import one_update, training_batches
from audiodiff.types import Batch
from tests.tiny import random_model, recipe_from, tiny_recipe

QUIET = Console(quiet=True)
BASE = ("experiment=mini", "size=tiny")
SOUNDS = ["pluck_low", "pluck_mid", "pluck_high", "a", "e", "i", "o", "u"]


def saved(folder: Path, *overrides: str) -> Path:
    """A model with random weights and statistics that no corpus has."""
    recipe = recipe_from(*(overrides or BASE))
    model = random_model(recipe)
    for part in (model.representation, *model.conditioner.modules()):
        if hasattr(part, "std"):
            part.std.mul_(torch.linspace(50, 200, part.std.numel()))
    model.save(folder / "model", recipe, {"median_seconds": 0.3, "updates": 0}, "# test\n")
    return folder


def initialized(folder: Path, *overrides: str) -> tuple[AudioDiffusion, Taken]:
    model = build(recipe_from(*(overrides or BASE)))
    return model.eval(), initialize(model, folder)


def prediction(model: AudioDiffusion, **labels: str) -> Tensor:
    """The clean estimate at one time, for one item."""
    batch = Batch(None, torch.tensor([800]), {name: (value,) for name, value in labels.items()})
    x = torch.randn(1, *model.representation.shape(800), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model.bind(batch, model.steering.__class__())[0](x, torch.tensor([0.4], dtype=torch.float64))


def test_a_model_of_the_same_recipe_is_taken_whole(tmp_path: Path) -> None:
    model, taken = initialized(saved(tmp_path))
    source = load(tmp_path)
    assert set(taken.same) == set(source.state_dict())
    assert (taken.extended, taken.new, taken.left, taken.notes[1:]) == ((), (), (), ())
    for name, weight in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_fine_tuning_on_other_audio_keeps_the_statistics_of_the_source(
    mini_corpus: Path, tmp_path: Path
) -> None:
    mel = ("features=mel_8k40", "conditioner=mel_and_labels")
    source = load(saved(tmp_path / "source", *BASE, *mel))
    console = Console(record=True, width=2000, file=io.StringIO())
    recipe = tiny_recipe(*mel, "training.updates=2", f"init={tmp_path / 'source'}")
    train(recipe, mini_corpus, tmp_path / "run", "test", console)
    tuned = load(tmp_path / "run")
    measured = json.loads((tmp_path / "run" / "statistics.json").read_text())["std"]
    assert not torch.allclose(source.representation.std, torch.tensor(measured), rtol=0.2)
    for name, buffer in source.named_buffers():
        assert torch.equal(dict(tuned.named_buffers())[name], buffer), name
    assert "times the deviation of the source's, by which it is normalised" in console.export_text()


def test_known_values_keep_their_rows_and_new_ones_begin_as_any(tmp_path: Path) -> None:
    source = load(saved(tmp_path))
    values = ["u", "bell", *SOUNDS[:-1]]
    model, taken = initialized(tmp_path, *BASE, f"data.labels.sound=[{','.join(values)}]")
    assert taken.extended == ("conditioner.tables.sound.weight",)
    assert taken.new == taken.left == ()
    for sound in SOUNDS:
        assert torch.equal(prediction(model, sound=sound), prediction(source, sound=sound))
    assert torch.equal(prediction(model, sound="bell"), prediction(source))


def test_fewer_values_in_another_order_are_no_new_rows(tmp_path: Path) -> None:
    source = load(saved(tmp_path))
    model, taken = initialized(tmp_path, *BASE, "data.labels.sound=[o,e]")
    assert taken.extended == taken.new == taken.left == ()
    for sound in ("o", "e", ""):
        assert torch.equal(prediction(model, sound=sound), prediction(source, sound=sound))


def test_a_new_label_name_begins_by_saying_nothing(tmp_path: Path) -> None:
    source = load(saved(tmp_path))
    model, taken = initialized(tmp_path, *BASE, "+data.labels.room=[dry,hall]")
    assert taken.new == ("conditioner.tables.room.weight",)
    assert torch.equal(prediction(model, sound="a", room="hall"), prediction(source, sound="a"))


def test_a_label_name_that_is_gone_counts_as_any(tmp_path: Path) -> None:
    source = load(saved(tmp_path, *BASE, "+data.labels.room=[dry,hall]"))
    model, taken = initialized(tmp_path)
    assert taken.left == ("conditioner.tables.room.weight",)
    assert torch.allclose(prediction(model, sound="a"), prediction(source, sound="a"), atol=1e-6)
    assert not torch.allclose(prediction(source, sound="a", room="dry"), prediction(source, sound="a"))


LEVEL = "+data.labels.level={low: -40, high: 0, step: 4}"


def test_a_number_keeps_its_function_and_one_of_another_interval_begins_by_saying_nothing(
    tmp_path: Path,
) -> None:
    source = load(saved(tmp_path, *BASE, LEVEL))
    model, taken = initialized(tmp_path, *BASE, LEVEL)
    assert taken.extended == taken.new == taken.left == ()
    for level in ("-40", "-13.5", ""):
        assert torch.equal(
            prediction(model, sound="a", level=level), prediction(source, sound="a", level=level)
        )
    wider, taken = initialized(tmp_path, *BASE, LEVEL.replace("-40", "-60"))
    assert {name.rsplit("level.")[-1] for name in taken.new} == set(
        dict(wider.conditioner.tables["level"].state_dict())
    )
    assert torch.equal(prediction(wider, sound="a", level="-50"), prediction(wider, sound="a"))


def test_a_new_number_begins_by_saying_nothing_and_one_that_is_gone_counts_as_any(tmp_path: Path) -> None:
    plain, numbered = load(saved(tmp_path / "plain")), load(saved(tmp_path / "numbered", *BASE, LEVEL))
    more, _ = initialized(tmp_path / "plain", *BASE, LEVEL)
    assert torch.equal(prediction(more, sound="a", level="-8"), prediction(plain, sound="a"))
    fewer, taken = initialized(tmp_path / "numbered")
    assert len(taken.left) == 5
    assert torch.allclose(prediction(fewer, sound="a"), prediction(numbered, sound="a"), atol=1e-6)
    assert not torch.allclose(prediction(numbered, sound="a", level="-8"), prediction(fewer, sound="a"))


def test_a_conditioner_of_another_kind_is_named_as_new(tmp_path: Path) -> None:
    saved(tmp_path, *BASE, "conditioner=unconditional")
    _, taken = initialized(tmp_path)
    assert taken.new == (
        "conditioner.tables.sound.weight",
        "denoiser.network.vector.bias",
        "denoiser.network.vector.weight",
    )
    line = taken.describe(tmp_path)
    assert "3 new: conditioner.tables.sound.weight, denoiser.network.vector.bias" in line


def test_a_conditioner_that_is_gone_is_named_as_left_out(tmp_path: Path) -> None:
    saved(tmp_path)
    _, taken = initialized(tmp_path, *BASE, "conditioner=unconditional")
    assert set(taken.left) >= {"conditioner.tables.sound.weight", "denoiser.network.vector.weight"}
    assert taken.new == ()


def test_a_vocoder_that_is_told_labels_besides_keeps_what_it_knows_of_mels(tmp_path: Path) -> None:
    source = load(saved(tmp_path, *BASE, "features=mel_8k40", "conditioner=mel"))
    model, taken = initialized(tmp_path, *BASE, "features=mel_8k40", "conditioner=mel_and_labels")
    assert torch.equal(model.conditioner.parts[0].mean, source.conditioner.mean)  # type: ignore[attr-defined]
    assert torch.equal(model.conditioner.parts[0].std, source.conditioner.std)  # type: ignore[attr-defined]
    assert all("parts.0" not in name for name in taken.new)


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        (
            (),
            ("data.sample_rate=16000",),
            "a model of 8000 Hz for audio of 16000 Hz.*prepare the corpus at 8000",
        ),
        (
            ("features=mel_8k40", "conditioner=mel"),
            ("features=mel_8k40", "conditioner=mel", "features.f_max=3600", "features.power=2"),
            r"another mel .*: f_max: 3600, expected \S+; power: 2, expected 1; choose its features",
        ),
        ((), ("frames.hop_length=32",), "hop_length: 32, expected 64"),
        ((), ("model=wavenet",), "representation: Waveform, expected ComplexSTFT"),
        (("model=wavegrad",), ("model=wavenet",), "a WaveGrad for a WaveNet"),
        (("size=small",), (), r"width 32, the source 192.*of \d+ weights \d+ fit.* size=small: choose that"),
        ((), ("data.channels=2",), "channels: 2, expected 1"),
    ],
)
def test_a_source_that_does_not_fit_is_refused_with_the_reason(
    tmp_path: Path, theirs: tuple[str, ...], ours: tuple[str, ...], words: str
) -> None:
    saved(tmp_path, *BASE, *theirs)
    with pytest.raises(InputError, match=words):
        initialized(tmp_path, *BASE, *ours)


def test_a_place_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a model folder"):
        initialized(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("schedule=cosine", "noise schedule is another one"),
        ("prediction=velocity", "has to predict something else"),
        ("model.denoiser.network.dilations=[4,8]", r"dilations \[4, 8\], the source \[1, 2\]"),
        (
            "model.denoiser.noise_label._target_=audiodiff.diffusion.denoiser.Alpha",
            "level is told in another way",
        ),
    ],
)
def test_what_changes_though_the_weights_fit_is_told(tmp_path: Path, change: str, words: str) -> None:
    saved(tmp_path)
    _, taken = initialized(tmp_path, *BASE, change)
    assert any(re.search(words, note) for note in taken.notes), taken.notes
    assert taken.new == taken.left == ()


def test_more_blocks_of_the_same_width_are_named_as_new(tmp_path: Path) -> None:
    saved(tmp_path)
    _, taken = initialized(tmp_path, *BASE, "sizes.tiny.dilations=[1,2,4]")
    assert taken.new
    assert all(name.startswith("denoiser.network.blocks.2.") for name in taken.new)


def test_frozen_parts_stay_bit_for_bit_as_they_were(mini_corpus: Path, tmp_path: Path) -> None:
    source = load(saved(tmp_path / "source"))
    parts = ["conditioner", "denoiser.network.blocks.0", "denoiser.network.head.weight"]
    recipe = tiny_recipe(f"init={tmp_path / 'source'}", f"training.freeze=[{','.join(parts)}]")
    train(recipe, mini_corpus, tmp_path / "run", "test", QUIET)
    before, after = source.state_dict(), load(tmp_path / "run").state_dict()
    buffers = {name for name, _ in source.named_buffers()}
    for name in before:
        frozen = name in buffers or name.startswith(tuple(parts))
        assert torch.equal(before[name], after[name]) == frozen, name


def test_freezing_returns_how_many_numbers_are_frozen() -> None:
    model = build(tiny_recipe())
    assert freeze(model, ["conditioner"]) == sum(p.numel() for p in model.conditioner.parameters())
    assert freeze(build(tiny_recipe()), []) == 0


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (["encoder"], "'encoder' is no part.*choose from representation, conditioner, denoiser, or below"),
        (["denoiser.network.block.0"], r"choose from .*denoiser\.network\.blocks, .*or below"),
        (
            ["denoiser.network.blocks.7"],
            r"choose from denoiser\.network\.blocks\.0, denoiser\.network\.blocks\.1, or",
        ),
        ([""], "'' is no part"),
        (["conditioner", "denoiser"], "nothing is left to train"),
        ("conditioner", r"expected a list such as \[conditioner\]"),
    ],
)
def test_a_part_that_cannot_be_frozen_is_refused_with_the_choices(parts: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        freeze(build(tiny_recipe()), parts)


def test_a_resumed_fine_tuning_needs_its_source_no_more_and_ends_the_same(
    mini_corpus: Path, tmp_path: Path
) -> None:
    source = saved(tmp_path / "source")
    recipe = tiny_recipe(f"init={source}")
    train(recipe, mini_corpus, tmp_path / "whole", "test", QUIET)
    stopped = open_run(recipe, mini_corpus, tmp_path / "stopped", "test", QUIET)
    batches = training_batches(stopped)
    for _ in range(3):
        one_update(stopped, batches)
    save_checkpoint(stopped)
    shutil.rmtree(source)
    train(recipe, mini_corpus, tmp_path / "stopped", "test", QUIET)
    whole, gone_on = (load(tmp_path / run) for run in ("whole", "stopped"))
    for name, weight in whole.state_dict().items():
        assert torch.equal(gone_on.state_dict()[name], weight), name
    facts = [
        json.loads((tmp_path / run / "model" / "training.json").read_text()) for run in ("whole", "stopped")
    ]
    assert facts[0]["init"] == facts[1]["init"] == "source"
    assert facts[0]["init_sha256"] == facts[1]["init_sha256"]


def test_a_fine_tuned_model_names_its_source_by_folder_and_sum(mini_corpus: Path, tmp_path: Path) -> None:
    source = saved(tmp_path / "spoken")
    train(tiny_recipe(f"init={source}", "training.updates=1"), mini_corpus, tmp_path / "run", "test", QUIET)
    digest = hashlib.sha256((source / "model" / "model.safetensors").read_bytes()).hexdigest()
    facts = json.loads((tmp_path / "run" / "model" / "training.json").read_text())
    assert (facts["init"], facts["init_sha256"]) == ("spoken", digest)
    assert (
        f"| Fine-tuned from | spoken (SHA-256 {digest[:16]})"
        in (tmp_path / "run" / "model" / "README.md").read_text()
    )
    assert load(tmp_path / "run").recipe["init"] is None  # a path of this machine


def test_a_model_that_began_at_random_names_no_source(mini_corpus: Path, tmp_path: Path) -> None:
    train(tiny_recipe("training.updates=1"), mini_corpus, tmp_path, "test", QUIET)
    assert "init" not in json.loads((tmp_path / "model" / "training.json").read_text())
    assert "Fine-tuned" not in (tmp_path / "model" / "README.md").read_text()


def test_provenance_is_the_run_s_name_for_a_run_and_the_folder_s_for_another(tmp_path: Path) -> None:
    saved(tmp_path / "spoken")
    shutil.copytree(tmp_path / "spoken" / "model", tmp_path / "shared")
    names = [provenance(tmp_path / place)["init"] for place in ("spoken", "spoken/model", "shared")]
    assert names == ["spoken", "spoken", "shared"]
