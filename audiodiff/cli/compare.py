"""audiodiff compare RESULTS...: several evaluations in one table, tested pair by pair, with a page to listen to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from audiodiff.cli.evaluate import DEFAULT_FILES


def compare(
    results: Annotated[
        list[str],
        typer.Argument(
            help="Folders that `evaluate` wrote, or runs that hold results/; NAME=FOLDER names one."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for RESULTS.md, comparison.json and report.html.")],
    files: Annotated[int, typer.Option(help="Files with sounds on the page.")] = DEFAULT_FILES,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
) -> None:
    """Compare experiments on the files that all of them have."""
    from audiodiff.errors import InputError
    from audiodiff.evaluation.several import compare_results

    if seed < 0 or files < 0:
        raise InputError(f"--seed {seed}, --files {files}: expected 0 or more")
    typer.echo(compare_results(results, out, " ".join(["audiodiff", *sys.argv[1:]]), files, seed, show=True))
    typer.echo(f"all of it in {out}")
