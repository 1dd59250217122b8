"""metrics.json (every number) and RESULTS.md (tables) of one evaluation.

What is said of a system besides its scores comes from training.json of its model and samples.json of its
sounds. A fact that is in neither is printed as "not recorded".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiodiff.evaluation import costs
from audiodiff.evaluation.evaluate import LabelScores, Score, VocoderScores
from audiodiff.evaluation.judge import Judge
from audiodiff.evaluation.metrics import Metric
from audiodiff.files import write_whole
from audiodiff.synthesis.cost import Cost

METRICS, RESULTS = "metrics.json", "RESULTS.md"
UNKNOWN = "not recorded"
ARROWS = {"higher": "↑", "lower": "↓"}


@dataclass(frozen=True)
class Facts:
    """Where a system's sounds come from.

    Attributes:
        training: training.json of its model.
        record: samples.json without its files.
    """

    training: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A part of a report that another module writes.

    Attributes:
        key: of its numbers in metrics.json.
        parts: paragraphs and tables of RESULTS.md.
        numbers: for metrics.json.
        has_costs: whether its table has what the sounds cost.
    """

    key: str
    parts: Sequence[str]
    numbers: Mapping[str, Any]
    has_costs: bool = False


@dataclass(frozen=True)
class Evaluation:
    """All that a report is made of.

    Attributes:
        title: heading.
        command: that made the report.
        facts: by system name.
        metrics: of `vocoder`.
        vocoder: scores against recordings, None when not asked for.
        judge: of `labels`.
        labels: by system name, empty when not asked for.
        notes: what else the reader must know, one sentence each.
        sections: what else is reported.
        costs: of each system's sounds, where that was measured.
    """

    title: str
    command: str
    facts: Mapping[str, Facts]
    metrics: Sequence[Metric] = ()
    vocoder: VocoderScores | None = None
    judge: Judge | None = None
    labels: Mapping[str, LabelScores] = field(default_factory=dict)
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)


def write_report(evaluation: Evaluation, folder: Path) -> None:
    """Writes metrics.json and RESULTS.md; both are complete before either has its name.

    Raises:
        InputError: the folder cannot be written.
    """
    numbers = json.dumps(numbers_of(evaluation), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    files = {folder / METRICS: numbers.encode("utf-8"), folder / RESULTS: text(evaluation).encode("utf-8")}
    write_whole(files)


def text(evaluation: Evaluation) -> str:
    """Returns the content of RESULTS.md."""
    parts = [f"# {evaluation.title}"]
    if evaluation.vocoder is not None:
        parts += _vocoder_part(evaluation, evaluation.vocoder)
    if evaluation.judge is not None:
        parts += _label_part(evaluation, evaluation.judge)
    parts += [part for section in evaluation.sections for part in section.parts]
    told = evaluation.vocoder or evaluation.judge or any(section.has_costs for section in evaluation.sections)
    if evaluation.costs and not told:
        parts += _cost_part(evaluation.costs)
    parts += _facts_part(evaluation.facts)
    if evaluation.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in evaluation.notes)]
    parts.append(f"Scored with: `{evaluation.command}`")
    return "\n\n".join(parts) + "\n"


def _vocoder_part(evaluation: Evaluation, scores: VocoderScores) -> list[str]:
    files = len(_files(scores))
    shown, absent = [], []
    for metric in evaluation.metrics:
        measured = [systems[metric.key] for systems in scores.systems.values()]
        if any(score.values for score in measured):
            shown.append(metric)
        else:
            absent.append(
                f"- {metric.name}: not measurable on any of the {files} files ({_reasons(measured)})."
            )
    gaps = _gaps(shown, scores, files) + absent
    headings = ["system", *(_heading(metric) for metric in shown)]
    rows = [
        [name, *(_cell(systems[metric.key], files) for metric in shown)]
        for name, systems in scores.systems.items()
    ]
    definitions = [f"- **{metric.name}**: {metric.definition}" for metric in shown]
    definitions += costs.definitions() if evaluation.costs else []
    headings, rows = costs.beside(headings, rows, evaluation.costs)
    return [
        "## Against the recordings",
        f"{files} files, {scores.seconds:.1f} s, {scores.sample_rate} Hz. "
        "Mean over files and its 95 % bootstrap interval; ↑ higher is better, ↓ lower is better.",
        markdown_table(headings, rows),
        *(["\n".join(gaps)] if gaps else []),
        "Metrics:",
        "\n".join(definitions),
    ]


def _cost_part(known: Mapping[str, Cost]) -> list[str]:
    headings, rows = costs.beside(["system"], [[name] for name in known], known)
    return ["## Cost", markdown_table(headings, rows), "\n".join(costs.definitions())]


def _gaps(metrics: Sequence[Metric], scores: VocoderScores, files: int) -> list[str]:
    """Returns one line per metric that some files have no value of, with the reasons."""
    lines = []
    for metric in metrics:
        for name, systems in scores.systems.items():
            missing = len(systems[metric.key].reasons)
            if missing:
                why = _reasons([systems[metric.key]])
                lines.append(f"- {metric.name}, {name}: n/a for {missing} of {files} files ({why}).")
    return lines


def _label_part(evaluation: Evaluation, judge: Judge) -> list[str]:
    facts, label = judge.facts, judge.label
    headings = ["system", "files", f"{label} recognised ↑ (%)", "probability of the one asked ↑", "diversity"]
    accuracy = facts.get("test_accuracy")
    real = [
        "real test clips",
        str(facts.get("test_clips", UNKNOWN)),
        UNKNOWN if accuracy is None else f"{100 * accuracy:.1f}",
        "",
        "1.00",
    ]
    rows = [real]
    for name, scores in evaluation.labels.items():
        diversity = "n/a" if scores.diversity is None else f"{scores.diversity:.2f}"
        rows.append(
            [
                name,
                str(len(scores.asked)),
                _percent(scores.accuracy),
                range_of(scores.certainty, 2),
                diversity,
            ]
        )
    headings, rows = costs.beside(headings, rows, evaluation.costs if evaluation.vocoder is None else {})
    classes = [
        [name, *(_share(scores, number) for scores in evaluation.labels.values())]
        for number, name in enumerate(judge.names)
    ]
    return [
        f"## By a judge of {label}",
        f"The judge is a small network trained on {facts.get('train_clips', UNKNOWN)} real clips and tested "
        "on real clips that it was not trained on (first row). Mean over files and its 95 % bootstrap "
        "interval. Diversity: mean distance in the judge's features between samples of one class, over that "
        "of the real test clips; near 0 means that one sound is repeated.",
        markdown_table(headings, rows),
        *(["\n".join(costs.definitions())] if evaluation.costs and evaluation.vocoder is None else []),
        "Recognised, by class:",
        markdown_table([label, *evaluation.labels], classes),
    ]


def _facts_part(facts: Mapping[str, Facts]) -> list[str]:
    headings = [
        "system",
        "training audio (h)",
        "training (h)",
        "hardware",
        "updates",
        "training seed",
        "commit",
    ]
    headings += ["sampler", "sampling seed"]
    rows, commands = [], []
    for name, known in facts.items():
        training, record = known.training, known.record
        seconds = training.get("train_seconds")
        rows.append(
            [
                name,
                _known(training, "train_hours"),
                UNKNOWN if seconds is None else f"{seconds / 3600:.2f}",
                *(_known(training, key) for key in ("hardware", "updates", "seed", "commit")),
                _sampler(record),
                _known(record, "seed"),
            ]
        )
        commands.append(f"- {name}, training: {_code(training)}")
        commands.append(f"- {name}, sounds: {_code(record)}")
    return ["## How they were made", markdown_table(headings, rows), "\n".join(commands)]


def numbers_of(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the content of metrics.json."""
    facts = {
        name: {"training": dict(known.training), "samples": dict(known.record)}
        for name, known in evaluation.facts.items()
    }
    content: dict[str, Any] = {
        "title": evaluation.title,
        "command": evaluation.command,
        "facts": facts,
        "notes": list(evaluation.notes),
        "costs": {name: cost.record() for name, cost in evaluation.costs.items()},
    }
    if evaluation.vocoder is not None:
        content["vocoder"] = _vocoder_numbers(evaluation.metrics, evaluation.vocoder)
    if evaluation.judge is not None:
        judge = evaluation.judge
        content["labels"] = {
            "label": judge.label,
            "names": list(judge.names),
            "judge": dict(judge.facts),
            "systems": {name: _label_numbers(scores) for name, scores in evaluation.labels.items()},
        }
    return content | {section.key: dict(section.numbers) for section in evaluation.sections}


def _vocoder_numbers(metrics: Sequence[Metric], scores: VocoderScores) -> dict[str, Any]:
    described = {
        metric.key: {
            "name": metric.name,
            "unit": metric.unit,
            "better": metric.better,
            "definition": metric.definition,
        }
        for metric in metrics
    }
    systems = {
        name: {key: score_numbers(score) for key, score in by_metric.items()}
        for name, by_metric in scores.systems.items()
    }
    return {
        "files": len(_files(scores)),
        "seconds": round(scores.seconds, 3),
        "sample_rate": scores.sample_rate,
        "metrics": described,
        "systems": systems,
    }


def score_numbers(score: Score) -> dict[str, Any]:
    """Returns one score for metrics.json."""
    return {
        "mean": score.mean,
        "interval_95": None if score.interval is None else list(score.interval),
        "files": dict(score.values),
        "not_measurable": dict(score.reasons),
    }


def _label_numbers(scores: LabelScores) -> dict[str, Any]:
    files = {
        file: {
            "asked": asked,
            "recognised": scores.recognised[file],
            "probability": round(scores.probability[file], 6),
        }
        for file, asked in scores.asked.items()
    }
    return {
        "accuracy": scores.accuracy.mean,
        "accuracy_interval_95": scores.accuracy.interval,
        "probability": scores.certainty.mean,
        "probability_interval_95": scores.certainty.interval,
        "diversity": scores.diversity,
        "unreadable": dict(scores.reasons),
        "silent": list(scores.silent),
        "confusion": scores.confusion.tolist(),
        "files": files,
    }


def _files(scores: VocoderScores) -> set[str]:
    score = next(iter(next(iter(scores.systems.values())).values()))
    return {*score.values, *score.reasons}


def _heading(metric: Metric) -> str:
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.name} {ARROWS[metric.better]}{unit}"


def _cell(score: Score, files: int) -> str:
    if score.mean is None:
        return f"n/a (0 of {files})"
    count = "" if len(score.values) == files else f" ({len(score.values)} of {files})"
    return range_of(score, 1 if abs(score.mean) >= 10 else 3 if abs(score.mean) < 1 else 2) + count


def range_of(score: Score, digits: int) -> str:
    """Returns a mean and its interval in words, or n/a."""
    if score.mean is None or score.interval is None:
        return "n/a"
    low, high = score.interval
    return f"{score.mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _percent(score: Score) -> str:
    if score.mean is None or score.interval is None:
        return "n/a"
    low, high = score.interval
    return range_of(Score({}, {}, 100 * score.mean, (100 * low, 100 * high)), 1)


def _share(scores: LabelScores, number: int) -> str:
    row = scores.confusion[number]
    return f"{row[number]} of {row.sum()}"


def _reasons(scores: Sequence[Score]) -> str:
    counts = Counter(reason for score in scores for reason in score.reasons.values())
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{reason}: {count}" for reason, count in counts.items())


def _known(facts: Mapping[str, Any], key: str) -> str:
    value = facts.get(key)
    return UNKNOWN if value is None else str(value)


def _sampler(record: Mapping[str, Any]) -> str:
    sampler = record.get("sampler")
    described = ", ".join(map(str, sampler.values())) if isinstance(sampler, Mapping) else sampler
    steps = f", {record['steps']} steps" if record.get("steps") is not None else ""
    return UNKNOWN if described is None else f"{described}{steps}"


def _code(facts: Mapping[str, Any]) -> str:
    command = facts.get("command")
    return UNKNOWN if command is None else f"`{command}`"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
