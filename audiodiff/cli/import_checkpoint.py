"""audiodiff import PROJECT FILE --out FOLDER: another project's checkpoint becomes a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from audiodiff.interop.folder import Imported


def import_checkpoint(
    project: Annotated[
        str, typer.Argument(help="lmnt_diffwave, philsyn_diffwave, ...; a wrong one lists all.")
    ],
    file: Annotated[Path, typer.Argument(help="The project's checkpoint, or its weights as .safetensors.")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    config: Annotated[
        Path | None,
        typer.Option(
            help="The configuration that lies beside a checkpoint, JSON or YAML.", show_default="none"
        ),
    ] = None,
    schedule: Annotated[
        Path | None, typer.Option(help="Betas for sampling, for WaveGrad: one of schedules/*.pt, or .npy.")
    ] = None,
    stats: Annotated[
        Path | None, typer.Option(help="Folder stats_priorgrad, for PriorGrad and FreGrad.")
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(help="Hz, for files that do not say it: Dance Diffusion, lmnt.")
    ] = None,
    sample_size: Annotated[
        int | None, typer.Option(help="Samples of a training segment, for Dance Diffusion.")
    ] = None,
    corrected: Annotated[
        bool | None,
        typer.Option(
            "--corrected/--legacy-inplace",
            help="For philsyn_diffwave: whether the code that trained it adds the step embedding out of place.",
            show_default="legacy-inplace",
        ),
    ] = None,
) -> None:
    """Turn another project's checkpoint into a model folder that synthesizes, vocodes and trains on."""
    from audiodiff.interop.folder import import_checkpoint as write_folder
    from audiodiff.interop.foreign import Options

    options = Options(config, schedule, stats, sample_rate, sample_size, corrected)
    for line in _report(write_folder(project, file, out, options)):
        typer.echo(line)


def _report(imported: Imported) -> list[str]:
    """Returns what was imported, and what can be done with it, line by line."""
    from audiodiff.interop.folder import describe_mel, describe_sampler

    facts, folder, foreign = imported.facts, imported.folder, imported.foreign
    return [
        f"{facts['file']}: {facts['tensors_in_file']} tensors are now {facts['weights']} weights, "
        f"{facts['parameters'] / 1e6:.2f} M parameters; none is left as it was drawn",
        f"audio: {foreign.sample_rate} Hz, {foreign.channels} channel(s)",
        f"mel: {describe_mel(foreign)}",
        f"sampler: {describe_sampler(foreign)}",
        f"licence: {foreign.licence}",
        *(f"not said: {phrase}" for phrase in foreign.unknown),
        f"written to {folder}; what now:",
        f"  audiodiff info {folder}",
        *_uses(imported),
        f"  audiodiff train --config-dir {folder} experiment={facts['project']} data=CORPUS init={folder}",
    ]


def _uses(imported: Imported) -> list[str]:
    """Returns the commands that make sound with the model."""
    kind = imported.foreign.told["_target_"]
    if kind.endswith(".Unconditional"):
        return [f"  audiodiff synthesize {imported.folder} --count 4 --out samples"]
    return [f"  audiodiff vocode {imported.folder} RECORDING.wav --out vocoded"] * (
        "log_mel" in imported.foreign.told
    )
