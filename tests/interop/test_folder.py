"""A folder made of a foreign checkpoint is a model folder like any other: it loads, tells, sounds and trains on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from audiodiff.cli.train import recipe_of
from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.prior import MelEnergyPrior
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.instantiation import instantiate
from audiodiff.interop import gradtts
from audiodiff.interop.folder import Imported, import_checkpoint
from audiodiff.model import build, load
from audiodiff.recipes_folder import recipes_folder
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler
from audiodiff.synthesis.vocoder import Vocoder
from audiodiff.training.initialization import initialize
from tests.interop import foreign_files
from tests.interop.foreign_files import WRITERS


@pytest.fixture(scope="module", params=list(WRITERS))
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    fixtures: Path = request.getfixturevalue("fixtures_dir")
    folder = tmp_path_factory.mktemp("imported")
    project, write = WRITERS[request.param]
    file, options = write(folder, fixtures)
    return import_checkpoint(project, file, folder / "model", options)


def test_folder_holds_the_weights_that_the_importer_found(imported: Imported) -> None:
    model = load(imported.folder)
    network = imported.foreign.network.state_dict()
    loaded = model.denoiser.network.state_dict()  # type: ignore[attr-defined]
    assert loaded.keys() == network.keys()
    assert all(torch.equal(loaded[key], value) for key, value in network.items())
    assert imported.facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_recipe_says_the_signal_contract(imported: Imported) -> None:
    model = load(imported.folder)
    data = model.recipe["data"]
    assert data["sample_rate"] == model.sample_rate == imported.foreign.sample_rate
    assert data["channels"] == model.representation.channels
    assert {name: tuple(values) for name, values in data["labels"].items()} == model.labels
    for part in model.modules():
        if isinstance(part, Mel):
            assert part.log_mel.difference(instantiate(model.recipe["features"])) == []


def test_energy_of_the_quietest_frame_is_saved_with_the_weights(imported: Imported) -> None:
    ours = [part.energy_min for part in load(imported.folder).modules() if isinstance(part, MelEnergyPrior)]
    theirs = [
        part.energy_min for part in imported.foreign.conditioner.modules() if hasattr(part, "energy_min")
    ]
    assert ours == theirs


def test_record_says_where_the_model_is_from(imported: Imported) -> None:
    facts = json.loads((imported.folder / "training.json").read_text())
    assert len(facts["sha256"]) == 64
    assert facts["project"] == imported.facts["project"]
    assert facts["licence"]
    card = (imported.folder / "README.md").read_text()
    assert facts["sha256"] in card
    assert facts["licence"] in card
    assert all(phrase in card for phrase in facts["unknown"])


def test_saved_sampler_runs_and_takes_another_number_of_steps(imported: Imported) -> None:
    recipe = load(imported.folder).recipe
    schedule = instantiate(recipe["schedule"])
    assert len(choose_sampler(recipe, SamplerChoice()).times(schedule)) > 4
    assert choose_sampler(recipe, SamplerChoice(steps=4)).grid == UniformGrid(4)


def test_model_that_hears_a_mel_is_a_vocoder_and_no_other_is(imported: Imported) -> None:
    if not any(isinstance(part, Mel) for part in load(imported.folder).modules()):
        with pytest.raises(InputError, match="not conditioned on a mel"):
            Vocoder.load(imported.folder)
        return
    vocoder = Vocoder.load(imported.folder)
    noise = torch.randn(1, 2048, generator=torch.Generator().manual_seed(0)) / 8
    sampler = choose_sampler(vocoder.model.recipe, SamplerChoice(steps=2))
    waveform = Vocoder(vocoder.model, sampler)(vocoder.log_mel(noise), [2048])
    assert waveform.shape == (1, 2048)
    assert bool(waveform.isfinite().all())
    assert vocoder.mel_iterations == 0


def test_training_from_the_folder_takes_every_weight(imported: Imported) -> None:
    overrides = [
        f"experiment={imported.facts['project']}",
        "data=ljspeech",
        f"data.sample_rate={imported.foreign.sample_rate}",
        f"data.channels={imported.foreign.channels}",
        f"hydra.searchpath=[file://{imported.folder}]",  # what --config-dir does
    ]
    with initialize_config_dir(str(recipes_folder()), version_base="1.3"):
        recipe = recipe_of(compose("train", overrides))
    assert recipe["model"] == load(imported.folder).recipe["model"]
    model = build(recipe)
    taken = initialize(model, imported.folder)
    assert (taken.new, taken.left) == ((), ())
    ours, theirs = model.state_dict(), load(imported.folder).state_dict()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    for group in ("objective", "times"):
        instantiate(recipe[group])


def test_gradtts_folder_is_the_model_that_its_importer_builds(fixtures_dir: Path, tmp_path: Path) -> None:
    file, options = foreign_files.gradtts(tmp_path, fixtures_dir)
    import_checkpoint("gradtts", file, tmp_path / "model", options)
    ours, theirs = load(tmp_path / "model"), gradtts.load(file)
    assert ours.recipe["model"] == theirs.recipe["model"]
    expected = theirs.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())
