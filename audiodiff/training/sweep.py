"""The table of a sweep: one row a run, with the keys in which the runs differ and what became of each.

A sweep is a folder below which `audiodiff train -m ...` left run folders; each holds what the user typed for it in
`.hydra/overrides.yaml`. Nothing here needs torch.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from audiodiff.errors import InputError
from audiodiff.files import write_whole
from audiodiff.training.status import Standing, run_folders, standing

_PLACES = ("data_dir", "out")  # say where, not what
_UNKNOWN = ""


@dataclass(frozen=True)
class SweepTable:
    """A sweep's runs, the best first.

    Attributes:
        headings: the keys in which they differ, then what is known of every run.
        rows: one per run, as text.
        states: how many runs are in which state.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    states: Mapping[str, int]

    @property
    def summary(self) -> str:
        """How many runs there are, and in which state."""
        counts = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        return f"{len(self.rows)} runs: {counts}"

    def csv(self) -> str:
        """Returns the table as comma-separated values."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.headings, *self.rows])
        return text.getvalue()

    def markdown(self) -> str:
        """Returns the table as Markdown, its summary below."""
        lines = [self.headings, tuple("---" for _ in self.headings), *self.rows]
        table = "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )
        return f"{table}\n\n{self.summary}\n"


def sweep_table(folder: Path) -> SweepTable:
    """Returns the table of the runs below a folder.

    Raises:
        InputError: no folder, or no runs in it.
    """
    folders = [place for place in run_folders([folder]) if place != folder or _typed(place)]
    if not folders:
        raise InputError(
            f"{folder}: holds no runs; expected the folder that `audiodiff train -m` was given as out=..."
        )
    runs = {place: standing(place) for place in folders}
    typed = {place: _typed(place) for place in folders}
    keys = _differing(list(typed.values()))
    best = _best_name(list(runs.values()))
    headings = (
        *keys,
        "status",
        "updates",
        "validation loss",
        best or "best",
        "hours",
        "parameters",
        "run",
        "error",
    )
    order = sorted(folders, key=lambda place: _rank(runs[place]))
    rows = tuple(
        (*(typed[place].get(key, _UNKNOWN) for key in keys), *_cells(runs[place], place.relative_to(folder)))
        for place in order
    )
    return SweepTable(headings, rows, Counter(run.state for run in runs.values()))


def write_table(table: SweepTable, folder: Path) -> tuple[Path, Path]:
    """Writes sweep.csv and sweep.md into a folder, both whole, and returns them.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    paths = folder / "sweep.csv", folder / "sweep.md"
    write_whole({paths[0]: table.csv().encode(), paths[1]: table.markdown().encode()})
    return paths


def _typed(run: Path) -> dict[str, str]:
    """Returns what the user typed for a run, by key."""
    import yaml

    try:
        lines = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")) or []
    except (OSError, yaml.YAMLError):
        return {}
    pairs = (str(line).lstrip("+~").partition("=") for line in lines)
    return {key: value for key, _, value in pairs if key not in _PLACES}


def _differing(typed: Sequence[Mapping[str, str]]) -> list[str]:
    keys = {key: None for keys in typed for key in keys}
    return [key for key in keys if len({given.get(key) for given in typed}) > 1]


def _best_name(runs: Sequence[Standing]) -> str | None:
    """Returns the name of what the runs chose their best by, if they agree."""
    names = {run.best["name"] for run in runs if run.best}
    return f"best {names.pop().replace('_', ' ')}" if len(names) == 1 else None


def _cells(run: Standing, folder: Path) -> tuple[str, ...]:
    numbers = (
        run.state,
        _UNKNOWN if run.update is None else str(run.update),
        _number(run.validation_loss),
        f"{_number(run.best['value'])} at {run.best['update']}" if run.best else _UNKNOWN,
        _UNKNOWN if run.seconds is None else f"{run.seconds / 3600:.3g}",
        _UNKNOWN if run.parameters is None else f"{run.parameters / 1e6:.3g} M",
    )
    return (*numbers, str(folder), " ".join((run.error or "").split()))


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.6g}"


def _rank(run: Standing) -> tuple[bool, float]:
    """Returns what rows are sorted by: those with a loss first, by that of the best validation or the last."""
    value = run.validation_loss
    if run.best and run.best["name"] == "validation_loss":
        value = run.best["value"]
    return value is None, value or 0.0
