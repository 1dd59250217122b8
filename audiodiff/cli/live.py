"""audiodiff live MODEL: endless sound into a pipe, a file or the loudspeaker, changed by lines on stdin."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiodiff.cli.options import DeviceOption, EtaOption, GridOption, SamplerOption, SeedOption, StepsOption
from audiodiff.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from audiodiff.model import AudioDiffusion
    from audiodiff.synthesis.live import Live


def live(
    model: Annotated[Path, typer.Argument(help="Folder of a model that is told nothing or labels.")],
    out: Annotated[
        str | None, typer.Option(help="A .wav file, or - for raw 16-bit samples on stdout.")
    ] = None,
    play: Annotated[bool, typer.Option(help="Play on the audio device instead (needs sounddevice).")] = False,
    seconds: Annotated[
        float | None, typer.Option(help="Stop after so much sound.", show_default="never")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A label value (seven) or name=value (digit=seven); repeatable.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale; 1 is none; default: the model's own.")
    ] = None,
    negative: Annotated[
        list[str] | None, typer.Option(help="A label to move away from; needs guidance; repeatable.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Divides the noise; default: the model's own.")
    ] = None,
    block: Annotated[
        float | None,
        typer.Option(help="Seconds made at a time.", show_default="a quarter of a training segment"),
    ] = None,
    context: Annotated[
        float | None, typer.Option(help="Seconds of the past that are seen.", show_default="half a segment")
    ] = None,
    ahead: Annotated[
        float | None, typer.Option(help="Seconds made beyond a block and again.", show_default="a quarter")
    ] = None,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    grid: GridOption = None,
    eta: EtaOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Make sound without end; lines on stdin change it: label digit=two, guidance 2, temperature 1.2, seed 7, quit."""
    from audiodiff.cli.synthesize import steering_of
    from audiodiff.model import load
    from audiodiff.synthesis.generation import label_sets
    from audiodiff.synthesis.live import Live, Settings, Window
    from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler

    if (out is None) != play:
        raise InputError("live: say where to, with --out FILE.wav, --out - or --play")
    if seconds is not None and not seconds > 0:
        raise InputError(f"--seconds: got {seconds}, expected more than 0")
    trained = load(model, device)
    (labels,) = label_sets(trained.labels, label or [], [], 1)
    settings = Settings(
        labels, steering_of(trained, (guidance, None, None), None, negative, device), temperature, seed
    )
    chosen = choose_sampler(trained.recipe, SamplerChoice(sampler, steps, grid, eta))
    running = Live(trained, chosen, settings, Window(block, context, ahead))
    latency = f"a change is heard after {running.latency_seconds:.2f} s of sound"
    typer.echo(f"blocks of {running.block_seconds:.2f} s; {latency}", err=True)
    commands = _Commands(running, trained)
    blocks = commands.until_quit(_limited(running, seconds, trained.sample_rate))
    _play(blocks, trained) if play else _write(blocks, str(out), trained)


class _Commands:
    """Reads lines from stdin beside the sound and applies them."""

    def __init__(self, running: Live, model: AudioDiffusion) -> None:
        self._running, self._model = running, model
        self._quit = threading.Event()
        # A daemon: a read that waits for a line must not keep the program alive.
        threading.Thread(target=self._read, daemon=True).start()

    def until_quit(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields the blocks until a line says quit or Ctrl-C comes."""
        try:
            for block in blocks:
                yield block
                if self._quit.is_set():
                    return
        except KeyboardInterrupt:
            return

    def _read(self) -> None:
        from audiodiff.synthesis.live import changed

        for line in sys.stdin or ():
            if line.strip() in ("quit", "exit"):
                self._quit.set()
                return
            if not line.strip():
                continue
            try:
                self._running.change(changed(self._running.settings, line, self._model))
            except InputError as error:
                typer.echo(f"audiodiff live: {error}", err=True)


def _limited(blocks: Iterable[Tensor], seconds: float | None, sample_rate: int) -> Iterator[Tensor]:
    """Yields blocks up to so much sound."""
    left = None if seconds is None else max(1, round(seconds * sample_rate))
    for block in blocks:
        if left is None:
            yield block
            continue
        yield block[:, :left]
        left -= block.shape[-1]
        if left <= 0:
            return


def _write(blocks: Iterable[Tensor], target: str, model: AudioDiffusion) -> None:
    from audiodiff.synthesis.recordings import write_pcm, writing_blocks

    channels = model.representation.channels
    if target == "-":
        typer.echo(f"raw samples: s16le, {channels} channel(s), {model.sample_rate} Hz", err=True)
        write_pcm(blocks, sys.stdout.buffer)
        return
    if not target.lower().endswith(".wav"):
        raise InputError(f"--out {target}: expected a file name that ends in .wav, or - for stdout")
    with writing_blocks(Path(target), model.sample_rate, channels) as file:
        for block in blocks:
            file.write(block)
    typer.echo(f"{file.samples / model.sample_rate:.1f} s in {target}", err=True)


def _play(blocks: Iterable[Tensor], model: AudioDiffusion) -> None:
    from audiodiff.synthesis.recordings import pcm

    try:
        import sounddevice  # type: ignore[import-not-found]
    except (ImportError, OSError) as error:  # OSError: the package is there, the PortAudio library is not
        raise InputError(
            f"--play: needs the package sounddevice and PortAudio ({error}); pip install sounddevice, or pipe: "
            f"audiodiff live MODEL --out - | aplay -f S16_LE -c {model.representation.channels} -r {model.sample_rate}"
        ) from error
    try:
        stream = sounddevice.OutputStream(
            model.sample_rate, channels=model.representation.channels, dtype="int16"
        )
    except sounddevice.PortAudioError as error:
        raise InputError(f"--play: no audio device takes the sound ({error}); use --out") from error
    with stream:
        for block in blocks:
            stream.write(pcm(block))
