"""Adapters: nothing else changes, resuming is exact, and base plus adapter is the merged model."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, build, load
from audiodiff.recipes_folder import recipes_folder
from audiodiff.training.adapter import load_adapter, merge
from audiodiff.training.loop import train
from audiodiff.training.lora import LowRank, adapt, adapters, low_rank, merged
from audiodiff.training.resuming import save_checkpoint
from audiodiff.training.run import open_run
from audiodiff.training.updates import one_update, training_batches
from audiodiff.types import Batch
from audiodiff.weights import low_rank_product
from tests.tiny import random_model, recipe_from, tiny_recipe

pytest.importorskip("peft", reason="the extra audiodiff[lora] is not installed")

QUIET = Console(quiet=True)
BASE = ("experiment=mini", "size=tiny", "features=mel_8k40")
HOP = {
    "wavenet": ["upsample_factors=[8,8]"],
    "wavegrad": ["upsample_factors=[8,8]"],
    "wavelet_wavenet": ["upsample_factors=[8,4]"],
}
MODELS = sorted(file.stem for file in (recipes_folder() / "model").glob("*.yaml"))
BELL = "data.labels.sound=[pluck_low,pluck_mid,pluck_high,a,e,i,o,u,bell]"


def randomized(model: AudioDiffusion) -> AudioDiffusion:
    """The model with B drawn at random, as after training."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def settings(**changes: Any) -> LowRank:
    """The settings of the recipe, changed."""
    node = yaml.safe_load((recipes_folder() / "lora" / "adapters.yaml").read_text())
    return low_rank(node | changes)


def batch(recipe: dict[str, Any]) -> Batch:
    lengths = torch.tensor([800, 600])
    waveform = torch.randn(2, recipe["data"]["channels"], 800, generator=torch.Generator().manual_seed(0)) / 4
    waveform[1, :, 600:] = 0
    return Batch(waveform, lengths, {"sound": ("a", "u")})


def estimate(model: AudioDiffusion) -> Tensor:
    clean, condition = model.encode(batch(model.recipe))
    x = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    return model.denoiser(x, torch.tensor([0.3, 0.8], dtype=torch.float64), condition)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "spoken"
    model = random_model(recipe_from("experiment=mini", "size=tiny"))
    model.save(folder / "model", model.recipe, {"median_seconds": 0.3, "updates": 0}, "# test\n")
    return folder


@pytest.fixture(scope="module")
def whole_run(source: Path, mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six updates of adapters on a base that lacks one of the labels, whose rows are trained whole."""
    folder = tmp_path_factory.mktemp("run") / "tuned"
    train(adapting(source), mini_corpus, folder, "test", QUIET)
    return folder


def adapting(source: Path, *overrides: str) -> dict[str, Any]:
    return tiny_recipe(
        f"init={source}", BELL, "lora=adapters", "lora.rank=4", "lora.train=[conditioner]", *overrides
    )


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("name", MODELS)
def test_adapters_start_as_the_model_learn_everywhere_and_merge_into_it(name: str) -> None:
    recipe = recipe_from(*BASE, f"model={name}", "conditioner=mel_and_labels", *HOP.get(name, []))
    model = random_model(recipe)
    before = estimate(model).detach()
    adapt(model, LowRank(2, 4), seed=0)
    assert torch.equal(estimate(model), before)
    estimate(randomized(model)).square().mean().backward()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained.keys() == {name for name, _ in model.named_parameters() if ".lora_" in name}
    for parameter_name, weight in trained.items():
        assert weight.grad is not None, parameter_name
        assert bool(weight.grad.any()), parameter_name
    with torch.no_grad():
        change = (estimate(model) - before).abs().max()
        plain = merged(model, LowRank(2, 4))
        error = (estimate(plain) - estimate(model)).abs().max()
    assert float(change) > 1e-3
    assert float(error) < 1e-5 * max(1.0, float(before.abs().max()))
    assert plain.state_dict().keys() == build(recipe).state_dict().keys()


def test_the_product_is_that_of_peft() -> None:
    model = random_model(recipe_from(*BASE, "conditioner=mel_and_labels"))
    adapt(model, LowRank(3, 5), seed=0)
    randomized(model)
    layers = dict(model.named_modules())
    found = adapters(model)
    assert {layers[name].base_layer.weight.dim() for name in found} == {2, 3}  # linear, convolution
    for name, (down, up) in found.items():
        ours = low_rank_product(down, up, layers[name].base_layer.weight) * (5 / 3)
        theirs = layers[name].get_delta_weight("default")
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7), name


def test_only_adapters_and_chosen_parts_change(source: Path, whole_run: Path) -> None:
    base, tuned = load(source).state_dict(), load(whole_run).state_dict()
    saved = load_file(whole_run / "adapter" / "adapter.safetensors")
    adapted = {name.removesuffix(".lora_A") + ".weight" for name in saved if name.endswith(".lora_A")}
    assert "denoiser.network.blocks.0.expand.weight" in adapted
    assert "denoiser.network.blocks.0.depthwise.weight" not in adapted  # in groups
    for name, weight in base.items():
        if name == "conditioner.tables.sound.weight":
            assert tuned[name].shape == (10, weight.shape[1])
        else:
            assert torch.equal(weight, tuned[name]) == (name not in adapted), name


def test_base_and_adapter_are_the_merged_model(source: Path, whole_run: Path) -> None:
    joined = merge(source, load_adapter(whole_run))
    tuned = load(whole_run)
    assert joined.recipe == tuned.recipe
    for name, weight in tuned.state_dict().items():
        assert torch.allclose(joined.state_dict()[name], weight, rtol=0, atol=1e-6), name
    assert torch.allclose(estimate(joined), estimate(tuned), rtol=0, atol=1e-6)


def test_scale_moves_from_the_base_to_the_adapted_model(source: Path, whole_run: Path) -> None:
    adapter = load_adapter(whole_run / "adapter")
    none, half, full = (merge(source, adapter, scale).state_dict() for scale in (0.0, 0.5, 1.0))
    base = load(source).state_dict()
    for name, weight in base.items():
        assert torch.equal(none[name][: weight.shape[0] - 1] if "tables" in name else none[name],
                           weight[:-1] if "tables" in name else weight), name  # fmt: skip
        assert torch.allclose(half[name], (none[name] + full[name]) / 2, rtol=0, atol=1e-6), name


def test_four_updates_and_a_resume_equal_six_bit_for_bit(
    source: Path, whole_run: Path, mini_corpus: Path, tmp_path: Path
) -> None:
    base = tmp_path / "spoken"
    shutil.copytree(source, base)
    stopped = open_run(adapting(base), mini_corpus, tmp_path / "run", "test", QUIET)
    batches = training_batches(stopped)
    for _ in range(4):
        one_update(stopped, batches)
    save_checkpoint(stopped)
    shutil.rmtree(base)  # a checkpoint holds all that resuming needs
    train(adapting(base), mini_corpus, tmp_path / "run", "test", QUIET)
    for file in ("model/model.safetensors", "adapter/adapter.safetensors"):
        assert_same(load_file(tmp_path / "run" / file), load_file(whole_run / file))
    states = [
        torch.load(run / "checkpoints/update-00000006/training/state.pt", weights_only=True)
        for run in (tmp_path / "run", whole_run)
    ]
    for part in ("raw", "averaged"):
        assert_same(states[0][part], states[1][part])
    assert states[0]["raw"].keys() > states[0]["averaged"].keys()


def test_the_average_is_that_of_the_adapters(source: Path, mini_corpus: Path, tmp_path: Path) -> None:
    run = open_run(adapting(source, "training.ema_decay=0.9"), mini_corpus, tmp_path, "test", QUIET)
    batches = training_batches(run)
    names = [name for name, weight in run.model.named_parameters() if weight.requires_grad]
    expected: dict[str, Tensor] = {}
    for update in range(4):
        one_update(run, batches)
        kept = min(0.9, (1 + update) / (10 + update)) if update else 0.0
        for name, weight in run.model.named_parameters():
            if name in names:
                before = expected.get(name, weight.detach())
                expected[name] = kept * before + (1 - kept) * weight.detach()
    average = dict(run.averaged_model.named_parameters())
    for name in names:
        assert torch.allclose(average[name], expected[name], rtol=1e-4, atol=1e-7), name
    for name, weight in run.model.named_parameters():
        if name not in names:
            assert torch.equal(average[name], weight), name


def test_the_adapter_is_small_and_names_its_base(source: Path, whole_run: Path) -> None:
    folder = whole_run / "adapter"
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "adapter.safetensors",
        "config.yaml",
    ]
    facts = json.loads((whole_run / "model" / "training.json").read_text())
    node = yaml.safe_load((folder / "config.yaml").read_text())["adapter"]
    assert node["base"] == {"name": "spoken", "sha256": facts["init_sha256"]}
    assert facts["trained_parameters"] < facts["parameters"]
    card = (folder / "README.md").read_text()
    assert facts["init_sha256"] in card
    assert "`audiodiff merge spoken ADAPTER --out FOLDER`" in card


def test_frozen_parts_and_parts_that_are_trained_whole_get_no_adapter() -> None:
    from audiodiff.training.initialization import freeze

    model = random_model(recipe_from(*BASE))
    freeze(model, ["denoiser.network.blocks.0"])
    adapt(model, LowRank(2, 4, train=("denoiser.network.head",)), seed=0)
    found = adapters(model)
    assert any(name.startswith("denoiser.network.blocks.1.") for name in found)
    assert not any(name.startswith("denoiser.network.blocks.0.") for name in found)
    assert "denoiser.network.head" not in found
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {"denoiser.network.head.weight", "denoiser.network.head.bias"} <= trained


def test_targets_are_patterns_of_layer_names() -> None:
    model = random_model(recipe_from(*BASE))
    adapt(model, settings(targets=["*.expand", "denoiser.network.head"]), seed=0)
    assert sorted(adapters(model)) == [
        "denoiser.network.blocks.0.expand", "denoiser.network.blocks.1.expand", "denoiser.network.head",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"rnak": 4}, "got rank, alpha, targets, train, rnak; expected rank, alpha, targets, train"),
        ({"rank": 0}, r"lora\.rank: got 0"),
        ({"rank": 2.5}, r"lora\.rank: got 2\.5"),
        ({"alpha": -1}, r"lora\.alpha: got -1"),
        ({"train": "conditioner"}, r"lora\.train: got 'conditioner', expected a list"),
        (
            {"train": ["conditoner"]},
            r"lora\.train: 'conditoner' is no part.*choose from representation, conditioner",
        ),
        (
            {"targets": ["*.depthwise"]},
            r"'\*\.depthwise' matches no layer.*there are denoiser\.network\.blocks",
        ),
        ({"train": ["denoiser"]}, "every layer that could have an adapter"),
    ],
)
def test_settings_that_cannot_be_are_refused(node: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        adapt(random_model(recipe_from(*BASE)), settings(**node), seed=0)


def test_new_rows_that_nothing_would_teach_are_refused(
    source: Path, mini_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"is new and no adapter teaches it; .*lora\.train=\[conditioner\]"):
        open_run(adapting(source, "lora.train=[]"), mini_corpus, tmp_path, "test", QUIET)


def test_adapters_of_nothing_are_refused(mini_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lora adapts a trained model; name its folder with init="):
        open_run(tiny_recipe("lora=adapters"), mini_corpus, tmp_path, "test", QUIET)


def test_without_peft_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without_peft(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == "peft":
            raise ModuleNotFoundError(name)
        return found(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(InputError, match=r"pip install 'audiodiff\[lora\]'"):
        adapt(random_model(recipe_from(*BASE)), LowRank(2, 4), seed=0)


def test_a_run_is_not_resumed_with_other_adapters(source: Path, whole_run: Path, mini_corpus: Path) -> None:
    with pytest.raises(InputError, match=r"another lora.*out="):
        train(adapting(source, "lora.alpha=4"), mini_corpus, whole_run, "test", QUIET)


def another(source: Path, folder: Path, *overrides: str) -> Path:
    model = random_model(recipe_from("experiment=mini", "size=tiny", *overrides), seed=9)
    model.save(folder / "model", model.recipe, {"updates": 0}, "# test\n")
    return folder


def test_another_base_is_refused_unless_forced(source: Path, whole_run: Path, tmp_path: Path) -> None:
    adapter, other = load_adapter(whole_run), another(source, tmp_path / "other")
    with pytest.raises(
        InputError, match=r"is not the model that this adapter was trained on, spoken .*--force-base"
    ):
        merge(other, adapter)
    forced = merge(other, adapter, force_base=True).state_dict()
    moved = {name: merge(source, adapter).state_dict()[name] - load(source).state_dict()[name]
             for name in ("denoiser.network.head.weight", "denoiser.network.embed.weight")}  # fmt: skip
    for name, change in moved.items():
        assert torch.allclose(forced[name] - load(other).state_dict()[name], change, atol=1e-6), name


def test_a_base_that_the_adapter_does_not_fit_is_refused_even_when_forced(
    source: Path, whole_run: Path, tmp_path: Path
) -> None:
    other = another(source, tmp_path / "other", "size=small")
    with pytest.raises(InputError, match="its network is another one"):
        merge(other, load_adapter(whole_run), force_base=True)
    deeper = another(source, tmp_path / "deeper", "sizes.tiny.dilations=[1]")
    with pytest.raises(InputError, match="do not fit this base"):
        merge(deeper, load_adapter(whole_run), force_base=True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("truncated", r"adapter\.safetensors: cannot be read as safetensors"),
        ("no base", r"config\.yaml: does not say what the adapter belongs to"),
        ("absent", r"holds no adapter\.safetensors; expected an adapter"),
    ],
)
def test_a_damaged_adapter_is_named(whole_run: Path, tmp_path: Path, damage: str, words: str) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(whole_run / "adapter", folder)
    if damage == "truncated":
        content = (folder / "adapter.safetensors").read_bytes()
        (folder / "adapter.safetensors").write_bytes(content[: len(content) // 2])
    elif damage == "no base":
        config = yaml.safe_load((folder / "config.yaml").read_text())
        del config["adapter"]["base"]["sha256"]
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    else:
        (folder / "adapter.safetensors").unlink()
    with pytest.raises(InputError, match=words):
        load_adapter(folder)


def test_a_scale_that_is_no_number_is_refused(source: Path, whole_run: Path) -> None:
    with pytest.raises(InputError, match="scale: got nan"):
        merge(source, load_adapter(whole_run), float("nan"))
