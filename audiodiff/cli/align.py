"""audiodiff align MODEL DATA: the mels of a text model in the time of recordings, to fine-tune its vocoder on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from audiodiff.cli.options import DeviceOption, EtaOption, GridOption, SamplerOption, SeedOption, StepsOption


def align(
    model: Annotated[Path, typer.Argument(help="Folder of a model that makes mels from texts.")],
    data: Annotated[Path, typer.Argument(help="Corpus with transcripts, as `prepare` left it.")],
    out: Annotated[Path, typer.Option(help="Folder for mels, durations, pictures and manifests.")],
    vocoder: Annotated[
        Path | None,
        typer.Option(help="Vocoder that will be fine-tuned: its mel definition is checked first."),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="train, dev or test; repeatable.", show_default="all that there are"),
    ] = None,
    clips: Annotated[int | None, typer.Option(help="Most clips of a split.", show_default="all")] = None,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    grid: GridOption = None,
    eta: EtaOption = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Divides the noise that mels start from.", show_default="the model's own"),
    ] = None,
    pictures: Annotated[int, typer.Option(help="Clips of a split whose alignment is drawn.")] = 4,
    seed: SeedOption = 0,
    batch: Annotated[int, typer.Option(help="Clips per batch; changes speed and memory, not the mels.")] = 8,
    device: DeviceOption = "cpu",
) -> None:
    """Write a text model's own mels of a corpus, aligned to its recordings (ground-truth-aligned, teacher-forced)."""
    from dataclasses import replace

    from rich.console import Console

    from audiodiff.data.manifests import SPLITS
    from audiodiff.model import load
    from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler, describe
    from audiodiff.synthesis.text_route import fitting
    from audiodiff.synthesis.vocoder import Vocoder
    from audiodiff.training.aligned_mels import AlignRequest, MelAligner, align_corpus

    request = AlignRequest(tuple(split or SPLITS), clips, batch, seed, pictures)
    trained = load(model, device)
    chosen = choose_sampler(trained.recipe, SamplerChoice(sampler, steps, grid, eta))
    if temperature is not None:
        chosen = replace(chosen, temperature=temperature)
    aligner = MelAligner(trained, chosen)
    if vocoder is not None:
        fitting(trained, Vocoder.load(vocoder, device))
    command = " ".join(["audiodiff", *sys.argv[1:]])
    facts = {"model": str(model), "data": str(data), "sampled": describe(chosen), "command": command}
    for one in align_corpus(aligner, data, out, request, facts, Console(stderr=True)):
        typer.echo(one.describe())
    typer.echo(f"mels in {out}; audiodiff train ... data_dir={out} trains a vocoder on them")
