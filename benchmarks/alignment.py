"""Cost of monotonic alignment search: the library's beside a plain loop over every cell and what others compiled.

    python -m pip install --no-deps --target others monotonic-alignment-search   # coqui-tts' Cython; optional
    PYTHONPATH=others python benchmarks/alignment.py --threads 1

A batch of Grad-TTS' training has 16 items; a sentence of 7 s at LJ Speech's mel has about 600 frames and about 100
phonemes. The second size is one long utterance. The contestants take turns in one run; every result is checked against
the plain loop. Prints medians of the time that passed and of the processor's time, in milliseconds a call. What others
compiled is called as their training code does, with a mask [B, L, F] that is made beforehand.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from audiodiff.conditioning.alignment import monotonic_alignment, valid_positions

SIZES = ((16, 100, 600), (1, 400, 2000))  # items, tokens, frames


def plain(scores: Tensor, tokens: Tensor, frames: Tensor) -> Tensor:
    """Returns the alignment by the recursion as it is written down, one cell after the other."""
    alignment = torch.zeros_like(scores)
    for item, (last_token, last_frame) in enumerate(zip(tokens.tolist(), frames.tolist(), strict=True)):
        best = scores[item].numpy().copy()
        for frame in range(last_frame):
            for token in range(min(last_token, frame + 1)):
                stay = best[token, frame - 1] if token < frame else -np.inf
                advance = best[token - 1, frame - 1] if token > 0 else -np.inf
                best[token, frame] += max(stay, advance) if frame > 0 else 0.0
        token = last_token - 1
        for frame in range(last_frame - 1, -1, -1):
            alignment[item, token, frame] = 1.0
            if token > 0 and (token == frame or best[token, frame - 1] < best[token - 1, frame - 1]):
                token -= 1
    return alignment


def contestants(scores: Tensor, tokens: Tensor, frames: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Returns what is measured, by name; what is not installed is left out."""
    named: dict[str, Callable[[], Tensor]] = {
        "audiodiff": lambda: monotonic_alignment(scores, tokens, frames)
    }
    try:
        import monotonic_alignment_search as others
    except ImportError:
        print("monotonic-alignment-search is not installed; see --help\n")
        return named
    of_tokens, of_frames = (
        valid_positions(lengths, size)
        for lengths, size in ((tokens, scores.shape[1]), (frames, scores.shape[2]))
    )
    mask = (of_tokens[:, :, None] & of_frames[:, None]).to(scores)
    named["monotonic-alignment-search, Cython"] = lambda: others.maximum_path(scores, mask)
    named["monotonic-alignment-search, numpy"] = lambda: others.maximum_path(
        scores, mask, implementation="numpy"
    )
    return named


def timed(named: Mapping[str, Callable[[], Tensor]], rounds: int) -> dict[str, tuple[float, float]]:
    """Returns medians of wall and processor milliseconds of each, which take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in named}
    for _ in range(rounds):
        for name, call in named.items():
            wall, processor = time.perf_counter(), time.process_time()
            call()
            times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {
        name: (1000 * statistics.median(w for w, _ in each), 1000 * statistics.median(p for _, p in each))
        for name, each in times.items()
    }


def report(items: int, tokens: int, frames: int, rounds: int) -> None:
    """Measures one size and prints its table.

    Raises:
        SystemExit: two alignments differ.
    """
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(items, tokens, frames, generator=generator)
    shares = 0.5 + 0.5 * torch.rand(items, generator=generator)
    own_tokens, own_frames = (shares * tokens).long(), (shares * frames).long()
    expected = plain(scores, own_tokens, own_frames)
    named = contestants(scores, own_tokens, own_frames)
    for name, call in named.items():  # compiled now, if ever
        if not torch.equal(call(), expected):
            raise SystemExit(f"{name}: another alignment than the plain loop's")
    measured = timed({"plain loop": lambda: plain(scores, own_tokens, own_frames)}, 1) | timed(named, rounds)
    ours = measured["audiodiff"][1]
    print(f"| {items} items, up to {tokens} tokens and {frames} frames | ms | ms of processor | ratio |")
    print("|---|---|---|---|")
    for name, (wall, processor) in measured.items():
        print(f"| {name} | {wall:.2f} | {processor:.2f} | {processor / ours:.1f} |")
    print()


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"threads: {arguments.threads}; load average before: {load}; rounds: {arguments.rounds}\n")
    for size in SIZES:
        report(*size, arguments.rounds)


if __name__ == "__main__":
    main()
