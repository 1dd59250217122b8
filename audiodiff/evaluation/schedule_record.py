"""What a schedule search leaves in the model folder.

- `schedule_search/SPLIT.json`: every score, written whole after each one, so that a search can go on.
- `config.yaml`: the grid under `searched_grids`, by its number of steps, and as the default of the sampler.
- `README.md`: one section "Sampling schedule" about all searches of the model; `schedule.png`: the same as a picture.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from audiodiff.audio.pictures import new_figure, write_png
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.search import Times
from audiodiff.errors import InputError
from audiodiff.files import write_whole
from audiodiff.model import CARD, CONFIG, WEIGHTS, read_recipe
from audiodiff.synthesis.sampling import searched_node

FOLDER, PICTURE = "schedule_search", "schedule.png"
FOUND = "found"  # how the searched grid is called beside those that it started from
_HEADING = "## Sampling schedule"
_MOST_LOG_SNR = 20.0  # of the picture: t = 1 may lie infinitely far


class ScoreMemory:
    """Scores of grids on one split, kept in a file.

    Attributes:
        path: the file.
        values: grid -> one value per clip, NaN where there is none; grows with `add`.
        note: what was found in the file, for the user; empty when it was not there.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Reads what an earlier search with the same settings left, and writes the file.

        Args:
            path: the file; its folder is made.
            settings: all that scores depend on but the grid.

        Raises:
            InputError: the place cannot be written.
        """
        self.path = path
        self.values: dict[Times, list[float]] = {}
        self._settings = json.loads(json.dumps(settings))
        self._seconds: dict[Times, float] = {}
        self.note = self._read()
        self._write()

    @property
    def seconds(self) -> float:
        """Time that all scores took."""
        return sum(self._seconds.values())

    def add(self, times: Times, values: Sequence[float], seconds: float) -> None:
        """Remembers the values of a grid.

        Raises:
            InputError: the disk is full or the place cannot be written.
        """
        self.values[times] = list(values)
        self._seconds[times] = seconds
        self._write()

    def _read(self) -> str:
        if not self.path.is_file():
            return ""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            settings = dict(content["settings"])
            values = {tuple(entry["times"]): _with_nan(entry["values"]) for entry in content["scores"]}
            seconds = {tuple(entry["times"]): float(entry["seconds"]) for entry in content["scores"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{self.path}: damaged ({type(error).__name__}), so the search starts anew"
        names = self._settings.keys() | settings.keys()
        other = sorted(name for name in names if settings.get(name) != self._settings.get(name))
        if other:
            return f"{self.path}: scores of a search with another {', '.join(other)}, so this one starts anew"
        self.values, self._seconds = values, seconds
        return f"{self.path}: goes on after {len(values)} scores"

    def _write(self) -> None:
        scores = [
            {
                "times": list(times),
                "values": [None if math.isnan(value) else value for value in values],
                "seconds": round(self._seconds[times], 3),
            }
            for times, values in self.values.items()
        ]
        content = {"settings": self._settings, "scores": scores}
        write_whole({self.path: (json.dumps(content) + "\n").encode("utf-8")})


def _with_nan(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def fingerprint(folder: Path) -> str:
    """Returns a short checksum of a model's weights and of the recipe node that they belong to.

    Raises:
        InputError: they cannot be read.
    """
    try:
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise InputError(f"{folder / WEIGHTS}: cannot be read ({error.strerror})") from error
    model = json.dumps(read_recipe(folder)["model"], sort_keys=True).encode("utf-8")
    return hashlib.sha256(hashlib.sha256(weights).digest() + model).hexdigest()[:16]


def write_into_model(
    folder: Path, record: Mapping[str, Any], keep_default: bool, schedule: NoiseSchedule
) -> None:
    """Writes what was found into recipe, model card and picture; other searches of the model stay.

    Args:
        folder: the model folder.
        record: `times`, `sampler` (a recipe node without grid), `score`, ..., as it stands in the recipe.
        keep_default: whether the model's default sampler stays as it is.
        schedule: the model's, for the picture.

    Raises:
        InputError: the folder cannot be written.
    """
    import yaml

    recipe = read_recipe(folder)
    searched = recipe.get("searched_grids", {}) | {str(len(record["times"])): dict(record)}
    recipe["searched_grids"] = dict(sorted(searched.items(), key=lambda item: int(item[0])))
    if not keep_default:
        recipe["sampler"] = searched_node(record)
    config = yaml.safe_dump(recipe, sort_keys=False)
    card = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
    draw_schedules(recipe["searched_grids"], schedule, folder / PICTURE)
    write_whole(
        {
            folder / CARD: with_section(card, recipe["searched_grids"]).encode("utf-8"),
            folder / CONFIG: config.encode("utf-8"),
        }
    )


def with_section(card: str, searched: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a model card whose section on the sampling schedule is about these searches, and no others."""
    rest = re.sub(rf"\n*^{_HEADING}$.*?(?=^#|\Z)", "\n\n", card, count=1, flags=re.MULTILINE | re.DOTALL)
    rows = "\n".join(_row(steps, record) for steps, record in searched.items())
    section = (
        f"{_HEADING}\n\nGrids that `audiodiff search-schedule` found for this model. `--steps N` samples on them. "
        "The scores are means over held-out clips that the search did not see, of samples as the sampler leaves them "
        "(mel_iterations 0).\n\n"
        "| steps | step | score | best other grid | kept | clips |\n|---|---|---|---|---|---|\n"
        f"{rows}\n\n![Scores and log-SNR of all grids]({PICTURE})\n"
    )
    return f"{rest.rstrip()}\n\n{section}".lstrip()


def _row(steps: str, record: Mapping[str, Any]) -> str:
    compared, unit = record["compared"], f" {record['unit']}".rstrip()
    rival = compared[record["rival"]]["test"]
    step = record["sampler"]["step"]["_target_"].rpartition(".")[2]
    return (
        f"| {steps} | {step} | {record['score']}, {record['better']} is better | {rival:.4g}{unit} "
        f"({record['rival']}) | {compared[record['origin']]['test']:.4g}{unit} | {record['test_clips']} |"
    )


def draw_schedules(searched: Mapping[str, Mapping[str, Any]], schedule: NoiseSchedule, path: Path) -> None:
    """Draws the scores of all grids and where their times lie, one row per number of steps.

    Raises:
        InputError: the file cannot be written.
    """
    counts = [len(record["compared"]) for record in searched.values()]
    figure = new_figure(10, sum(0.9 + 0.28 * count for count in counts))
    rows = figure.subplots(
        len(counts), 2, squeeze=False, sharey="row",
        gridspec_kw={"height_ratios": [3 + count for count in counts], "width_ratios": (2, 3)},
    )  # fmt: skip
    for (scores, levels), (steps, record) in zip(rows, searched.items(), strict=True):
        compared = dict(sorted(record["compared"].items(), key=lambda item: _place(item[1], record)))
        for height, (name, entry) in enumerate(compared.items()):
            colour = "tab:red" if name == FOUND else "tab:blue"
            if entry["search"] is not None:
                scores.plot(entry["search"], height, "o", color=colour, fillstyle="none")
            if entry["test"] is not None:
                scores.plot(entry["test"], height, "o", color=colour)
            levels.plot(_levels(schedule, entry["times"]), [height] * len(entry["times"]), "|-", color=colour)
        unit = f", {record['unit']}" if record["unit"] else ""
        scores.set_yticks(range(len(compared)), compared, fontsize=8)
        scores.set_title(f"{steps} steps: {record['score']}{unit}, {record['better']} is better", fontsize=9)
        scores.set_xlabel("hollow: clips of the search, filled: held-out clips", fontsize=8)
        levels.set_title("where the steps start", fontsize=9)
        levels.set_xlabel("log-SNR: noise left, signal right", fontsize=8)
        for axis in (scores, levels):
            axis.tick_params(labelsize=8)
            axis.grid(axis="x", alpha=0.3)
            axis.margins(y=0.5 / len(compared))
    write_png(figure, path)


def _place(entry: Mapping[str, Any], record: Mapping[str, Any]) -> float:
    """Returns a sorting key that puts the best grid on top; grids without a score below all."""
    value = entry["test"] if entry["test"] is not None else entry["search"]
    if value is None:
        return -math.inf
    return float(-value if record["better"] == "lower" else value)


def _levels(schedule: NoiseSchedule, times: Sequence[float]) -> list[float]:
    log_snr = schedule.log_snr(torch.tensor(times, dtype=torch.float64))
    return [float(level) for level in log_snr.clamp(-_MOST_LOG_SNR, _MOST_LOG_SNR)]
