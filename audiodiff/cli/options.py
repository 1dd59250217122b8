"""Options that commands share, so that one flag means one thing."""

from __future__ import annotations

from typing import Annotated

import typer

SamplerOption = Annotated[
    str | None, typer.Option("--sampler", help="ddim, ancestral, ...; default: the model's own.")
]
StepsOption = Annotated[int | None, typer.Option("--steps", help="Denoiser evaluations.")]
GridOption = Annotated[
    str | None, typer.Option("--grid", help="uniform, log-snr, table or a published fast schedule.")
]
EtaOption = Annotated[float | None, typer.Option("--eta", help="DDIM's eta: 0 deterministic, 1 ancestral.")]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed gives the same audio.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, ...")]
