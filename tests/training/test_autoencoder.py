"""Training an autoencoder, and a model of its latents: exact resume, self-contained folders, frozen weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from rich.console import Console
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from audiodiff.audio.latent_representation import LatentRepresentation
from audiodiff.audio.mel import LogMel
from audiodiff.cli.app import app
from audiodiff.cli.train_autoencoder import autoencoder_recipe_of
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.model import load
from audiodiff.recipes_folder import recipes_folder
from audiodiff.training import autoencoder as training
from audiodiff.training.autoencoder import train_autoencoder, validation_parts
from audiodiff.training.loop import train
from audiodiff.training.reconstruction import ReconstructionLoss
from audiodiff.training.run import open_run
from audiodiff.training.saved_autoencoder import load_autoencoder
from audiodiff.training.updates import one_update, training_batches
from audiodiff.types import Batch
from tests.tiny import recipe_from

QUIET = Console(quiet=True)
SHORT = (
    "data=mini", "size=tiny", "data.segment_seconds=0.2", "training.updates=4", "training.checkpoint_every=2",
    "training.global_batch_seconds=0.8", "training.warmup_updates=2", "training.validate_every=4",
    "training.validation_clips=2", "training.sample_clips=1", "training.log_every=1",
)  # fmt: skip
LATENT = (
    "experiment=mini", "model=latent", "size=tiny", "conditioner=unconditional", "training.updates=2",
    "training.global_batch_seconds=1.2", "training.checkpoint_every=1", "training.validation_clips=2",
    "training.statistics_clips=8", "training.sample_every=100", "training.warmup_updates=1",
)  # fmt: skip


def short_recipe(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(recipes_folder()), version_base="1.3"):
        return autoencoder_recipe_of(compose("train_autoencoder", [*SHORT, *overrides]))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def trained(mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder")
    train_autoencoder(short_recipe(), mini_corpus, folder, "test", QUIET)
    return folder


@pytest.fixture(scope="module")
def latent_model(trained: Path, mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latent")
    train(recipe_from(*LATENT, f"autoencoder={trained}"), mini_corpus, folder, "test", QUIET)
    return folder


def test_a_run_that_stopped_goes_on_to_the_same_weights_bit_for_bit(
    trained: Path, mini_corpus: Path, tmp_path: Path
) -> None:
    run = training.open_run(short_recipe(), mini_corpus, tmp_path, "test", QUIET)
    batches = training.training_batches(run)
    for _ in range(2):
        training.one_update(run, batches)
    training.save_checkpoint(run)
    train_autoencoder(short_recipe(), mini_corpus, tmp_path, "test", QUIET)
    ours, theirs = weights(tmp_path / "model"), weights(trained / "model")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_passes_do_not_change_what_an_update_learns(mini_corpus: Path, tmp_path: Path) -> None:
    gradients = []
    for number, limit in enumerate(("null", "0.4")):
        recipe = short_recipe(f"training.pass_seconds={limit}")
        run = training.open_run(recipe, mini_corpus, tmp_path / str(number), "test", QUIET)
        batches = training.training_batches(run)
        for part in range(run.batching.passes):
            training.one_pass(run, batches, part)
        assert run.batching.passes == number + 1
        gradients.append([weight.grad for weight in run.step.parameters()])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-5)


def test_training_learns(mini_corpus: Path, tmp_path: Path) -> None:
    recipe = short_recipe("training.updates=60", "optimizer.lr=0.003", "training.ema_decay=0.5")
    run = training.open_run(recipe, mini_corpus, tmp_path, "test", QUIET)
    before = sum(validation_parts(run).values())
    batches = training.training_batches(run)
    for _ in range(60):
        training.one_update(run, batches)
    assert sum(validation_parts(run).values()) < 0.8 * before


def test_a_run_is_not_resumed_as_another(trained: Path, mini_corpus: Path) -> None:
    for override, words in (
        ("compression_sizes.tiny.features=3", "another autoencoder"),
        ("loss.mel_share=2", "another loss"),
        ("training.updates=2", "4 updates already"),
    ):
        with pytest.raises(InputError, match=words):
            train_autoencoder(short_recipe(override), mini_corpus, trained, "test", QUIET)


def test_the_folder_holds_no_pickle_and_builds_the_autoencoder_again(trained: Path) -> None:
    folder = trained / "model"
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors", "config.yaml", "README.md", "training.json",
    }  # fmt: skip
    autoencoder: Any = load_autoencoder(trained)
    waveform = torch.zeros(1, 1, 500)
    assert autoencoder.decode(autoencoder.encode(waveform)).shape == (1, 1, 512)
    assert not any(weight.requires_grad for weight in autoencoder.parameters())
    facts = json.loads((folder / "training.json").read_text())
    assert facts["updates"] == 4
    assert facts["validation_loss"] > 0


def test_a_folder_that_asks_for_other_code_is_refused(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained / "model", tmp_path / "model")
    recipe = yaml.safe_load((folder / "config.yaml").read_text())
    recipe["autoencoder"] = {"_target_": "os.mkdir", "path": str(tmp_path / "executed")}
    (folder / "config.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(InputError, match=r"_target_ 'os\.mkdir' is refused"):
        load_autoencoder(folder)
    assert not (tmp_path / "executed").exists()


def test_a_model_of_latents_is_saved_with_its_autoencoder_and_loads_without_its_folder(
    latent_model: Path, trained: Path
) -> None:
    model = load(latent_model)
    assert isinstance(model.representation, LatentRepresentation)
    assert model.recipe["autoencoder"] is None
    saved = weights(trained / "model")
    for name, weight in model.representation.autoencoder.state_dict().items():
        assert torch.equal(weight, saved[name]), name
    assert float(model.representation.std.sub(1).abs().min()) > 0
    facts = json.loads((latent_model / "model" / "training.json").read_text())
    assert facts["autoencoder"] == trained.name
    frozen = sum(weight.numel() for weight in model.representation.autoencoder.parameters())
    assert facts["trained_parameters"] == facts["parameters"] - frozen
    made = model.synthesize(Batch(None, torch.tensor([3000, 100])), Sampler(DDIM(), UniformGrid(2)), seed=0)
    assert [tuple(each.shape) for each in made] == [(1, 3000), (1, 100)]


def test_optimizer_and_average_leave_the_autoencoder_as_it_is(
    trained: Path, mini_corpus: Path, tmp_path: Path
) -> None:
    run = open_run(recipe_from(*LATENT, f"autoencoder={trained}"), mini_corpus, tmp_path, "test", QUIET)
    frozen = {id(weight) for weight in run.model.representation.autoencoder.parameters()}  # type: ignore[attr-defined]
    assert not frozen & {id(weight) for group in run.optimizer.param_groups for weight in group["params"]}
    before, batches = weights(trained / "model"), training_batches(run)
    for _ in range(2):
        one_update(run, batches)
    for model in (run.model, run.averaged_model):
        kept = model.representation.autoencoder.state_dict()  # type: ignore[attr-defined]
        assert all(torch.equal(kept[name], before[name]) for name in before)


def test_latents_have_mean_zero_and_unit_deviation_after_the_statistics(latent_model: Path) -> None:
    model = load(latent_model)
    measured = json.loads((latent_model / "statistics.json").read_text())
    torch.testing.assert_close(model.representation.mean, torch.tensor(measured["latent_mean"]))  # type: ignore[attr-defined]
    torch.testing.assert_close(model.representation.std, torch.tensor(measured["std"]))


def test_a_model_of_latents_serves_as_an_autoencoder_and_starts_another(
    latent_model: Path, trained: Path, mini_corpus: Path, tmp_path: Path
) -> None:
    recipe = recipe_from(*LATENT, f"autoencoder={latent_model}", f"init={latent_model}")
    run = open_run(recipe, mini_corpus, tmp_path / "same", "test", QUIET)
    kept = run.model.representation.autoencoder.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(kept[name], weight) for name, weight in weights(trained / "model").items())
    other = shutil.copytree(trained / "model", tmp_path / "other")
    changed = {name: weight + 1 for name, weight in weights(other).items()}
    save_file(changed, other / "model.safetensors")
    recipe = recipe_from(*LATENT, f"autoencoder={other}", f"init={latent_model}")
    with pytest.raises(InputError, match="diffuses the latents of another autoencoder"):
        open_run(recipe, mini_corpus, tmp_path / "differing", "test", QUIET)


def test_an_autoencoder_that_is_missing_or_of_no_use_is_named(
    trained: Path, mini_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="name its folder with autoencoder=FOLDER"):
        open_run(recipe_from(*LATENT), mini_corpus, tmp_path / "a", "test", QUIET)
    waveforms = [word for word in LATENT if not word.startswith("model=")]
    with pytest.raises(InputError, match="choose model=latent"):
        open_run(
            recipe_from(*waveforms, f"autoencoder={trained}"), mini_corpus, tmp_path / "b", "test", QUIET
        )
    with pytest.raises(InputError, match="does not exist"):
        recipe_from(*LATENT, f"autoencoder={tmp_path / 'nothing'}")


def test_info_tells_the_frozen_part(latent_model: Path) -> None:
    result = CliRunner().invoke(
        app, ["info", str(latent_model)], env={"COLUMNS": "500"}, catch_exceptions=False
    )
    assert (
        "ConvolutionalAutoencoder, 4 numbers every 64 samples, frozen: 0.00 M of the parameters"
        in result.output
    )


def loss_of(**shares: float) -> ReconstructionLoss:
    mel = LogMel(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20)
    equal = {"mel_share": 1.0, "waveform_share": 1.0, "divergence_share": 1.0} | shares
    return ReconstructionLoss(mel, [[256, 64, 256]], 1e-2, **equal)


def test_a_perfect_reconstruction_with_a_unit_posterior_costs_nothing() -> None:
    waveform = torch.randn(2, 2, 1000, generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(2, 3, 10)
    parts = loss_of()(waveform, waveform, torch.tensor([1000, 600]), zeros, zeros + 1)
    assert all(float(value.abs().max()) < 1e-6 for value in parts.values())


def test_the_divergence_is_that_of_torch_distributions() -> None:
    draw = torch.Generator().manual_seed(0)
    mean, std = torch.randn(2, 3, 5, generator=draw), torch.rand(2, 3, 5, generator=draw) + 0.1
    waveform = torch.zeros(2, 1, 500)
    parts = loss_of()(waveform, waveform, torch.tensor([500, 500]), mean, std)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, std), normal(0.0, 1.0)).flatten(1).mean(1)
    torch.testing.assert_close(parts["divergence"], expected)


def test_what_lies_beyond_an_item_does_not_count() -> None:
    draw = torch.Generator().manual_seed(0)
    clean, made = torch.randn(2, 1, 1, 1000, generator=draw)
    zeros, lengths = torch.zeros(1, 3, 10), torch.tensor([600])
    other = made.clone()
    other[..., 600:] += 5
    first, second = (loss_of()(each, clean, lengths, zeros, zeros + 1) for each in (made, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_mistake_in_the_overrides_is_one_line() -> None:
    result = CliRunner().invoke(app, ["train-autoencoder", "data=mini", "training.updats=3"])
    assert result.exit_code != 0
    assert isinstance(result.exception, InputError)
    assert "training.updats" in str(result.exception)
