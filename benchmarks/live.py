"""Endless sound against real time: how long blocks take, how fast it is, and whether memory grows.

    python benchmarks/live.py MODEL [--minutes 10] [--steps 4] [--guidance 1] [--block 0.2] [--threads 1]

Prints the real-time factor (seconds of sound per second of work; above 1 it can be played as it is made), percentiles
of the time that one block takes, the latency of a change (the rest of the block being played, the block being made and
how long it takes), and the peak of the resident memory at 1, 5 and 10 minutes of sound. On a machine that others use
too, the real-time factor by processor time says what it would be alone.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time

import numpy as np
import torch

from audiodiff.diffusion.guidance import Guidance
from audiodiff.model import Steering, load
from audiodiff.synthesis.live import Live, Settings, Window
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--block", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = load(asked.model, asked.device)
    sampler = choose_sampler(model.recipe, SamplerChoice(steps=asked.steps))
    settings = Settings(steering=Steering(Guidance(asked.guidance)))
    live = Live(model, sampler, settings, Window(asked.block))
    count = max(2, round(asked.minutes * 60 / live.block_seconds))
    times, marks, processor = np.zeros(count), {}, time.process_time()
    for number in range(count):
        start = time.perf_counter()
        live.block()
        times[number] = time.perf_counter() - start
        minute = (number + 1) * live.block_seconds / 60
        for mark in (1, 5, 10):
            if minute >= mark and mark not in marks:
                marks[mark] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = count * live.block_seconds
    processor = (time.process_time() - processor) / asked.threads
    middle, high, worst = np.percentile(times * 1000, (50, 95, 99))
    latency = live.block_seconds + live.latency_seconds + middle / 1000
    print(
        f"{platform.processor() or platform.machine()}, {asked.threads} thread(s), torch {torch.__version__}"
    )
    print(f"{seconds:.0f} s of sound in blocks of {live.block_seconds:.3f} s, {model.sample_rate} Hz")
    print(f"real-time factor {seconds / times.sum():.2f}, by processor time {seconds / processor:.2f}")
    print(
        f"block: median {middle:.1f} ms, 95 % {high:.1f} ms, 99 % {worst:.1f} ms; change heard within {latency:.2f} s"
    )
    print(
        "peak memory: " + ", ".join(f"{megabytes:.0f} MB at {mark} min" for mark, megabytes in marks.items())
    )


if __name__ == "__main__":
    main()
