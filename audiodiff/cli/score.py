"""audiodiff score MODEL INPUT...: bits, denoising errors and anomalies of recordings, one row each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from audiodiff.cli.options import DeviceOption

_SHOWN = 20


def score(
    model: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    inputs: Annotated[
        list[str], typer.Argument(help="Audio files, folders, globs, manifests (their labels are told).")
    ],
    out: Annotated[
        Path, typer.Option(help="CSV file; rows that are there are kept. A record lies beside it.")
    ] = Path("scores.csv"),
    detector: Annotated[
        Path | None, typer.Option(help="Folder made by fit-threshold; flags recordings and intervals.")
    ] = None,
    frames: Annotated[
        Path | None, typer.Option(help="Folder for a table and a heat map of each recording's frames.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Told of all recordings: a value (seven) or name=value (digit=seven); repeatable."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Of the probability flow; 0 leaves it out: quick.")] = 0,
    bound_steps: Annotated[int, typer.Option(help="Of the variational bound; 0 leaves it out.")] = 20,
    levels: Annotated[
        int | None, typer.Option(help="Noise levels of the denoising error.", show_default="7")
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help="Of noise, averaged at each level.", show_default="2")
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(help="Seconds of a long recording taken at once.", show_default="the training segment"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the noise.", show_default="0")] = None,
    batch: Annotated[int, typer.Option(help="Windows at a time; changes speed, not the numbers.")] = 8,
    device: DeviceOption = "cpu",
) -> None:
    """Score recordings: bits per number, denoising error by noise level, anomalies. Exit code 2 if any could not be."""
    from audiodiff.anomaly.detector import load as load_detector
    from audiodiff.anomaly.measure import Bits, Probe
    from audiodiff.anomaly.pieces import find_sources
    from audiodiff.anomaly.score import Scoring, score_recordings
    from audiodiff.cli.failure import fail
    from audiodiff.errors import InputError
    from audiodiff.model import load
    from audiodiff.synthesis.generation import label_sets

    asked = {"levels": levels, "draws": draws, "window_seconds": window, "seed": seed}
    given = {name: value for name, value in asked.items() if value is not None}
    if detector is not None and given:
        option = "--" + next(iter(given)).removesuffix("_seconds")
        raise InputError(f"{option}: a detector keeps its own; fit it with this option, or score without it")
    fitted = None if detector is None else load_detector(detector)
    probe = Probe(**given) if fitted is None else fitted.probe  # type: ignore[arg-type]
    bits = Bits(steps, bound_steps)
    trained = load(model, device)
    labels = label_sets(trained.labels, label or [], [], 1)[0]
    recordings = find_sources(inputs, trained.labels, labels)
    command = " ".join(["audiodiff", *sys.argv[1:]])
    scoring = Scoring(trained, model, fitted, probe, bits, out, frames, labels)
    outcome = score_recordings(scoring, recordings, batch, command)
    for problem in outcome.problems[:_SHOWN]:
        typer.echo(problem, err=True)
    scored = len(recordings) - len(outcome.problems)
    kept = f", {outcome.kept} of them before" if outcome.kept else ""
    typer.echo(f"{scored} of {len(recordings)} recordings scored{kept}: {out}")
    if fitted is not None:
        flagged = [name for name, row in outcome.rows.items() if row["flagged"] == "yes"]
        typer.echo(f"{len(flagged)} flagged; {fitted.told}")
        for name in flagged[:_SHOWN]:
            row = outcome.rows[name]
            typer.echo(f"  {name}: score {row['score']} ({row['statistic']}) {row['intervals']}".rstrip())
    if outcome.problems:
        fail(f"{len(outcome.problems)} of {len(recordings)} recordings could not be scored; see {out}")
