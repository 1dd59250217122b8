"""The batch of an update is the recipe's, however it is shared over processes and passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiodiff.errors import InputError
from audiodiff.training.batching import batching
from tests.tiny import recipe_from

# Clips per update of the recipes as they were tuned.
CLIPS = {
    "mini": 16,
    "fsdd_digits": 32,
    "fsdd_vocoder": 16,
    "ljspeech_vocoder": 32,
    "ljspeech_diffwave": 16,
    "sc09": 32,
    "sc09_diffwave": 16,
}


def settings(total: float, limit: float | None = None) -> dict[str, float | None]:
    return {"global_batch_seconds": total, "pass_seconds": limit}


@pytest.mark.parametrize("name", CLIPS)
def test_recipes_have_the_clips_per_update_that_they_were_tuned_with(name: str) -> None:
    recipe = recipe_from(f"experiment={name}")
    batch = batching(recipe["training"], recipe["data"]["segment_seconds"], 1)
    assert (batch.clips, batch.passes, batch.asked) == (CLIPS[name], 1, CLIPS[name])


@given(
    clips=st.integers(1, 500),
    segment=st.sampled_from([0.6, 0.74304, 1.0, 2.5]),
    ranks=st.integers(1, 16),
    most=st.none() | st.integers(1, 100),
)
def test_every_pass_of_every_rank_has_as_many_clips_and_never_more_than_asked(
    clips: int, segment: float, ranks: int, most: int | None
) -> None:
    limit = None if most is None else most * segment
    batch = batching(settings(clips * segment, limit), segment, ranks)
    assert batch.asked == clips
    assert batch.clips == batch.clips_per_pass * batch.ranks * batch.passes
    assert most is None or batch.clips_per_pass <= most
    shared = sorted(
        position
        for rank in range(ranks)
        for part in range(batch.passes)
        for position in batch.share(rank).positions(batch.clips, part)
    )
    assert shared == list(range(batch.clips))
    step = batch.ranks * batch.passes
    nearest = min((max(step, clips // step * step), (clips // step + 1) * step), key=lambda c: abs(c - clips))
    assert batch.clips == nearest or abs(batch.clips - clips) < step


def test_rounding_is_said() -> None:
    assert "9 clips per update (rounded from 10)" in batching(settings(10.0), 1.0, 3).describe(1.0)
    assert "rounded" not in batching(settings(9.0), 1.0, 3).describe(1.0)


def test_a_limit_on_memory_makes_more_passes_of_the_same_batch() -> None:
    batch = batching(settings(32.0, 8.0), 1.0, 2)
    assert (batch.clips, batch.passes, batch.clips_per_pass) == (32, 2, 8)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (settings(0.0), r"training\.global_batch_seconds: got 0"),
        (settings(8.0, 0.4), r"training\.pass_seconds: got 0\.4"),
    ],
)
def test_seconds_out_of_range_are_refused(given: dict[str, float | None], words: str) -> None:
    with pytest.raises(InputError, match=words):
        batching(given, 1.0, 1)
