"""audiodiff fit-threshold MODEL NORMAL...: a detector of what is unlike some normal recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audiodiff.cli.options import DeviceOption


def fit_threshold(
    model: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    inputs: Annotated[
        list[str],
        typer.Argument(help="Normal recordings of one kind: audio files, folders, globs, manifests."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the detector.")] = Path("detector"),
    false_alarms: Annotated[
        float, typer.Option(help="Share of normal recordings that may be flagged.")
    ] = 0.05,
    components: Annotated[int, typer.Option(help="Gaussians of the density of frames.")] = 8,
    levels: Annotated[int, typer.Option(help="Noise levels of the denoising error.")] = 7,
    groups: Annotated[int, typer.Option(help="Frequency ranges that errors are told for.")] = 2,
    bands: Annotated[int, typer.Option(help="Frequency bands that the power is told for.")] = 24,
    draws: Annotated[int, typer.Option(help="Of noise, averaged at each level.")] = 2,
    window: Annotated[
        float | None,
        typer.Option(help="Seconds of a long recording taken at once.", show_default="the training segment"),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Told of all recordings: a value (seven) or name=value (digit=seven); repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise and of the parts of the normals.")] = 0,
    batch: Annotated[int, typer.Option(help="Windows at a time; changes speed, not the numbers.")] = 8,
    device: DeviceOption = "cpu",
) -> None:
    """Fit a detector of anomalies to normal recordings that the model was not trained on."""
    from audiodiff.anomaly.measure import Probe
    from audiodiff.anomaly.pieces import find_sources
    from audiodiff.anomaly.score import fit_detector
    from audiodiff.model import load
    from audiodiff.synthesis.generation import label_sets

    probe = Probe(levels=levels, groups=groups, bands=bands, draws=draws, window_seconds=window, seed=seed)
    trained = load(model, device)
    recordings = find_sources(inputs, trained.labels, label_sets(trained.labels, label or [], [], 1)[0])
    detector, facts = fit_detector(trained, model, recordings, probe, false_alarms, components, batch)
    detector.save(out, facts)
    for problem in facts["problems"]:  # type: ignore[attr-defined]
        typer.echo(problem, err=True)
    typer.echo(f"detector of {facts['recordings']} recordings in {out}: {detector.told}")
