"""audiodiff listening-test make, results: blind listening tests as one page, and what the answers say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

listening_test = typer.Typer(
    help="Blind listening tests: MOS, MUSHRA and ABX as one page; their analysis.", no_args_is_help=True
)


@listening_test.command()
def make(
    kind: Annotated[str, typer.Option(help="mos, mushra or abx.")],
    system: Annotated[list[str], typer.Option(help="NAME=DIR: the sounds of a system; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder for listening_test.html and key.json.")],
    reference: Annotated[
        Path | None,
        typer.Option(help="Recordings: what mushra compares with, one more system to mos and abx."),
    ] = None,
    files: Annotated[
        int | None, typer.Option(help="Hear so many files, drawn by the seed.", show_default="all")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Of each pair and file, for abx.")] = 1,
    match_loudness: Annotated[
        bool,
        typer.Option("--match-loudness", help="Bring the sounds of a file to one level (loudest 50 ms)."),
    ] = False,
    anchor: Annotated[
        list[float] | None,
        typer.Option(help="Low-pass of an anchor of mushra in Hz; repeatable.", show_default="3500 and 7000"),
    ] = None,
    question: Annotated[str | None, typer.Option(help="To ask.", show_default="that of the kind")] = None,
    seed: Annotated[
        int, typer.Option(help="Of names, choice and order; the same seed gives the same test.")
    ] = 0,
) -> None:
    """Make a page to send to listeners, and a key to keep."""
    from audiodiff.errors import InputError
    from audiodiff.evaluation.listening.design import Question, design
    from audiodiff.evaluation.listening.page import write_test

    systems: dict[str, Path] = {}
    for given in system:
        name, separator, folder = given.partition("=")
        if not separator or not name or not folder or name in systems:
            raise InputError(f"--system {given}: expected NAME=DIR, each name once")
        systems[name] = Path(folder)
    asked = Question(kind, systems, reference, seed, files, repeats, match_loudness, anchor or (), question)
    made = design(asked, " ".join(["audiodiff", *sys.argv[1:]]), show=True)
    page, key = write_test(made, out, show=True)
    typer.echo(f"{len(made.trials)} questions, {page.stat().st_size / 1e6:.1f} MB: send {page}, keep {key}")


@listening_test.command()
def results(
    answers: Annotated[list[Path], typer.Argument(help="Files that listeners saved, or folders of them.")],
    key: Annotated[Path, typer.Option(help="key.json of the test.")],
    out: Annotated[Path, typer.Option(help="Folder for RESULTS.md, results.json and results.png.")],
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
) -> None:
    """Analyse what listeners sent back."""
    from audiodiff.errors import InputError
    from audiodiff.evaluation.listening.report import write_results

    if seed < 0:
        raise InputError(f"--seed: got {seed}, expected 0 or more")
    typer.echo(write_results(answers, key, out, seed, " ".join(["audiodiff", *sys.argv[1:]])))
    typer.echo(f"all of it in {out}")
