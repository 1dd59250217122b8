"""What RESULTS.md and metrics.json say of sets of sounds, of controls, and of the SC09 protocols."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from audiodiff.evaluation.control import RIGHT_CENTS, LoudnessControl, Measured, PitchControl
from audiodiff.evaluation.costs import beside, definitions
from audiodiff.evaluation.distributions.neighbours import PERCENTILE, Memorization
from audiodiff.evaluation.evaluate import Score
from audiodiff.evaluation.report import Section, markdown_table
from audiodiff.evaluation.sc09 import Protocol
from audiodiff.evaluation.set_scores import TEST_ROW, SetScores
from audiodiff.synthesis.cost import Cost

# Key -> heading and digits behind the point (of the kernel distance: in all), in the order of the columns.
MAIN = {
    "accuracy": ("recognised ↑ (%)", 1),
    "frechet": ("Fréchet distance ↓", 3),
    "kernel": ("kernel distance ↓", 4),
    "inception": ("inception score ↑", 2),
    "diversity": ("diversity", 2),
}
MORE = {
    "precision": ("precision ↑", 2),
    "recall": ("recall ↑", 2),
    "density": ("density ↑", 2),
    "coverage": ("coverage ↑", 2),
    "modified_inception": ("modified inception ↑", 1),
    "am": ("AM ↓", 3),
    "ndb": ("NDB/K ↓", 2),
}
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)


def set_section(
    scores: Mapping[str, SetScores], features: str, digest: str, costs: Mapping[str, Cost]
) -> Section:
    """Returns the part on sets of sounds.

    Args:
        scores: by row.
        features: name of the features.
        digest: of the features.
        costs: of the sounds of a row, to stand beside its scores; empty where another table has them.
    """
    test = scores[TEST_ROW].sounds
    parts = [
        "## As a set, beside real sounds",
        f"Features: {features} ({digest}). Distances to the {test} clips of the real test split. The row of the "
        "training split shows what other real sounds reach; every measure depends on the number of sounds, so "
        "compare rows of one count only. Diversity: mean distance between two sounds, of one class where the "
        "classes are known, over that of the test split.",
        _table(scores, MAIN, costs),
        *(["\n".join(definitions())] if costs else []),
        "More of the same, and the distance to the nearest training clip:",
        _neighbour_table(scores),
    ]
    parts += _cautions(scores)
    numbers = {
        "features": {"name": features, "digest": digest},
        "rows": {name: _numbers(score, features, test) for name, score in scores.items()},
    }
    return Section("sets", parts, numbers, has_costs=bool(costs))


def _table(
    scores: Mapping[str, SetScores], columns: Mapping[str, tuple[str, int]], costs: Mapping[str, Cost]
) -> str:
    shown = {key: heading for key, heading in columns.items() if _any(scores, key)}
    headings = ["row", "sounds", *(heading for heading, _ in shown.values())]
    rows = [
        [
            name,
            _count(score),
            *(_cell(score.values.get(key), key, digits) for key, (_, digits) in shown.items()),
        ]
        for name, score in scores.items()
    ]
    return markdown_table(*beside(headings, rows, costs))


def _neighbour_table(scores: Mapping[str, SetScores]) -> str:
    shown = {key: heading for key, heading in MORE.items() if _any(scores, key)}
    headings = ["row", *(heading for heading, _ in shown.values())]
    headings += [
        "nearest training clip (1 = test clips)",
        f"nearer than {PERCENTILE:.0f} % of test clips (%)",
    ]
    rows = []
    for name, score in scores.items():
        cells = [_cell(score.values.get(key), key, digits) for key, (_, digits) in shown.items()]
        found = score.memorization
        near = ["", ""] if found is None else [f"{found.ratio:.2f}", f"{100 * found.near_share:.1f}"]
        rows.append([name, *cells, *near])
    return markdown_table(headings, rows)


def _any(scores: Mapping[str, SetScores], key: str) -> bool:
    return any(score.values.get(key) is not None for score in scores.values())


def _count(score: SetScores) -> str:
    return str(score.sounds) if score.sounds == score.asked else f"{score.sounds} of {score.asked}"


def _cell(value: float | None, key: str, digits: int) -> str:
    if value is None:
        return ""
    if key == "kernel":  # cubic in the features, so that it may have any size
        return f"{value:.{digits}g}"
    return f"{(100 if key == 'accuracy' else 1) * value:.{digits}f}"


def _cautions(scores: Mapping[str, SetScores]) -> list[str]:
    lines = []
    for name, score in scores.items():
        if score.reasons:
            first = next(iter(score.reasons.values()))
            lines.append(f"- {name}: {len(score.reasons)} sounds could not be read, the first: {first}")
        if score.silent:
            lines.append(f"- {name}: {len(score.silent)} sounds are silent, the first {score.silent[0]}.")
    return ["\n".join(lines)] if lines else []


def _numbers(score: SetScores, features: str, test: int) -> dict[str, Any]:
    names = {
        key: f"{key} ({features}, {score.sounds} of {score.asked} sounds against {test} clips)"
        for key in ("frechet", "kernel", "precision", "recall", "density", "coverage", "am")
    }
    if score.values.get("bins"):
        names["ndb"] = f"ndb ({features}, {score.sounds} sounds, K = {score.values['bins']:.0f})"
    found = score.memorization
    content = {
        "sounds": score.sounds,
        "asked": score.asked,
        "values": dict(score.values),
        "names": {key: name for key, name in names.items() if score.values.get(key) is not None},
        "unreadable": dict(score.reasons),
        "silent": list(score.silent),
    }
    return content | ({} if found is None else {"nearest_training_clip": _neighbour_numbers(score, found)})


def _neighbour_numbers(score: SetScores, found: Memorization) -> dict[str, Any]:
    files = {
        file: {"clip": clip, "distance": float(distance)}
        for (file, clip), distance in zip((score.nearest or {}).items(), found.distances, strict=False)
    }
    return {
        "median_ratio": found.ratio,
        "nearer_than_percentile": PERCENTILE,
        "near_share": found.near_share,
        "p_value": None if math.isnan(found.p_value) else found.p_value,
        "quantiles": {str(q): float(np.percentile(found.distances, q)) for q in _QUANTILES},
        "test_quantiles": {str(q): float(np.percentile(found.test_distances, q)) for q in _QUANTILES},
        "files": files,
    }


def control_section(loudness: Mapping[str, LoudnessControl], pitch: Mapping[str, PitchControl]) -> Section:
    """Returns the part on what was asked in numbers and what was measured, by system."""
    parts = ["## Asked and measured"]
    if loudness:
        headings = ["system", "files", "rank correlation of loudness ↑", "median error ↓ (dB)"]
        rows = [
            [name, _files(each.values), _number(each.correlation, 3), _number(each.error, 1)]
            for name, each in loudness.items()
        ]
        parts += [
            "Loudness: the level of the loudest 50 ms, dB of full scale.",
            markdown_table(headings, rows),
        ]
    if pitch:
        headings = [
            "system",
            "files",
            f"within {RIGHT_CENTS:.0f} cents ↑ (%)",
            "median error ↓ (cents)",
            "octave errors",
        ]
        rows = [
            [name, _files(each.values), _percent(each.right), _number(each.error_cents, 1), str(each.octaves)]
            for name, each in pitch.items()
        ]
        parts += [
            "Pitch: of the series of partials that explains a note best; a note without one counts as wrong.",
            markdown_table(headings, rows),
        ]
    parts += _missing(loudness) + _missing(pitch)
    numbers: dict[str, Any] = {}
    if loudness:
        numbers["loudness"] = {name: _loudness_numbers(each) for name, each in loudness.items()}
    if pitch:
        numbers["pitch"] = {name: _pitch_numbers(each) for name, each in pitch.items()}
    return Section("control", parts, numbers)


def _missing(controls: Mapping[str, LoudnessControl] | Mapping[str, PitchControl]) -> list[str]:
    lines = []
    for name, each in controls.items():
        counts = Counter(each.values.reasons.values())
        if counts:
            why = "; ".join(f"{reason}: {count}" for reason, count in counts.most_common(3))
            lines.append(f"- {name}: no value for {counts.total()} files ({why}).")
    return ["\n".join(lines)] if lines else []


def _files(values: Measured) -> str:
    return str(len(values.asked))


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _percent(score: Score) -> str:
    if score.mean is None or score.interval is None:
        return "n/a"
    low, high = score.interval
    return f"{100 * score.mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _values(values: Measured) -> dict[str, Any]:
    files = {
        file: {"asked": asked, "measured": values.measured.get(file)} for file, asked in values.asked.items()
    }
    return {"files": files, "not_measurable": dict(values.reasons)}


def _loudness_numbers(control: LoudnessControl) -> dict[str, Any]:
    return {"spearman": control.correlation, "median_error_db": control.error} | _values(control.values)


def _pitch_numbers(control: PitchControl) -> dict[str, Any]:
    return {
        "within_50_cents": control.right.mean,
        "within_50_cents_interval_95": control.right.interval,
        "median_error_cents": control.error_cents,
        "octave_errors": control.octaves,
    } | _values(control.values)


def sc09_section(
    protocol: Protocol, rows: Mapping[str, tuple[int, Mapping[str, float]]], accuracy: float | None
) -> Section:
    """Returns the part on SC09 by one protocol.

    Args:
        protocol: which.
        rows: number of sounds and scores by system.
        accuracy: of the judge on the real test split, None when not recorded.
    """
    known = "not recorded" if accuracy is None else f"{100 * accuracy:.2f} %"
    names = next(iter(rows.values()))[1]
    table = [
        [name, f"{count:,}", *(f"{value:.3f}" for value in scores.values())]
        for name, (count, scores) in rows.items()
    ]
    titles = {name: protocol.title(count) for name, (count, _) in rows.items()}
    parts = [
        f"## SC09, {protocol.name} protocol",
        f"Judged by our own classifier, whose accuracy on the real test split is {known}; the published tables used "
        "another (98.76 % DiffWave, 98.08 % SaShiMi), so rows of other papers are a comparison at arm's length.",
        markdown_table(["row", "sounds", *names], table),
        "\n".join(f"- {name}: {title}." for name, title in titles.items()),
    ]
    numbers = {
        "protocol": protocol.name,
        "judge_test_accuracy": accuracy,
        "rows": {
            name: {"name": titles[name], "sounds": count, "values": dict(scores)}
            for name, (count, scores) in rows.items()
        },
    }
    return Section("sc09", parts, numbers)
