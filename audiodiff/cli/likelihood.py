"""audiodiff likelihood MODEL INPUT...: how likely recordings are under a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from audiodiff.cli.options import DeviceOption, SeedOption

_SHOWN = 20


def likelihood(
    model: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    inputs: Annotated[
        list[str], typer.Argument(help="Audio files, folders, globs, manifests (their labels are told).")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for likelihood.json, likelihood.md and likelihood.png.")
    ] = Path("likelihood"),
    label: Annotated[
        list[str] | None,
        typer.Option(help="Told of all recordings: a value (seven) or name=value (digit=seven); repeatable."),
    ] = None,
    speaker: Annotated[str | None, typer.Option(help="Short for --label speaker=VALUE.")] = None,
    steps: Annotated[int, typer.Option(help="Of the probability flow; 0 leaves it out: quick.")] = 50,
    probes: Annotated[int, typer.Option(help="Random vectors for the flow's divergence.")] = 1,
    bound_steps: Annotated[int, typer.Option(help="Of the variational bound.")] = 100,
    levels: Annotated[int, typer.Option(help="Noise levels of the denoising error.")] = 20,
    seed: SeedOption = 0,
    batch: Annotated[
        int, typer.Option(help="Recordings at a time; changes speed and memory, not the numbers.")
    ] = 8,
    device: DeviceOption = "cpu",
) -> None:
    """Measure how likely recordings are under a model, in bits per number; lower is likelier."""
    from audiodiff.evaluation.likelihood import Precision, find_recordings, judge_recordings
    from audiodiff.model import load
    from audiodiff.synthesis.generation import label_sets

    precision = Precision(steps, probes, bound_steps, levels, seed, batch)
    trained = load(model, device)
    wanted = [*(label or []), *([f"speaker={speaker}"] if speaker else [])]
    recordings = find_recordings(inputs, trained.labels, label_sets(trained.labels, wanted, [], 1)[0])
    command = " ".join(["audiodiff", *sys.argv[1:]])
    lines = judge_recordings(trained, model, recordings, precision, out, command).splitlines()
    typer.echo("\n".join(lines[: _SHOWN + 3]))
    typer.echo(f"all {len(recordings)} recordings in {out}")
