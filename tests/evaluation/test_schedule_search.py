"""The search for a grid of N steps: its starts, its scores, its memory, and what it leaves in the model folder."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler
from audiodiff.diffusion.schedules import linear, zero_terminal_snr
from audiodiff.diffusion.times import FAST_SCHEDULES, TimesGrid, UniformGrid
from audiodiff.errors import InputError
from audiodiff.evaluation.metrics.lsd import lsd
from audiodiff.evaluation.schedule_record import FOLDER, FOUND, PICTURE, ScoreMemory, with_section
from audiodiff.evaluation.schedule_scores import (
    REFERENCE_STEPS,
    Draws,
    Scale,
    Score,
    make_score,
    read_clips,
)
from audiodiff.evaluation.schedule_search import (
    FoundSchedule,
    SearchRequest,
    save_schedule,
    search_schedule,
    start_grids,
)
from audiodiff.model import CARD, CONFIG, FACTS, AudioDiffusion, load
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler
from tests.tiny import save_random_model

TABLE = linear(1e-4, 0.02, 1000)
LOWER, HIGHER = Scale("lsd", "LSD", "dB", "lower"), Scale("stoi", "STOI", "", "higher")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("m") / "sounds", "experiment=mini", "size=tiny")


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("m") / "vocoder", "experiment=fsdd_vocoder", "size=tiny")


@pytest.fixture
def copied(sounds: Path, tmp_path: Path) -> Path:
    """A model folder of its own for what a test writes."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in sounds.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def request(data: Path, /, **changes: object) -> SearchRequest:
    return replace(SearchRequest(3, data, clips=2, test_clips=3, seconds=0.2, rounds=1), **changes)


def searched(folder: Path, asked: SearchRequest, told: list[str] | None = None) -> FoundSchedule:
    return search_schedule(load(folder), folder, asked, (told if told is not None else []).append)


def score_of(model: AudioDiffusion, data: Path, name: str | None = None, draws: Draws = Draws()) -> Score:  # noqa: B008
    return make_score(name, model, read_clips(data / "dev.jsonl.gz", model, 3, 0.3, 2, seed=0), draws)


@pytest.mark.parametrize("steps", [1, 2, 4, 6, 7, 12])
def test_starts_are_falling_grids_of_the_wanted_length_with_the_standard_ones_among_them(steps: int) -> None:
    starts = start_grids(Sampler(DDIM(), UniformGrid(50)), TABLE, {}, steps)
    assert {
        "uniform",
        "linspace",
        "log-snr",
        "karras",
    } <= starts.keys() or steps < 3  # where they are the same
    assert len(set(starts.values())) == len(starts)
    for times in starts.values():
        assert len(times) == steps
        assert all(a > b for a, b in zip((1.1, *times), (*times, 0.0), strict=True))


def test_starts_hold_every_published_schedule_of_that_length_that_fits() -> None:
    starts = start_grids(Sampler(DDIM(), UniformGrid(50)), TABLE, {}, 6)
    assert starts.keys() >= {name for name, betas in FAST_SCHEDULES.items() if len(betas) == 6}


def test_a_schedule_without_signal_at_its_end_has_no_grid_in_log_snr() -> None:
    schedule = zero_terminal_snr(TABLE)
    starts = start_grids(Sampler(DDIM(), UniformGrid(50)), schedule, {}, 6)
    assert "uniform" in starts
    assert not {"log-snr", "karras"} & starts.keys()


def test_starts_hold_the_grid_of_the_sampler_and_the_one_found_before() -> None:
    recipe = {"searched_grids": {"2": {"times": [0.8, 0.3]}}}
    starts = start_grids(Sampler(DDIM(), TimesGrid((0.9, 0.4))), TABLE, recipe, 2)
    assert starts["the sampler's own"] == (0.9, 0.4)
    assert starts["found before"] == (0.8, 0.3)


def test_a_missing_value_costs_more_than_any_other_and_higher_is_better_where_the_scale_says_so() -> None:
    assert LOWER.cost([1.0, math.nan]) == HIGHER.cost([math.nan]) == math.inf
    assert LOWER.cost([1.0, 3.0]) == 2.0
    assert HIGHER.cost([0.9]) < HIGHER.cost([0.8])
    assert HIGHER.mean(HIGHER.cost([0.9])) == 0.9


@pytest.mark.parametrize("kind", ["sounds", "vocoder"])
def test_trajectory_error_of_the_reference_itself_is_zero(
    kind: str, mini: Path, request: pytest.FixtureRequest
) -> None:
    score = score_of(load(request.getfixturevalue(kind)), mini, "trajectory")
    assert score(Sampler(DDIM(), UniformGrid(REFERENCE_STEPS))) == [0.0, 0.0, 0.0]
    assert min(score(Sampler(DDIM(), UniformGrid(2)))) > 0


def test_metric_score_is_the_metric_of_each_clip_averaged_over_the_draws(vocoder: Path, mini: Path) -> None:
    model, sampler = load(vocoder), Sampler(Ancestral(), UniformGrid(2))
    score = score_of(model, mini, "lsd", Draws(5, 2))
    batch, items = score.clips.numbered()[0]
    made = [model.synthesize(batch, sampler, seed, items)[1] for seed in (5, 6)]
    clip = batch.waveform[1, 0, : int(batch.lengths[1])].numpy()
    expected = sum(lsd(clip, waveform[0].numpy(), 8000) for waveform in made) / 2
    assert score(sampler)[1] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["lsd", "trajectory"])
def test_scores_do_not_depend_on_the_batch(vocoder: Path, mini: Path, name: str) -> None:
    model = load(vocoder)
    values = []
    for size in (1, 3):
        clips = read_clips(mini / "dev.jsonl.gz", model, 3, 0.3, size, seed=0)
        values.append(make_score(name, model, clips, Draws())(Sampler(DDIM(), UniformGrid(2))))
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_the_default_score_is_a_metric_for_a_mel_and_the_trajectory_without(
    sounds: Path, vocoder: Path, mini: Path
) -> None:
    assert score_of(load(vocoder), mini).scale.key == "lsd"
    assert score_of(load(sounds), mini).scale.key == "trajectory"


def test_a_grid_whose_samples_are_not_finite_has_no_value_and_is_worst(vocoder: Path, mini: Path) -> None:
    model = load(vocoder)
    with torch.no_grad():
        next(model.denoiser.parameters()).fill_(math.nan)
    for name in ("lsd", "trajectory"):
        score = score_of(model, mini, name)
        assert score.scale.cost(score(Sampler(DDIM(), UniformGrid(2)))) == math.inf


@pytest.mark.parametrize(
    ("kind", "score", "words"),
    [
        ("sounds", "lsd", "hears no mel"),
        ("sounds", "beauty", "trajectory, estoi, f0_correlation, f0_rmse"),
        ("vocoder", "pesq_nb", "none of the 3 clips has a value"),
    ],
)
def test_a_score_that_cannot_be_is_refused(
    kind: str, score: str, words: str, mini: Path, request: pytest.FixtureRequest
) -> None:
    model = load(request.getfixturevalue(kind))
    clips = read_clips(mini / "dev.jsonl.gz", model, 3, 0.05, 2, seed=0)
    with pytest.raises(InputError, match=words):
        make_score(score, model, clips, Draws())


def test_the_trajectory_of_a_step_that_draws_noise_is_refused(sounds: Path, mini: Path) -> None:
    with pytest.raises(InputError, match="Ancestral draws new noise"):
        score_of(load(sounds), mini, "trajectory")(Sampler(Ancestral(), UniformGrid(3)))


def test_what_is_found_loses_to_no_start_on_the_clips_of_the_search_and_what_is_kept_to_none_held_out(
    copied: Path, mini: Path
) -> None:
    found = searched(copied, request(mini))
    assert found.grids[FOUND].search == min(grid.search for grid in found.grids.values())
    assert found.grids[found.origin].test == min(grid.test for grid in found.grids.values())
    gain, low, high = found.gain
    assert gain == pytest.approx(found.grids[found.rival].test - found.grids[FOUND].test)
    assert low <= gain <= high


def test_a_search_that_was_interrupted_ends_as_if_it_had_not_been(copied: Path, mini: Path) -> None:
    whole = searched(copied, request(mini))
    file = copied / FOLDER / "dev.json"
    content = json.loads(file.read_text())
    all_scores = content["scores"]
    file.write_text(json.dumps(content | {"scores": all_scores[:4]}))
    (copied / FOLDER / "test.json").unlink()
    told: list[str] = []
    again = searched(copied, request(mini), told)
    assert len(told) == 1
    assert "goes on after 4 scores" in told[0]
    assert again.grids == whole.grids
    assert [score["times"] for score in json.loads(file.read_text())["scores"]] == [
        score["times"] for score in all_scores
    ]


def test_a_finished_search_measures_nothing_again(copied: Path, mini: Path) -> None:
    first = searched(copied, request(mini))
    second = searched(copied, request(mini))
    assert second.grids == first.grids
    assert second.seconds == pytest.approx(first.seconds, abs=0.1)
    assert second.scored == first.scored


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": 1}, "seed"),
        ({"clips": 1}, "clips"),
        ({"sampler": "dpmpp_2m"}, "sampler"),
        ({"draws": 2}, "draws"),
    ],
)
def test_other_settings_start_anew_and_say_so(copied: Path, mini: Path, change: dict, word: str) -> None:
    searched(copied, request(mini))
    told: list[str] = []
    searched(copied, request(mini, **change), told)
    assert any(word in line and "starts anew" in line for line in told)


def test_a_damaged_memory_is_named_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    path.write_text('{"settings": {}, "scores": [')
    assert "damaged" in ScoreMemory(path, {"seed": 1}).note
    memory = ScoreMemory(path, {"seed": 1})
    memory.add((1.0, 0.5), [2.0, math.nan], 0.25)
    again = ScoreMemory(path, {"seed": 1})
    assert again.values.keys() == {(1.0, 0.5)}
    assert again.values[1.0, 0.5][0] == 2.0
    assert math.isnan(again.values[1.0, 0.5][1])
    assert again.seconds == 0.25


def test_the_model_folder_remembers_the_grid_and_samples_on_it_from_then_on(copied: Path, mini: Path) -> None:
    before = {name: (copied / name).read_bytes() for name in (FACTS, "model.safetensors")}
    model, asked = load(copied), request(mini)
    found = searched(copied, asked)
    save_schedule(model, copied, asked, found, "a machine", keep_default=False)
    recipe = load(copied).recipe
    record = recipe["searched_grids"]["3"]
    assert record["hardware"] == "a machine"
    assert record["score"] == "trajectory"
    assert record["value"] == pytest.approx(found.grids[found.origin].test, abs=1e-6)
    assert record["compared"].keys() == found.grids.keys()
    for choice in (SamplerChoice(), SamplerChoice(steps=3)):
        sampler = choose_sampler(recipe, choice)
        assert sampler.step == DDIM()
        assert tuple(sampler.grid.times) == found.times
    assert choose_sampler(recipe, SamplerChoice(steps=5)).grid == UniformGrid(5)
    assert {name: (copied / name).read_bytes() for name in before} == before
    assert (copied / PICTURE).read_bytes()[:4] == b"\x89PNG"


def test_a_second_search_keeps_the_first_and_the_card_has_one_section(copied: Path, mini: Path) -> None:
    model = load(copied)
    default = model.recipe["sampler"]
    for asked in (request(mini), request(mini, steps=2, sampler="heun"), request(mini)):
        save_schedule(model, copied, asked, searched(copied, asked), "a machine", keep_default=True)
    recipe = yaml.safe_load((copied / CONFIG).read_text())
    assert list(recipe["searched_grids"]) == ["2", "3"]
    assert recipe["sampler"] == default
    assert type(choose_sampler(recipe, SamplerChoice(steps=2)).step).__name__ == "Heun"
    card = (copied / CARD).read_text()
    assert card.startswith("# test\n\n## Sampling schedule\n")
    assert card.count("## Sampling schedule") == 1
    assert "| 2 | Heun |" in card
    assert "| 3 | DDIM |" in card


def test_the_section_of_the_card_is_replaced_where_other_sections_follow() -> None:
    record = {
        "times": [1.0], "sampler": {"step": {"_target_": "a.DDIM"}}, "unit": "dB", "score": "lsd", "better": "lower",
        "rival": "uniform", "origin": FOUND, "test_clips": 3,
        "compared": {"uniform": {"test": 2.0}, FOUND: {"test": 1.0}},
    }  # fmt: skip
    once = with_section("# model\n\ntext\n\n## Licence\n\nfree\n", {"1": record})
    own, _, rest = once.partition("## Licence")
    moved = f"{with_section('# model', {'9': record})}\n## Licence{rest.split('## Sampling')[0]}"
    assert own == "# model\n\ntext\n\n"
    twice = with_section(moved, {"1": record})
    assert twice.count("## Sampling schedule") == 1
    assert "## Licence\n\nfree" in twice
    assert "| 9 |" not in twice
    assert "| 1 | DDIM | lsd, lower is better | 2 dB (uniform) | 1 dB | 3 |" in twice


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "--steps: got 0"),
        ({"steps": 1001}, "table has 1000 rows"),
        ({"steps": 1, "sampler": "dpmpp_2m"}, "CleanMultistep, which needs 2 or more"),
        ({"clips": 0}, "--clips"),
        ({"test_clips": 0}, "--test-clips"),
        ({"rounds": 0}, "--rounds"),
        ({"draws": 0}, "--draws"),
        ({"batch": 0}, "--batch"),
        ({"seed": -1}, "--seed"),
        ({"seconds": 0.0}, "--seconds"),
        ({"split": "test"}, "--split test: choose train or dev"),
        ({"split": "valid"}, "--split valid"),
        ({"sampler": "dpm"}, "ancestral, "),
        ({"data": Path("nowhere")}, "no such file"),
    ],
)
def test_impossible_searches_are_refused_and_leave_the_folder_alone(
    copied: Path, mini: Path, change: dict, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        searched(copied, request(mini, **change))
    assert not (copied / FOLDER).exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_search(copied: Path, mini: Path) -> None:
    (copied / FOLDER).write_text("a file where the scores would go")
    with pytest.raises(InputError, match="cannot be written"):
        searched(copied, request(mini))
