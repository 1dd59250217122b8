"""audiodiff edit TASK MODEL INPUT --out FILE: repairs and extends recordings with a model of sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiodiff.cli.options import DeviceOption, SeedOption

if TYPE_CHECKING:
    from audiodiff.editing.tasks import Task

edit = typer.Typer(help="Repair and extend recordings with a model of sound.", no_args_is_help=True)

ModelArgument = Annotated[Path, typer.Argument(help="Folder of an unconditional or label-conditional model.")]
InputArgument = Annotated[Path, typer.Argument(help="Audio file of any rate, channels and length.")]
OutOption = Annotated[
    Path, typer.Option("--out", help="Result: .wav, .flac, .aiff, .w64 or .rf64; a .png is drawn beside it.")
]
MethodOption = Annotated[
    str, typer.Option("--method", help="moments, projection, replacement or gradient; see docs/editing.md.")
]
StepsOption = Annotated[int, typer.Option("--steps", help="Moves from noise to sound.")]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", help="value or name=value, for models that are told labels.")
]


@edit.command()
def inpaint(
    model: ModelArgument,
    recording: InputArgument,
    out: OutOption,
    mask: Annotated[list[str], typer.Option(help="Seconds from:to, such as 1.2:1.9; repeatable.")],
    method: MethodOption = "moments",
    steps: StepsOption = 20,
    label: LabelOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Make intervals of a recording anew; every other sample stays as it is."""
    from audiodiff.editing.intervals import parse_interval
    from audiodiff.editing.tasks import Inpaint

    task = Inpaint(tuple(parse_interval(text) for text in mask))
    _run(model, recording, out, task, (method, steps, label, seed, device))


@edit.command("continue")
def continue_(
    model: ModelArgument,
    recording: InputArgument,
    out: OutOption,
    before: Annotated[float, typer.Option(help="Seconds to make before its start.")] = 0.0,
    after: Annotated[float, typer.Option(help="Seconds to make after its end.")] = 0.0,
    method: MethodOption = "moments",
    steps: StepsOption = 20,
    label: LabelOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Go on where a recording ends, or begin before it does."""
    from audiodiff.editing.tasks import Continue

    _run(model, recording, out, Continue(before, after), (method, steps, label, seed, device))


@edit.command()
def dropouts(
    model: ModelArgument,
    recording: InputArgument,
    out: OutOption,
    method: MethodOption = "moments",
    steps: StepsOption = 20,
    label: LabelOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Find stretches of digital zeros in the midst of sound, and make them anew."""
    from audiodiff.editing.tasks import RepairDropouts

    _run(model, recording, out, RepairDropouts(), (method, steps, label, seed, device))


@edit.command()
def declip(
    model: ModelArgument,
    recording: InputArgument,
    out: OutOption,
    level_db: Annotated[
        float | None,
        typer.Option(help="Level at which it was clipped, dB of full scale.", show_default="found"),
    ] = None,
    method: MethodOption = "moments",
    steps: StepsOption = 20,
    label: LabelOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Restore what clipping cut off; written as floats, since the peaks may exceed full scale."""
    from audiodiff.editing.tasks import RestoreClipped

    _run(model, recording, out, RestoreClipped(level_db), (method, steps, label, seed, device))


@edit.command()
def bandwidth(
    model: ModelArgument,
    recording: InputArgument,
    out: OutOption,
    cutoff: Annotated[
        float | None,
        typer.Option(help="Hertz up to which the recording is right.", show_default="found"),
    ] = None,
    method: MethodOption = "moments",
    steps: StepsOption = 20,
    label: LabelOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Make the upper part of the spectrum that a recording lacks."""
    from audiodiff.editing.tasks import ExtendBandwidth

    _run(model, recording, out, ExtendBandwidth(cutoff), (method, steps, label, seed, device))


@edit.command()
def denoise(
    model: ModelArgument,
    recording: InputArgument,
    out: OutOption,
    noise_db: Annotated[
        float | None,
        typer.Option(
            help="Level of white noise, dB of full scale.", show_default="estimated, with its colour"
        ),
    ] = None,
    steps: StepsOption = 10,
    label: LabelOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Take stationary noise away."""
    from audiodiff.editing.tasks import RemoveNoise

    _run(model, recording, out, RemoveNoise(noise_db), ("moments", steps, label, seed, device))


def _run(
    model: Path,
    recording: Path,
    out: Path,
    task: Task,
    settings: tuple[str, int, list[str] | None, int, str],
) -> None:
    from audiodiff.editing.edit import edit_file
    from audiodiff.editing.restore import Recovery
    from audiodiff.model import load
    from audiodiff.synthesis.generation import label_sets

    method, steps, label, seed, device = settings
    trained = load(model, device)
    labels = label_sets(trained.labels, label or [], [], 1)[0]
    done = edit_file(trained, recording, out, task, Recovery(method, steps, seed=seed, labels=labels))
    for remark in done.remarks:
        typer.echo(remark, err=True)
    typer.echo(f"{out}: {done.written.replaced} new samples; before and after in {done.picture}")
