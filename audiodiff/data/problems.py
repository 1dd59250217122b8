"""Audio that could not be read in training: too much of it is the end of the run."""

from __future__ import annotations

from collections.abc import Sequence

from audiodiff.errors import InputError

MOST_SHARE = 0.05
_LEAST_COUNT = 20  # so that one bad clip in the first batch is not taken for a bad corpus
_NAMED = 5


def refuse_unreadable(
    replaced: int, segments: int, problems: Sequence[str], most_share: float = MOST_SHARE
) -> None:
    """Stops a run that had to replace too many segments.

    What a batch holds depends on nothing but the update, so the counts of all ranks together, and with them the
    verdict, are the same whatever the number of ranks and workers.

    Args:
        replaced: segments that stood in for others, `len(batch.problems)` summed over batches and ranks.
        segments: of all batches of all ranks.
        problems: some of what the batches said.
        most_share: of the segments that may be replaced.

    Raises:
        InputError: more than the share, in twenty segments or more.
    """
    if replaced < _LEAST_COUNT or replaced <= most_share * segments:
        return
    named = "; ".join(list(dict.fromkeys(problems))[:_NAMED]) or "named by another process"
    raise InputError(
        f"{replaced} of {segments} segments could not be read, more than {most_share:.0%}: {named}; "
        "mend or remove those files and run `audiodiff prepare` again"
    )
