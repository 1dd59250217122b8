"""audiodiff merge BASE ADAPTER --out FOLDER: an ordinary model of a model and an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    base: Annotated[Path, typer.Argument(help="Folder of the model that the adapter was trained on.")],
    adapter: Annotated[Path, typer.Argument(help="Adapter folder, or the run folder that holds it.")],
    out: Annotated[Path, typer.Option(help="Folder of the model that comes out.")],
    scale: Annotated[float, typer.Option(help="Share of the adapter: 1 as trained, 0 the base.")] = 1.0,
    force_base: Annotated[
        bool, typer.Option("--force-base", help="Take another base than the adapter's own, if it fits.")
    ] = False,
) -> None:
    """Add an adapter (train with lora) to the model that it was trained on."""
    from audiodiff.errors import InputError
    from audiodiff.model import find_model
    from audiodiff.training.adapter import load_adapter
    from audiodiff.training.adapter import merge as add
    from audiodiff.training.initialization import provenance
    from audiodiff.training.record import model_card

    if out.resolve() == find_model(base).resolve():
        raise InputError(f"--out {out}: is the base itself, which would be lost; give another folder")
    saved = load_adapter(adapter)
    model = add(base, saved, scale, force_base=force_base)
    facts = dict(saved.facts) | provenance(base) | {"adapter_scale": scale}
    model.save(out, saved.recipe, facts, model_card(saved.recipe, facts, model.labels))
    typer.echo(f"model: {out}")
