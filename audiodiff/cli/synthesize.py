"""audiodiff synthesize MODEL: sounds from noise, by label, or speech by text."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiodiff.cli.options import DeviceOption, EtaOption, GridOption, SamplerOption, SeedOption, StepsOption
from audiodiff.errors import InputError

if TYPE_CHECKING:
    from audiodiff.synthesis.speech import Manner
    from audiodiff.synthesis.text_to_speech import TextToSpeech


def synthesize(
    model: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the wav files, samples.json and spectrograms.png.")
    ] = Path("samples"),
    label: Annotated[
        list[str] | None, typer.Option(help="A label value (seven) or name=value (digit=seven); repeatable.")
    ] = None,
    speaker: Annotated[str | None, typer.Option(help="Short for --label speaker=VALUE.")] = None,
    each: Annotated[
        list[str] | None,
        typer.Option(help="A label name: make --count sounds of each of its values; repeatable."),
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Sounds to make (of each value with --each).", show_default="1")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Length; default: the median of the training clips.")
    ] = None,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    grid: GridOption = None,
    eta: EtaOption = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale; 1 is none; default: the model's own.")
    ] = None,
    guidance_rescale: Annotated[
        float | None, typer.Option(help="Share of the guided spread brought back, 0 to 1.")
    ] = None,
    guidance_interval: Annotated[
        tuple[float, float] | None, typer.Option(help="Lowest and highest time, 0 to 1, at which to guide.")
    ] = None,
    guide_against: Annotated[
        Path | None,
        typer.Option(help="A weaker model to move away from, instead of this one without labels."),
    ] = None,
    seed: SeedOption = 0,
    batch: Annotated[
        int, typer.Option(help="Sounds per batch; changes speed and memory, not the audio.")
    ] = 16,
    text: Annotated[
        str | None, typer.Option(help="What a text model speaks; a long text is split at its sentences.")
    ] = None,
    text_file: Annotated[
        Path | None, typer.Option(help="File of texts to speak, one a line; empty lines are skipped.")
    ] = None,
    vocoder: Annotated[
        Path | None,
        typer.Option(help="Vocoder of the text model's mel.", show_default="Griffin-Lim, if one is needed"),
    ] = None,
    speed: Annotated[
        float | None, typer.Option(help="2 speaks twice as fast as the text model by itself.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Divides the noise that speech starts from; default: the model's own."),
    ] = None,
    return_mel: Annotated[bool, typer.Option(help="Write the mels of the speech too, as .npy.")] = False,
    device: DeviceOption = "cpu",
) -> None:
    """Make sounds from noise with a trained model, or speech from text."""
    from audiodiff.model import Steering, load
    from audiodiff.synthesis.generation import Request, generate, label_sets
    from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler
    from audiodiff.synthesis.speech import Manner, Phrasing
    from audiodiff.synthesis.text_route import takes_text
    from audiodiff.synthesis.text_to_speech import TextToSpeech
    from audiodiff.synthesis.vocoder import Vocoder

    trained = load(model, device)
    by_text: dict[str, object] = {
        "--text": text,
        "--text-file": text_file,
        "--vocoder": vocoder,
        "--speed": speed,
    }
    by_text |= {"--temperature": temperature, "--return-mel": return_mel or None}
    by_label: dict[str, object] = {"--label": label, "--each": each, "--count": count, "--seconds": seconds}
    by_label |= {"--guidance": guidance, "--guidance-rescale": guidance_rescale}
    by_label |= {"--guidance-interval": guidance_interval, "--guide-against": guide_against}
    if takes_text(trained):
        _refuse(by_label, "this model speaks; it takes --text or --text-file")
        tts = TextToSpeech(
            trained,
            None if vocoder is None else Vocoder.load(vocoder, device),
            choose_sampler(trained.recipe, SamplerChoice(sampler, steps, grid, eta)),
            phrasing=Phrasing(batch=batch),
        )
        manner = Manner(seed, speaker, 1.0 if speed is None else speed, temperature)
        _speak(tts, manner, by_text | {"model": model}, out)
        return
    _refuse(by_text, "this model is told no text; its sounds are chosen by --label")
    wanted = [*(label or []), *([f"speaker={speaker}"] if speaker else [])]
    request = Request(
        labels=label_sets(trained.labels, wanted, each or [], 1 if count is None else count),
        seconds=seconds,
        sampler=SamplerChoice(sampler, steps, grid, eta),
        steering=Steering(
            trained.steering.guidance.changed(guidance, guidance_rescale, guidance_interval),
            None if guide_against is None else load(guide_against, device),
        ),
        seed=seed,
        batch=batch,
    )
    files = generate(trained, model, request, out, _command())
    typer.echo(f"{len(files)} sounds in {out}")


def _speak(tts: TextToSpeech, manner: Manner, asked: Mapping[str, object], out: Path) -> None:
    """Speaks --text or the lines of --text-file into a samples folder."""
    from audiodiff.synthesis.speaking import SpeakingRequest, read_lines, speak

    text, file = asked["--text"], asked["--text-file"]
    if (text is None) == (file is None):
        raise InputError(
            "this model speaks: say what, with --text or --text-file"
            if text is None
            else "--text and --text-file: give one of the two"
        )
    texts, skipped = ([str(text)], 0) if text is not None else read_lines(Path(str(file)))
    vocoder = asked["--vocoder"]
    facts: dict[str, object] = {
        "model": str(asked["model"]),
        "vocoder": None if vocoder is None else str(vocoder),
    }
    facts |= {"command": _command(), "empty_lines": skipped}
    request = SpeakingRequest(texts, manner, bool(asked["--return-mel"]))
    for line in speak(tts, request, facts, out):
        typer.echo(line, err=True)
    skips = f"; {skipped} empty lines skipped" if skipped else ""
    typer.echo(f"{len(texts)} texts in {out} ({tts.route}){skips}")


def _refuse(options: Mapping[str, object], reason: str) -> None:
    given = [name for name, value in options.items() if value not in (None, [])]
    if given:
        raise InputError(f"{', '.join(given)}: {reason}")


def _command() -> str:
    return " ".join(["audiodiff", *sys.argv[1:]])
