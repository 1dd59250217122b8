"""What RESULTS.md and metrics.json say of spoken texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audiodiff.evaluation.costs import beside, definitions
from audiodiff.evaluation.metrics import mcd_dtw
from audiodiff.evaluation.report import markdown_table, range_of, score_numbers
from audiodiff.evaluation.speech_scores import FIGURES, HeardWords, SpeechScores, SpokenScores
from audiodiff.evaluation.word_errors import WordErrors
from audiodiff.synthesis.cost import Cost

_DIGITS = {"seconds": 2, "seconds_per_word": 3, "f0_median": 0, "f0_spread": 1, "level": 1}


def speech_parts(scores: SpeechScores, costs: Mapping[str, Cost]) -> list[str]:
    """Returns the paragraphs and tables of RESULTS.md.

    Args:
        scores: of all systems.
        costs: of the systems' sounds, where they were measured.
    """
    parts = ["## Spoken texts"]
    parts.append(
        f"{len(scores.texts)} texts. Means over texts, a word error rate over all words; 95 % bootstrap intervals over "
        "texts; ↓ lower is better."
    )
    heard = {name: each.words for name, each in scores.systems.items() if each.words is not None}
    if scores.recognizer is not None:
        parts += _word_parts(scores.recognizer, heard)
    if scores.real is not None:
        parts += _distance_parts(scores)
    parts += ["### Figures", _figures(scores.systems, costs)]
    parts += ["\n".join(definitions())] if costs else []
    return parts


def speech_numbers(scores: SpeechScores) -> dict[str, Any]:
    """Returns every number for metrics.json."""
    return {
        "texts": dict(scores.texts),
        "real": scores.real,
        "recognizer": None if scores.recognizer is None else dict(scores.recognizer),
        "compared_rate": scores.compared_rate,
        "systems": {name: _system_numbers(each) for name, each in scores.systems.items()},
    }


def _word_parts(facts: Mapping[str, Any], heard: Mapping[str, HeardWords]) -> list[str]:
    headings = [
        "system",
        "words",
        "word error rate ↓ (%)",
        "substituted",
        "deleted",
        "inserted",
        "texts right (%)",
    ]
    rows = [_recognizer_row(facts)]
    for name, words in heard.items():
        total, (low, high) = words.total, words.interval
        rate = f"{100 * total.rate:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        right = sum(each.total == 0 for each in words.errors.values()) / len(words.errors)
        rows.append([name, str(total.words), rate, *_kinds(total), f"{100 * right:.1f}"])
    lengths = sorted({length for words in heard.values() for length in words.by_length()})
    table = [[name, *_by_length(words, lengths)] for name, words in heard.items()]
    return [
        "### Words",
        "Heard by a recogniser that is not told how many words there are. The first row is its own error: real clips "
        "of the test split, one after another in orders that nothing was trained on.",
        markdown_table(headings, rows),
        "Word error rate (%) by number of words in the text:",
        markdown_table(["system", *map(str, lengths)], table),
    ]


def _recognizer_row(facts: Mapping[str, Any]) -> list[str]:
    if "test_word_errors" not in facts:
        return ["the recogniser on real speech", *["not recorded"] * 6]
    low, high = facts["test_word_error_rate_interval_95"]
    rate = f"{100 * facts['test_word_error_rate']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    total = WordErrors(**facts["test_word_errors"], words=facts["test_words"])
    right = f"{100 * facts['test_texts_right']:.1f}"
    return ["the recogniser on real speech", str(total.words), rate, *_kinds(total), right]


def _kinds(errors: WordErrors) -> list[str]:
    return [str(errors.substitutions), str(errors.deletions), str(errors.insertions)]


def _by_length(words: HeardWords, lengths: Sequence[int]) -> list[str]:
    errors = words.by_length()
    return [f"{100 * errors[n].rate:.1f}" if n in errors else "" for n in lengths]


def _distance_parts(scores: SpeechScores) -> list[str]:
    rows = []
    for name, each in scores.systems.items():
        if each.distance is not None and each.shuffled is not None:
            ratio = ""
            if each.distance.mean is not None and each.shuffled.mean:
                ratio = f"{each.distance.mean / each.shuffled.mean:.2f}"
            rows.append(
                [
                    name,
                    str(len(each.distance.values)),
                    range_of(each.distance, 2),
                    range_of(each.shuffled, 2),
                    ratio,
                ]
            )
    return [
        "### Distance from real speech",
        f"MCD-DTW in dB from the {scores.real} of the same text, beside that of another text of the same speaker "
        f"(the same sounds, texts exchanged), at {scores.compared_rate} Hz. A ratio of 1 says nothing in particular.",
        markdown_table(["system", "texts", "same text ↓", "other text", "ratio ↓"], rows),
        f"- **MCD-DTW**: {' '.join((mcd_dtw.__doc__ or '').split())}",
    ]


def _figures(systems: Mapping[str, SpokenScores], costs: Mapping[str, Cost]) -> str:
    rows = [
        [name, *(range_of(each.figures[key], _DIGITS[key]) for key in FIGURES)]
        for name, each in systems.items()
    ]
    return markdown_table(*beside(["system", *FIGURES.values()], rows, costs))


def _system_numbers(scores: SpokenScores) -> dict[str, Any]:
    content: dict[str, Any] = {"figures": {key: score_numbers(each) for key, each in scores.figures.items()}}
    if scores.words is not None:
        total = scores.words.total
        content["words"] = {
            "word_error_rate": total.rate,
            "interval_95": list(scores.words.interval),
            **_counts(total),
            "files": {
                name: {"heard": scores.words.heard[name], **_counts(errors)}
                for name, errors in scores.words.errors.items()
            },
        }
    for key, score in (("mcd_dtw", scores.distance), ("mcd_dtw_other_text", scores.shuffled)):
        if score is not None:
            content[key] = score_numbers(score)
    return content


def _counts(errors: WordErrors) -> dict[str, int]:
    return {
        "substitutions": errors.substitutions,
        "deletions": errors.deletions,
        "insertions": errors.insertions,
        "words": errors.words,
    }
