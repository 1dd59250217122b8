"""audiodiff search-schedule MODEL --steps N --data DIR: the best grid of N steps, kept in the model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiodiff.cli.options import DeviceOption, SamplerOption

if TYPE_CHECKING:
    from rich.table import Table

    from audiodiff.evaluation.schedule_search import FoundSchedule


def search_schedule(
    model: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    steps: Annotated[int, typer.Option(help="Steps of the grid.")],
    data: Annotated[Path, typer.Option(help="Prepared folder with dev and test manifests.")],
    score: Annotated[
        str | None,
        typer.Option(
            help="trajectory (nearness to the model's own result in 100 steps), or a metric for models that hear a "
            "mel: lsd, mcd, mrstft, ...",
            show_default="lsd for models that hear a mel, else trajectory",
        ),
    ] = None,
    sampler: SamplerOption = None,
    split: Annotated[
        str, typer.Option(help="Split of the clips that the search sees: dev or train.")
    ] = "dev",
    clips: Annotated[int, typer.Option(help="Clips that the search sees.")] = 16,
    test_clips: Annotated[int, typer.Option(help="Clips of the test split for the comparison.")] = 64,
    seconds: Annotated[float, typer.Option(help="Of a longer clip, the middle is taken.")] = 3.0,
    draws: Annotated[int, typer.Option(help="Draws of noise per clip.")] = 1,
    rounds: Annotated[int, typer.Option(help="Passes of the search over all times.")] = 3,
    seed: Annotated[int, typer.Option(help="Of clips and noise.")] = 0,
    batch: Annotated[int, typer.Option(help="Clips at a time; changes speed and memory alone.")] = 16,
    keep_default: Annotated[
        bool, typer.Option("--keep-default", help="Leave the model's default sampler as it is.")
    ] = False,
    device: DeviceOption = "cpu",
) -> None:
    """Find the best grid of N steps for a trained model; `--steps N` samples on it from then on."""
    from rich.console import Console

    from audiodiff.cli.failure import fail
    from audiodiff.evaluation.schedule_record import FOLDER, PICTURE
    from audiodiff.evaluation.schedule_search import SearchRequest, save_schedule
    from audiodiff.evaluation.schedule_search import search_schedule as search
    from audiodiff.hardware import device_name
    from audiodiff.model import find_model, load

    asked = SearchRequest(
        steps, data, score, sampler, split, clips, test_clips, seconds, draws, rounds, seed, batch
    )
    trained, folder = load(model, device), find_model(model)
    try:
        found = search(trained, folder, asked, typer.echo)
    except KeyboardInterrupt:
        fail(
            f"interrupted; the scores so far are in {folder / FOLDER}, and the same command goes on with them"
        )
    save_schedule(trained, folder, asked, found, device_name(device), keep_default)
    Console().print(_table(found))
    typer.echo(_verdict(found))
    typer.echo(
        f"--steps {steps} samples on this grid" + ("" if keep_default else ", and so does the model by default")
        + f"; written to {folder}, picture in {folder / PICTURE}"
    )  # fmt: skip


def _table(found: FoundSchedule) -> Table:
    from rich.table import Table

    scale = found.scale
    unit = f" in {scale.unit}" if scale.unit else ""
    table = Table(
        title=f"{scale.name}{unit}, {scale.better} is better; means as sampled, without mel iterations"
    )
    table.add_column("grid", overflow="fold")
    for heading, count in zip(("search", "held-out"), found.clips, strict=True):
        table.add_column(f"{heading}, {count} clips", justify="right")
    table.add_column("times", overflow="fold")
    sign = 1 if scale.better == "lower" else -1
    for name, grid in sorted(found.grids.items(), key=lambda item: sign * item[1].test):
        times = " ".join(f"{time:.3g}" for time in grid.times)
        style = "bold" if name == found.origin else ""
        table.add_row(name, f"{grid.search:.4g}", f"{grid.test:.4g}", times, style=style)
    return table


def _verdict(found: FoundSchedule) -> str:
    gain, low, high = found.gain
    unit = f" {found.scale.unit}".rstrip()
    compared = "worse" if found.origin == found.rival else "better"
    told = (
        f"{found.scored} grids scored in {found.seconds:.0f} s; on held-out clips the found grid is {compared} than "
        f"the best other, {found.rival}, by {abs(gain):.3g}{unit} (gain {low:.3g} to {high:.3g} with 95 % confidence)"
    )
    if found.origin == found.rival:
        return f"{told}, so {found.rival} is kept; more --clips may find a better one"
    return told
