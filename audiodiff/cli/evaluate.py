"""audiodiff evaluate SAMPLES: scores against recordings, by a judge, or both; metrics.json and RESULTS.md."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_FILES = 24  # to listen to: eight of the worst, the best, and between


def evaluate(
    samples: Annotated[
        Path,
        typer.Argument(help="Folder that `synthesize` or `vocode` wrote; a folder of audio, or one file."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, RESULTS.md and pictures.")],
    model: Annotated[
        Path | None, typer.Option(help="Model folder.", show_default="as named in samples.json")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Recordings: folder or manifest; of texts: a corpus.",
            show_default="as named in samples.json",
        ),
    ] = None,
    judge: Annotated[
        Path | None, typer.Option(help="Folder that `judge` wrote; of texts: `recognizer`.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Label that the judge recognises.", show_default="the judge's")
    ] = None,
    system: Annotated[
        list[str] | None, typer.Option(help="NAME=DIR: another folder to compare with; repeatable.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Prepared folder: compare as a set with its test and training clips.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="Of sets: judge, mel, or a folder with test.npy, train.npy and NAME.npy.",
            show_default="judge where there is one, else mel",
        ),
    ] = None,
    sc09: Annotated[
        str | None, typer.Option(help="Also by a protocol of SC09 papers: diffwave or sashimi.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Also write report.html, a page to look at and listen to.")
    ] = False,
    report_files: Annotated[int, typer.Option(help="Files with sounds on that page.")] = DEFAULT_FILES,
    seed: Annotated[int, typer.Option(help="Of Griffin-Lim, the bootstrap intervals and draws.")] = 0,
) -> None:
    """Score samples: against their recordings, by a judge of their labels, or by the words that are heard."""
    from audiodiff.errors import InputError
    from audiodiff.evaluation.comparison import Comparison, compare
    from audiodiff.evaluation.set_comparison import SetComparison

    others: dict[str, Path] = {}
    for given in system or []:
        name, separator, folder = given.partition("=")
        if not separator or not name or not folder or name in others:
            raise InputError(f"--system {given}: expected NAME=DIR, each name once")
        others[name] = Path(folder)
    if seed < 0:
        raise InputError(f"--seed: got {seed}, expected 0 or more")
    if label is not None and judge is None:
        raise InputError(f"--label {label}: needs a judge; pass --judge DIR (made with `audiodiff judge`)")
    command = " ".join(["audiodiff", *sys.argv[1:]])
    sets = SetComparison(data, features, sc09)
    files = report_files if report else None
    asked = Comparison(samples, model, reference, judge, label, others, seed, sets, files)
    typer.echo(compare(asked, out, command, show=True))
    typer.echo(f"all numbers in {out}")
