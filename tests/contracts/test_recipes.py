"""Every recipe composes, builds at size=tiny, saves, loads, takes a training step and makes sound."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from audiodiff.cli.train import check_overrides
from audiodiff.diffusion.guidance import Guidance
from audiodiff.diffusion.samplers import Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.interval import label_values
from audiodiff.model import AudioDiffusion, Steering, build, instantiate, load
from audiodiff.recipes_folder import recipes_folder
from audiodiff.training.draws import NOISE, ItemNoise
from audiodiff.training.initialization import freeze, initialize
from audiodiff.training.optimization import build_optimizer
from audiodiff.training.updates import TrainingStep
from audiodiff.types import Batch
from tests.tiny import random_model, recipe_from

SECONDS = 0.1


def names(group: str) -> list[str]:
    found = sorted(file.stem for file in (recipes_folder() / group).glob("*.yaml"))
    assert found, f"no recipes in {group}/"
    return found


DISTILLED = "fsdd_digits_student"  # needs a teacher, see test_distillation_recipes
SPEAKERS = ["data.labels.speaker=[p225,p226]"]
TOLD = {
    "folder_sounds": ["data.labels.class=[kick,snare]"],  # what only the folder knows
    "vctk_tts": SPEAKERS,
    "libritts_tts": SPEAKERS,
}
EXPERIMENTS = [
    [f"experiment={name}", "size=tiny", *TOLD.get(name, [])]
    for name in names("experiment")
    if name != DISTILLED
]
# Parts are put together on the smallest corpus; its mel has a hop of 64 samples.
BASE = ["experiment=mini", "size=tiny", "features=mel_8k40"]
HOP = {name: ["upsample_factors=[8,8]"] for name in ("wavenet", "wavegrad")}
HOP["wavelet_wavenet"] = ["upsample_factors=[8,4]"]  # it runs at half the rate
TO_AUDIO = ("text_to_audio", "text_to_audio_and_labels")
TEXT = {name: ["text=graphemes"] for name in ("text", "text_and_labels", *TO_AUDIO)}
TEXT_MODELS = ("mel_unet", "mel_wavenet")  # a text has mean frames of a mel


def fits(model: str, conditioner: str) -> bool:
    if conditioner == "spectral_prior":
        return model == "convnext"  # it shapes the coefficients of an STFT
    if conditioner in TO_AUDIO:
        return model not in TEXT_MODELS
    return conditioner not in TEXT or model in TEXT_MODELS


MODELS = [
    [*BASE, f"model={model}", f"conditioner={conditioner}", *HOP.get(model, []), *TEXT.get(conditioner, [])]
    for model, conditioner in itertools.product(names("model"), names("conditioner"))
    if fits(model, conditioner)
]
# What a schedule asks for where no signal is left at t = 1, or the signal is not shrunk.
PREDICTIONS = {
    "karras": "edm", "flow": "flow", "cosine": "velocity", "sigmoid": "velocity", "diffwave_base_zero_snr": "velocity",
}  # fmt: skip
SCHEDULES = [
    [*BASE, f"schedule={name}", f"prediction={PREDICTIONS.get(name, 'epsilon')}"]
    for name in names("schedule")
]
PREDICTED = [[*BASE, f"prediction={name}"] for name in names("prediction")]
NEEDS = {
    "hybrid": ["prediction=learned_variance", "times=rows"],
    "mse_stft": ["model=wavenet", *HOP["wavenet"]],
}
OBJECTIVES = [
    [*BASE, f"objective={name}", *NEEDS.get(name, [])]
    for name in names("objective")
    if name not in ("progressive", "consistency")
]
TIMES = [[*BASE, f"times={name}"] for name in names("times")]


def composed(overrides: list[str]) -> dict[str, Any]:
    check_overrides(overrides)
    return recipe_from(*overrides)


def random_batch(recipe: dict[str, Any]) -> Batch:
    """Two items of different lengths with labels and, where it is told one, a text, as the recipe has them."""
    data = recipe["data"]
    longest = round(SECONDS * data["sample_rate"])
    lengths = torch.tensor([longest, 2 * longest // 3])
    generator = torch.Generator().manual_seed(0)
    waveform = torch.randn(2, data["channels"], longest, generator=generator) / 4
    waveform[1, :, lengths[1] :] = 0
    known = {name: label_values(name, node) for name, node in data["labels"].items()}
    labels = {name: (values[0], values[-1]) for name, values in known.items()}
    batch = Batch(waveform, lengths, labels, ids=("first", "last"))
    if recipe["text"] is None:
        return batch
    tokens = torch.randint(1, recipe["vocabulary"], (2, 5), generator=generator)
    return replace(batch, tokens=tokens, token_counts=torch.tensor([5, 3]))


def built(recipe: dict[str, Any]) -> AudioDiffusion:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(recipe)


def trained_losses(recipe: dict[str, Any], model: AudioDiffusion, updates: int) -> list[Tensor]:
    """Losses [B] of a few updates of the recipe's own objective and optimizer, with finite gradients."""
    step = TrainingStep(model, instantiate(recipe["objective"]))
    density = instantiate(recipe["times"])
    optimizer = build_optimizer(recipe["optimizer"], model, torch.device("cpu"))
    losses = []
    for _ in range(updates):
        generator = torch.Generator().manual_seed(7)
        t = density(2, model.denoiser.schedule, generator)
        noise = ItemNoise(7, NOISE, (0,), range(2), 1)
        with torch.random.fork_rng():
            torch.manual_seed(7)  # of dropout
            loss = step(random_batch(recipe), t, noise)
        losses.append(loss.detach())
        optimizer.zero_grad()
        loss.mean().backward()
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert bool(parameter.grad.isfinite().all()), name
        optimizer.step()
    return losses


def assert_trains_and_makes_sound(recipe: dict[str, Any]) -> None:
    model = built(recipe)
    losses = trained_losses(recipe, model, 4)
    assert losses[0].shape == (2,)
    assert bool(torch.stack(losses).isfinite().all())
    assert float(losses[-1].mean()) < float(losses[0].mean())  # same batch, times and noise each time
    sampler: Sampler = instantiate(recipe["sampler"])
    batch = random_batch(recipe)
    waveforms = model.eval().synthesize(
        batch, replace(sampler, grid=UniformGrid(2)), 0, steering=model.steering
    )
    lengths = batch.lengths.tolist()
    if recipe["text"] is not None:  # which tells how long it takes
        lengths = model.lengths(batch, model.condition(batch))
    for waveform, length in zip(waveforms, lengths, strict=True):
        assert waveform.shape == (recipe["data"]["channels"], length)
        assert bool(waveform.isfinite().all())
        assert float(waveform.abs().max()) > 0


@pytest.mark.parametrize("overrides", EXPERIMENTS, ids=lambda given: given[0])
def test_experiment_trains_and_makes_sound(overrides: list[str]) -> None:
    assert_trains_and_makes_sound(composed(overrides))


def last(overrides: list[str]) -> str:
    return " ".join(overrides[3:5])


@pytest.mark.parametrize("overrides", MODELS, ids=last)
def test_every_model_takes_every_conditioner(overrides: list[str]) -> None:
    assert_trains_and_makes_sound(composed(overrides))


@pytest.mark.parametrize("overrides", [*SCHEDULES, *PREDICTED, *OBJECTIVES, *TIMES], ids=last)
def test_every_schedule_prediction_objective_and_density_trains(overrides: list[str]) -> None:
    # Some of these losses are next to nothing at the start, where only small steps go down.
    assert_trains_and_makes_sound(composed([*overrides, "optimizer.lr=1e-5"]))


@pytest.mark.parametrize(("objective", "times"), [("progressive", "grid"), ("consistency", "grid_18")])
def test_distillation_recipes_train_a_student(tmp_path: Path, objective: str, times: str) -> None:
    recipe = composed(
        [*BASE, f"objective={objective}", f"times={times}", f"teacher={tmp_path}", "optimizer.lr=1e-7"]
    )
    teacher = random_model(composed([*BASE, "guidance=2.0"]))
    teacher.save(tmp_path / "model", teacher.recipe, {}, "")
    student = built(recipe)
    initialize(student, tmp_path)
    freeze(student, ["conditioner"])
    losses = trained_losses(recipe, student, 4)
    assert float(losses[-1].mean()) < float(losses[0].mean())
    for name, weight in student.conditioner.state_dict().items():
        assert torch.equal(weight, teacher.conditioner.state_dict()[name])


def test_distillation_without_a_teacher_is_refused() -> None:
    with pytest.raises(InputError, match="teacher=FOLDER"):
        instantiate(composed([f"experiment={DISTILLED}"])["objective"])


@pytest.mark.parametrize("name", names("sampler"))
def test_every_sampler_makes_sound(name: str) -> None:
    variance = "learned_variance" if "learned" in name else "epsilon"
    model = random_model(
        composed([*BASE, f"prediction={variance}", f"sampler={name}", "schedule=diffwave_base"])
    )
    sampler: Sampler = instantiate(model.recipe["sampler"])
    grid = UniformGrid(5) if name != "diffwave_fast" else sampler.grid
    scale = 0.5 if name == "cfgpp" else 1.5
    waveforms = model.synthesize(
        random_batch(model.recipe), replace(sampler, grid=grid), 0, steering=Steering(Guidance(scale))
    )
    assert all(bool(waveform.isfinite().all()) and float(waveform.abs().max()) > 0 for waveform in waveforms)


@pytest.mark.parametrize("overrides", EXPERIMENTS, ids=lambda given: given[0])
def test_experiment_is_rebuilt_from_what_it_saved(overrides: list[str], tmp_path: Path) -> None:
    recipe = composed(overrides)
    model = built(recipe)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    model.save(tmp_path / "model", recipe, {}, "")
    again = load(tmp_path)
    assert again.recipe == recipe
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", names("experiment"))
def test_experiment_says_its_own_name_and_composes_at_its_own_size(name: str) -> None:
    recipe = composed([f"experiment={name}"])
    assert recipe["experiment"] == name
    assert not {"data_dir", "out", "sizes"} & set(recipe), "paths and tables do not belong in a saved recipe"
    assert recipe["data"]["licence"]


@pytest.mark.parametrize("name", names("sampler"))
def test_sampler_recipe_gives_times_that_fall_to_zero(name: str) -> None:
    recipe = composed(["experiment=mini", "size=tiny", "schedule=diffwave_base", f"sampler={name}"])
    sampler: Sampler = instantiate(recipe["sampler"])
    times = sampler.grid(built(recipe).denoiser.schedule)
    assert float(times[-1]) == 0
    assert bool((times.diff() < 0).all())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=mini", "model.denoiser.network.widht=3"], r"full_key: model\.denoiser\.network\.widht"),
        (["experiment=mini", "training.updats=3"], r"full_key: training\.updats"),
        (["experiment=mini", "size=huge"], r"sizes\.huge\.width.* full_key: model\.denoiser\.network\.width"),
        (["experiment=mini", "conditioner=mel"], "'features' not found full_key: conditioner.log_mel"),
        (
            ["experiment=mini", "model=unet"],
            "Could not find 'model/unet' Available options in 'model': convnext",
        ),
        (["experiment=nothing"], "Could not find 'experiment/nothing' Available options"),
        ([], "You must specify 'experiment'"),
        (["experiment"], "missing EQUAL"),
    ],
)
def test_a_mistake_in_the_overrides_is_named_with_its_full_path(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_overrides(overrides)


def test_an_argument_that_a_part_does_not_have_is_named_with_its_full_path() -> None:
    recipe = composed(["experiment=mini", "size=tiny", "+model.denoiser.network.widht=3"])
    with pytest.raises(
        InputError, match=r"unexpected keyword argument 'widht'.* full_key: denoiser\.network"
    ):
        build(recipe)


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=fsdd_vocoder", "features=hifigan_22k80"],  # a mel of 22 kHz for audio of 8 kHz
        ["experiment=fsdd_vocoder", "model=wavenet"],  # a mel every 64 samples, upsampled by 256
        ["experiment=fsdd_vocoder", "frames={hop_length: 128, n_fft: 256}"],
    ],
    ids=" ".join,
)
def test_a_mel_that_does_not_fit_the_model_is_refused(overrides: list[str]) -> None:
    with pytest.raises(InputError, match="choose features, data and hop to match"):
        build(composed([*overrides, "size=tiny"]))


def leaves(node: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Returns every plain value of a nested mapping by its path."""
    if not isinstance(node, dict):
        return {path: node}
    return {key: value for name, child in node.items() for key, value in leaves(child, (*path, name)).items()}


@pytest.mark.parametrize("name", names("experiment"))
def test_what_an_experiment_says_is_what_is_composed(name: str) -> None:
    import yaml

    said = yaml.safe_load((recipes_folder() / "experiment" / f"{name}.yaml").read_text())
    composed = leaves(recipe_from(f"experiment={name}"))
    del said["defaults"]
    # A size is looked up while the recipe is read, and what it says stands in the network.
    chosen = said.pop("sizes", {}).get(said.get("size"), {})
    assert all(composed["model", "denoiser", "network", key] == value for key, value in chosen.items())
    for path, value in leaves(said).items():
        assert composed[path] == value, ".".join(path)
