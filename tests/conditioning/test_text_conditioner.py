"""What a text becomes with a recording and without one, alone and beside labels, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from audiodiff.conditioning.conditioner import Aligning, Joint, Unconditional
from audiodiff.conditioning.label import Labels
from audiodiff.conditioning.text import TextEncoder, TextEncoderSize
from audiodiff.conditioning.text_conditioner import Text
from audiodiff.data.collate import Item, collate
from audiodiff.errors import InputError
from audiodiff.types import Batch, Condition

VOCABULARY, FEATURES, VECTOR = 11, 5, 6
SIZE = TextEncoderSize(channels=8, filter_channels=12, layers=1, heads=2, window=2, duration_channels=7)
COUNTS = torch.tensor([7, 4])


def text(length_scale: float = 1.0, spoken: bool = False) -> Text:
    """A small conditioner with random weights everywhere, with a speaker or without."""
    encoder = TextEncoder(VOCABULARY, FEATURES, SIZE, speaker_features=VECTOR if spoken else None)
    conditioner = Text(encoder, length_scale, speakers() if spoken else None).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in conditioner.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return conditioner


def speakers() -> Labels:
    return Labels({"speaker": ["ann", "bob"]}, VECTOR)


def batch(**labels: tuple[str, ...]) -> Batch:
    tokens = torch.randint(VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(1))
    return Batch(None, torch.zeros(2, dtype=torch.int64), labels, tokens=tokens, token_counts=COUNTS)


def mean_of(condition: Condition) -> Tensor:
    assert condition.prior_mean is not None
    return condition.prior_mean


def frames_of(condition: Condition) -> Tensor:
    assert condition.frames is not None
    return condition.frames


@torch.no_grad()
def test_the_network_hears_the_mean_of_the_noise_for_as_long_as_the_text_lasts() -> None:
    condition = text()(batch())
    mean, frames = mean_of(condition), frames_of(condition)
    assert condition.local is not None
    for local, of_noise, count in zip(condition.local, mean, frames.tolist(), strict=True):
        assert torch.equal(local[:, :count], of_noise[:, :count])
        # Beyond, the network hears the last frame, as in a batch of its own.
        assert torch.equal(local[:, count:], local[:, count - 1 : count].expand_as(local[:, count:]))
    assert mean_of(condition).shape == (2, FEATURES, int(frames_of(condition).max()))
    assert bool((frames_of(condition) >= COUNTS).all())
    assert not mean_of(condition)[1, :, frames_of(condition)[1] :].any()
    assert condition.vector is None


@torch.no_grad()
def test_a_length_scale_of_two_speaks_every_frame_twice() -> None:
    plain, slow = text()(batch()), text(2.0)(batch())
    assert torch.equal(frames_of(slow), 2 * frames_of(plain))
    torch.testing.assert_close(mean_of(slow), mean_of(plain).repeat_interleave(2, dim=2))


@torch.no_grad()
def test_a_recording_of_the_text_as_it_is_predicted_is_aligned_as_it_is_predicted() -> None:
    conditioner = text()
    spoken = conditioner(batch())
    aligned, losses = conditioner.align(batch(), mean_of(spoken), frames_of(spoken))
    torch.testing.assert_close(mean_of(aligned), mean_of(spoken))
    assert torch.equal(frames_of(aligned), frames_of(spoken))
    assert set(losses) == {"prior", "duration"}
    assert all(loss.dim() == 0 for loss in losses.values())


@torch.no_grad()
def test_a_speaker_changes_how_the_text_is_spoken_and_is_told_to_the_network() -> None:
    conditioner = text(spoken=True)
    ann, bob = (conditioner(batch(speaker=(name, name))) for name in ("ann", "bob"))
    assert ann.vector is not None
    assert bob.vector is not None
    assert not torch.equal(ann.vector, bob.vector)
    shortest = min(mean_of(ann).shape[2], mean_of(bob).shape[2])
    assert not torch.allclose(mean_of(ann)[..., :shortest], mean_of(bob)[..., :shortest], atol=1e-3)
    aligned, _ = conditioner.align(
        batch(speaker=("ann", "ann")), torch.zeros(2, FEATURES, 9), torch.tensor([9, 8])
    )
    assert aligned.vector is not None
    torch.testing.assert_close(aligned.vector, ann.vector)


@torch.no_grad()
def test_nothing_is_the_same_speech_without_the_speaker() -> None:
    conditioner, told = text(spoken=True), batch(speaker=("ann", "bob"))
    condition, nothing = conditioner(told), conditioner.null(told)
    assert nothing.same_prior(condition)
    assert torch.equal(frames_of(nothing), frames_of(condition))
    assert nothing.vector is not None
    assert condition.vector is not None
    assert torch.equal(nothing.vector[0], nothing.vector[1])
    assert not torch.equal(nothing.vector, condition.vector)


@torch.no_grad()
def test_text_and_labels_join_in_both_directions() -> None:
    words, names = text(), speakers()
    both, told = Joint([words, names]), batch(speaker=("ann", "bob"))
    spoken = both(told)
    assert spoken.same_prior(words(told))
    assert torch.equal(frames_of(spoken), frames_of(words(told)))
    expected = names(told).vector
    assert spoken.vector is not None
    assert torch.equal(spoken.vector, expected)
    clean, frames = torch.randn(2, FEATURES, 12), torch.tensor([12, 8])
    aligned, losses = both.align(told, clean, frames)
    alone, own = words.align(told, clean, frames)
    assert aligned.same_prior(alone)
    assert aligned.vector is not None
    assert torch.equal(aligned.vector, expected)
    assert losses.keys() == own.keys()
    assert all(torch.equal(losses[name], own[name]) for name in own)
    assert torch.equal(frames_of(both.null(told)), frames_of(spoken))


def test_parts_that_align_nothing_lose_nothing() -> None:
    told = batch(speaker=("ann", "bob"))
    condition, losses = Joint([speakers(), Unconditional()]).align(
        told, torch.zeros(2, 1, 3), torch.tensor([3, 3])
    )
    assert losses == {}
    assert condition.frames is None
    assert isinstance(text(), Aligning)
    assert not isinstance(speakers(), Aligning)


def test_two_texts_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match=r"two conditioners fill condition\.local"):
        Joint([text(), text()])(batch())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": None}, "give tokens and token_counts"),
        ({"token_counts": None}, "give tokens and token_counts"),
        ({"tokens": torch.zeros(2, 7)}, r"shape \[2, 7\] \(torch.float32\), expected whole numbers"),
        ({"tokens": torch.zeros(7, dtype=torch.int64)}, r"shape \[7\] .* of shape \[2, L\]"),
        ({"tokens": torch.zeros(3, 7, dtype=torch.int64)}, r"shape \[3, 7\] .* of shape \[2, L\]"),
        ({"token_counts": torch.tensor([7, 0])}, "text of item 1: is empty, expected at least one token"),
        ({"token_counts": torch.tensor([0, 7]), "ids": ("first", "second")}, "text of first: is empty"),
        ({"tokens": torch.zeros(2, 0, dtype=torch.int64), "token_counts": torch.zeros(2)}, "is empty"),
        ({"token_counts": torch.tensor([8, 7])}, r"got \[8, 7\] tokens for ids of shape \[2, 7\]"),
        ({"token_counts": torch.tensor([7])}, r"got \[7\] tokens for ids of shape \[2, 7\]"),
        ({"tokens": torch.full((2, 7), VOCABULARY)}, "got token ids from 11 to 11, this model knows 0 to 10"),
        ({"tokens": torch.full((2, 7), -1)}, "got token ids from -1 to -1"),
    ],
)
def test_a_text_that_cannot_be_spoken_is_refused(changes: dict[str, Tensor], message: str) -> None:
    told = replace(batch(), **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        text()(told)
    with pytest.raises(InputError, match=message):
        text().align(told, torch.zeros(2, FEATURES, 9), torch.tensor([9, 9]))


def test_more_tokens_than_frames_are_refused_in_training() -> None:
    with pytest.raises(InputError, match="item 0: got 7 tokens for 6 frames"):
        text().align(batch(), torch.zeros(2, FEATURES, 6), torch.tensor([6, 6]))


@pytest.mark.parametrize("length_scale", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_length_scale_is_refused(length_scale: float) -> None:
    with pytest.raises(InputError, match=r"length_scale: got .*, expected a number above 0"):
        text(length_scale)


def test_speaker_and_encoder_must_fit() -> None:
    with pytest.raises(InputError, match="got no speaker for an encoder of speaker_features 6"):
        Text(TextEncoder(VOCABULARY, FEATURES, SIZE, speaker_features=VECTOR))
    with pytest.raises(InputError, match="got a speaker for an encoder of speaker_features None"):
        Text(TextEncoder(VOCABULARY, FEATURES, SIZE), speaker=speakers())


def item(length: int, tokens: Tensor | None) -> Item:
    return Item(torch.ones(1, length), length, {}, f"clip{length}", tokens)


def test_texts_are_collated_with_their_lengths_and_travel_with_the_batch() -> None:
    texts = [torch.tensor([3, 1, 4]), torch.tensor([5])]
    told = collate([item(4, texts[0]), item(9, texts[1])])
    assert told.tokens is not None
    assert told.token_counts is not None
    assert told.tokens.dtype == torch.int64
    assert told.token_counts.tolist() == [3, 1]
    for row, count, expected in zip(told.tokens, told.token_counts.tolist(), texts, strict=True):
        assert torch.equal(row[:count], expected)
        assert not row[count:].any()
    moved = told.to("meta")
    assert moved.tokens is not None
    assert moved.tokens.device.type == "meta"
    assert moved.token_counts is told.token_counts
    assert collate([item(4, None)]).tokens is None


def test_items_with_and_without_a_text_do_not_share_a_batch() -> None:
    with pytest.raises(ValueError, match="clip9 has no text, others have"):
        collate([item(4, torch.tensor([3])), item(9, None)])
