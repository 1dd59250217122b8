"""Cost of one network evaluation: DiffWave's WaveNet beside the frame-level network, in one run.

    python benchmarks/networks.py --seconds 2 --repeats 5 --threads 2

Prints arithmetic (counted, the same on every machine) and time (measured, interleaved, the fastest of the
repeats, so that what else the machine does matters least). Random weights; LJ Speech's rate and mel.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_dir
from torch.utils.flop_counter import FlopCounterMode

from audiodiff.cli.train import recipe_of
from audiodiff.model import AudioDiffusion, build
from audiodiff.recipes_folder import recipes_folder
from audiodiff.types import Batch

SYSTEMS = {
    "WaveNet base (64 channels)": ("experiment=ljspeech_diffwave", "size=base"),
    "WaveNet large (128 channels)": ("experiment=ljspeech_diffwave", "size=large"),
    "ConvNeXt base (width 256)": ("experiment=ljspeech_vocoder", "size=base"),
    "ConvNeXt large (width 512)": ("experiment=ljspeech_vocoder", "size=large"),
}


def evaluation(model: AudioDiffusion, seconds: float) -> Callable[[], torch.Tensor]:
    """Returns a call that evaluates the network once on random input, its condition bound before."""
    length = round(seconds * model.sample_rate)
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(1, 1, length, generator=generator)
    batch = Batch(waveform, torch.tensor([length]))
    x, condition = model.encode(batch)
    network = model.denoiser.network.bind(condition)
    label = torch.ones(1)
    return lambda: network(x, label)


def gigaflops(call: Callable[[], torch.Tensor]) -> float:
    """Returns the floating point operations of matrix products and convolutions, in 10^9."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of audio")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    calls = {}
    with torch.inference_mode():
        for name, overrides in SYSTEMS.items():
            with initialize_config_dir(str(recipes_folder()), version_base="1.3"):
                recipe = recipe_of(compose("train", list(overrides)))
            calls[name] = evaluation(build(recipe).eval(), arguments.seconds)
        work = {name: gigaflops(call) / arguments.seconds for name, call in calls.items()}
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(arguments.repeats):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                best[name] = min(best[name], time.perf_counter() - start)
    first = next(iter(calls))
    print(f"{arguments.seconds} s of audio, {arguments.threads} threads, torch {torch.__version__}\n")
    print("| network | GFLOP per s of audio | ratio | real-time factor | ratio |\n|---|---|---|---|---|")
    for name in calls:
        print(
            f"| {name} | {work[name]:.2f} | {work[first] / work[name]:.1f} "
            f"| {best[name] / arguments.seconds:.4f} | {best[first] / best[name]:.1f} |"
        )


if __name__ == "__main__":
    main()
