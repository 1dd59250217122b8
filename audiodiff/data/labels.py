"""Whether a recipe knows the label values that the manifests hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from audiodiff.data.entries import Summary
from audiodiff.errors import InputError

_LISTED = 50


def check_labels(summary: Summary, labels: Mapping[str, Sequence[str]]) -> None:
    """Refuses a recipe whose labels lack a value of the manifests.

    Args:
        summary: of the manifest that is trained on.
        labels: the recipe's data.labels: its values by label name.

    Raises:
        InputError: a value is missing; the message is what to write on the command line.
    """
    for name, known in labels.items():
        tally = summary.labels.get(name)
        if tally is None or tally.values is None:
            continue  # an absent label is refused where items are read; too many values are not kept
        unknown = sorted(tally.values - {str(value) for value in known})
        if unknown:
            listed = ",".join(f"'{value}'" for value in sorted(tally.values)[:_LISTED])
            more = ",..." if len(tally.values) > _LISTED else ""
            got = ", ".join(map(str, known)) or "nothing"
            raise InputError(
                f"label {name!r}: the recipe lists {got}, the manifests also hold {', '.join(unknown[:10])}; "
                f"pass data.labels.{name}=[{listed}{more}]"
            )
