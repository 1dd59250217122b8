"""Which sampler a user means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from audiodiff.diffusion.samplers import DDIM, Ancestral
from audiodiff.diffusion.times import BetaGrid, KarrasGrid, TableGrid, TimesGrid, UniformGrid
from audiodiff.errors import InputError
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler, describe
from tests.tiny import recipe_from


@pytest.fixture(scope="module")
def recipe() -> dict:
    return recipe_from("experiment=ljspeech_diffwave", "size=tiny")


def test_nothing_asked_gives_the_sampler_of_the_recipe(recipe: dict) -> None:
    sampler = choose_sampler(recipe, SamplerChoice())
    assert isinstance(sampler.step, Ancestral)
    assert isinstance(sampler.grid, BetaGrid)
    assert len(sampler.grid.betas) == 6


def test_steps_and_eta_change_ddim(recipe: dict) -> None:
    sampler = choose_sampler(recipe, SamplerChoice("ddim", steps=7, eta=0.5))
    assert sampler.step == DDIM(eta=0.5)
    assert sampler.grid == UniformGrid(7)


def test_steps_for_ancestral_leave_its_whole_table(recipe: dict) -> None:
    assert choose_sampler(recipe, SamplerChoice("ancestral")).grid == TableGrid()
    assert choose_sampler(recipe, SamplerChoice("ancestral", steps=5)).grid == UniformGrid(5)


def test_published_schedule_is_a_grid_by_name(recipe: dict) -> None:
    sampler = choose_sampler(recipe, SamplerChoice("ddim", grid="fastdiff-4"))
    assert isinstance(sampler.grid, BetaGrid)
    assert len(sampler.grid.betas) == 4


def test_steps_alone_mean_the_grid_that_a_search_found_with_the_step_it_was_found_for(recipe: dict) -> None:
    step = {"_target_": "audiodiff.diffusion.samplers.DDIM", "eta": 0.5}
    node = {"_target_": "audiodiff.diffusion.samplers.Sampler", "step": step}
    searched = recipe | {"searched_grids": {"2": {"times": [0.9, 0.2], "sampler": node}}}
    sampler = choose_sampler(searched, SamplerChoice(steps=2))
    assert sampler.step == DDIM(eta=0.5)
    assert sampler.grid == TimesGrid([0.9, 0.2])
    assert choose_sampler(searched, SamplerChoice(steps=2, eta=0.0)).step == DDIM()
    assert choose_sampler(searched, SamplerChoice("ddim", steps=2)).grid == UniformGrid(2)
    assert choose_sampler(searched, SamplerChoice(steps=2, grid="karras")).grid == KarrasGrid(2)
    assert isinstance(choose_sampler(searched, SamplerChoice()).grid, BetaGrid)


def test_a_default_of_chosen_times_keeps_its_number_of_steps_on_another_grid(recipe: dict) -> None:
    grid = {"_target_": "audiodiff.diffusion.times.TimesGrid", "times": [1.0, 0.5, 0.1, 0.0]}
    chosen = recipe | {"sampler": recipe["sampler"] | {"grid": grid}}
    assert choose_sampler(chosen, SamplerChoice(grid="karras")).grid == KarrasGrid(3)
    assert choose_sampler(chosen, SamplerChoice(steps=5)).grid == UniformGrid(5)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (SamplerChoice("ddimm"), r"choose one of ancestral, .*, ddim, .*, unipc"),
        (SamplerChoice("ddim", grid="karass"), r"choose one of uniform, .*log-snr, .*table, diffwave-base-6"),
        (SamplerChoice("ancestral", eta=0.3), "eta"),
        (SamplerChoice("ddim", eta=1.5), "from 0"),
        (SamplerChoice(grid="diffwave-base-6", steps=9), "own number of steps"),
        (SamplerChoice("ddim", grid="table", steps=9), "own number of steps"),
    ],
)
def test_what_cannot_be_is_refused_with_the_choices(
    recipe: dict, choice: SamplerChoice, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        choose_sampler(recipe, choice)


def test_zero_steps_are_refused(recipe: dict) -> None:
    sampler = choose_sampler(recipe, SamplerChoice("ddim", steps=0))
    with pytest.raises(InputError, match="at least 1"):
        sampler.grid(None)


def test_a_record_names_step_and_grid_and_only_what_differs_from_the_default(recipe: dict) -> None:
    sampler = choose_sampler(recipe, SamplerChoice("dpmpp_2m", steps=7))
    told = describe(sampler)
    assert set(told) == {"step", "grid"}
    assert told["step"] == "CleanMultistep(rule=dpmpp_midpoint, order=2, eta=0.0)"
    assert "steps=7" in told["grid"]
    assert describe(replace(sampler, temperature=1.5))["temperature"] == "1.5"
