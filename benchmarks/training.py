"""DiffWave's training step against lmnt's own code: forward, backward and Adam, both in one run, taking turns.

    git clone https://github.com/lmnt-com/diffwave DIR
    python benchmarks/training.py --lmnt DIR --batch 4 16 --repeats 7 --threads 2

Both train the paper's base network (30 layers, 64 channels, a mel of 80 bands) on the same random batch, in float32,
by the mean absolute error. Each has a process of its own, so that neither inherits the other's memory; they take
turns step by step, so that what else the machine does hits both. The ratio is the median of the ratios of
neighbouring steps, with the quartiles beside it. --raise-thresholds tells glibc to keep freed memory instead of
giving it back at every step; for another allocator, preload it (LD_PRELOAD); its name is printed.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audiodiff.hardware import peak_memory_bytes
from audiodiff.networks.wavenet import ConditionShape, WaveNet
from audiodiff.types import Condition

SAMPLE_RATE, HOP, MELS, STEPS = 22050, 256, 80, 50
# glibc's <malloc.h>: never allocate by mmap, never give the top of the heap back.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


@dataclass(frozen=True)
class Setting:
    """What both contestants are given."""

    lmnt: Path
    batch: int
    frames: int
    threads: int
    raise_thresholds: bool


@dataclass
class Record:
    """What was measured of one contestant: wall and processor seconds of each step, peak resident bytes."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peak: float = 0.0


def random_batch(setting: Setting) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns noisy audio [B, T], its noise, mels [B, D, F] and rows of the noise table [B]."""
    generator = torch.Generator().manual_seed(0)
    shape = (setting.batch, setting.frames * HOP)
    noisy, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    mel = torch.rand(setting.batch, MELS, setting.frames, generator=generator)
    return noisy, noise, mel, torch.randint(STEPS, (setting.batch,), generator=generator)


def audiodiff_step(setting: Setting) -> Callable[[], None]:
    """Returns one training step of ours."""
    network = WaveNet(condition=ConditionShape(MELS, (16, 16))).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4, fused=True)
    noisy, noise, mel, rows = random_batch(setting)

    def step() -> None:
        optimizer.zero_grad()
        predicted = network(noisy[:, None], rows.float(), Condition(local=mel))
        torch.nn.functional.l1_loss(predicted[:, 0], noise).backward()
        optimizer.step()

    return step


def lmnt_step(setting: Setting) -> Callable[[], None]:
    """Returns one training step of lmnt's, as its learner does it."""
    sys.path.insert(0, str(setting.lmnt / "src"))
    from diffwave.model import DiffWave  # type: ignore[import-not-found]
    from diffwave.params import params  # type: ignore[import-not-found]

    network = DiffWave(params)
    optimizer = torch.optim.Adam(network.parameters(), lr=params.learning_rate)
    noisy, noise, mel, rows = random_batch(setting)

    def step() -> None:
        for parameter in network.parameters():
            parameter.grad = None
        predicted = network(noisy, rows, mel)
        torch.nn.functional.l1_loss(noise, predicted.squeeze(1)).backward()
        optimizer.step()

    return step


CONTESTANTS = {"lmnt": lmnt_step, "audiodiff": audiodiff_step}


def contestant(name: str, setting: Setting, pipe: Connection) -> None:
    """Makes a step whenever the pipe says True, and answers with its seconds; at last with the peak memory."""
    if setting.raise_thresholds:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    step = CONTESTANTS[name](setting)
    while pipe.recv():
        wall, processor = time.perf_counter(), time.process_time()
        step()
        pipe.send((time.perf_counter() - wall, time.process_time() - processor))
    pipe.send(peak_memory_bytes())


def measure(setting: Setting, repeats: int) -> dict[str, Record]:
    """Returns what both took, the first step of each left out."""
    context: Any = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in CONTESTANTS:
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=contestant, args=(name, setting, theirs), daemon=True))
        processes[-1].start()
    records = {name: Record() for name in CONTESTANTS}
    for repeat in range(repeats + 1):
        # Whoever goes first changes, so that none always follows the other.
        for name in list(pipes)[:: 1 if repeat % 2 else -1]:
            pipes[name].send(True)
            wall, processor = pipes[name].recv()
            if repeat:
                records[name].wall.append(wall)
                records[name].processor.append(processor)
            print(
                f"batch {setting.batch}, {repeat} of {repeats}, {name}: {wall:.2f} s, processor {processor:.2f} s",
                file=sys.stderr,
                flush=True,
            )
    for name, pipe in pipes.items():
        pipe.send(False)
        records[name].peak = pipe.recv()
    for process in processes:
        process.join()
    return records


def rows_of(setting: Setting, records: dict[str, Record]) -> list[str]:
    """Returns a table row of each contestant."""
    seconds = setting.batch * setting.frames * HOP / SAMPLE_RATE
    lines = []
    for name, record in records.items():
        ratios = np.divide(records["lmnt"].wall, record.wall)
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        processor = float(np.median(np.divide(records["lmnt"].processor, record.processor)))
        lines.append(
            f"| {name} | {setting.batch} | {np.median(record.wall):.2f} | {seconds / np.median(record.wall):.2f} "
            f"| {middle:.2f} ({low:.2f} to {high:.2f}) | {processor:.2f} | {record.peak / 1e6:.0f} |"
        )
    return lines


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lmnt", type=Path, required=True, help="checkout of lmnt-com/diffwave")
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--frames", type=int, default=62, help="of 256 samples")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--raise-thresholds", action="store_true", help="glibc keeps freed memory")
    arguments = parser.parse_args()
    if not (arguments.lmnt / "src" / "diffwave" / "model.py").is_file():
        parser.error(
            f"--lmnt {arguments.lmnt}: no src/diffwave/model.py in it; clone lmnt-com/diffwave there"
        )
    allocator = os.environ.get("LD_PRELOAD") or "glibc"
    allocator += ", thresholds raised" if arguments.raise_thresholds else ""
    print(
        f"{arguments.threads} threads, torch {torch.__version__}, allocator {allocator}, "
        f"load average before {os.getloadavg()[0]:.1f}\n\n"
        "| contestant | batch | s per step | audio s/s | against lmnt (quartiles) | in processor time | peak MB |\n"
        "|---|---|---|---|---|---|---|"
    )
    for batch in arguments.batch:
        setting = Setting(
            arguments.lmnt, batch, arguments.frames, arguments.threads, arguments.raise_thresholds
        )
        print("\n".join(rows_of(setting, measure(setting, arguments.repeats))), flush=True)
    print(f"\nload average after {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
