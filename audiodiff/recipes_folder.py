"""Where the recipes lie: inside an installed wheel, or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path

from audiodiff.errors import InputError


def recipes_folder() -> Path:
    """Returns the folder with train.yaml and its groups.

    Raises:
        InputError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "recipes", package.parent / "recipes"):
        if (folder / "train.yaml").is_file():
            return folder
    raise InputError(f"no recipes beside {package}; install audiodiff again")
