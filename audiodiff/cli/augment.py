"""audiodiff augment MODEL: training data that the model makes for a corpus, judged, with manifests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from audiodiff.cli.options import DeviceOption, EtaOption, GridOption, SamplerOption, SeedOption, StepsOption


def augment(
    model: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    data: Annotated[Path, typer.Option(help="Prepared folder that training data is made for.")],
    per_class: Annotated[int, typer.Option(help="Clips to keep for each value of the first --each.")],
    out: Annotated[Path, typer.Option(help="New folder for audio, manifests and report.json.")],
    each: Annotated[
        list[str] | None,
        typer.Option(
            help="A label name whose values are spread evenly, the class first; repeatable.",
            show_default="all of the model's lists, the judge's first",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="A label value or name=value that all have; repeatable."),
    ] = None,
    judge: Annotated[
        Path | None, typer.Option(help="Judge that must recognise the class: `audiodiff judge`.")
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Least probability that the judge gives the class.")
    ] = 0.8,
    nearest: Annotated[
        tuple[float, float],
        typer.Option(
            help="Nearer or farther than these percentiles of real training clips is rejected; 0 100: nothing is."
        ),
    ] = (1.0, 99.0),
    attempts: Annotated[int, typer.Option(help="Sounds made at most for each clip that is wanted.")] = 4,
    only_generated: Annotated[
        bool, typer.Option("--only-generated", help="Leave the real clips out of the training manifest.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="Length of every sound.", show_default="that of real clips, drawn")
    ] = None,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    grid: GridOption = None,
    eta: EtaOption = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale; 1 is none; default: the model's own.")
    ] = None,
    seed: SeedOption = 0,
    batch: Annotated[
        int, typer.Option(help="Sounds per batch; changes speed and memory, not the audio.")
    ] = 16,
    device: DeviceOption = "cpu",
) -> None:
    """Make training clips with a model, filter them, and write a folder as `prepare` does; it can be resumed."""
    from audiodiff.cli.synthesize import steering_of
    from audiodiff.evaluation.augmentation.augment import Augmentation, in_words
    from audiodiff.evaluation.augmentation.augment import augment as make
    from audiodiff.evaluation.augmentation.filters import FilterChoice
    from audiodiff.model import load
    from audiodiff.synthesis.generation import Request
    from audiodiff.synthesis.sampling import SamplerChoice

    filters = FilterChoice(judge, confidence, nearest)
    trained = load(model, device)
    steering = steering_of(trained, (guidance, None, None), None, None, device)
    making = Request([], seconds, SamplerChoice(sampler, steps, grid, eta), steering, seed, batch)
    asked = Augmentation(data, per_class, label or (), each or (), filters, attempts, only_generated, making)
    done = make(trained, model, asked, out, " ".join(["audiodiff", *sys.argv[1:]]))
    for labels, kept, wanted in done.short:
        named = ", ".join(f"{name} {value}" for name, value in labels.items()) or "all"
        typer.echo(f"{named}: {kept} of {wanted} clips, {attempts} attempts for each are spent", err=True)
    train = done.report["splits"]["train"]["cuts"]
    typer.echo(
        f"{done.kept} clips of {done.made} sounds kept ({in_words(done.rejected)}); {train} training clips in {out}"
    )
