"""audiodiff check-mel MODEL FILE: is this mel the model's, and if not, what was likely done differently."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check_mel(
    model: Annotated[Path, typer.Argument(help="Folder of a mel-conditional model.")],
    file: Annotated[Path, typer.Argument(help="A .npy, .npz or .pt mel, or audio to analyse.")],
    audio: Annotated[
        Path | None,
        typer.Option(
            help="The audio that the mel was made of: then hop, framing and filterbank are known, not guessed."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("check_mel.png"),
    show: Annotated[int, typer.Option(help="How many verdicts are printed.", min=1)] = 3,
) -> None:
    """Compare a mel with the mels that a model was trained on, and name the likeliest mistake."""
    from audiodiff.synthesis.mel_check_command import check_file

    for line in check_file(model, file, audio, out, show):
        typer.echo(line)
