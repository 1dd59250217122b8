"""audiodiff synthesize MODEL: sounds from noise, by label."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from audiodiff.cli.options import DeviceOption, EtaOption, GridOption, SamplerOption, SeedOption, StepsOption


def synthesize(
    model: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the wav files, samples.json and spectrograms.png.")
    ] = Path("samples"),
    label: Annotated[
        list[str] | None, typer.Option(help="A label value (seven) or name=value (digit=seven); repeatable.")
    ] = None,
    speaker: Annotated[str | None, typer.Option(help="Short for --label speaker=VALUE.")] = None,
    each: Annotated[
        list[str] | None,
        typer.Option(help="A label name: make --count sounds of each of its values; repeatable."),
    ] = None,
    count: Annotated[int, typer.Option(help="Sounds to make (of each value with --each).")] = 1,
    seconds: Annotated[
        float | None, typer.Option(help="Length; default: the median of the training clips.")
    ] = None,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    grid: GridOption = None,
    eta: EtaOption = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale; 1 is none; default: the model's own.")
    ] = None,
    guidance_rescale: Annotated[
        float | None, typer.Option(help="Share of the guided spread brought back, 0 to 1.")
    ] = None,
    guidance_interval: Annotated[
        tuple[float, float] | None, typer.Option(help="Lowest and highest time, 0 to 1, at which to guide.")
    ] = None,
    guide_against: Annotated[
        Path | None,
        typer.Option(help="A weaker model to move away from, instead of this one without labels."),
    ] = None,
    seed: SeedOption = 0,
    batch: Annotated[
        int, typer.Option(help="Sounds per batch; changes speed and memory, not the audio.")
    ] = 16,
    device: DeviceOption = "cpu",
) -> None:
    """Make sounds from noise with a trained model."""
    from audiodiff.model import Steering, load
    from audiodiff.synthesis.generation import Request, generate, label_sets
    from audiodiff.synthesis.sampling import SamplerChoice

    trained = load(model, device)
    wanted = [*(label or []), *([f"speaker={speaker}"] if speaker else [])]
    request = Request(
        labels=label_sets(trained.labels, wanted, each or [], count),
        seconds=seconds,
        sampler=SamplerChoice(sampler, steps, grid, eta),
        steering=Steering(
            trained.steering.guidance.changed(guidance, guidance_rescale, guidance_interval),
            None if guide_against is None else load(guide_against, device),
        ),
        seed=seed,
        batch=batch,
    )
    files = generate(trained, model, request, out, " ".join(["audiodiff", *sys.argv[1:]]))
    typer.echo(f"{len(files)} sounds in {out}")
