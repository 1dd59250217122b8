"""What a run does every so many updates, and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audiodiff.errors import InputError


def check_intervals(settings: Mapping[str, Any]) -> None:
    """Refuses intervals of recipe["training"] that are no number of updates.

    Raises:
        InputError: an interval below one update.
    """
    for name, every in settings.items():
        if name.endswith("_every") and (not isinstance(every, int) or every < 1):
            raise InputError(
                f"training.{name}: got {every}, expected a whole number of updates, 1 or more; one above "
                "training.updates leaves only the end"
            )


def due(update: int, every: str, settings: Mapping[str, Any]) -> bool:
    """Returns whether something is due after an update, as it always is after the last.

    Args:
        update: updates made so far.
        every: name of the interval, such as validate_every.
        settings: recipe["training"].
    """
    return update % settings[every] == 0 or update >= settings["updates"]
