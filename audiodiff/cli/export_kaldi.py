"""`audiodiff export-kaldi PREPARED`: manifests as Kaldi data directories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_kaldi(
    prepared: Annotated[Path, typer.Argument(help="Folder that `audiodiff prepare` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for train, dev and test, a data directory each.")],
    wav: Annotated[
        bool, typer.Option("--wav", help="Copy the audio to WAV: Kaldi's own tools read nothing else.")
    ] = False,
) -> None:
    """Write wav.scp, segments, utt2spk, spk2utt, text and reco2dur for Kaldi, ESPnet and others."""
    from rich.console import Console

    from audiodiff.data.kaldi_export import export

    done = export(prepared, out, copy_to_wav=wav)
    lines = [f"{split}: {count} utterances" for split, count in done.utterances.items()]
    if done.not_wav:
        lines.append(
            f"{done.not_wav} recordings are no WAV files; Kaldi's own tools read WAV only: --wav copies them"
        )
    if done.without_text:
        lines.append(
            f"{done.without_text} utterances have no text: Kaldi then wants --no-text where it validates"
        )
    console = Console()
    for line in [*lines, f"data directories in {out}"]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
