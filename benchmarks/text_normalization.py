"""How often the library reads numbers as LJ Speech's reader did: its transcripts, raw beside normalised.

    python benchmarks/text_normalization.py --lines metadata.csv.gz

A line is `id|raw|normalised`. The rules were written with odd lines in sight and never saw even ones. Prints the share
of lines that agree exactly (up to white space), of all and of those that the corpus changed, and the kinds of those
that do not. The corpus spells numbers, rulers and "&" but leaves abbreviations ("Mr.", "Co.") as they are; so does the
part that is compared here, `english.spell_numbers`. What `normalize` does further is counted at the end.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections import Counter
from pathlib import Path

from audiodiff.text.english import spell_numbers
from audiodiff.text.normalization import normalize

KINDS = (
    ("time: the corpus joins hours and minutes by a colon", r"[0-9]:[0-9]"),
    ("hundreds: the corpus reads 1,300 in two ways", r"[0-9],?[1-9]00(?![0-9])"),
    ("full stop after a ruler's numeral", r"\b[IVX]+\."),
    ("year or amount", r"(?<![0-9,.])[0-9]{4}(?![0-9,])"),
    ("three digits", r"(?<![0-9,.])[0-9]{3}(?![0-9,])"),
    ("other number", r"[0-9]"),
    ("other", r""),
)


def squeeze(text: str) -> str:
    """Returns the text with single spaces."""
    return " ".join(text.split())


def kind_of(raw: str, ours: str, theirs: str) -> str:
    """Returns the kind of the first difference."""
    if ours == re.sub(r"(?<=[a-z]):(?=[a-z])", " ", theirs):
        return KINDS[0][0]
    return next(name for name, pattern in KINDS[1:] if re.search(pattern, raw))


def score(lines: list[list[str]]) -> tuple[Counter[str], Counter[str], dict[str, list[str]]]:
    """Returns counts, kinds that differ, and examples of each."""
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for name, raw, normalised in lines:
        theirs, ours = squeeze(normalised), squeeze(spell_numbers(raw))
        changed = squeeze(raw) != theirs
        counts["all"] += 1
        counts["changed"] += changed
        counts["agree"] += ours == theirs
        counts["changed agree"] += changed and ours == theirs
        counts["abbreviations"] += normalize(raw) != squeeze(spell_numbers(squeeze(raw)))
        if ours != theirs:
            kind = kind_of(raw, ours, theirs)
            kinds[kind] += 1
            examples.setdefault(kind, []).append(f"{name}\n  ours   {ours}\n  theirs {theirs}")
    return counts, kinds, examples


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=Path, required=True, help="metadata.csv or metadata.csv.gz")
    parser.add_argument("--show", type=int, default=0, help="examples of each kind, from odd lines alone")
    arguments = parser.parse_args()
    opened = gzip.open if arguments.lines.suffix == ".gz" else open
    with opened(arguments.lines, "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("|") for line in file if line.strip()]
    parts = {"odd (seen)": lines[0::2], "even (held out)": lines[1::2], "all": lines}
    scores = {part: score(chosen) for part, chosen in parts.items()}
    print("| lines | number | agree | changed by the corpus | of these agree |\n|---|---|---|---|---|")
    for part, (counts, _, _) in scores.items():
        print(
            f"| {part} | {counts['all']} | {counts['agree'] / counts['all']:.2%} | {counts['changed']} | "
            f"{counts['changed agree'] / counts['changed']:.2%} |"
        )
    print("\n| lines that differ, by kind | odd | even |\n|---|---|---|")
    for kind, _ in scores["all"][1].most_common():
        print(f"| {kind} | {scores['odd (seen)'][1][kind]} | {scores['even (held out)'][1][kind]} |")
    print(f"\n`normalize` also expands abbreviations, in {scores['all'][0]['abbreviations']} lines.")
    for kind, shown in scores["odd (seen)"][2].items():
        print(*([f"\n{kind}", *shown[: arguments.show]] if arguments.show else []), sep="\n", end="")


if __name__ == "__main__":
    main()
