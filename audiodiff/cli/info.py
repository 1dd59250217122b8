"""audiodiff info MODEL: what a saved model is, hears and makes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def info(
    model: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
) -> None:
    """Print what a model is: signal contract, labels, schedule, sampler, size."""
    import json

    from rich.console import Console
    from rich.table import Table

    from audiodiff.audio.latent_representation import LatentRepresentation
    from audiodiff.conditioning.mel import Mel
    from audiodiff.diffusion.process import describe_end, off_distribution
    from audiodiff.interval import listed
    from audiodiff.model import FACTS, find_model, load
    from audiodiff.training.start import parameter_count

    trained = load(model)
    rows = {
        "experiment": trained.recipe["experiment"],
        "audio": f"{trained.sample_rate} Hz, {trained.representation.channels} channel(s)",
        "representation": f"{type(trained.representation).__name__}, hop {trained.representation.hop_length} samples",
        "network": f"{type(trained.denoiser.network).__name__}, {parameter_count(trained) / 1e6:.2f} M parameters",
        "receptive field": _field(trained.denoiser.network.receptive_field()),
        "schedule": describe_end(trained.denoiser.schedule),
        "sampler": json.dumps(trained.recipe["sampler"]),
        "guidance": str(trained.steering.guidance.scale),
    }
    if isinstance(trained.representation, LatentRepresentation):
        autoencoder = trained.representation.autoencoder
        latents = (
            f"{trained.representation.shape(1)[0]} numbers every {trained.representation.hop_length} samples"
        )
        rows["latents"] = (
            f"{type(autoencoder).__name__}, {latents}, "
            f"frozen: {parameter_count(autoencoder) / 1e6:.2f} M of the parameters"
        )
    rows |= {f"label {name}": listed(values) for name, values in trained.labels.items()}
    for part in trained.modules():
        if isinstance(part, Mel):
            rows["mel"] = json.dumps(part.log_mel.definition())
    facts = find_model(model) / FACTS
    if facts.is_file():
        rows |= {name: str(value) for name, value in json.loads(facts.read_text()).items()}
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console()
    console.print(table)
    warning = off_distribution(trained.denoiser.schedule)
    if warning:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)


def _field(positions: int) -> str:
    return "all of x" if positions == sys.maxsize else f"{positions} positions of x"
