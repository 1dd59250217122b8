"""results.json, RESULTS.md and results.png of a listening test."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from audiodiff.audio.pictures import new_figure
from audiodiff.errors import InputError
from audiodiff.evaluation.listening.analysis import (
    LOWEST_REFERENCE,
    MOST_MISSES,
    Contrast,
    Detection,
    Opinion,
    contrasts,
    detections,
    incomplete,
    opinions,
    screened,
)
from audiodiff.evaluation.listening.answers import Answers, Key, read_answers, read_key
from audiodiff.evaluation.listening.design import ABX, MOS, MUSHRA
from audiodiff.evaluation.report import RESULTS, markdown_table
from audiodiff.files import write_whole

NUMBERS, PICTURE = "results.json", "results.png"
_NAMES = {MOS: "Mean opinion score (1 to 5)", MUSHRA: "MUSHRA score (0 to 100)", ABX: "X named rightly (%)"}


@dataclass(frozen=True)
class Findings:
    """What came out.

    Attributes:
        opinions: by system, of mos and mushra.
        contrasts: pairs of systems, of mos and mushra.
        detections: pairs of systems, of abx.
        left_out: listeners that were screened out, with their share of missed references.
        incomplete: listeners that did not answer all, with what they answered.
    """

    opinions: Mapping[str, Opinion]
    contrasts: Sequence[Contrast]
    detections: Sequence[Detection]
    left_out: Mapping[str, float]
    incomplete: Mapping[str, int]


def write_results(given: Sequence[Path], key_path: Path, out: Path, seed: int, command: str) -> str:
    """Analyses answers, writes the three files into `out` and returns the text of RESULTS.md.

    Args:
        given: files that listeners saved, or folders of them.
        key_path: what `make` left for the experimenter.
        out: folder.
        seed: of the bootstrap.
        command: for the record.

    Raises:
        InputError: a key or answers that cannot be read or do not belong together.
    """
    key = read_key(key_path)
    answers = read_answers(given, key)
    found = findings(key, answers, seed)
    record = {
        "test": key.test,
        "kind": key.kind,
        "question": key.question,
        "command": command,
        "trials": len(key.trials),
        "answered": dict(answers.answered),
        "left_out": dict(found.left_out),
        "incomplete": dict(found.incomplete),
        "systems": {name: asdict(each) for name, each in found.opinions.items()},
        "contrasts": [asdict(each) for each in found.contrasts],
        "pairs": [asdict(each) for each in found.detections],
        "notes": list(key.notes),
    }
    text = text_of(key, answers, found, command)
    write_whole(
        {
            out / NUMBERS: (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode("utf-8"),
            out / RESULTS: text.encode("utf-8"),
            out / PICTURE: _picture(key, found),
        }
    )
    return text


def findings(key: Key, answers: Answers, seed: int) -> Findings:
    """Returns what answers say.

    Raises:
        InputError: every listener is screened out.
    """
    left_out = screened(answers.ratings) if key.kind == MUSHRA else {}
    kept = [rating for rating in answers.ratings if rating.listener not in left_out]
    if answers.ratings and not kept:
        raise InputError(
            f"all {len(left_out)} listeners rate the hidden reference below {LOWEST_REFERENCE:g} in more than "
            f"{100 * MOST_MISSES:g} % of the items, so none is left (ITU-R BS.1534-3); ask others, and practise first"
        )
    return Findings(
        opinions(kept, seed),
        contrasts(kept, seed),
        detections(answers.choices),
        left_out,
        incomplete(answers, len(key.trials)),
    )


def text_of(key: Key, answers: Answers, found: Findings, command: str) -> str:
    """Returns the content of RESULTS.md."""
    listeners = len(answers.answered)
    files = len(
        {owner[1] for trial in key.trials.values() for owner in (key.owners[sound] for sound in trial)}
    )
    parts = [
        f"# Listening test ({key.kind.upper()})",
        f"“{key.question}” {listeners} listener{'s' * (listeners != 1)}, {files} files, {len(key.trials)} questions; "
        f"test {key.test}.",
    ]
    parts += _detection_parts(found) if key.kind == ABX else _rating_parts(key, found)
    lines = [f"- {note}" for note in key.notes]
    lines += [
        f"- {listener} answered {count} of {len(key.trials)} questions, which count."
        for listener, count in found.incomplete.items()
    ]
    if listeners - len(found.left_out) == 1:
        lines.append("- One listener alone: nothing here tells how others would answer.")
    if key.kind == MUSHRA:
        rule = f"rate the hidden reference below {LOWEST_REFERENCE:g} in more than {100 * MOST_MISSES:g} % of items"
        lines.append(
            f"- {len(found.left_out)} of {listeners} listeners left out, who {rule} (ITU-R BS.1534-3)."
        )
        lines += [f"- {name}, left out: in {100 * share:.0f} %." for name, share in found.left_out.items()]
    if lines:
        parts += ["## Notes", "\n".join(lines)]
    return "\n\n".join([*parts, f"Analysed with: `{command}`"]) + "\n"


def _rating_parts(key: Key, found: Findings) -> list[str]:
    digits = 2 if key.kind == MOS else 1
    rows = [
        [name, _between(each.mean, each.interval, digits), f"{each.deviation:.{digits}f}", str(each.ratings)]
        for name, each in found.opinions.items()
    ]
    gaps = [
        [each.first, each.second, str(each.pairs), _signed(each, digits), _p(each.p)]
        for each in found.contrasts
    ]
    return [
        f"{_NAMES[key.kind]}, mean and its 95 % interval by a bootstrap over listeners and files.",
        markdown_table(["system", "mean ↑", "standard deviation", "ratings"], rows),
        "## Differences",
        "On the (listener, file) pairs that rated both: Wilcoxon's signed-rank test, p-values raised by Holm's method. "
        "The test takes pairs as independent; where interval and p-value disagree, believe the interval.",
        markdown_table(["first", "second", "pairs", "first - second", "p (Holm)"], gaps),
    ]


def _detection_parts(found: Findings) -> list[str]:
    rows, single = [], []
    for each in found.detections:
        share, (low, high) = each.right / each.answers, each.interval
        between = f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        rows.append([*each.pair, f"{each.right} of {each.answers}", between, _p(each.p)])
        single += [
            [name, *each.pair, f"{right} of {answers}"] for name, (right, answers) in each.listeners.items()
        ]
    return [
        "How often X was named rightly, where guessing gives 50 %: exact binomial test of more than that, p-values "
        "raised by Holm's method; intervals of Clopper and Pearson. A high p-value does not show that two systems "
        "sound alike.",
        markdown_table(["first", "second", "right", "share (%)", "p (Holm)"], rows),
        "## By listener",
        markdown_table(["listener", "first", "second", "right"], single),
    ]


def _picture(key: Key, found: Findings) -> bytes:
    """Returns a PNG: one row per system or pair, the mean and its interval."""
    rows = {name: (each.mean, each.interval) for name, each in found.opinions.items()}
    for each in found.detections:
        low, high = each.interval
        rows[" / ".join(each.pair)] = 100 * each.right / each.answers, (100 * low, 100 * high)
    figure = new_figure(7, 1.2 + 0.42 * len(rows))
    axes = figure.subplots()
    for place, (mean, (low, high)) in enumerate(rows.values()):
        axes.plot([low, high], [place, place], color="tab:blue", linewidth=2)
        axes.plot([mean], [place], "o", color="tab:blue", clip_on=False)
        axes.annotate(
            f"{mean:.3g}", (mean, place), (0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.set_xlim(*{MOS: (1, 5), MUSHRA: (0, 100), ABX: (0, 100)}[key.kind])
    if key.kind == ABX:
        axes.axvline(50, color="grey", linestyle=":")
    axes.set_xlabel(f"{_NAMES[key.kind]}, 95 % interval")
    axes.grid(alpha=0.3, axis="x")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _between(mean: float, interval: tuple[float, float], digits: int) -> str:
    return f"{mean:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def _signed(each: Contrast, digits: int) -> str:
    low, high = each.interval
    return f"{each.mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _p(p: float | None) -> str:
    return "too few pairs" if p is None else f"{p:.2g}"
