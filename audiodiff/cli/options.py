"""Options that commands share, so that one flag means one thing."""

from __future__ import annotations

from typing import Annotated

import typer

SamplerOption = Annotated[
    str | None, typer.Option("--sampler", help="ddim, heun, dpmpp_2m, unipc, ...; default: the model's own.")
]
StepsOption = Annotated[int | None, typer.Option("--steps", help="Denoiser evaluations.")]
GridOption = Annotated[
    str | None,
    typer.Option(
        "--grid",
        help="uniform, linspace, leading, log-snr, karras, table, a published fast schedule, or times: 1,0.6,0.2.",
    ),
]
EtaOption = Annotated[
    float | None,
    typer.Option("--eta", help="Share of new noise, of ddim and its kin: 0 deterministic, 1 ancestral."),
]
MelIterationsOption = Annotated[
    int | None,
    typer.Option(
        "--mel-iterations", help="Moves each waveform to its mel so often.", show_default="the model's own"
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed gives the same audio.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, ...")]
