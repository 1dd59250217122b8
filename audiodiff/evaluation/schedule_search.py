"""Finds the best N-step grid of times for a trained model, and proves it on clips that the search did not see.

The search starts from every grid of N steps that the field would use: the published fast schedules that fit the
model's noise schedule, the grids even in time, in log-SNR and in Karras' root, and the model's own. It improves the
best of them on clips of one split (`diffusion.search`), so there it loses to none. All are then compared on the test
split, and what was found is kept only if it beats the best of them there too.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from audiodiff.data.manifests import SPLITS
from audiodiff.diffusion.process import noise_ratio, time_of_ratio
from audiodiff.diffusion.samplers import Sampler
from audiodiff.diffusion.schedules import BetaTable, NoiseSchedule
from audiodiff.diffusion.search import CoordinateSearch, Times
from audiodiff.diffusion.times import (
    FAST_SCHEDULES,
    Grid,
    KarrasGrid,
    LinspaceGrid,
    LogSnrGrid,
    TimesGrid,
    UniformGrid,
    published_grid,
)
from audiodiff.errors import InputError
from audiodiff.evaluation.evaluate import summarize
from audiodiff.evaluation.schedule_record import FOLDER, FOUND, ScoreMemory, fingerprint, write_into_model
from audiodiff.evaluation.schedule_scores import Draws, Scale, Score, make_score, read_clips
from audiodiff.instantiation import instantiate
from audiodiff.model import AudioDiffusion, find_model
from audiodiff.progress import progress_bar
from audiodiff.synthesis.sampling import SamplerChoice, sampler_node

_MOST_LEVEL = (
    8.0  # log(sigma / alpha) beyond which moving a time changes nothing; t = 1 may lie infinitely far
)


@dataclass(frozen=True)
class SearchRequest:
    """What is searched, on what.

    Attributes:
        steps: moves of the sampler.
        data: prepared corpus.
        score: name of the score; None for the default of this kind of model.
        sampler: a name of recipes/sampler/ whose step is searched for; None for the model's own.
        split: the search sees clips of this split.
        clips: how many.
        test_clips: clips of the test split for the comparison.
        seconds: longest part of a clip.
        draws: draws of noise per clip.
        rounds: passes of the search over all times.
        seed: of clips and noise.
        batch: clips at a time; changes speed and memory alone.
    """

    steps: int
    data: Path
    score: str | None = None
    sampler: str | None = None
    split: str = "dev"
    clips: int = 16
    test_clips: int = 64
    seconds: float = 3.0
    draws: int = 1
    rounds: int = 3
    seed: int = 0
    batch: int = 16

    def __post_init__(self) -> None:
        for name in ("steps", "clips", "test_clips", "draws", "rounds", "batch"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag}: got {getattr(self, name)}, expected at least 1")
        if self.seed < 0:
            raise InputError(f"--seed: got {self.seed}, expected 0 or more")
        if not self.seconds > 0:
            raise InputError(f"--seconds: got {self.seconds}, expected more than 0")
        if self.split == "test" or self.split not in SPLITS:
            raise InputError(
                f"--split {self.split}: choose train or dev; the test split is for the comparison afterwards"
            )


@dataclass(frozen=True)
class GridScores:
    """One grid and what it is worth.

    Attributes:
        times: without the last 0.
        search: mean score on the clips of the search.
        test: mean score on the held-out clips.
    """

    times: Times
    search: float
    test: float


@dataclass(frozen=True)
class FoundSchedule:
    """The outcome of a search.

    Attributes:
        scale: what the scores mean.
        grids: by name, those that the search started from and "found".
        rival: name of the best grid on held-out clips besides "found".
        origin: name of the grid that is kept: "found", or the rival where that is better on held-out clips.
        gain: by how much "found" is better than the rival on held-out clips, with its 95 % bootstrap interval.
        seconds: time that the scores took, earlier runs of the same search included.
        clips: clips of the search and held-out clips.
        scored: grids that the search scored.
    """

    scale: Scale
    grids: Mapping[str, GridScores]
    rival: str
    origin: str
    gain: tuple[float, float, float]
    seconds: float
    clips: tuple[int, int]
    scored: int

    @property
    def times(self) -> Times:
        """Times of the grid that is kept."""
        return self.grids[self.origin].times


def search_schedule(
    model: AudioDiffusion, folder: Path, asked: SearchRequest, tell: Callable[[str], None]
) -> FoundSchedule:
    """Returns the best grid for a model; every score is remembered in the model folder, nothing else is written.

    Args:
        model: the model of that folder.
        folder: the model folder, or the run folder that holds it.
        asked: what is searched.
        tell: told one line when scores of an earlier search are used or cannot be.

    Raises:
        InputError: more steps than the model's table has rows, a score or sampler that the model does not have,
            clips that are missing or do not fit, a folder that cannot be written.
    """
    schedule = model.denoiser.schedule
    if isinstance(schedule, BetaTable) and asked.steps > schedule.steps:
        raise InputError(
            f"--steps {asked.steps}: the model's table has {schedule.steps} rows; choose fewer steps"
        )
    node = sampler_node(model.recipe, SamplerChoice(asked.sampler))
    sampler: Sampler = instantiate(node)
    starts = start_grids(sampler, schedule, model.recipe, asked.steps)
    place = find_model(folder)
    seen = _Scored(*_prepare(model, place, asked, node, asked.split), sampler, tell)
    held_out = _Scored(*_prepare(model, place, asked, node, "test"), sampler, tell)
    search = CoordinateSearch(rounds=asked.rounds)
    to_level, to_time = _levels(schedule)
    with seen.progress("search", search.evaluations(len(starts), asked.steps), asked.steps):
        found, _ = search(list(starts.values()), seen.cost, seen.known, to_level, to_time)
    grids = {**starts, FOUND: found}
    if not math.isfinite(seen.cost(found)):
        raise InputError(
            f"--score {seen.scale.key}: no grid of {asked.steps} steps gave a result; choose another"
        )
    with held_out.progress("compare", len(grids), asked.steps):
        for times in grids.values():
            held_out.cost(times)
    rival = min(starts, key=lambda name: held_out.cost(starts[name]))
    better = held_out.cost(found) < held_out.cost(starts[rival])
    scale = seen.scale
    return FoundSchedule(
        scale=scale,
        grids={
            name: GridScores(times, scale.mean(seen.cost(times)), scale.mean(held_out.cost(times)))
            for name, times in grids.items()
        },
        rival=rival,
        origin=FOUND if better else rival,
        gain=held_out.gain(found, starts[rival], asked.seed),
        seconds=seen.memory.seconds + held_out.memory.seconds,
        clips=(seen.clips, held_out.clips),
        scored=sum(len(times) == asked.steps for times in seen.known),
    )


def save_schedule(
    model: AudioDiffusion, folder: Path, asked: SearchRequest, found: FoundSchedule, hardware: str,
    keep_default: bool,
) -> None:  # fmt: skip
    """Writes the grid that is kept and what is known of it into the model folder.

    Args:
        model: the model of that folder.
        folder: the model folder, or the run folder that holds it.
        asked: what was searched.
        found: the outcome.
        hardware: what the scores ran on, for the record.
        keep_default: whether the model's default sampler stays as it is.

    Raises:
        InputError: the folder cannot be written.
    """
    sampler = sampler_node(model.recipe, SamplerChoice(asked.sampler))
    kept = found.grids[found.origin]
    record = {
        "times": list(kept.times),
        "sampler": {name: part for name, part in sampler.items() if name != "grid"},
        "score": found.scale.key,
        "unit": found.scale.unit,
        "better": found.scale.better,
        "value": _plain(kept.test),
        "origin": found.origin,
        "rival": found.rival,
        "gain": [_plain(number) for number in found.gain],
        "corpus": str(asked.data.name),
        "split": asked.split,
        "clips": found.clips[0],
        "test_clips": found.clips[1],
        "draws": asked.draws,
        "seed": asked.seed,
        "hardware": hardware,
        "seconds": round(found.seconds, 1),
        "compared": {
            name: {"times": list(grid.times), "search": _plain(grid.search), "test": _plain(grid.test)}
            for name, grid in found.grids.items()
        },
    }
    write_into_model(find_model(folder), record, keep_default, model.denoiser.schedule)


def start_grids(
    sampler: Sampler, schedule: NoiseSchedule, recipe: Mapping[str, Any], steps: int
) -> dict[str, Times]:
    """Returns every grid of so many steps that the schedule accepts, by name, each once, without the last 0.

    Raises:
        InputError: too few steps for this kind of sampler.
    """
    grids: dict[str, Grid] = {
        name: published_grid(name) for name, betas in FAST_SCHEDULES.items() if len(betas) == steps
    }
    grids |= {"uniform": UniformGrid(steps), "linspace": LinspaceGrid(steps)}
    grids |= {"log-snr": LogSnrGrid(steps), "karras": KarrasGrid(steps), "the sampler's own": sampler.grid}
    before = recipe.get("searched_grids", {}).get(str(steps))
    if before:
        grids["found before"] = TimesGrid(tuple(before["times"]))
    replace(sampler, grid=UniformGrid(steps)).times(schedule)  # says so if the step itself cannot do it
    starts: dict[str, Times] = {}
    for name, grid in grids.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a published level is noisier than t = 1
                times = replace(sampler, grid=grid).times(schedule)[:-1]
        except InputError:
            continue  # made for another kind of schedule
        rounded = tuple(round(float(t), 9) for t in times)
        if len(rounded) == steps and rounded not in starts.values():
            starts[name] = rounded
    return starts


class _Scored:
    """A score on one split that remembers."""

    def __init__(
        self, score: Score, memory: ScoreMemory, sampler: Sampler, tell: Callable[[str], None]
    ) -> None:
        self.memory = memory
        self.clips = len(score.clips.ids)
        self.scale = score.scale
        self.known = {times: self.scale.cost(values) for times, values in memory.values.items()}
        self._score = score
        self._sampler = sampler
        self._bar = progress_bar()
        self._task = self._bar.add_task("")
        if memory.note:
            tell(memory.note)

    def progress(self, text: str, total: int, steps: int) -> Any:
        """Returns the bar as a context; what is known of so many steps counts as done."""
        done = sum(len(times) == steps for times in self.known)
        self._bar.update(self._task, description=text, total=max(total, done), completed=done)
        return self._bar

    def cost(self, times: Times) -> float:
        """Returns what is to be minimised, measured once."""
        if times not in self.known:
            began = time.perf_counter()
            values = self._score(replace(self._sampler, grid=TimesGrid(times)))
            self.memory.add(times, values, time.perf_counter() - began)
            self.known[times] = self.scale.cost(values)
            alike = (cost for grid, cost in self.known.items() if len(grid) == len(times))
            best = self.scale.mean(min(alike))
            self._bar.update(
                self._task, advance=1, description=f"{self.scale.name} {best:.4g} {self.scale.unit}"
            )
        return self.known[times]

    def gain(self, found: Times, rival: Times, seed: int) -> tuple[float, float, float]:
        """Returns the mean improvement of `found` over `rival`, above 0 for better, and its 95 % interval."""
        sign = 1 if self.scale.better == "lower" else -1
        pairs = zip(self.memory.values[rival], self.memory.values[found], strict=True)
        gains = {str(clip): sign * (before - after) for clip, (before, after) in enumerate(pairs)}
        summary = summarize({clip: gain for clip, gain in gains.items() if not math.isnan(gain)}, {}, seed)
        if summary.mean is None or summary.interval is None:
            return (math.nan, math.nan, math.nan)
        return (summary.mean, *summary.interval)


def _prepare(
    model: AudioDiffusion, place: Path, asked: SearchRequest, node: Mapping[str, Any], split: str
) -> tuple[Score, ScoreMemory]:
    """Returns the score on a split and what is remembered of it."""
    count = asked.test_clips if split == "test" else asked.clips
    clips = read_clips(asked.data / f"{split}.jsonl.gz", model, count, asked.seconds, asked.batch, asked.seed)
    # Noise that the search did not see either.
    seed = asked.seed + asked.draws if split == "test" else asked.seed
    score = make_score(asked.score, model, clips, Draws(seed, asked.draws))
    settings = {
        "model": fingerprint(place),
        "sampler": {name: part for name, part in node.items() if name != "grid"},
        "guidance": asdict(model.steering.guidance),
        "score": score.scale.key,
        "clips": score.clips.ids,
        "seconds": asked.seconds,
        "seed": seed,
        "draws": asked.draws,
    }
    return score, ScoreMemory(place / FOLDER / f"{split}.json", settings)


def _levels(schedule: NoiseSchedule) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Returns time -> log(sigma / alpha), bounded, and its inverse, which stays at the times that sampling visits."""

    def to_level(t: float) -> float:
        ratio = noise_ratio(schedule, torch.tensor(t, dtype=torch.float64))
        return min(max(float(ratio.log()), -_MOST_LEVEL), _MOST_LEVEL)

    def to_time(level: float) -> float:
        ratio = torch.tensor(math.exp(level), dtype=torch.float64)
        return max(float(time_of_ratio(schedule, ratio)), schedule.earliest)

    return to_level, to_time


def _plain(number: float) -> float | None:
    """Returns a number for the recipe; None when it is none."""
    return round(number, 6) if math.isfinite(number) else None
