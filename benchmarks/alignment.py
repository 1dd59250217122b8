"""Cost of monotonic alignment search: the library's loop over frames beside a plain loop over every cell.

    python benchmarks/alignment.py --items 16 --tokens 100 --frames 600 --repeats 5

A batch of Grad-TTS' training has 16 items; a sentence of 7 s at LJ Speech's mel has about 600 frames, and
about 100 phonemes. Prints milliseconds per batch, the fastest of the repeats, and checks that both agree.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from audiodiff.conditioning.alignment import monotonic_alignment


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


def timed(call: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """Returns the fastest of the repeats in milliseconds, and the result."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - start)
    return 1000 * best, result


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(arguments.items, arguments.tokens, arguments.frames, generator=generator)
    shares = 0.5 + 0.5 * torch.rand(arguments.items, generator=generator)
    tokens, frames = (shares * arguments.tokens).long(), (shares * arguments.frames).long()
    slow, expected = timed(lambda: plain(scores, tokens, frames), 1)
    fast, alignment = timed(lambda: monotonic_alignment(scores, tokens, frames), arguments.repeats)
    if not torch.equal(alignment, expected):
        raise SystemExit("the two alignments differ")
    print(
        f"{arguments.items} items, up to {arguments.tokens} tokens and {arguments.frames} frames, one thread\n"
    )
    print("| monotonic alignment search | ms per batch | ratio |\n|---|---|---|")
    print(f"| plain loop | {slow:.1f} | {slow / fast:.0f} |")
    print(f"| audiodiff | {fast:.1f} | 1 |")


if __name__ == "__main__":
    main()
