"""Cost of one evaluation of every network: parameters, arithmetic, time and memory, in one run.

    python benchmarks/networks.py --seconds 2 --repeats 5 --threads 2 --out docs/networks

Arithmetic is counted, the same on every machine. Time is measured interleaved, the fastest of the repeats, so that
what else the machine does matters least: believe the ratios. Memory is what a fresh process of each network needs
above what it held before its first evaluation. Random weights; LJ Speech's rate, and its mel where one is heard.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from audiodiff.audio.pictures import new_figure, write_png
from audiodiff.cli.train import recipe_of
from audiodiff.model import AudioDiffusion, build
from audiodiff.recipes_folder import recipes_folder
from audiodiff.synthesis.cost import multiply_adds
from audiodiff.types import Batch

VOCODER = ("experiment=ljspeech_vocoder", "conditioner=mel", "features=hifigan_22k80")
# The factors that make the hop of 256 samples, where a network brings its own.
FACTORS = {"wavegrad": "[4,4,4,2,2]", "wavenet": "[16,16]", "wavelet_wavenet": "[16,8]"}
FIRST = "wavenet"


@dataclass(frozen=True)
class Cost:
    """What one evaluation takes, for each second of audio where that makes sense."""

    parameters: float
    gigaadds: float
    seconds: float
    megabytes: float


def systems() -> dict[str, tuple[str, ...]]:
    """Returns the overrides of every model recipe at base size, DiffWave's first."""
    names = sorted(file.stem for file in (recipes_folder() / "model").glob("*.yaml"))
    names.sort(key=lambda name: name != FIRST)
    return {
        name: (*VOCODER, f"model={name}", "size=base", *factors(name))
        for name in names
    }  # fmt: skip


def factors(name: str) -> tuple[str, ...]:
    """Returns the override of the upsampling factors, where a network has them."""
    return (f"upsample_factors={FACTORS[name]}",) if name in FACTORS else ()


def model_of(overrides: tuple[str, ...]) -> AudioDiffusion:
    """Returns the recipe's untrained model."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(recipes_folder()), version_base="1.3"):
        return build(recipe_of(compose("train", list(overrides)))).eval()


def evaluation(model: AudioDiffusion, seconds: float) -> Callable[[], torch.Tensor]:
    """Returns a call that evaluates the network once on random input, its condition bound before."""
    length = round(seconds * model.sample_rate)
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(1, 1, length, generator=generator)
    x, condition = model.encode(Batch(waveform, torch.tensor([length])))
    network = model.denoiser.network.bind(condition)
    label = torch.full((1,), 0.5)
    return lambda: network(x, label)


def peak_megabytes(overrides: tuple[str, ...], seconds: float) -> float:
    """Returns by how much the first evaluation raises the resident memory of a process, in 10^6 bytes."""
    with torch.inference_mode():
        call = evaluation(model_of(overrides), seconds)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6


def measure(seconds: float, repeats: int) -> dict[str, Cost]:
    """Returns the cost of every system."""
    context = multiprocessing.get_context("spawn")
    memory = {}
    for name, overrides in systems().items():
        with context.Pool(1) as pool:
            memory[name] = pool.apply(peak_megabytes, (overrides, seconds))
    calls, parameters = {}, {}
    with torch.inference_mode():
        for name, overrides in systems().items():
            model = model_of(overrides)
            calls[name] = evaluation(model, seconds)
            parameters[name] = sum(p.numel() for p in model.denoiser.parameters()) / 1e6
        work = {name: multiply_adds(call) / 1e9 / seconds for name, call in calls.items()}
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(repeats):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                best[name] = min(best[name], time.perf_counter() - start)
    return {name: Cost(parameters[name], work[name], best[name] / seconds, memory[name]) for name in calls}


def table(costs: dict[str, Cost]) -> str:
    """Returns a Markdown table, ratios against the first row."""
    first = costs[FIRST]
    lines = [
        "| network | parameters (M) | multiply-adds per s of audio (G) | ratio | s per evaluation and s of audio "
        "| ratio | peak memory (MB) |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {cost.parameters:.2f} | {cost.gigaadds:.2f} | {first.gigaadds / cost.gigaadds:.1f} "
        f"| {cost.seconds:.4f} | {first.seconds / cost.seconds:.1f} | {cost.megabytes:.0f} |"
        for name, cost in costs.items()
    ]
    return "\n".join(lines) + "\n"


def draw(costs: dict[str, Cost], path: Path) -> None:
    """Draws time against arithmetic, a disc's size telling the parameters."""
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    for name, cost in costs.items():
        axes.scatter(cost.gigaadds, cost.seconds, s=20 + 12 * cost.parameters, alpha=0.6)
        axes.annotate(name, (cost.gigaadds, cost.seconds), xytext=(6, 6), textcoords="offset points")
    axes.axhline(1, color="grey", linestyle=":", label="one evaluation takes as long as the audio lasts")
    axes.set(xscale="log", yscale="log", xlabel="multiply-adds per second of audio (G)")
    axes.set_ylabel("seconds per evaluation and second of audio")
    axes.set_xlim(right=2.5 * max(cost.gigaadds for cost in costs.values()))  # room for the names
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    write_png(figure, path)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of audio")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for picture.png")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    costs = measure(arguments.seconds, arguments.repeats)
    text = (
        f"{arguments.seconds} s of audio, {arguments.threads} threads, torch {torch.__version__}\n\n"
        + table(costs)
    )
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        draw(costs, arguments.out / "picture.png")


if __name__ == "__main__":
    main()
