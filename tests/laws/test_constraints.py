"""Constraints keep what is known, projections are idempotent and satisfy their observation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.constraints import (
    Clip,
    Clipped,
    DynamicThreshold,
    KnownRegion,
    Projection,
    band_limited,
    chain,
    masked,
    projected,
)
from audiodiff.diffusion.continuous import Flow
from audiodiff.diffusion.guidance import Guidance, GuidedDenoise
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from tests.laws.exact import SAMPLERS, SCHEDULES, Noise, draw, gaussian, no_noise, scalar, suited

T = scalar(0.4)
CLEAN = draw(2, 3, 33)
MASK = (torch.arange(33) % 5 < 2).double()[None, None]  # [1, 1, 33]
KNOWN = draw(2, 3, 33, seed=1)


def clipped_observation() -> Tensor:
    return KNOWN.clamp(-0.8, 0.8)


PROJECTIONS: dict[str, Projection] = {
    "masked": masked(KNOWN, MASK),
    "band_limited": band_limited(KNOWN, 0.4),
    "clipped": Clipped(clipped_observation(), 0.8),
    "clip": Clip(-0.3, 0.5),
    "threshold": DynamicThreshold(1.0, 0.7),
}


def region(kind: str, noise: Noise) -> KnownRegion:
    return KnownRegion(SCHEDULES[kind], KNOWN, MASK, lambda: noise(0, len(noise.asked)))


@pytest.mark.parametrize("value", [-2.0, -1.0, 0.25, 1.0, 1.5])
def test_clip_keeps_what_is_inside_and_bounds_the_rest(value: float) -> None:
    assert float(Clip()(torch.tensor(value), torch.zeros(()))) == max(-1.0, min(1.0, value))


@pytest.mark.parametrize("name", list(PROJECTIONS))
def test_projections_are_idempotent(name: str) -> None:
    once = PROJECTIONS[name](CLEAN, T)
    torch.testing.assert_close(PROJECTIONS[name](once, T), once, rtol=1e-12, atol=1e-12)
    assert not torch.equal(once, CLEAN)


@pytest.mark.parametrize("name", ["masked", "band_limited", "clipped"])
def test_projections_leave_the_signal_that_was_observed(name: str) -> None:
    torch.testing.assert_close(PROJECTIONS[name](KNOWN, T), KNOWN, rtol=1e-12, atol=1e-12)


def test_masked_fixes_the_known_samples_and_leaves_the_others() -> None:
    found = PROJECTIONS["masked"](CLEAN, T)
    inside = MASK.bool().expand_as(CLEAN)
    torch.testing.assert_close(found[inside], KNOWN[inside], rtol=1e-12, atol=1e-12)
    assert torch.equal(found[~inside], CLEAN[~inside])


@pytest.mark.parametrize("length", [32, 33])
def test_band_limited_fixes_the_spectrum_below_and_leaves_it_above(length: int) -> None:
    known, clean = KNOWN[..., :length], CLEAN[..., :length]
    found = torch.fft.rfft(band_limited(known, 0.4)(clean, T))
    low = torch.arange(found.shape[-1]) <= 0.4 * (found.shape[-1] - 1)
    torch.testing.assert_close(found[..., low], torch.fft.rfft(known)[..., low], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[..., ~low], torch.fft.rfft(clean)[..., ~low], rtol=1e-9, atol=1e-9)


def test_clipped_gives_signals_whose_clipping_is_the_observation() -> None:
    found = PROJECTIONS["clipped"](CLEAN * 2, T)
    assert torch.equal(found.clamp(-0.8, 0.8), clipped_observation())
    beyond = (KNOWN.abs() > 0.8) & (CLEAN.sign() == KNOWN.sign()) & (2 * CLEAN.abs() > 0.8)
    assert bool(beyond.any())
    assert torch.equal(found[beyond], 2 * CLEAN[beyond])


def test_dynamic_threshold_acts_on_each_item_by_its_own_quantile() -> None:
    loud, quiet = CLEAN[:1] * 5, CLEAN[1:] * 0.1
    found = DynamicThreshold(0.9)(torch.cat([loud, quiet]), T)
    limit = loud.abs().flatten().sort().values[round(0.9 * loud.numel()) - 1]
    torch.testing.assert_close(found[:1], loud.clamp(-limit, limit) / limit)
    assert float(found[:1].abs().max()) == 1.0
    assert torch.equal(found[1:], quiet)
    assert torch.equal(DynamicThreshold(0.9)(quiet, T), quiet)


def test_chain_applies_its_parts_in_order() -> None:
    add, double = (lambda x, s: x + s), (lambda x, s: 2 * x)
    one = torch.ones(())
    assert float(chain(add, double)(one, T)) == pytest.approx(2.8)
    assert float(chain(double, add)(one, T)) == pytest.approx(2.4)
    assert chain()(one, T) is one


@pytest.mark.parametrize("kind", list(SCHEDULES))
def test_known_region_has_the_mean_and_variance_of_the_noised_signal(kind: str) -> None:
    schedule, count = SCHEDULES[kind], 20000
    known, mask = torch.full((1, 1, count), 0.6, dtype=torch.float64), torch.ones(1, 1, count)
    noise = draw(1, 1, count)
    found = KnownRegion(schedule, known, mask, lambda: noise)(torch.zeros_like(known), T)
    alpha, sigma = float(schedule.alpha(T)), float(schedule.sigma(T))
    assert float(found.mean()) == pytest.approx(0.6 * alpha, abs=4 * sigma / count**0.5)
    assert float(found.std()) == pytest.approx(sigma, rel=4 / (2 * count) ** 0.5)


@pytest.mark.parametrize("schedule", [*SCHEDULES.values(), Flow(sigma_min=1e-2)])
def test_known_region_is_bit_exact_at_the_end_and_asks_no_noise_there(schedule: Flow) -> None:
    part = KnownRegion(schedule, KNOWN, MASK, lambda: no_noise(0))
    found, inside = part(CLEAN, scalar(0.0)), MASK.bool().expand_as(CLEAN)
    assert torch.equal(found[inside], KNOWN[inside])
    assert torch.equal(found[~inside], CLEAN[~inside])


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_ends_with_the_known_samples_bit_for_bit(name: str) -> None:
    schedule, noise = SCHEDULES["table"], Noise((2, 3, 33))
    x = Sampler(SAMPLERS[name].step, UniformGrid(6))(
        suited(name, gaussian(schedule), schedule),
        schedule,
        draw(2, 3, 33, seed=4),
        noise,
        region("table", noise),
    )
    inside = MASK.bool().expand_as(x)
    assert torch.equal(x[inside], KNOWN[inside])


def test_known_samples_inform_the_others() -> None:
    """Of a signal that is one number, repeated, some known samples fix all."""
    schedule, noise, number = SCHEDULES["table"], Noise((1, 1, 40)), 0.9
    known, mask = torch.full((1, 1, 40), number, dtype=torch.float64), torch.zeros(1, 1, 40)
    mask[..., :30] = 1

    def one_number(x: Tensor, t: Tensor) -> Tensor:
        # The expected signal under N(0, 1) for the number, seen 40 times in noise.
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return (alpha * x.sum(-1, keepdim=True) / (sigma**2 + 40 * alpha**2)).expand_as(x)

    part = KnownRegion(schedule, known, mask, lambda: noise(0, len(noise.asked)))
    for name in ("ancestral", "ddim", "dpmpp_2m", "unipc", "unipc_3"):
        x = Sampler(SAMPLERS[name].step, UniformGrid(50))(
            one_number, schedule, draw(1, 1, 40, seed=4), noise, part
        )
        torch.testing.assert_close(x, known, rtol=0, atol=0.1)


@pytest.mark.parametrize("name", ["masked", "band_limited"])
def test_a_projected_sampler_ends_with_a_signal_of_the_observation(name: str) -> None:
    schedule, part = SCHEDULES["table"], PROJECTIONS[name]
    x = Sampler(DDIM(), UniformGrid(5), projection=part)(gaussian(schedule), schedule, CLEAN, no_noise)
    torch.testing.assert_close(part(x, T), x, rtol=1e-9, atol=1e-9)


def test_projected_denoise_stays_what_it_was() -> None:
    schedule = SCHEDULES["table"]
    pair = GuidedDenoise(gaussian(schedule), gaussian(schedule, -1.0), Guidance(2.0))
    found = projected(pair, Clip(-0.1, 0.1))
    assert isinstance(found, GuidedDenoise)
    clean, other = found.both(CLEAN, T)
    assert torch.equal(clean, pair(CLEAN, T).clamp(-0.1, 0.1))
    assert torch.equal(other, pair.other(CLEAN, T))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Clip(1.0, 1.0), "clip: got"),
        (lambda: DynamicThreshold(0.0), "dynamic threshold: got"),
        (lambda: DynamicThreshold(0.9, 0.0), "dynamic threshold: got"),
        (lambda: band_limited(KNOWN, 0.0), "bandwidth: got"),
        (lambda: band_limited(KNOWN, 1.0), "bandwidth: got"),
    ],
)
def test_impossible_settings_are_refused(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()  # type: ignore[operator]
