"""Guidance is affine in its scale between and beyond the two denoisers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.guidance import guided
from audiodiff.diffusion.process import epsilon_from_clean
from audiodiff.diffusion.schedules import linear

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
T = torch.tensor(0.3, dtype=torch.float64)


def conditional(x: Tensor, t: Tensor) -> Tensor:
    return x.sin() * t


def unconditional(x: Tensor, t: Tensor) -> Tensor:
    return x.cos() + t


def test_scale_one_is_the_conditional_and_scale_zero_the_unconditional_estimate() -> None:
    torch.testing.assert_close(guided(conditional, unconditional, 1.0)(X, T), conditional(X, T))
    assert torch.equal(guided(conditional, unconditional, 0.0)(X, T), unconditional(X, T))


@pytest.mark.parametrize("scale", [-1.0, 0.5, 2.0, 7.5])
def test_estimate_is_affine_in_the_scale(scale: float) -> None:
    expected = (1 - scale) * unconditional(X, T) + scale * conditional(X, T)
    torch.testing.assert_close(guided(conditional, unconditional, scale)(X, T), expected)


def test_guiding_the_clean_signal_guides_the_noise_by_the_same_rule() -> None:
    schedule, scale = linear(1e-4, 0.02, 100), 3.0
    with_label, without = (epsilon_from_clean(schedule, X, f(X, T), T) for f in (conditional, unconditional))
    found = epsilon_from_clean(schedule, X, guided(conditional, unconditional, scale)(X, T), T)
    # Ho and Salimans 2022, eq. 6, with scale = 1 + w.
    torch.testing.assert_close(found, scale * with_label - (scale - 1) * without)


def test_two_equal_denoisers_are_not_changed_by_any_scale() -> None:
    assert torch.equal(guided(conditional, conditional, 9.0)(X, T), conditional(X, T))
