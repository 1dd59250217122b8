"""Running moments equal those of everything at once, however it is split."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiodiff.audio.statistics import RunningMoments


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_any_split_gives_the_moments_of_the_whole(sizes: list[int], seed: int) -> None:
    values = torch.randn(3, sum(sizes), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moments = RunningMoments()
    for part in values.split(sizes, dim=1):
        moments.update(part)
    assert moments.count == sum(sizes)
    torch.testing.assert_close(moments.mean, values.mean(1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(moments.std, values.std(1, correction=0), rtol=1e-9, atol=1e-12)


def test_a_large_offset_does_not_drown_the_deviation() -> None:
    # Sums of squares would lose all digits of the deviation here.
    noise = torch.randn(1, 10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = RunningMoments()
    for part in (noise + 1e8).split(100, dim=1):
        moments.update(part)
    torch.testing.assert_close(moments.std, noise.std(1, correction=0), rtol=1e-6, atol=0)


def test_float32_values_are_added_up_in_float64() -> None:
    moments = RunningMoments()
    for _ in range(300):
        moments.update(torch.full((2, 1000), 0.1))
    torch.testing.assert_close(moments.mean, torch.full((2,), float(torch.tensor(0.1)), dtype=torch.float64))
    assert float(moments.std.max()) < 1e-12
