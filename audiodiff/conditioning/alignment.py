"""Which frame is spoken by which token: the best monotonic alignment, and alignments from durations.

An alignment [B, L, F] is 0 or 1: each of an item's frames belongs to one token, and the tokens follow one
another without a gap. Monotonic alignment search (Kim et al. 2020, "Glow-TTS", algorithm 1) finds, among the
alignments that give every token at least one frame, the one with the largest sum of scores:

    best(l, f) = score(l, f) + max(best(l, f - 1), best(l - 1, f - 1)),

read back from the last token at the last frame. On a tie the frame before stays with the same token.
The search is compiled when it is first needed, which takes seconds once and is kept on disk.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from audiodiff.compiled import compiled
from audiodiff.errors import InputError

_TILE = 16  # frames that are laid out token by token at a time


def monotonic_alignment(scores: Tensor, tokens: Tensor, frames: Tensor) -> Tensor:
    """Returns the best monotonic alignment of every item.

    The search runs on the CPU, in the precision of the scores but at least float32, and carries no gradient.

    Args:
        scores: [B, L, F], what it is worth that a token speaks a frame, such as a log-likelihood; values
            beyond an item's tokens or frames are not read.
        tokens: [B], tokens of each item.
        frames: [B], frames of each item.

    Returns:
        [B, L, F] of ones and zeros, of the scores' type and on their device; zero beyond an item's own.

    Raises:
        InputError: an item without tokens, with more tokens than frames, with lengths beyond the scores, or
            with a score that is not finite.
    """
    tokens, frames = tokens.cpu(), frames.cpu()
    _require_lengths(scores, tokens, frames)
    precision = torch.promote_types(scores.dtype, torch.float32)
    values = scores.detach().to("cpu", precision).contiguous().numpy()
    alignment = np.zeros(scores.shape, np.float32)
    damaged = compiled(_search)(values, tokens.numpy(), frames.numpy(), alignment)
    if damaged >= 0:
        raise InputError(
            f"scores of item {damaged}: got values that are not finite, expected numbers; did training diverge?"
        )
    return torch.from_numpy(alignment).to(scores)


def durations_to_alignment(durations: Tensor, frames: Tensor) -> Tensor:
    """Returns the alignment in which every token lasts its duration.

    Frame f belongs to the token during which it begins: with the durations added up, the first whose end lies
    after f. Durations may be fractions, as they are when speech is slowed or hastened by a factor; a token
    that is shorter than a frame may then begin and end between two frames and speak none.

    Args:
        durations: [B, L] in frames, zero for a token that is not spoken and beyond an item's tokens.
        frames: [B], frames of each item: the sum of its durations, up to rounding.

    Returns:
        [B, L, F] of ones and zeros, of the durations' type; F is the largest of `frames`.

    Raises:
        InputError: a duration that is negative or not finite, more spoken tokens than frames, or frames that
            differ from the sum of the durations by one or more.
    """
    frames = frames.to(durations.device)
    _require_durations(durations, frames)
    # The end of each token, as [B, L, 1]; a token's frames are those before its end and not before the last one's.
    ends = durations.cumsum(1)[:, :, None]
    positions = torch.arange(int(frames.max()), device=durations.device)
    before_end = (positions < ends) & valid_positions(frames, len(positions))[:, None]
    before_begin = functional.pad(before_end, (0, 0, 1, 0))[:, :-1]
    return (before_end & ~before_begin).to(durations.dtype)


def valid_positions(lengths: Tensor, longest: int) -> Tensor:
    """Returns [B, longest], true at the positions that an item has."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def _search(scores: npt.NDArray, tokens: npt.NDArray, frames: npt.NDArray, alignment: npt.NDArray) -> int:
    """Sets the best path of every item to 1 in alignment [B, L, F], for scores [B, L, F].

    A tile of frames is turned to [frames, L], so that the tokens of a frame are one loop over neighbours, which the
    compiler makes wide. Of the scores' sums only the last row is kept, and for the way back whether the frame before
    belongs to the token before.

    Returns the number of the first item with a score that is not finite, or -1.
    """
    items, width, count = scores.shape
    tile = np.empty((_TILE, width), scores.dtype)
    advanced = np.empty((count, width), np.bool_)
    best = np.empty(width, scores.dtype)
    nothing, never = scores.dtype.type(0), scores.dtype.type(-np.inf)
    for item in range(items):
        length, available, own = tokens[item], frames[item], scores[item]
        best[:] = never
        for first in range(0, available, _TILE):
            size = min(_TILE, available - first)
            finite = True
            for token in range(length):
                for place in range(size):
                    score = own[token, first + place]
                    finite &= score - score == 0
                    tile[place, token] = score
            if not finite:
                return item
            for place in range(size):
                frame = first + place
                # Before the first token lies what no path passes, but from which all begin.
                before = never if frame else nothing
                for token in range(min(length, frame + 1)):
                    stay = best[token]
                    advanced[frame, token] = stay < before
                    best[token] = (before if stay < before else stay) + tile[place, token]
                    before = stay
        token = length - 1
        for frame in range(available - 1, -1, -1):
            alignment[item, token, frame] = 1.0
            token -= advanced[frame, token]
    return -1


def _require_lengths(scores: Tensor, tokens: Tensor, frames: Tensor) -> None:
    items, most_tokens, most_frames = scores.shape
    if len(tokens) != items or len(frames) != items:
        raise InputError(
            f"alignment: got {len(tokens)} token counts and {len(frames)} frame counts for {items} items"
        )
    for item, (count, available) in enumerate(zip(tokens.tolist(), frames.tolist(), strict=True)):
        if count < 1:
            raise InputError(f"alignment of item {item}: got {count} tokens, expected at least one")
        if count > available:
            raise InputError(
                f"alignment of item {item}: got {count} tokens for {available} frames, expected at least one "
                "frame a token; the text does not fit the audio, leave the item out or correct it"
            )
        if count > most_tokens or available > most_frames:
            raise InputError(
                f"alignment of item {item}: got {count} tokens and {available} frames for scores of "
                f"{most_tokens} tokens and {most_frames} frames"
            )


def _require_durations(durations: Tensor, frames: Tensor) -> None:
    if len(durations) != len(frames):
        raise InputError(f"alignment: got {len(frames)} frame counts for {len(durations)} items")
    for item, (row, available) in enumerate(zip(durations.detach().cpu(), frames.tolist(), strict=True)):
        if not bool((row.isfinite() & (row >= 0)).all()):
            raise InputError(
                f"durations of item {item}: got {row.tolist()}, expected finite numbers from zero on"
            )
        spoken, total = int((row > 0).sum()), float(row.cumsum(0)[-1])
        if spoken > available:
            raise InputError(
                f"durations of item {item}: got {spoken} spoken tokens for {available} frames, expected at least "
                "one frame a token; slow the speech down"
            )
        if not available - 1 < total < available + 1:
            raise InputError(
                f"durations of item {item}: they add up to {total:g} frames, expected {available}, its number of frames"
            )
