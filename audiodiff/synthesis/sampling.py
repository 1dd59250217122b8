"""Which sampler a user means: the model's own, or one of recipes/sampler/ with steps, grid and eta changed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from audiodiff.diffusion.samplers import Sampler
from audiodiff.diffusion.times import FAST_SCHEDULES
from audiodiff.errors import InputError
from audiodiff.model import instantiate
from audiodiff.recipes_folder import recipes_folder

_TIMES = "audiodiff.diffusion.times"
_GRIDS = {
    "uniform": "UniformGrid", "trailing": "UniformGrid", "linspace": "LinspaceGrid", "leading": "LeadingGrid",
    "log-snr": "LogSnrGrid", "exponential": "LogSnrGrid", "karras": "KarrasGrid", "table": "TableGrid",
}  # fmt: skip


@dataclass(frozen=True)
class SamplerChoice:
    """What a user asked of the sampler; None leaves it as the model has it.

    Attributes:
        name: a file of recipes/sampler/, such as ddim or ancestral.
        steps: number of denoiser evaluations.
        grid: uniform, linspace, leading, log-snr, karras, table, the name of a published fast schedule, or the
            times themselves: "1,0.6,0.2".
        eta: of DDIM and its kin, from 0 to 1.
    """

    name: str | None = None
    steps: int | None = None
    grid: str | None = None
    eta: float | None = None


def choose_sampler(recipe: Mapping[str, Any], choice: SamplerChoice) -> Sampler:
    """Returns the sampler that a choice means for a model with that recipe.

    Raises:
        InputError: unknown sampler or grid, steps for a grid of fixed length, eta for a sampler without one.
    """
    return instantiate(sampler_node(recipe, choice))


def sampler_node(recipe: Mapping[str, Any], choice: SamplerChoice) -> dict[str, Any]:
    """Returns the recipe node of the sampler that a choice means.

    Where steps alone are asked and a search found a grid of so many for this model, it is that grid with the step
    that it was found for.

    Raises:
        InputError: as `choose_sampler`, but for what only building it can tell.
    """
    searched = recipe.get("searched_grids", {}).get(str(choice.steps))
    if searched and choice.grid is None and choice.name is None:
        node = searched_node(searched)
    else:
        node = deepcopy(recipe["sampler"]) if choice.name is None else _named(choice.name)
        if choice.grid is not None:
            node["grid"] = _grid(choice.grid, _steps_of(node["grid"]))
        if choice.steps is not None:
            node["grid"] = _with_steps(node["grid"], choice)
    if choice.eta is not None:
        if "eta" not in node["step"]:
            raise InputError(
                f"--eta: {choice.name or 'the default sampler'} has none; choose one of {_with_eta()}"
            )
        node["step"]["eta"] = choice.eta
    return node


def searched_node(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the sampler of one record of the recipe's `searched_grids`: its step on its times."""
    return deepcopy(dict(record["sampler"])) | {
        "grid": {"_target_": f"{_TIMES}.TimesGrid", "times": list(record["times"])}
    }


def describe(sampler: Sampler) -> dict[str, str]:
    """Returns the sampler's parts as text, for records; what is as by default is left out."""
    parts = {field.name: (getattr(sampler, field.name), field.default) for field in fields(sampler)}
    return {name: _text(part) for name, (part, default) in parts.items() if part != default}


def _text(part: Any) -> str:
    if isinstance(part, functools.partial):  # a function, which recipes name this way
        return str(part.func.__name__)
    if is_dataclass(part):
        values = ", ".join(f"{field.name}={_text(getattr(part, field.name))}" for field in fields(part))
        return f"{type(part).__name__}({values})"
    return repr(part)


def _with_eta() -> str:
    return ", ".join(name for name in sampler_names() if "eta" in _named(name)["step"])


def sampler_names() -> list[str]:
    """Returns the names of recipes/sampler/."""
    return [file.stem for file in sorted((recipes_folder() / "sampler").glob("*.yaml"))]


def _named(name: str) -> dict[str, Any]:
    import yaml

    if name not in sampler_names():
        raise InputError(f"sampler {name!r} is unknown; choose one of {', '.join(sampler_names())}")
    return yaml.safe_load((recipes_folder() / "sampler" / f"{name}.yaml").read_text(encoding="utf-8"))


def _grid(name: str, steps: int | None) -> dict[str, Any]:
    if name in FAST_SCHEDULES:
        return {"_target_": f"{_TIMES}.published_grid", "name": name}
    if name not in _GRIDS:
        return {"_target_": f"{_TIMES}.TimesGrid", "times": _own_times(name)}
    node: dict[str, Any] = {"_target_": f"{_TIMES}.{_GRIDS[name]}"}
    return node if name == "table" else node | {"steps": steps or 50}


def _own_times(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        names = ", ".join([*_GRIDS, *FAST_SCHEDULES])
        raise InputError(
            f"grid {text!r} is unknown; choose one of {names}, or write falling times such as 1,0.6,0.2"
        ) from None


def _steps_of(grid: Mapping[str, Any]) -> int | None:
    return sum(time > 0 for time in grid["times"]) if "times" in grid else grid.get("steps")


def _with_steps(grid: dict[str, Any], choice: SamplerChoice) -> dict[str, Any]:
    """Returns the grid with another number of steps."""
    if "steps" in grid:
        return grid | {"steps": choice.steps}
    if choice.grid is not None or "name" in grid:
        raise InputError(
            f"--steps {choice.steps}: this grid has its own number of steps; leave --steps out or choose --grid uniform"
        )
    return {"_target_": f"{_TIMES}.UniformGrid", "steps": choice.steps}
