"""First-audio latency and steady speed of a streamed vocoder by sampling steps, causal and not, in one run.

    python benchmarks/streaming.py --seconds 20 --repeats 3 --threads 2 --out docs/streaming

The ConvNeXt vocoder of ljspeech_vocoder at base size (22.05 kHz, hop 256), random weights: times do not depend on them.
The mel is there from the start, in chunks of so many frames. Rows are measured interleaved; medians of the
repeats are shown, and the numbers hold the fastest too, in which what else the machine does matters least.

- mel waited for: what must have come before the first audio: the look-ahead and one chunk
- first audio: time to compute it, from the moment when that mel is there
- steady: seconds of audio made in a second, after the first piece
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from audiodiff.cli.train import recipe_of
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.files import write_whole
from audiodiff.model import build
from audiodiff.progress import track
from audiodiff.recipes_folder import recipes_folder
from audiodiff.synthesis.vocoder import Vocoder

STEPS = (1, 2, 4, 6)
CHUNKS = {False: (91, 182), True: (8, 32, 182)}  # mel frames at a time, by whether the network is causal


@dataclass(frozen=True)
class Row:
    """What one way to stream takes."""

    causal: bool
    steps: int
    chunk_frames: int
    waited_seconds: float
    overlap: float
    first_milliseconds: float
    steady: float
    fastest_first_milliseconds: float
    fastest_steady: float


def vocoder(causal: bool) -> Vocoder:
    """Returns the untrained vocoder."""
    from hydra import compose, initialize_config_dir

    overrides = ["experiment=ljspeech_vocoder", "size=base", f"causal={str(causal).lower()}"]
    with initialize_config_dir(str(recipes_folder()), version_base="1.3"):
        model = build(recipe_of(compose("train", overrides))).eval()
    return Vocoder(model, Sampler(DDIM(), UniformGrid(1)), mel_iterations=0)


def measured(system: Vocoder, mel: Tensor, chunk_frames: int) -> tuple[float, float]:
    """Returns the seconds to the first audio and the speed after it, over real time."""
    began = time.perf_counter()
    pieces = system.stream(mel.split(chunk_frames, -1), chunk_frames=chunk_frames)
    next(pieces)
    first = time.perf_counter()
    samples = sum(len(piece) for piece in pieces)
    return first - began, samples / system.sample_rate / (time.perf_counter() - first)


def measure(seconds: float, repeats: int) -> list[Row]:
    """Returns the rows, each the median of its repeats."""
    systems = {causal: vocoder(causal) for causal in CHUNKS}
    log_mel = systems[False].log_mel
    noise = torch.randn(1, round(seconds * log_mel.sample_rate), generator=torch.Generator().manual_seed(0))
    mel = log_mel(noise / 10)[0]
    ways = [(causal, steps, chunk) for causal in CHUNKS for steps in STEPS for chunk in CHUNKS[causal]]
    times: dict[tuple[bool, int, int], list[tuple[float, float]]] = {way: [] for way in ways}
    for causal, steps, chunk in track(ways * repeats, "streams", len(ways) * repeats):
        system = systems[causal]
        system.sampler = replace(system.sampler, grid=UniformGrid(steps))
        times[causal, steps, chunk].append(measured(system, mel, chunk))
    rows = []
    for causal, steps, chunk in ways:
        systems[causal].sampler = replace(systems[causal].sampler, grid=UniformGrid(steps))
        ahead = systems[causal].lookahead(chunk)
        firsts, speeds = zip(*times[causal, steps, chunk], strict=True)
        waited = ahead.seconds + chunk * log_mel.hop_length / log_mel.sample_rate
        medians = 1000 * statistics.median(firsts), statistics.median(speeds)
        fastest = 1000 * min(firsts), max(speeds)
        rows.append(Row(causal, steps, chunk, waited, ahead.overlap, *medians, *fastest))
    return rows


def table(rows: list[Row]) -> str:
    """Returns a Markdown table."""
    lines = [
        "| network | steps | chunk, frames | mel waited for, s | made again | first audio, ms | steady, x real time |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {'causal' if row.causal else 'looks both ways'} | {row.steps} | {row.chunk_frames} "
        f"| {row.waited_seconds:.2f} | {row.overlap:.1f} | {row.first_milliseconds:.0f} | {row.steady:.1f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints the table and writes the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of audio in a stream")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for the numbers")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    before = os.getloadavg()[0]
    rows = measure(arguments.seconds, arguments.repeats)
    print(table(rows))
    if arguments.out is not None:
        load = {"threads": arguments.threads, "load_before": before, "cores": os.cpu_count()}
        numbers = load | {"rows": [asdict(row) for row in rows]}
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_whole({arguments.out / "rows.json": (json.dumps(numbers, indent=1) + "\n").encode()})


if __name__ == "__main__":
    main()
