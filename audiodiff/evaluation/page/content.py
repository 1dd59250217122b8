"""What a page shows, taken from the numbers of metrics.json and the folders of the sounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiodiff.synthesis.cost import Cost

RECOGNISED, PROBABILITY, WORD_ERRORS = "recognised", "probability", "word_error_rate"
# What people ask for first, where it was measured; all others follow in their own order.
_FIRST = (RECOGNISED, WORD_ERRORS, "pesq_wb", "pesq_nb", "mcd")
# Key in metrics.json -> name, direction and meaning.
_SETS = {
    "frechet": ("Fréchet distance", "lower", "distance to the real test split of two Gaussians"),
    "kernel": ("Kernel distance", "lower", "distance to the real test split beyond Gaussians, without bias"),
    "inception": ("Inception score", "higher", "is the judge sure, and are all classes there"),
    "precision": ("Precision", "higher", "share of the sounds that lie among real ones"),
    "recall": ("Recall", "higher", "share of real sounds that lie among these"),
    "coverage": ("Coverage", "higher", "share of real sounds that have one of these nearby"),
}


@dataclass(frozen=True)
class Measure:
    """A column of numbers.

    Attributes:
        key: of it in metrics.json.
        name: heading.
        unit: of its values; empty when it has none.
        better: "higher" or "lower".
        definition: what it is.
    """

    key: str
    name: str
    unit: str
    better: str
    definition: str

    @property
    def heading(self) -> str:
        """Name, direction and unit."""
        arrow = {"higher": "↑", "lower": "↓"}[self.better]
        return f"{self.name} {arrow}" + (f" ({self.unit})" if self.unit else "")


@dataclass(frozen=True)
class Mean:
    """A mean over files with its 95 % interval, where it has one."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class System:
    """One row of the table.

    Attributes:
        name: of the system.
        means: by measure; a measure that has no value is absent.
        values: measure -> file -> value.
        sounds: file -> where it lies; empty where the sounds are not at hand.
        said: file -> what is to be said of it besides numbers, such as the class that was recognised.
        facts: what is known of how its sounds were made: text by heading.
        cost: of its sounds; None where it was not measured.
    """

    name: str
    means: Mapping[str, Mean]
    values: Mapping[str, Mapping[str, float]]
    sounds: Mapping[str, Path] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    cost: Cost | None = None


@dataclass(frozen=True)
class Content:
    """Everything on a page.

    Attributes:
        title: heading.
        command: that made the scores.
        measures: columns, the first of them decides which files are best and worst.
        systems: rows.
        references: recording of a file, for sounds that have one.
        notes: one sentence each.
        tables: further tables: caption -> rows, the first of them headings.
    """

    title: str
    command: str
    measures: Sequence[Measure]
    systems: Sequence[System]
    references: Mapping[str, Path] = field(default_factory=dict)
    notes: Sequence[str] = ()
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        """Every file that has a number or a sound, in order."""
        found: dict[str, None] = {}
        for system in self.systems:
            for values in system.values.values():
                found.update(dict.fromkeys(values))
            found.update(dict.fromkeys(system.sounds))
        return list(found)


def content_of(
    numbers: Mapping[str, Any], sounds: Mapping[str, Mapping[str, Path]], references: Mapping[str, Path]
) -> Content:
    """Returns the content of a page.

    Args:
        numbers: what metrics.json holds.
        sounds: system -> file -> where it lies.
        references: file -> its recording.
    """
    found = [
        _against_recordings(numbers.get("vocoder", {})),
        _by_judge(numbers.get("labels", {})),
        _by_words(numbers.get("speech", {})),
        _as_sets(numbers.get("sets", {})),
    ]
    measures = [measure for part, _ in found for measure in part]
    joined, costs = [], numbers.get("costs", {})
    for name in {name: None for _, systems in found for name in systems}:
        parts = [systems[name] for _, systems in found if name in systems]
        joined.append(
            System(
                name,
                {key: mean for part in parts for key, mean in part.means.items()},
                {key: values for part in parts for key, values in part.values.items()},
                sounds.get(name, {}),
                {file: text for part in parts for file, text in part.said.items()},
                _facts(numbers.get("facts", {}).get(name, {})),
                Cost.from_record(costs[name]) if name in costs else None,
            )
        )
    measured = [each for each in measures if any(each.key in one.means for one in joined)]
    measured.sort(key=lambda each: _FIRST.index(each.key) if each.key in _FIRST else len(_FIRST))
    return Content(
        str(numbers.get("title", "Results")),
        str(numbers.get("command", "")),
        measured,
        joined,
        references,
        list(numbers.get("notes", ())),
    )


def _against_recordings(part: Mapping[str, Any]) -> tuple[list[Measure], dict[str, System]]:
    measures = [
        Measure(key, about["name"], about["unit"], about["better"], about["definition"])
        for key, about in part.get("metrics", {}).items()
    ]
    systems = {}
    for name, scores in part.get("systems", {}).items():
        means = {key: _mean(score["mean"], score["interval_95"]) for key, score in scores.items()}
        systems[name] = System(
            name,
            {key: mean for key, mean in means.items() if mean is not None},
            {key: score["files"] for key, score in scores.items()},
        )
    return measures, systems


def _by_judge(part: Mapping[str, Any]) -> tuple[list[Measure], dict[str, System]]:
    if not part:
        return [], {}
    label = part["label"]
    measures = [
        Measure(
            RECOGNISED, f"{label} recognised", "", "higher", f"1 where the judge hears the {label} asked for."
        ),
        Measure(
            PROBABILITY, "Probability", "", "higher", f"The judge's probability of the {label} asked for."
        ),
    ]
    systems = {}
    for name, scores in part["systems"].items():
        files = scores["files"]
        means = {
            RECOGNISED: _mean(scores["accuracy"], scores["accuracy_interval_95"]),
            PROBABILITY: _mean(scores["probability"], scores["probability_interval_95"]),
        }
        systems[name] = System(
            name,
            {key: mean for key, mean in means.items() if mean is not None},
            {
                RECOGNISED: {f: float(each["asked"] == each["recognised"]) for f, each in files.items()},
                PROBABILITY: {f: each["probability"] for f, each in files.items()},
            },
            said={f: f"asked {each['asked']}, heard {each['recognised']}" for f, each in files.items()},
        )
    return measures, systems


def _by_words(part: Mapping[str, Any]) -> tuple[list[Measure], dict[str, System]]:
    """Returns the scores of spoken texts."""
    measures = [
        Measure(
            WORD_ERRORS,
            "Word error rate",
            "%",
            "lower",
            "Words substituted, deleted or inserted, of those asked for.",
        ),
        Measure("mcd_dtw", "MCD-DTW", "dB", "lower", "From real speech of the same text, aligned in time."),
    ]
    systems = {}
    for name, scores in part.get("systems", {}).items():
        means: dict[str, Mean | None] = {}
        values, said = {}, {}
        words, distance = scores.get("words"), scores.get("mcd_dtw")
        if words is not None:
            low, high = words["interval_95"]
            means[WORD_ERRORS] = _mean(100 * words["word_error_rate"], (100 * low, 100 * high))
            values[WORD_ERRORS] = {
                file: 100 * (each["substitutions"] + each["deletions"] + each["insertions"]) / each["words"]
                for file, each in words["files"].items()
            }
            said = {
                file: f"asked “{part['texts'][file]}”, heard “{_words(each['heard'])}”"
                for file, each in words["files"].items()
            }
        if distance is not None:
            means["mcd_dtw"] = _mean(distance["mean"], distance["interval_95"])
            values["mcd_dtw"] = distance["files"]
        known = {key: mean for key, mean in means.items() if mean is not None}
        systems[name] = System(name, known, values, said=said)
    return measures, systems


def _as_sets(part: Mapping[str, Any]) -> tuple[list[Measure], dict[str, System]]:
    """Returns the scores of sounds as sets, which have no value of a single file."""
    measures = [
        Measure(
            key, name, "", better, f"Of the sounds as a set, by features {part['features']['name']}: {told}."
        )
        for key, (name, better, told) in _SETS.items()
        if part
    ]
    systems = {}
    for name, row in part.get("rows", {}).items():
        means = {key: _mean(row["values"].get(key), None) for key in _SETS}
        systems[name] = System(name, {key: mean for key, mean in means.items() if mean is not None}, {})
    return measures, systems


def _words(heard: str | Sequence[str]) -> str:
    return heard if isinstance(heard, str) else " ".join(heard)


def _mean(value: float | None, interval: Sequence[float] | None) -> Mean | None:
    if value is None:
        return None
    return Mean(float(value), None if interval is None else (float(interval[0]), float(interval[1])))


def _facts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a reader asks of a system first, where it is recorded."""
    training, record = facts.get("training", {}), facts.get("samples", {})
    wanted = {
        "updates": training.get("updates"),
        "training audio (h)": training.get("train_hours"),
        "trained on": training.get("hardware"),
        "steps": record.get("steps"),
        "sampling seed": record.get("seed"),
    }
    return {name: str(value) for name, value in wanted.items() if value is not None}
