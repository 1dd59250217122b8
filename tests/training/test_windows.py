"""A window is a part of every item, the same of all that is told of it; over the whole clip it changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, build, instantiate
from audiodiff.training.draws import NOISE, ItemNoise
from audiodiff.training.updates import TrainingStep
from audiodiff.training.windows import window, window_frames
from audiodiff.types import Batch, Condition
from tests.tiny import recipe_from

FRAMES = torch.tensor([10, 4, 7])


def counting() -> tuple[Tensor, Condition]:
    """x whose values are the number of the frame, and a condition of as many."""
    x = torch.arange(10.0).expand(3, 2, 10) * (torch.arange(10) < FRAMES[:, None])[:, None]
    return x, Condition(local=x + 100, frames=FRAMES, prior_mean=x - 100, vector=torch.ones(3, 4))


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.999999])
def test_the_parts_are_of_the_same_frames_lie_inside_and_short_items_come_whole(chance: float) -> None:
    x, condition = counting()
    part, told = window(x, condition, 6, torch.full((3,), chance))
    assert part.shape == (3, 2, 6)
    assert told.frames is not None
    assert told.frames.tolist() == [6, 4, 6]
    assert told.local is not None
    assert told.prior_mean is not None
    assert torch.equal(told.local, part + 100)
    assert torch.equal(told.prior_mean, part - 100)
    assert told.vector is condition.vector
    starts = part[:, 0, 0].tolist()
    assert starts == [int(chance * 5), 0.0, int(chance * 2)]
    assert torch.equal(part[1, 0], x[1, 0, :6])
    for row, start in ((0, starts[0]), (2, starts[2])):
        assert torch.equal(part[row, 0], start + torch.arange(6.0))


def test_every_place_of_a_window_is_as_likely_as_the_others() -> None:
    x = torch.arange(10.0).expand(500, 1, 10)
    part, told = window(x, Condition(), 6, torch.arange(500) / 500)
    assert torch.equal(part[:, 0, 0].long().bincount(), torch.full((5,), 100))
    assert told.frames is None  # no part is padded


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999999])
def test_where_a_mel_has_a_frame_for_several_of_x_the_parts_begin_with_one_of_its_frames(
    chance: float, more: int
) -> None:
    x, condition = counting()
    local = torch.arange(4.0 + more).expand(3, 5, 4 + more)  # one frame for three of x
    part, told = window(x, replace(condition, local=local), 5, torch.full((3,), chance), 3)
    assert told.local is not None
    assert told.prior_mean is not None
    starts = part[:, 0, 0]
    assert torch.equal(part[0, 0], starts[0] + torch.arange(5.0))
    assert torch.equal(told.prior_mean, part - 100)
    assert torch.equal(told.local[:, 0, 0] * 3, starts)
    assert told.local.shape == (3, 5, 2)
    assert starts.tolist() == [3 * int(chance * 2), 0.0, 0.0]


def test_a_condition_of_other_frames_than_x_is_refused() -> None:
    x, condition = counting()
    with pytest.raises(ValueError, match="got 9 frames of condition for 10 of x, expected 10"):
        window(x, replace(condition, local=x[..., :9]), 6, torch.zeros(3))


@pytest.mark.parametrize("length", [10, 50])
def test_a_window_over_the_whole_clip_changes_nothing(length: int) -> None:
    x, condition = counting()
    part, told = window(x, condition, length, torch.rand(3))
    assert part is x
    assert told is condition


def text_model(*overrides: str) -> tuple[dict[str, Any], AudioDiffusion]:
    recipe = recipe_from("experiment=ljspeech_tts", "size=tiny", *overrides)
    torch.manual_seed(0)
    model = build(recipe).eval()
    torch.nn.init.normal_(model.denoiser.network.output.weight)  # type: ignore[attr-defined]
    return recipe, model


def two_texts() -> Batch:
    generator = torch.Generator().manual_seed(0)
    waveform = torch.randn(2, 1, 12 * 256, generator=generator) / 4
    waveform[1, :, 9 * 256 :] = 0
    tokens = torch.randint(1, 20, (2, 5), generator=generator)
    return Batch(waveform, torch.tensor([12, 9]) * 256, tokens=tokens, token_counts=torch.tensor([5, 3]))


def test_the_loss_over_all_is_that_of_whole_clips_and_a_short_window_keeps_the_texts_losses() -> None:
    recipe, model = text_model()
    objective = instantiate(recipe["objective"])
    t, noise = torch.tensor([0.3, 0.7], dtype=torch.float64), ItemNoise(1, NOISE, (0,), range(2), 12)
    losses, parts = {}, {}
    for length in (None, 12, 4):
        step = TrainingStep(model, objective, length)
        losses[length] = step(two_texts(), t, noise, torch.tensor([0.4, 0.9]))
        parts[length] = step.parts
    assert torch.equal(losses[12], losses[None])
    assert not torch.allclose(losses[4], losses[None])
    assert all(torch.equal(parts[4][name], parts[None][name]) for name in ("prior", "duration"))


def test_a_window_is_counted_in_frames_and_refused_where_nothing_is_aligned() -> None:
    _, model = text_model()
    assert window_frames(model, 2.0) == round(2 * 22050 / 256)
    assert window_frames(model, None) is None
    with pytest.raises(InputError, match="at least one frame"):
        window_frames(model, 0.001)
    with pytest.raises(InputError, match=r"data\.segment_seconds"):
        window_frames(build(recipe_from("experiment=mini", "size=tiny")), 2.0)
