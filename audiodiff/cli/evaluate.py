"""audiodiff evaluate SAMPLES: scores against recordings, by a judge, or both; metrics.json and RESULTS.md."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    samples: Annotated[Path, typer.Argument(help="Folder that `synthesize` or `vocode` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, RESULTS.md and pictures.")],
    model: Annotated[
        Path | None, typer.Option(help="Model folder.", show_default="as named in samples.json")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Recordings: folder or manifest.", show_default="as named in samples.json"),
    ] = None,
    judge: Annotated[Path | None, typer.Option(help="Folder that `judge` wrote.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Label that the judge recognises.", show_default="the judge's")
    ] = None,
    system: Annotated[
        list[str] | None, typer.Option(help="NAME=DIR: another folder to compare with; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of Griffin-Lim and the bootstrap intervals.")] = 0,
) -> None:
    """Score samples: against their recordings, or by a judge of their labels."""
    from audiodiff.errors import InputError
    from audiodiff.evaluation.comparison import Comparison, compare

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
    report = compare(
        Comparison(samples, model, reference, judge, label, others, seed), out, command, show=True
    )
    typer.echo(report)
    typer.echo(f"all numbers in {out}")
