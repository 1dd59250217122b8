"""Real-time factor of text -> mel -> waveform by part, by the steps of the mel sampler and of the vocoder.

    python benchmarks/text_to_speech.py --model exp/spoken_numbers/model --vocoder exp/fsdd_vocoder/model \\
        --text "three one four one five nine" --steps 4 10 50 --vocoder-steps 2 12
    python benchmarks/text_to_speech.py --experiment ljspeech_tts --size base --speed 0.4 --vocoder exp/lj/model

With --experiment the text model is untrained: its times are those of a trained one, but its durations are not; --speed
makes them about as long as speech. A real-time factor is seconds of computing per second of audio, below 1 for faster
than real time. One sentence at a time; rows take turns, and medians of the rounds are shown.

- front end: text -> tokens, once known to the cache of phonemes
- encoder: tokens -> mean frames and durations
- mel: the sampler's steps
- vocoder: the sampler's steps and the way back from what it diffuses
- finish: projection onto the mel and the muting of silence
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from audiodiff.cli.train import recipe_of
from audiodiff.model import AudioDiffusion, build, load
from audiodiff.progress import track
from audiodiff.recipes_folder import recipes_folder
from audiodiff.synthesis.finishing import Finish, SilenceGate
from audiodiff.synthesis.mel_consistency import match_mel
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler
from audiodiff.synthesis.text_to_speech import TextToSpeech
from audiodiff.synthesis.vocoder import Vocoder
from audiodiff.text.phonemes import default_cache
from audiodiff.types import Batch

PARTS = ("front end", "encoder", "mel", "vocoder", "finish")
TEXT = "Printing, in the only sense with which we are at present concerned, differs from most if not from all the arts."
Result = TypeVar("Result")


@dataclass
class Row:
    """One choice of steps, and the seconds that its parts took in each round."""

    steps: int
    vocoder_steps: int
    tts: TextToSpeech
    bare: Vocoder
    seconds: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    audio_seconds: float = 0.0

    def factor(self, part: str) -> float:
        """Returns seconds of computing per second of audio."""
        return statistics.median(self.seconds[part]) / self.audio_seconds


def untrained(experiment: str, size: str | None) -> AudioDiffusion:
    """Returns the model of a recipe with random weights."""
    overrides = [f"experiment={experiment}", *([] if size is None else [f"size={size}"])]
    with initialize_config_dir(str(recipes_folder()), version_base="1.3"):
        recipe = recipe_of(compose("train", overrides))
    torch.manual_seed(0)
    return build(recipe).eval()


def rows_of(
    model: AudioDiffusion, folder: Path, steps: Sequence[int], vocoder_steps: Sequence[int]
) -> list[Row]:
    """Returns a row for each choice of steps."""
    rows = []
    for of_mel in steps:
        for of_vocoder in vocoder_steps:
            vocoder = Vocoder.load(folder, choice=SamplerChoice(None, of_vocoder, None, None))
            sampler = choose_sampler(model.recipe, SamplerChoice(None, of_mel, None, None))
            bare = Vocoder(vocoder.model, vocoder.sampler, 0, Finish(silence_margin_db=None), "bands_first")
            rows.append(Row(of_mel, of_vocoder, TextToSpeech(model, vocoder, sampler), bare))
    return rows


def timed(row: Row, part: str, call: Callable[[], Result]) -> Result:
    """Returns what a call returns, and notes how long it took."""
    start = time.perf_counter()
    result = call()
    row.seconds[part].append(time.perf_counter() - start)
    return result


@torch.inference_mode()
def one_round(row: Row, text: str, speed: float) -> None:
    """Speaks the text once, part by part."""
    route, vocoder = row.tts.route, row.tts.route.vocoder
    assert isinstance(vocoder, Vocoder)
    reading = timed(row, "front end", lambda: row.tts.front_end.read_many([text], default_cache())[0])
    batch = Batch(
        None,
        torch.zeros(1, dtype=torch.int64),
        {"speaker": route.speakers[:1]} if route.speakers else {},
        tokens=torch.tensor([reading.tokens]),
        token_counts=torch.tensor([len(reading.tokens)]),
        speeds=torch.tensor([speed]),
    )
    timed(row, "encoder", lambda: route.model.condition(batch))
    x, (length,) = timed(
        row, "mel", lambda: route.model.sample(batch, route.sampler, 0, [0], route.model.steering)
    )
    row.seconds["mel"][-1] -= row.seconds["encoder"][-1]  # which sampling begins with
    mel: Tensor = route.model.representation.mel(x)  # type: ignore[operator]
    waveform = timed(row, "vocoder", lambda: row.bare(mel, [length]))[0]
    timed(row, "finish", lambda: finished(vocoder, waveform, mel[0]))
    row.audio_seconds = length / route.model.sample_rate


def finished(vocoder: Vocoder, waveform: Tensor, mel: Tensor) -> Tensor:
    """Returns a waveform [T] moved to its mel [n_mels, F] and muted where that is silent, as the vocoder does it."""
    moved = match_mel(waveform, mel, vocoder.log_mel, vocoder.mel_iterations)
    if vocoder.finish.silence_margin_db is None:
        return moved
    gate = SilenceGate(vocoder.log_mel, vocoder.finish.silence_margin_db)
    gate.hear(mel)
    return moved * gate.gain(0, moved.shape[-1]).to(moved)


def table(rows: Sequence[Row]) -> str:
    """Returns the table in Markdown."""
    lines = [f"| mel steps | vocoder steps | {' | '.join(PARTS)} | all |", "|---" * (len(PARTS) + 3) + "|"]
    for row in rows:
        factors = [row.factor(part) for part in PARTS]
        shown = " | ".join(f"{factor:.3f}" for factor in factors)
        lines.append(f"| {row.steps} | {row.vocoder_steps} | {shown} | **{sum(factors):.3f}** |")
    return "\n".join(lines)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of a text model")
    parser.add_argument("--experiment", help="or a recipe, whose model is then untrained")
    parser.add_argument("--size", help="of the recipe")
    parser.add_argument("--vocoder", type=Path, required=True, help="folder of a vocoder of the same mel")
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 10, 50])
    parser.add_argument("--vocoder-steps", type=int, nargs="+", default=[2, 6])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if (arguments.model is None) == (arguments.experiment is None):
        parser.error("give one of --model and --experiment")
    torch.set_num_threads(arguments.threads)
    load_before = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    model = (
        untrained(arguments.experiment, arguments.size) if arguments.model is None else load(arguments.model)
    )
    rows = rows_of(model, arguments.vocoder, arguments.steps, arguments.vocoder_steps)
    rounds = [row for _ in range(arguments.rounds + 1) for row in rows]
    for place, row in enumerate(track(rounds, "speak", len(rounds))):
        one_round(row, arguments.text, arguments.speed)
        if place == len(rows) - 1:  # the first round warms up
            for warmed in rows:
                warmed.seconds = {part: [] for part in PARTS}
    parameters = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model, rows[0].bare.model)]
    print(
        f"{arguments.model or arguments.experiment}: {parameters[0]:.1f} M, vocoder {parameters[1]:.1f} M parameters"
    )
    print(f"{rows[0].audio_seconds:.2f} s of audio at {model.sample_rate} Hz, {arguments.threads} threads, medians of "
          f"{arguments.rounds} rounds, load average before: {load_before}\n")  # fmt: skip
    print(table(rows))


if __name__ == "__main__":
    main()
