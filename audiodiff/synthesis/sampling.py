"""Which sampler a user means: the model's own, or one of recipes/sampler/ with steps, grid and eta changed."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from audiodiff.diffusion.samplers import Sampler
from audiodiff.diffusion.times import FAST_SCHEDULES
from audiodiff.errors import InputError
from audiodiff.model import instantiate
from audiodiff.recipes_folder import recipes_folder

_TIMES = "audiodiff.diffusion.times"
_GRIDS = {"uniform": "UniformGrid", "log-snr": "LogSnrGrid", "table": "TableGrid"}


@dataclass(frozen=True)
class SamplerChoice:
    """What a user asked of the sampler; None leaves it as the model has it.

    Attributes:
        name: a file of recipes/sampler/, such as ddim or ancestral.
        steps: number of denoiser evaluations.
        grid: uniform, log-snr, table, or the name of a published fast schedule.
        eta: of DDIM, from 0 to 1.
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
    node = deepcopy(recipe["sampler"]) if choice.name is None else _named(choice.name)
    if choice.grid is not None:
        node["grid"] = _grid(choice.grid, node["grid"].get("steps"))
    if choice.steps is not None:
        node["grid"] = _with_steps(node["grid"], choice)
    if choice.eta is not None:
        if "eta" not in node["step"]:
            raise InputError(
                f"--eta: this sampler has none; it belongs to ddim, got {choice.name or 'the default'}"
            )
        node["step"]["eta"] = choice.eta
    return instantiate(node)


def describe(sampler: Sampler) -> dict[str, str]:
    """Returns the sampler's parts as text, for records."""
    return {"step": repr(sampler.step), "grid": repr(sampler.grid)}


def _named(name: str) -> dict[str, Any]:
    import yaml

    files = {file.stem: file for file in sorted((recipes_folder() / "sampler").glob("*.yaml"))}
    if name not in files:
        raise InputError(f"sampler {name!r} is unknown; choose one of {', '.join(files)}")
    return yaml.safe_load(files[name].read_text(encoding="utf-8"))


def _grid(name: str, steps: int | None) -> dict[str, Any]:
    if name in FAST_SCHEDULES:
        return {"_target_": f"{_TIMES}.published_grid", "name": name}
    if name not in _GRIDS:
        raise InputError(f"grid {name!r} is unknown; choose one of {', '.join([*_GRIDS, *FAST_SCHEDULES])}")
    node: dict[str, Any] = {"_target_": f"{_TIMES}.{_GRIDS[name]}"}
    return node if name == "table" else node | {"steps": steps or 50}


def _with_steps(grid: dict[str, Any], choice: SamplerChoice) -> dict[str, Any]:
    if "steps" in grid:
        return grid | {"steps": choice.steps}
    if choice.grid is not None or "name" in grid:
        raise InputError(
            f"--steps {choice.steps}: this grid has its own number of steps; leave --steps out or choose --grid uniform"
        )
    return {"_target_": f"{_TIMES}.UniformGrid", "steps": choice.steps}
