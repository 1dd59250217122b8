"""Guidance is affine in its scale between and beyond the two denoisers, inside its interval."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import VarianceDenoise
from audiodiff.diffusion.guidance import Guidance, GuidedDenoise, guided
from audiodiff.diffusion.process import epsilon_from_clean
from audiodiff.diffusion.schedules import linear
from audiodiff.errors import InputError

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
T = torch.tensor(0.3, dtype=torch.float64)


def conditional(x: Tensor, t: Tensor) -> Tensor:
    return x.sin() * t.view(-1, 1, 1)


def unconditional(x: Tensor, t: Tensor) -> Tensor:
    return x.cos() + t.view(-1, 1, 1)


class Learned:
    """A denoise with a learned variance, which counts its evaluations."""

    asked = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.with_variance(x, t)[0]

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += 1
        return conditional(x, t), torch.full_like(x, 0.25)


def estimate(scale: float, rescale: float = 0.0, interval: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    return guided(conditional, unconditional, Guidance(scale, rescale, interval))(X, T)


def test_scale_one_is_the_conditional_and_scale_zero_the_unconditional_estimate() -> None:
    assert guided(conditional, unconditional, Guidance(1.0)) is conditional
    assert torch.equal(estimate(0.0), unconditional(X, T))
    torch.testing.assert_close(
        GuidedDenoise(conditional, unconditional, Guidance(1.0))(X, T), conditional(X, T)
    )


@pytest.mark.parametrize("scale", [0.5, 2.0, 7.5])
def test_estimate_is_affine_in_the_scale(scale: float) -> None:
    expected = (1 - scale) * unconditional(X, T) + scale * conditional(X, T)
    torch.testing.assert_close(estimate(scale), expected)


def test_guiding_the_clean_signal_guides_the_noise_by_the_same_rule() -> None:
    schedule, scale = linear(1e-4, 0.02, 100), 3.0
    with_label, without = (epsilon_from_clean(schedule, X, f(X, T), T) for f in (conditional, unconditional))
    found = epsilon_from_clean(schedule, X, estimate(scale), T)
    # Ho and Salimans 2022, eq. 6, with scale = 1 + w.
    torch.testing.assert_close(found, scale * with_label - (scale - 1) * without)


def test_two_equal_denoisers_are_not_changed_by_any_scale() -> None:
    found = guided(conditional, conditional, Guidance(9.0, 0.7))(X, T)
    torch.testing.assert_close(found, conditional(X, T))


def test_autoguidance_of_a_gaussian_moves_away_from_the_weaker_model() -> None:
    """Of two linear denoisers, guidance is the linear denoiser with the extrapolated gain."""
    strong, weak = (lambda x, t, gain=gain: gain * x for gain in (0.8, 0.5))
    torch.testing.assert_close(guided(strong, weak, Guidance(2.0))(X, T), 1.1 * X)


def test_rescale_brings_the_spread_of_each_item_back_to_that_of_the_conditional_estimate() -> None:
    def spread(x: Tensor) -> Tensor:
        return x.flatten(1).std(1)

    wanted, plain = spread(conditional(X, T)), spread(estimate(5.0))
    torch.testing.assert_close(spread(estimate(5.0, 1.0)), wanted)
    torch.testing.assert_close(spread(estimate(5.0, 0.7)), 0.7 * wanted + 0.3 * plain)
    assert torch.equal(estimate(5.0, 0.0), estimate(5.0))


@pytest.mark.parametrize("interval", [(0.0, 0.29), (0.31, 1.0)])
def test_outside_the_interval_nothing_is_guided_and_the_other_is_not_asked(
    interval: tuple[float, float],
) -> None:
    def never(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("asked")

    found = guided(conditional, never, Guidance(4.0, 0.5, interval))(X, T)
    torch.testing.assert_close(found, conditional(X, T))


def test_each_item_is_guided_by_its_own_time() -> None:
    t = torch.tensor([0.3, 0.8], dtype=torch.float64)
    found = guided(conditional, unconditional, Guidance(4.0, interval=(0.2, 0.5)))(X, t)
    torch.testing.assert_close(found[:1], guided(conditional, unconditional, Guidance(4.0))(X[:1], t[:1]))
    torch.testing.assert_close(found[1:], conditional(X[1:], t[1:]))


def test_learned_variance_stays_the_conditional_ones_and_costs_no_evaluation() -> None:
    model = Learned()
    pair = guided(model, unconditional, Guidance(2.0))
    assert isinstance(pair, VarianceDenoise)
    clean, share = pair.with_variance(X, T)
    assert model.asked == 1
    torch.testing.assert_close(clean, 2 * conditional(X, T) - unconditional(X, T))
    assert torch.equal(share, torch.full_like(X, 0.25))
    assert not isinstance(guided(conditional, unconditional, Guidance(2.0)), VarianceDenoise)


def test_changed_puts_in_what_is_given() -> None:
    assert Guidance(2.0, 0.1).changed(None, 0.5, None) == Guidance(2.0, 0.5)
    assert Guidance(2.0).changed(0.0, None, (0.1, 0.2)) == Guidance(0.0, 0.0, (0.1, 0.2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": -0.1}, "guidance scale: got -0.1"),
        ({"scale": float("nan")}, "guidance scale: got nan"),
        ({"scale": float("inf")}, "guidance scale: got inf"),
        ({"rescale": 1.5}, "guidance rescale: got 1.5"),
        ({"interval": (0.5, 0.5)}, "guidance interval: got 0.5 to 0.5"),
        ({"interval": (-0.1, 0.5)}, "guidance interval: got -0.1 to 0.5"),
        ({"interval": (0.1, 1.5)}, "guidance interval: got 0.1 to 1.5"),
    ],
)
def test_impossible_guidance_is_refused(wrong: dict[str, float | tuple[float, float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Guidance(**wrong)  # type: ignore[arg-type]
