"""The scores of a released model, from what `audiodiff evaluate` left: its tables, and its numbers in few bytes.

Means and intervals of every system are kept as they are, the values of single files of a few files only: enough to make
these sounds again, score them again and find the same.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from audiodiff.errors import InputError
from audiodiff.evaluation.evaluate import RECORDING
from audiodiff.evaluation.page.content import RECOGNISED, Content, content_of
from audiodiff.evaluation.report import METRICS, RESULTS, markdown_table
from audiodiff.evaluation.samples import read_samples

KEPT_FILES = 6
_TITLE = "Results of "
_BY_FILE = ("files", "texts", "not_measurable")


@dataclass(frozen=True)
class Scored:
    """One evaluation.

    Attributes:
        folder: where it lies.
        numbers: metrics.json.
        text: RESULTS.md.
    """

    folder: Path
    numbers: Mapping[str, Any]
    text: str

    @property
    def system(self) -> str:
        """Name of the model's own row."""
        return str(self.numbers["title"]).removeprefix(_TITLE)

    @property
    def content(self) -> Content:
        """What the numbers say, system by system."""
        return content_of(self.numbers, {}, {})


def read_scored(folder: Path) -> Scored:
    """Returns an evaluation.

    Raises:
        InputError: there is none in that folder, or it is damaged.
    """
    try:
        numbers = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        text = (folder / RESULTS).read_text(encoding="utf-8")
        scored = Scored(folder, numbers, text)
        _ = scored.system, scored.content
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: holds no {METRICS} and {RESULTS}; expected what `audiodiff evaluate --out` wrote"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / METRICS}: damaged, or of another version ({error})") from error
    return scored


def main_score(scored: Scored) -> dict[str, Any] | None:
    """Returns what a list shows of an evaluation: its first measure of the model, and of the others beside it."""
    content = scored.content
    own = next((system for system in content.systems if system.name == scored.system), None)
    measure = next((each for each in content.measures if own is not None and each.key in own.means), None)
    if own is None or measure is None:
        return _pitch_score(scored)
    scale, unit = (100.0, "%") if measure.key == RECOGNISED else (1.0, measure.unit)
    beside = {
        system.name: scale * system.means[measure.key].value
        for system in content.systems
        if measure.key in system.means and system.name not in (own.name, RECORDING)
    }
    mean = own.means[measure.key]
    interval = None if mean.interval is None else [scale * bound for bound in mean.interval]
    return {
        "name": measure.name, "value": scale * mean.value, "unit": unit, "better": measure.better,
        "interval_95": interval, "beside": beside,
    }  # fmt: skip


def _pitch_score(scored: Scored) -> dict[str, Any] | None:
    """Returns the share of notes in tune, where notes were asked for and nothing else was scored."""
    pitch = scored.numbers.get("control", {}).get("pitch", {})
    if scored.system not in pitch:
        return None
    own = pitch[scored.system]
    beside = {name: 100 * each["within_50_cents"] for name, each in pitch.items() if name != scored.system}
    return {
        "name": "Within 50 cents", "value": 100 * own["within_50_cents"], "unit": "%", "better": "higher",
        "interval_95": [100 * bound for bound in own["within_50_cents_interval_95"]], "beside": beside,
    }  # fmt: skip


def kept_numbers(scored: Scored) -> dict[str, Any]:
    """Returns the numbers of an evaluation with the values of a few files, and what these files were asked by."""
    asked = {system: _asked(folder) for system, folder in _folders(scored).items()}
    return {"folder": str(scored.folder), "asked": asked} | _pruned(scored.numbers)


def _few(names: Iterable[str]) -> list[str]:
    """Returns a few of the names, evenly from first to last: the same of the same names."""
    ordered = sorted(names)
    step = max(1, len(ordered) // KEPT_FILES)
    return ordered[step // 2 :: step][:KEPT_FILES]


def _pruned(numbers: Any) -> Any:
    if not isinstance(numbers, Mapping):
        return numbers
    return {
        key: {file: value[file] for file in _few(value)}
        if key in _BY_FILE and isinstance(value, Mapping)
        else _pruned(value)
        for key, value in numbers.items()
    }


def _folders(scored: Scored) -> dict[str, Path]:
    """Returns where the sounds of each system lay, as the command tells that scored them."""
    words = shlex.split(str(scored.numbers["command"]))
    others = [name for option, name in pairwise(words) if option == "--system"]
    own = {scored.system: Path(words[2])} if len(words) > 2 else {}
    return own | {name: Path(folder) for name, _, folder in (other.partition("=") for other in others)}


def _asked(folder: Path) -> dict[str, Any]:
    """Returns how many sounds a folder has, and labels and text of a few; nothing where it is gone."""
    try:
        samples = read_samples(folder)
    except InputError:
        return {}
    files = {
        file: {"labels": dict(samples.labels[file]), "text": samples.texts.get(file)}
        for file in _few(samples.files)
    }
    return {"sounds": len(samples.files), "files": files}


def sections(results: Sequence[Scored]) -> list[str]:
    """Returns the parts of a card about its scores: a summary of several evaluations, then the tables of each."""
    parts = [_summary(results)] if len(results) > 1 else []
    for number, scored in enumerate(results):
        body = scored.text.split("\n", 1)[1].strip()
        if number > 0:  # the definitions are the same
            body = re.sub(r"Metrics:\n\n(- .*\n?)+\n?", "", body)
        body = re.sub(r"^#", "##", body, flags=re.MULTILINE)
        parts.append(f"## {_TITLE}{scored.system} ({scored.folder.name})\n\n{body}")
    return parts


def _summary(results: Sequence[Scored]) -> str:
    """Returns one row per evaluation: the model's own scores."""
    contents = [(scored, scored.content) for scored in results]
    measures = {measure.key: measure for _, content in contents for measure in content.measures}
    rows = []
    for scored, content in contents:
        own = next((system for system in content.systems if system.name == scored.system), None)
        means = {} if own is None else own.means
        cells = [f"{means[key].value:.4g}" if key in means else "" for key in measures]
        rows.append([scored.folder.name, *cells])
    headings = ["evaluation", *(measure.heading for measure in measures.values())]
    return (
        "## Scores at a glance\n\nThe model's own means; intervals and all other systems stand below.\n\n"
        f"{markdown_table(headings, rows)}"
    )


def beside_section(source: str, path: Path) -> str:
    """Returns a table of figures that others published, from a JSON file: system -> measure -> number.

    Args:
        source: where the figures come from, for the reader.
        path: the file.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        keys = list(dict.fromkeys(key for row in rows.values() for key in row))
        table = [
            [name, *(f"{row[key]:g}" if key in row else "" for key in keys)] for name, row in rows.items()
        ]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: expected JSON, system -> measure -> number ({error})") from error
    return (
        f"## Beside it\n\n{source}. Other systems on clips of their own: a comparison at arm's length.\n\n"
        f"{markdown_table(['system', *keys], table)}"
    )
