"""audiodiff ema EXP --width 0.05 --out FOLDER: a model of averaged weights of another width."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ema(
    run: Annotated[Path, typer.Argument(help="Run folder, trained with training.posthoc_ema.")],
    width: Annotated[float, typer.Option(help="Of the average, as a share of the training: 0.05, 0.1, ...")],
    out: Annotated[Path, typer.Option(help="Folder of the model that comes out.")],
    update: Annotated[
        int | None,
        typer.Option(help="Take the average as it was after this update; default: the last snapshot's."),
    ] = None,
) -> None:
    """Average a training's weights over another width, after it (post-hoc EMA)."""
    from audiodiff.training.posthoc_ema import save_average

    mixture = save_average(run, width, update, out)
    typer.echo(
        f"average of width {width:g} after update {mixture.update}: of {len(mixture.coefficients)} stored averages, "
        f"its profile is met to {100 * mixture.error:.2g} %"
    )
    typer.echo(f"model: {out}")
