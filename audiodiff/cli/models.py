"""audiodiff models [NAME]: the models that come with audiodiff, or the card of one."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def models(
    name: Annotated[
        str | None, typer.Argument(help="Shipped model, or a model folder: print its card.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every number as JSON.")] = False,
) -> None:
    """List the models that come with audiodiff: task, size, score and speed; or print the card of one."""
    import json

    from audiodiff.errors import InputError
    from audiodiff.model_folder import CARD, find_model, folder_bytes, read_sheet, shipped_models

    if name is not None and not as_json:
        card = find_model(name) / CARD
        if not card.is_file():
            raise InputError(f"{card}: this model has no card")
        typer.echo(card.read_text(encoding="utf-8"), nl=False)
        return
    wanted = shipped_models() if name is None else {name: find_model(name)}
    sheets = [
        read_sheet(folder) | {"folder": str(folder), "bytes": folder_bytes(folder)}
        for folder in wanted.values()
    ]
    if as_json:
        typer.echo(json.dumps(sheets, indent=1, ensure_ascii=False))
    elif sheets:
        _print_table(sheets)
    else:
        typer.echo("no models come with this copy of audiodiff")


def _print_table(sheets: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("model", no_wrap=True)
    table.add_column("task")
    for heading in ("Hz", "MB"):
        table.add_column(heading, justify="right")
    table.add_column("score")
    for heading in ("steps", "RTF"):
        table.add_column(heading, justify="right")
    for sheet in sheets:
        table.add_row(
            sheet["name"], sheet["task"], str(sheet["sample_rate"]), f"{sheet['bytes'] / 1e6:.1f}",
            _score(sheet["score"]), str(sheet["steps"]), f"{sheet['speed']['real_time_factor']:.3g}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    hardware = ", ".join(dict.fromkeys(sheet["speed"]["hardware"] for sheet in sheets))
    console.print(
        f"RTF: real-time factor, seconds of work per second of audio, on {hardware}", soft_wrap=True
    )


def _score(score: dict[str, Any] | None) -> str:
    if score is None:
        return "not recorded"
    arrow = {"higher": "↑", "lower": "↓"}[score["better"]]
    return f"{score['name']} {arrow} {score['value']:.4g} {score['unit']}".rstrip()
