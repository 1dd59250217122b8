"""audiodiff serve MODEL: a vocoder or a text model over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audiodiff.cli.options import (
    DeviceOption,
    EtaOption,
    GridOption,
    MelIterationsOption,
    SamplerOption,
    StepsOption,
)


def serve(
    model: Annotated[
        Path, typer.Argument(help="A mel-conditional model or one that takes text: folder or name.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; only this machine hears 127.0.0.1.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for a free one, which is printed.")] = 8000,
    vocoder: Annotated[
        Path | None,
        typer.Option(
            help="Vocoder of a text model's mel.", show_default="the one that it names, else Griffin-Lim"
        ),
    ] = None,
    characters: Annotated[int, typer.Option(min=1, help="Longest text of one request.")] = 4096,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; more are answered 429.")] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Requests vocoded together, at most.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 60.0,
    body_megabytes: Annotated[float, typer.Option(min=0.001, help="Largest body.")] = 50.0,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    grid: GridOption = None,
    eta: EtaOption = None,
    mel_iterations: MelIterationsOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Serve a vocoder (POST a mel or audio to /v1/vocode) or speech (POST JSON to /v1/audio/speech)."""
    from audiodiff.errors import InputError

    try:
        import uvicorn

        from audiodiff.serving.app import create_app
    except ImportError as error:
        raise InputError(f"serve: {error.name} is not installed; pip install 'audiodiff[serve]'") from error
    from audiodiff.model import load
    from audiodiff.serving.socket import listening
    from audiodiff.serving.worker import Limits
    from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler
    from audiodiff.synthesis.text_route import takes_text
    from audiodiff.synthesis.text_to_speech import TextToSpeech
    from audiodiff.synthesis.vocoder import Vocoder

    trained = load(model, device)
    chosen = choose_sampler(trained.recipe, SamplerChoice(sampler, steps, grid, eta))
    served: Vocoder | TextToSpeech
    if takes_text(trained):
        served = TextToSpeech(trained, None if vocoder is None else Vocoder.load(vocoder, device), chosen)
        if isinstance(served.route.vocoder, Vocoder) and mel_iterations is not None:
            served.route.vocoder.mel_iterations = mel_iterations
        path = "/v1/audio/speech"
    elif vocoder is not None:
        raise InputError(f"--vocoder: {model} takes no text, it is served alone")
    else:
        # Told, for a mel of as many frames as bands comes some day.
        served, path = Vocoder(trained, chosen, mel_iterations, layout="bands_first"), "/v1/vocode"
    limits = Limits(
        queue=queue, batch=batch, timeout_seconds=timeout, body_bytes=round(body_megabytes * 1e6),
        characters=characters,
    )  # fmt: skip
    with listening(host, port) as open_socket:
        address, number = open_socket.getsockname()[:2]
        typer.echo(f"http://{address}:{number}{path}")
        config = uvicorn.Config(
            create_app(served, limits),
            log_level="warning",
            timeout_keep_alive=5,
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(config).run(sockets=[open_socket])
