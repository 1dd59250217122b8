"""Whether a recipe knows the label values that the manifests hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audiodiff.data.entries import Summary
from audiodiff.errors import InputError
from audiodiff.interval import Interval, label_values

_LISTED = 50


def check_labels(summary: Summary, labels: Mapping[str, Sequence[Any] | Mapping[str, Any]]) -> None:
    """Refuses a recipe whose labels lack a value of the manifests.

    Args:
        summary: of the manifest that is trained on.
        labels: the recipe's data.labels: values, or an interval, by label name.

    Raises:
        InputError: a value is missing; the message is what to write on the command line.
    """
    for name, node in labels.items():
        known = label_values(name, node)
        tally = summary.labels.get(name)
        if tally is None or tally.values is None:
            continue  # an absent label is refused where items are read; too many values are not kept
        unknown = sorted(value for value in tally.values if value not in known)
        if unknown and isinstance(known, Interval):
            raise InputError(
                f"label {name!r}: the recipe expects numbers from {known}, the manifests also hold "
                f"{', '.join(unknown[:10])}; widen data.labels.{name}.low and .high, or prepare the corpus again"
            )
        if unknown:
            listed = ",".join(f"'{value}'" for value in sorted(tally.values)[:_LISTED])
            more = ",..." if len(tally.values) > _LISTED else ""
            got = ", ".join(known) or "nothing"
            raise InputError(
                f"label {name!r}: the recipe lists {got}, the manifests also hold {', '.join(unknown[:10])}; "
                f"pass data.labels.{name}=[{listed}{more}]"
            )
