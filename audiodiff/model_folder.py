"""Where a model lies: in its folder, in the run that trained it, or among those that come with audiodiff.

A model folder holds the weights, the resolved recipe, the facts of training and the card. One that comes with audiodiff
also has a sheet, `release.json`, that says in numbers what its card says in words, so that it can be listed without
being loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiodiff.errors import InputError

WEIGHTS, CONFIG, CARD, FACTS = "model.safetensors", "config.yaml", "README.md", "training.json"
SHEET = "release.json"


def find_model(folder: str | Path) -> Path:
    """Returns the model folder at `folder` or at `folder/model`, or of a shipped model of that name.

    What lies at a path counts before a shipped model of the same name.

    Raises:
        InputError: there is none; the message says what was found instead.
    """
    place = Path(folder)
    if place.is_file():
        raise InputError(
            f"{place}: is a file, expected a model folder with {WEIGHTS} and {CONFIG}; "
            "other projects' checkpoint files are taken in by `audiodiff import`"
        )
    for candidate in (place, place / "model"):
        if _is_model(candidate):
            return candidate
    shipped = shipped_models()
    if not place.exists() and str(folder) in shipped:
        return shipped[str(folder)]
    reason = "does not exist" if not place.exists() else f"holds no {WEIGHTS} and {CONFIG}"
    hint = "expected a model folder, as `audiodiff train` leaves in exp/NAME/model"
    if str(folder) in shipped:
        hint = f"it hides the shipped model of this name, which is {shipped[str(folder)]}"
    elif shipped:
        hint += f", or a shipped model: {', '.join(shipped)}"
    raise InputError(f"{place}: {reason}; {hint}")


def model_name(folder: Path) -> str:
    """Returns what a model in a folder is called: as its folder, or as the run where that is the run's `model`."""
    place = folder.resolve()
    return place.parent.name if place.name == "model" else place.name


def shipped_model(name: str) -> Path:
    """Returns the folder of a shipped model, whatever lies at a path of that name.

    Raises:
        InputError: no such model; the message lists those that are there.
    """
    shipped = shipped_models()
    if name not in shipped:
        raise InputError(f"no shipped model {name!r}; there are {', '.join(shipped) or 'none'}")
    return shipped[name]


def shipped_models() -> dict[str, Path]:
    """Returns the models that come with audiodiff, folder by name: inside a wheel, or beside the package."""
    package = Path(__file__).resolve().parent
    for folder in (package / "models", package.parent / "models"):
        found = sorted(folder.glob(f"*/{SHEET}"))
        if found:
            return {sheet.parent.name: sheet.parent for sheet in found if _is_model(sheet.parent)}
    return {}


def read_sheet(folder: Path) -> dict[str, Any]:
    """Returns what the sheet of a shipped model says.

    Raises:
        InputError: it cannot be read.
    """
    try:
        sheet = json.loads((folder / SHEET).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / SHEET}: cannot be read ({error})") from error
    if not isinstance(sheet, Mapping):
        raise InputError(f"{folder / SHEET}: damaged; expected an object")
    return dict(sheet)


def folder_bytes(folder: Path) -> int:
    """Returns the size of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def read_recipe(folder: Path) -> dict[str, Any]:
    """Returns the recipe of a model folder as plain values."""
    import yaml

    try:
        recipe = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{folder / CONFIG}: cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(recipe, dict) or "model" not in recipe:
        raise InputError(f"{folder / CONFIG}: has no key `model`, expected a recipe of audiodiff")
    return recipe


def check_replaceable(place: Path) -> None:
    """Refuses to write a model over something that is none.

    Raises:
        InputError: a file, or a folder with other content.
    """
    if place.is_file() or (place.is_dir() and any(place.iterdir()) and not (place / CONFIG).is_file()):
        raise InputError(f"{place}: holds something that is no model; give another place to save to")


def _is_model(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()
