"""audiodiff release MODEL --name NAME --out models/NAME: a trained model as one that comes with audiodiff."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from audiodiff.cli.options import EtaOption, GridOption, SamplerOption, StepsOption


def release(
    model: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    name: Annotated[str, typer.Option(help="By which users will ask for it.")],
    out: Annotated[Path, typer.Option(help="Its folder, such as models/NAME.")],
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Folder that `evaluate` wrote; repeatable, the first gives the main score."),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half/--full", help="Matrices in float16, or all of it in float32.")
    ] = True,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    grid: GridOption = None,
    eta: EtaOption = None,
    guidance: Annotated[float | None, typer.Option(help="Scale that the model keeps.")] = None,
    mel_iterations: Annotated[int | None, typer.Option(help="Of a vocoder, that the model keeps.")] = None,
    vocoder: Annotated[
        str | None, typer.Option(help="Shipped vocoder that makes a text model's mels audible.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Of the recorded sound: value or name=value; repeatable.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Of the recorded sound, if it speaks.", show_default="three one four")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="SOURCE=FILE.json, published figures: system -> measure -> number; repeatable."),
    ] = None,
    limits: Annotated[Path | None, typer.Option(help="File in Markdown that says what is weak.")] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="To show.", show_default="that of the first results, or sounds of the model"),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of the processor.", show_default="all cores")] = None,
    rounds: Annotated[int, typer.Option(help="Of the measurement of speed.")] = 7,
    seed: Annotated[int, typer.Option(help="Of the recorded sound.")] = 0,
) -> None:
    """Make a trained model one that comes with audiodiff: rounded, measured, with its scores and a card."""
    import torch

    from audiodiff.errors import InputError
    from audiodiff.model_folder import folder_bytes
    from audiodiff.release.card import score_in_words, speed_in_words
    from audiodiff.release.release import DEFAULT_TEXT, Changes, Release
    from audiodiff.release.release import release as make
    from audiodiff.synthesis.sampling import SamplerChoice

    if threads is not None:
        if threads < 1:
            raise InputError(f"--threads: got {threads}, expected 1 or more")
        torch.set_num_threads(threads)
    asked = Release(
        model, name, results or [], half,
        Changes(SamplerChoice(sampler, steps, grid, eta), guidance, mel_iterations, vocoder),
        label or [], DEFAULT_TEXT if text is None else text, [_beside(given) for given in beside or []],
        limits, picture, rounds, seed,
    )  # fmt: skip
    sheet = make(asked, out, shlex.join(["audiodiff", *sys.argv[1:]]), typer.echo)
    typer.echo(f"score: {score_in_words(sheet['score'], intervals=True)}")
    typer.echo(f"speed: {speed_in_words(sheet['speed'])}")
    if sheet["rounding"] is not None:
        typer.echo(f"rounding: {sheet['rounding']['signal_to_noise_db']} dB from float32 weights")
    typer.echo(f"{folder_bytes(out) / 1e6:.2f} MB in {out}")


def _beside(given: str) -> tuple[str, Path]:
    from audiodiff.errors import InputError

    source, separator, file = given.rpartition("=")
    if not separator or not source or not file:
        raise InputError(
            f"--beside {given}: expected SOURCE=FILE.json, where SOURCE says where its figures come from"
        )
    return source, Path(file)
