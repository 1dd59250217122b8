"""Laws of monotonic alignment: it is the best there is, it is monotonic, and each item is by itself."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from audiodiff.conditioning.alignment import durations_to_alignment, monotonic_alignment
from audiodiff.errors import InputError


def scores_of(tokens: int, frames: int, seed: int, items: int = 1) -> Tensor:
    return torch.randn(items, tokens, frames, generator=torch.Generator().manual_seed(seed))


def single(scores: Tensor) -> Tensor:
    """The alignment of scores [L, F]."""
    return monotonic_alignment(scores[None], torch.tensor([len(scores)]), torch.tensor([scores.shape[1]]))[0]


def every_alignment(tokens: int, frames: int) -> list[Tensor]:
    alignments = []
    for cuts in combinations(range(1, frames), tokens - 1):
        bounds = [0, *cuts, frames]
        alignment = torch.zeros(tokens, frames)
        for token in range(tokens):
            alignment[token, bounds[token] : bounds[token + 1]] = 1
        alignments.append(alignment)
    return alignments


@pytest.mark.parametrize(("tokens", "frames"), [(1, 1), (1, 6), (2, 2), (2, 9), (4, 9), (5, 6), (7, 7)])
def test_no_other_monotonic_alignment_scores_more(tokens: int, frames: int) -> None:
    for seed in range(5):
        scores = scores_of(tokens, frames, seed)[0]
        best = max(every_alignment(tokens, frames), key=lambda alignment: float((alignment * scores).sum()))
        assert torch.equal(single(scores), best)


@pytest.mark.parametrize(("tokens", "frames"), [(1, 5), (3, 8), (6, 6)])
def test_on_a_tie_a_frame_stays_with_the_token_of_the_next_frame(tokens: int, frames: int) -> None:
    # Where all alignments score the same, reading back stays with the last token for as long as it can.
    expected = torch.zeros(tokens, frames)
    for frame in range(frames):
        expected[min(frame, tokens - 1), frame] = 1
    assert torch.equal(single(torch.zeros(tokens, frames)), expected)


def test_item_in_a_padded_batch_equals_the_item_alone() -> None:
    tokens, frames = torch.tensor([5, 12, 1, 7]), torch.tensor([31, 12, 3, 20])
    scores = scores_of(12, 31, 1, items=4)
    padded = scores.clone()
    for item, (own_tokens, own_frames) in enumerate(zip(tokens, frames, strict=True)):
        padded[item, own_tokens:] = torch.nan
        padded[item, :, own_frames:] = torch.inf
    together = monotonic_alignment(padded, tokens, frames)
    for item, (own_tokens, own_frames) in enumerate(zip(tokens, frames, strict=True)):
        own = together[item, :own_tokens, :own_frames]
        assert torch.equal(own, single(scores[item, :own_tokens, :own_frames]))
        assert together[item].sum() == own_frames


def test_very_unlikely_frames_are_aligned_as_well_as_likely_ones() -> None:
    scores = scores_of(6, 25, 2)[0].double()
    assert torch.equal(single(scores - 1e12), single(scores))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_alignment_has_the_type_of_the_scores_and_no_gradient(dtype: torch.dtype) -> None:
    scores = scores_of(4, 9, 3).to(dtype).requires_grad_()
    alignment = monotonic_alignment(scores, torch.tensor([4]), torch.tensor([9]))
    assert alignment.dtype == dtype
    assert not alignment.requires_grad
    assert torch.equal(
        alignment.float(), monotonic_alignment(scores.float(), torch.tensor([4]), torch.tensor([9]))
    )


def test_scores_are_left_as_they_were() -> None:
    scores = scores_of(4, 9, 3)
    before = scores.clone()
    monotonic_alignment(scores, torch.tensor([2]), torch.tensor([9]))
    assert torch.equal(scores, before)


@pytest.mark.parametrize(
    ("tokens", "frames", "message"),
    [
        ([4, 4], [9, 3], "item 1: got 4 tokens for 3 frames"),
        ([4, 0], [9, 9], "item 1: got 0 tokens, expected at least one"),
        ([5, 4], [9, 9], "item 0: got 5 tokens and 9 frames for scores of 4 tokens and 9 frames"),
        ([4, 4], [9, 10], "item 1: got 4 tokens and 10 frames for scores of 4 tokens and 9 frames"),
        ([4], [9], "got 1 token counts and 1 frame counts for 2 items"),
    ],
)
def test_lengths_that_no_alignment_can_have_are_refused(
    tokens: list[int], frames: list[int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        monotonic_alignment(scores_of(4, 9, 0, items=2), torch.tensor(tokens), torch.tensor(frames))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    scores = scores_of(4, 9, 0, items=3)
    scores[1, 2, 5] = value
    with pytest.raises(InputError, match="scores of item 1: got values that are not finite"):
        monotonic_alignment(scores, torch.tensor([4, 4, 4]), torch.tensor([9, 9, 9]))


def test_durations_of_an_alignment_give_the_alignment_back() -> None:
    tokens, frames = torch.tensor([5, 12, 1]), torch.tensor([31, 12, 3])
    alignment = monotonic_alignment(scores_of(12, 31, 4, items=3), tokens, frames)
    assert torch.equal(durations_to_alignment(alignment.sum(2), frames), alignment)


def test_frame_belongs_to_the_token_during_which_it_begins() -> None:
    durations = torch.tensor([[1.5, 0.25, 2.0, 0.0, 1.25]])
    token_of_frame = durations_to_alignment(durations, torch.tensor([5]))[0].argmax(0)
    assert token_of_frame.tolist() == [0, 0, 2, 2, 4]  # the tokens end at 1.5, 1.75, 3.75, 3.75, 5


@pytest.mark.parametrize(
    ("durations", "frames", "message"),
    [
        ([2.0, -1.0, 2.0], 3, "durations of item 0: got .* finite numbers from zero on"),
        ([2.0, torch.nan, 2.0], 3, "durations of item 0: got .* finite numbers from zero on"),
        ([0.5, 0.5, 0.5], 2, "item 0: got 3 spoken tokens for 2 frames"),
        ([2.0, 2.0, 2.0], 5, "item 0: they add up to 6 frames, expected 5"),
        ([2.0, 2.0, 2.0], 7, "item 0: they add up to 6 frames, expected 7"),
    ],
)
def test_durations_that_do_not_fill_the_frames_are_refused(
    durations: list[float], frames: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        durations_to_alignment(torch.tensor([durations]), torch.tensor([frames]))


def test_durations_of_another_number_of_items_are_refused() -> None:
    with pytest.raises(InputError, match="got 1 frame counts for 2 items"):
        durations_to_alignment(torch.ones(2, 3), torch.tensor([3]))
