"""audiodiff sweep-table OUT: the results of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sweep_table(
    folder: Annotated[Path, typer.Argument(help="The sweep's folder, that of out=...")],
) -> None:
    """Print the table of a sweep's runs, failed ones too, and write it as sweep.csv and sweep.md."""
    from rich.console import Console
    from rich.table import Table

    from audiodiff.training.sweep import sweep_table as tabulate
    from audiodiff.training.sweep import write_table

    table = tabulate(folder)
    filled = [place for place in range(len(table.headings)) if any(row[place] for row in table.rows)]
    shown = Table()
    for place in filled:
        shown.add_column(table.headings[place], overflow="fold")
    for row in table.rows:
        shown.add_row(*(row[place] for place in filled))
    console = Console()
    Console(width=console.width if console.is_terminal else 160, markup=False).print(shown)
    typer.echo(table.summary)
    for path in write_table(table, folder):
        typer.echo(str(path))
