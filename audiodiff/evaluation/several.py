"""Several experiments side by side, from the metrics.json that each evaluation left.

Scores are compared on the files that all experiments have; where these are none (sounds from noise have no partner),
each mean is over its own files, and no pairs are tested.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audiodiff.errors import InputError
from audiodiff.evaluation.costs import beside, definitions
from audiodiff.evaluation.evaluate import RECORDING, summarize
from audiodiff.evaluation.page.content import Content, Mean, Measure, System, content_of
from audiodiff.evaluation.page.page import PAGE, render
from audiodiff.evaluation.paired import Difference, differences
from audiodiff.evaluation.report import METRICS, RESULTS, markdown_table
from audiodiff.evaluation.samples import RECORD
from audiodiff.files import write_whole

NO_PAIRS = "No file is common to all: each mean is over its own files, and no pairs are tested."
_TITLE = "Results of "


@dataclass(frozen=True)
class Results:
    """What one evaluation left.

    Attributes:
        name: of the experiment.
        folder: with metrics.json.
        numbers: its content.
    """

    name: str
    folder: Path
    numbers: Mapping[str, Any]


def read_results(given: str) -> Results:
    """Returns the results at "FOLDER" or "NAME=FOLDER": of an evaluation, or of a run that holds them in results/.

    Raises:
        InputError: there are none, or they cannot be read.
    """
    name, separator, place = given.partition("=")
    folder = Path(place if separator else given)
    found = next((each for each in (folder, folder / "results") if (each / METRICS).is_file()), None)
    if found is None:
        raise InputError(f"{folder}: holds no {METRICS}; expected what `audiodiff evaluate --out` wrote")
    try:
        numbers = json.loads((found / METRICS).read_text(encoding="utf-8"))
        title = str(numbers["title"]).removeprefix(_TITLE)
        content_of(numbers, {}, {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{found / METRICS}: damaged, or of another version ({error}); evaluate again"
        ) from error
    return Results(name if separator else title, found, numbers)


def compare_results(
    given: Sequence[str], out: Path, command: str, files: int, seed: int, show: bool = False
) -> str:
    """Writes RESULTS.md, comparison.json and report.html of several evaluations and returns the text of RESULTS.md.

    Args:
        given: "FOLDER" or "NAME=FOLDER" each.
        out: folder for them.
        command: for the record.
        files: with sounds on the page.
        seed: of the bootstrap intervals.
        show: a progress bar on the terminal.

    Raises:
        InputError: less than two, two of one name, or scores that are not of one definition.
    """
    results = [read_results(each) for each in given]
    names = [each.name for each in results]
    twice = sorted({name for name in names if names.count(name) > 1})
    if len(results) < 2 or twice:
        got = f"{twice[0]} twice" if twice else f"{len(results)} folder"
        raise InputError(f"compare: got {got}, expected two or more, each of its own name (NAME=FOLDER)")
    content = _joined(results, command, seed)
    values = {system.name: system.values for system in content.systems if system.name != RECORDING}
    paired = NO_PAIRS not in content.notes
    found = differences(values, [measure.key for measure in content.measures], seed) if paired else []
    rows = _difference_rows(content, found)
    content = replace(content, tables={"Differences, file by file": rows} if found else {})
    text = _text(content, rows if found else [])
    record = {
        "command": command,
        "experiments": {each.name: str(each.folder) for each in results},
        "differences": [vars(each) for each in found],
        "systems": {
            one.name: {key: vars(mean) for key, mean in one.means.items()} for one in content.systems
        },
        "costs": {one.name: one.cost.record() for one in content.systems if one.cost is not None},
    }
    write_whole(
        {
            out / "comparison.json": (json.dumps(record, indent=1) + "\n").encode("utf-8"),
            out / RESULTS: text.encode("utf-8"),
            out / PAGE: render(content, files, show).encode("utf-8"),
        }
    )
    return text


def _joined(results: Sequence[Results], command: str, seed: int) -> Content:
    """Returns the systems of all experiments, on the files that all have."""
    contents = [content_of(each.numbers, *_sounds(each)) for each in results]
    measures: dict[str, Measure] = {}
    for content, its in zip(contents, results, strict=True):
        for measure in content.measures:
            known = measures.setdefault(measure.key, measure)
            if known != measure:
                raise InputError(
                    f"{its.folder}: {measure.name} is defined differently here than in {results[0].folder}; "
                    "evaluate both with one version"
                )
    common = set.intersection(*(set(content.files) for content in contents))
    everything = set().union(*(content.files for content in contents))
    notes = [
        f"{its.name}: {note}"
        for content, its in zip(contents, results, strict=True)
        for note in content.notes
    ]
    if not common:
        notes.insert(0, NO_PAIRS)
    elif len(common) < len(everything):
        notes.insert(
            0, f"Scored on the {len(common)} files that all have; {len(everything - common)} others left out."
        )
    systems: dict[str, System] = {}
    for content, its in zip(contents, results, strict=True):
        own = str(its.numbers["title"]).removeprefix(_TITLE)
        for each in content.systems:
            system = _on(each, common, seed) if common else each
            name = its.name if system.name == own else system.name
            namesake = systems.get(name)
            if namesake is not None and (namesake.values, namesake.means) == (system.values, system.means):
                continue  # recordings and baselines that the experiments share
            name = name if name not in systems else f"{name} ({its.name})"
            systems[name] = replace(system, name=name)
    references = {file: place for content in contents for file, place in content.references.items()}
    title = f"Comparison of {', '.join(each.name for each in results)}"
    return Content(title, command, list(measures.values()), list(systems.values()), references, notes)


def _on(system: System, files: set[str], seed: int) -> System:
    """Returns a system's scores on some files alone."""
    values = {
        key: {file: value for file, value in by_file.items() if file in files}
        for key, by_file in system.values.items()
    }
    means = {key: mean for key, mean in system.means.items() if key not in values}  # of the sounds as a set
    for key, by_file in values.items():
        score = summarize(by_file, {}, seed)
        if score.mean is not None:
            means[key] = Mean(score.mean, score.interval)
    sounds = {file: place for file, place in system.sounds.items() if file in files}
    return replace(system, means=means, values=values, sounds=sounds)


def _sounds(results: Results) -> tuple[dict[str, dict[str, Path]], dict[str, Path]]:
    """Returns where the sounds of an evaluation and their recordings lie.

    They are where a recipe leaves them: the experiment's in ../samples, baselines beside the numbers.
    """
    sounds: dict[str, dict[str, Path]] = {}
    for folder in (each for each in results.folder.iterdir() if each.is_dir()):
        sounds[folder.name] = {each.name: each for each in sorted(folder.glob("*.wav"))}
    place = results.folder.parent / "samples"
    if not (place / RECORD).is_file():
        return sounds, {}
    entries = json.loads((place / RECORD).read_text(encoding="utf-8"))["files"]
    own = str(results.numbers["title"]).removeprefix(_TITLE)
    sounds[own] = {each["file"]: place / each["file"] for each in entries if (place / each["file"]).is_file()}
    references = {each["file"]: Path(each["reference"]) for each in entries if each.get("reference")}
    return sounds, {file: path for file, path in references.items() if path.is_file()}


def _difference_rows(content: Content, found: Sequence[Difference]) -> list[list[str]]:
    names = {measure.key: measure.heading for measure in content.measures}
    head = ["measure", "first", "second", "files", "first - second", "95 % interval", "p (Holm)"]
    rows = [head]
    for each in found:
        low, high = each.interval
        p = "too few files" if each.p is None else f"{each.p:.2g}"
        gap, between = f"{each.mean:+.4g}", f"{low:+.4g} to {high:+.4g}"
        rows.append([names[each.measure], each.first, each.second, str(each.files), gap, between, p])
    return rows


def _text(content: Content, rows: Sequence[Sequence[str]]) -> str:
    heads = ["system", *(measure.heading for measure in content.measures)]
    table = []
    for system in content.systems:
        cells = [system.means.get(measure.key) for measure in content.measures]
        table.append([system.name, *("n/a" if mean is None else _cell(mean) for mean in cells)])
    costs = {system.name: system.cost for system in content.systems if system.cost is not None}
    parts = [f"# {content.title}", "Mean over files and its 95 % bootstrap interval."]
    parts.append(markdown_table(*beside(heads, table, costs)))
    parts += ["\n".join(definitions())] if costs else []
    if rows:
        parts += [
            "## Differences, file by file",
            "Wilcoxon's signed-rank test, p-values raised by Holm's method.",
        ]
        parts.append(markdown_table(rows[0], rows[1:]))
    if content.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in content.notes)]
    return "\n\n".join([*parts, f"Compared with: `{content.command}`"]) + "\n"


def _cell(mean: Mean) -> str:
    digits = 1 if abs(mean.value) >= 10 else 3 if abs(mean.value) < 1 else 2
    if mean.interval is None:
        return f"{mean.value:.{digits}f}"
    return f"{mean.value:.{digits}f} [{mean.interval[0]:.{digits}f}, {mean.interval[1]:.{digits}f}]"
