"""audiodiff trace MODEL: a picture of the forward process and the reverse trajectory of one sound."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from audiodiff.cli.options import DeviceOption, EtaOption, GridOption, SamplerOption, SeedOption, StepsOption


def trace(
    model: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    out: Annotated[
        Path, typer.Option(help="Folder for trace.png, trace.json, result.wav and the clean estimates.")
    ] = Path("trace"),
    recording: Annotated[
        Path | None,
        typer.Option("--from", help="Audio that is noised forwards, and whose mel a vocoder hears."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A label value (seven) or name=value (digit=seven); repeatable.")
    ] = None,
    speaker: Annotated[str | None, typer.Option(help="Short for --label speaker=VALUE.")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Length; default: that of --from, or the training clips' median.")
    ] = None,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    grid: GridOption = None,
    eta: EtaOption = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale; 1 is none; default: the model's own.")
    ] = None,
    columns: Annotated[int, typer.Option(help="Times to draw, noise and result among them.")] = 6,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Draw what a model does: noise added to a sound, and a sound made from noise, step by step."""
    from audiodiff.model import Steering, load
    from audiodiff.synthesis import trace as tracing
    from audiodiff.synthesis.generation import label_sets
    from audiodiff.synthesis.sampling import SamplerChoice

    trained = load(model, device)
    wanted = [*(label or []), *([f"speaker={speaker}"] if speaker else [])]
    steering = None
    if guidance is not None:
        steering = Steering(trained.steering.guidance.changed(guidance, None, None))
    request = tracing.TraceRequest(
        labels=label_sets(trained.labels, wanted, [], 1)[0],
        recording=recording,
        seconds=seconds,
        sampler=SamplerChoice(sampler, steps, grid, eta),
        steering=steering,
        seed=seed,
        columns=columns,
    )
    tracing.trace(trained, model, request, out, " ".join(["audiodiff", *sys.argv[1:]]))
    typer.echo(f"{out / tracing.PICTURE}: what the model did; its sounds are beside it")
