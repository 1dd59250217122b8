"""audiodiff synthesize MODEL: sounds from noise, by label, of any length, between two others; or speech by text."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiodiff.cli.options import DeviceOption, EtaOption, GridOption, SamplerOption, SeedOption, StepsOption
from audiodiff.errors import InputError

if TYPE_CHECKING:
    from audiodiff.diffusion.constraints import Projection
    from audiodiff.model import AudioDiffusion, Steering
    from audiodiff.synthesis.forms import Place
    from audiodiff.synthesis.generation import Request
    from audiodiff.synthesis.speech import Manner
    from audiodiff.synthesis.text_to_speech import TextToSpeech


def synthesize(
    model: Annotated[
        Path, typer.Argument(help="Model or run folder, or a shipped model's name (`audiodiff models`).")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the wav files, samples.json and spectrograms.png.")
    ] = Path("samples"),
    label: Annotated[
        list[str] | None, typer.Option(help="A label value (seven) or name=value (digit=seven); repeatable.")
    ] = None,
    speaker: Annotated[str | None, typer.Option(help="Short for --label speaker=VALUE.")] = None,
    each: Annotated[
        list[str] | None,
        typer.Option(
            help="A label name: make --count sounds of each of its values; of numbers also name=LOW:HIGH:STEP; "
            "repeatable."
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Sounds to make (of each value with --each).", show_default="1")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Length; default: the median of the training clips. Long ones are written in blocks."
        ),
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
    negative: Annotated[
        list[str] | None,
        typer.Option(help="A label to move away from, instead of no label; needs --guidance; repeatable."),
    ] = None,
    guide: Annotated[
        Path | None, typer.Option(help="A recording whose loudness over time and bands the sound takes on.")
    ] = None,
    guide_strength: Annotated[
        float | None, typer.Option(help="0 guides nothing, 1 as far as it goes.", show_default="1")
    ] = None,
    guide_chroma: Annotated[
        float | None,
        typer.Option(help="How far the sound takes on the guide's pitch classes, 0 to 1.", show_default="0"),
    ] = None,
    loop: Annotated[bool, typer.Option(help="Make the end run into the start; whole hops.")] = False,
    variation_of: Annotated[
        Path | None, typer.Option(help="A recording to vary; comes back at its own rate and channels.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="Of --variation-of: 0 is the recording, 1 nothing of it.", show_default="0.4"),
    ] = None,
    morph: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two seeds or recordings: --count sounds from one to the other.", metavar="A B"),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            help="Write one sound block by block (a text by sentences) to this wav file, or - for raw stdout."
        ),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(help="Denoise a long sound in overlapping windows of so many seconds; 0: without."),
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
        typer.Option(
            help="Vocoder of the text model's mel.", show_default="the one that it names, else Griffin-Lim"
        ),
    ] = None,
    speed: Annotated[
        float | None, typer.Option(help="2 speaks twice as fast as the text model by itself.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Divides the noise that sampling starts from; default: the model's own."),
    ] = None,
    return_mel: Annotated[bool, typer.Option(help="Write the mels of the speech too, as .npy.")] = False,
    device: DeviceOption = "cpu",
) -> None:
    """Make sounds from noise with a trained model, or speech from text."""
    from audiodiff.audio.io import probe
    from audiodiff.model import load
    from audiodiff.synthesis.forms import Place
    from audiodiff.synthesis.generation import Request, label_sets
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
    by_text |= {"--return-mel": return_mel or None}
    by_label: dict[str, object] = {"--label": label, "--each": each, "--count": count, "--seconds": seconds}
    by_label |= {"--guidance": guidance, "--guidance-rescale": guidance_rescale, "--negative": negative}
    by_label |= {"--guidance-interval": guidance_interval, "--guide-against": guide_against, "--guide": guide}
    forms: dict[str, object] = {"--loop": loop or None, "--variation-of": variation_of, "--morph": morph}
    forms |= {"--stream": stream}
    details = {"--strength": strength, "--window": window}
    details |= {"--guide-strength": guide_strength, "--guide-chroma": guide_chroma}
    if takes_text(trained):
        others = {name: value for name, value in forms.items() if name != "--stream"}
        _refuse(by_label | others | details, "this model speaks; it takes --text or --text-file")
        tts = TextToSpeech(
            trained,
            None if vocoder is None else Vocoder.load(vocoder, device),
            choose_sampler(trained.recipe, SamplerChoice(sampler, steps, grid, eta)),
            phrasing=Phrasing(batch=batch),
        )
        manner = Manner(seed, speaker, 1.0 if speed is None else speed, temperature)
        _speak(tts, manner, by_text | {"model": model, "--stream": stream}, out)
        return
    _refuse(by_text, "this model is told no text; its sounds are chosen by --label")
    _check_forms(forms, details, by_label)
    wanted = [*(label or []), *([f"speaker={speaker}"] if speaker else [])]
    sounds = 1 if count is None or morph is not None else count
    request = Request(
        labels=label_sets(trained.labels, wanted, each or [], sounds),
        seconds=seconds if seconds is not None or guide is None else probe(guide).seconds,
        sampler=SamplerChoice(sampler, steps, grid, eta),
        steering=steering_of(
            trained, (guidance, guidance_rescale, guidance_interval), guide_against, negative, device
        ),
        seed=seed,
        batch=batch,
        temperature=temperature,
        guide=None if guide is None else _guide(trained, guide, guide_strength, guide_chroma),
    )
    typer.echo(
        _make(trained, request, Place(model, out, _command(), window), forms | details, count),
        err=stream == "-",
    )


def steering_of(
    model: AudioDiffusion,
    guidance: tuple[float | None, float | None, tuple[float, float] | None],
    against: Path | None,
    negative: list[str] | None,
    device: str,
) -> Steering:
    """Returns the steering that the options of guidance ask for, None as the model has it."""
    from audiodiff.model import Steering, load
    from audiodiff.synthesis.generation import label_sets

    return Steering(
        model.steering.guidance.changed(*guidance),
        None if against is None else load(against, device),
        label_sets(model.labels, negative, [], 1)[0] if negative else None,
    )


def _make(
    model: AudioDiffusion, request: Request, place: Place, asked: Mapping[str, object], count: int | None
) -> str:
    """Makes what is asked and returns what was made, in words."""
    from audiodiff.synthesis import forms
    from audiodiff.synthesis.generation import generate
    from audiodiff.synthesis.morph import end_of

    recording, pair, target = asked["--variation-of"], asked["--morph"], asked["--stream"]
    if isinstance(target, str):
        return f"{forms.stream(model, request, place, target).seconds:g} s in {target}"
    if asked["--loop"]:
        loops = forms.generate_loops(model, request, place)
        return f"{len(loops)} loops of {loops[0].seconds:g} s (whole hops) in {place.out}"
    if isinstance(recording, Path):
        strength = asked["--strength"]
        amount = float(strength) if isinstance(strength, float) else 0.4
        made, changes = forms.generate_variations(model, request, place, recording, amount)
        return f"{len(made)} variations in {place.out}" + "".join(f"; {change}" for change in changes)
    if isinstance(pair, tuple):
        first, second = (end_of(str(end)) for end in pair)
        made = forms.generate_morph(model, request, place, (first, second), 5 if count is None else count)
        return f"{len(made)} sounds from {pair[0]} to {pair[1]} in {place.out}"
    long = (request.seconds or 0.0) > forms.LONG_SECONDS and request.guide is None
    if asked["--window"] is not None or long:
        return f"{len(forms.generate_long(model, request, place))} sounds in {place.out}"
    return f"{len(generate(model, place.source, request, place.out, place.command))} sounds in {place.out}"


def _check_forms(
    forms: Mapping[str, object], details: Mapping[str, object], others: Mapping[str, object]
) -> None:
    """Refuses options that have nothing to do with what is made."""
    given = [name for name, value in forms.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)}: are different things to make; give one of them")
    form = given[0] if given else None
    if form != "--variation-of":
        _refuse({"--strength": details["--strength"]}, "belongs to --variation-of")
    if form in ("--loop", "--morph"):
        _refuse({"--window": details["--window"]}, f"{form} is sampled whole")
    if form == "--variation-of":
        _refuse({"--seconds": others["--seconds"]}, "a variation is as long as its recording")
    if form in ("--loop", "--variation-of", "--stream"):
        _refuse({"--guide": others["--guide"]}, f"guides sounds that are sampled whole, which {form} is not")
    if form == "--morph":
        _refuse({"--each": others["--each"]}, "a morph has one set of labels")
    if others["--guide"] is None:
        alone = {name: details[name] for name in ("--guide-strength", "--guide-chroma")}
        _refuse(alone, "belongs to --guide")
    else:
        _refuse({"--window": details["--window"]}, "--guide guides sounds that are sampled whole")


def _guide(model: AudioDiffusion, guide: Path, strength: float | None, chroma: float | None) -> Projection:
    from audiodiff.diffusion.constraints import chain
    from audiodiff.synthesis.guide import chroma_guide, mel_guide

    loudness = mel_guide(model, guide, 1.0 if strength is None else strength)
    return loudness if chroma is None else chain(chroma_guide(model, guide, chroma), loudness)


def _speak(tts: TextToSpeech, manner: Manner, asked: Mapping[str, object], out: Path) -> None:
    """Speaks --text or the lines of --text-file into a samples folder, or --text into --stream."""
    from audiodiff.synthesis.speaking import SpeakingRequest, read_lines, speak, speak_into

    text, file = asked["--text"], asked["--text-file"]
    if (text is None) == (file is None):
        raise InputError(
            "this model speaks: say what, with --text or --text-file"
            if text is None
            else "--text and --text-file: give one of the two"
        )
    target = asked["--stream"]
    if target is not None:
        _refuse({name: asked[name] for name in ("--text-file", "--return-mel")}, "--stream speaks one --text")
        seconds = speak_into(tts, str(text), manner, str(target))
        typer.echo(f"{seconds:.2f} s in {target} ({tts.route})", err=target == "-")
        return
    texts, skipped = ([str(text)], 0) if text is not None else read_lines(Path(str(file)))
    vocoder = asked["--vocoder"]
    facts: dict[str, object] = {
        "model": str(asked["model"]),
        "vocoder": tts.route.companion if vocoder is None else str(vocoder),
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
