"""audiodiff vocode MODEL INPUT...: audio files are analysed and resynthesized, mel files are vocoded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from audiodiff.cli.options import (
    DeviceOption,
    EtaOption,
    GridOption,
    MelIterationsOption,
    SamplerOption,
    SeedOption,
    StepsOption,
)


def vocode(
    model: Annotated[Path, typer.Argument(help="A mel-conditional model: folder or name.")],
    inputs: Annotated[
        list[str], typer.Argument(help="Audio files, .npy/.npz/.pt mels, folders, globs, manifests.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the wav files, samples.json and spectrograms.png.")
    ] = Path("vocoded"),
    speaker: Annotated[str | None, typer.Option(help="Speaker, for models that are told one.")] = None,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    grid: GridOption = None,
    eta: EtaOption = None,
    mel_iterations: MelIterationsOption = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Divides the noise that sampling starts from.", show_default="the model's own"),
    ] = None,
    bias_removal: Annotated[
        float, typer.Option(help="Subtracts the model's own hum and hiss so many times.")
    ] = 0.0,
    silence_margin: Annotated[
        float,
        typer.Option(help="Mutes frames at most so many dB above digital silence; negative: mutes none."),
    ] = 1.0,
    layout: Annotated[
        str | None,
        typer.Option(
            help="Of mel files: bands_first or frames_first.", show_default="told by the number of bands"
        ),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Resynthesize audio files, or vocode mel files, with a mel-conditional model."""
    from dataclasses import replace

    from audiodiff.model import load
    from audiodiff.synthesis.finishing import Finish
    from audiodiff.synthesis.resynthesis import vocode_files
    from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler
    from audiodiff.synthesis.vocoder import Vocoder

    trained = load(model, device)
    chosen = choose_sampler(trained.recipe, SamplerChoice(sampler, steps, grid, eta))
    if temperature is not None:
        chosen = replace(chosen, temperature=temperature)
    finish = Finish(bias_removal, None if silence_margin < 0 else silence_margin)
    vocoder = Vocoder(trained, chosen, mel_iterations, finish, layout)
    labels = {} if speaker is None else {"speaker": speaker}
    files = vocode_files(vocoder, model, inputs, out, labels, seed, " ".join(["audiodiff", *sys.argv[1:]]))
    typer.echo(f"{len(files)} files in {out}")
