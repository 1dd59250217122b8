"""Guards: what is done about updates that cannot be trusted, and what is kept of them for people to look at.

An update whose loss or gradient is not finite leaves the weights as they are; after `patience` of them in a row the run
goes back to its newest checkpoint and draws other noise. A loss is a spike if it lies more than `spike_deviations`
robust deviations, 1.4826 times the median absolute deviation, above the median of the updates before. All processes
come to the same verdict, for they judge by sums over all of them.
`log/guards.jsonl` has one line for every update that was skipped, every return to a checkpoint and every clip that
could not be read, `log/spikes.jsonl` one for every spike, with the names of its clips.
"""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from audiodiff.errors import InputError
from audiodiff.files import write_whole

GUARDS, SPIKES = Path("log") / "guards.jsonl", Path("log") / "spikes.jsonl"
MOST_ROLLBACKS = 3
_WINDOW, _FEWEST = 200, 50
_NAMED = 20  # clips that training.json names
_NORMAL = 1.4826  # standard deviations of a normal distribution in its median absolute deviation


@dataclass
class Guard:
    """What happened so far.

    Attributes:
        patience: updates skipped in a row after which the run goes back.
        spike_deviations: see above.
        streak: updates skipped in a row just now.
        skipped: updates skipped in all.
        overflows: of these, those that only lowered the loss scale of fp16.
        spikes: in all.
        unreadable: clips that another one had to stand in for, in all.
        problems: the first few of them, by name and reason.
        losses: of the updates before.
    """

    patience: int
    spike_deviations: float
    streak: int = 0
    skipped: int = 0
    overflows: int = 0
    spikes: int = 0
    unreadable: int = 0
    problems: list[str] = field(default_factory=list)
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def __post_init__(self) -> None:
        if self.patience < 1 or not self.spike_deviations > 0:
            raise InputError(
                f"training.patience {self.patience} and training.spike_deviations {self.spike_deviations} must be "
                "positive"
            )

    @property
    def exhausted(self) -> bool:
        """Whether so many updates in a row were skipped that the run has to go back."""
        return self.streak >= self.patience

    def skip(self, overflow: bool) -> None:
        """Counts a skipped update; one that only overflowed in fp16 does not count towards patience."""
        self.skipped += 1
        if overflow:
            self.overflows += 1
        else:
            self.streak += 1

    def accept(self, loss: float) -> bool:
        """Counts an update that was made; returns whether its loss is a spike."""
        self.streak = 0
        spike = len(self.losses) >= _FEWEST and loss > self.limit()
        self.losses.append(loss)
        self.spikes += spike
        return spike

    def limit(self) -> float:
        """Returns the loss above which an update is a spike."""
        middle = median(self.losses)
        deviation = _NORMAL * median(abs(loss - middle) for loss in self.losses)
        return middle + self.spike_deviations * deviation if deviation > 0 else math.inf

    def unread(self, problems: list[str]) -> None:
        """Counts clips that could not be read."""
        self.unreadable += len(problems)
        self.problems = (self.problems + problems)[:_NAMED]

    def facts(self) -> dict[str, Any]:
        """Returns the counts for the record, and the names of unreadable clips if there were any."""
        counts = {
            "skipped_updates": self.skipped,
            "loss_spikes": self.spikes,
            "unreadable_clips": self.unreadable,
        }
        return counts | ({"unreadable": list(self.problems)} if self.problems else {})

    def state_dict(self) -> dict[str, Any]:
        """Returns plain values for `load_state_dict`."""
        names = ("streak", "skipped", "overflows", "spikes", "unreadable")
        counts = {name: getattr(self, name) for name in names}
        return counts | {"problems": list(self.problems), "losses": list(self.losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, deque(value, _WINDOW) if name == "losses" else value)


def record(path: Path, entry: dict[str, Any]) -> None:
    """Adds one line to a file of the log; a full disk costs the line, not the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError:
        return


def forget_after(path: Path, update: int) -> None:
    """Removes the lines of updates after one, and lines that were never finished: a killed run left them."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["update"] <= update:
            kept.append(line + "\n")
    write_whole({path: "".join(kept).encode()})
