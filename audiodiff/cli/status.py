"""audiodiff status EXP ...: where runs stand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def status(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, or folders that hold runs, as of a sweep.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For machines: a list of objects.")] = False,
) -> None:
    """Print where runs stand: progress, speed, losses, best checkpoint, trouble, running or not."""
    import json

    from audiodiff.training.status import one_line, rows, run_folders, standing

    found = [standing(folder) for folder in run_folders(runs)]
    if as_json:
        typer.echo(json.dumps([run.as_dict() for run in found], indent=1))
    elif len(found) > 1:
        for run in found:
            typer.echo(one_line(run))
    else:
        typer.echo(found[0].folder)
        for name, value in rows(found[0]).items():
            typer.echo(f"  {name:<15}  {value}")
