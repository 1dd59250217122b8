"""audiodiff export MODEL: graphs for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audiodiff.cli.options import EtaOption, GridOption, SamplerOption, StepsOption


def export(
    model: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    out: Annotated[Path, typer.Option(help="Folder for the graphs and export.json.")] = Path("exported"),
    format: Annotated[str, typer.Option(help="onnx, torch or aotinductor.")] = "onnx",
    precision: Annotated[
        str, typer.Option(help="fp32, or fp16 for weights of half the size (onnx).")
    ] = "fp32",
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    grid: GridOption = None,
    eta: EtaOption = None,
) -> None:
    """Write a model as ONNX (or torch) graphs: the whole sampler, and one call of its denoiser."""
    from audiodiff.model import load
    from audiodiff.synthesis.export import export as write
    from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler

    trained = load(model)
    written = write(
        trained,
        choose_sampler(trained.recipe, SamplerChoice(sampler, steps, grid, eta)),
        out,
        format,
        precision,
    )
    for name, error in written.errors.items():
        typer.echo(f"{name}: differs from the model by {error:.1e} of range")
    for file, size in written.bytes.items():
        typer.echo(f"{out / file}  {size / 1e6:.2f} MB")
