"""audiodiff texts MANIFEST: the texts of a prepared corpus, one a line, so that a model can speak what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def texts(
    manifest: Annotated[
        Path, typer.Argument(help="Manifest of a prepared corpus, for example test.jsonl.gz.")
    ],
    out: Annotated[Path, typer.Option(help="Text file, one text a line; with --by a folder of VALUE.txt.")],
    most: Annotated[int, typer.Option(help="Texts at most, spread over the manifest.")] = 100,
    by: Annotated[
        str | None,
        typer.Option(help="Label, for example speaker: a file for each value.", show_default="one file"),
    ] = None,
) -> None:
    """Write the texts of a corpus, to be spoken and scored against its recordings."""
    from audiodiff.data.manifests import load_cuts
    from audiodiff.evaluation.spoken_references import write_texts

    written = write_texts(load_cuts(manifest), out, most, by)
    typer.echo(f"{sum(written.values())} texts in {out}")
