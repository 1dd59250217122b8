"""The warning about networks that see too little."""

from __future__ import annotations

import pytest

from audiodiff.model import build
from audiodiff.training.receptive_field import ENOUGH, short_sighted
from tests.tiny import recipe_from

WAVENET = ("experiment=mini", "model=wavenet", "size=tiny", "upsample_factors=[8,8]", "features=mel_8k40")


@pytest.mark.parametrize("conditioner", ["labels", "unconditional"])
def test_a_model_that_hears_no_mel_is_warned_below_half_of_its_segment(conditioner: str) -> None:
    model = build(recipe_from(*WAVENET, f"conditioner={conditioner}"))
    field = model.denoiser.network.receptive_field()
    assert short_sighted(model, int(field / ENOUGH)) is None
    warning = short_sighted(model, int(field / ENOUGH) + 2)
    assert warning is not None
    assert f"{field} samples" in warning


def test_frames_count_for_as_many_samples_as_they_hop() -> None:
    model = build(recipe_from("experiment=mini", "size=tiny"))
    seen = model.denoiser.network.receptive_field() * model.representation.hop_length
    assert short_sighted(model, 2 * seen) is None
    assert short_sighted(model, 2 * seen + 2) is not None


def test_a_vocoder_is_not_warned() -> None:
    assert short_sighted(build(recipe_from(*WAVENET, "conditioner=mel")), 10**9) is None


def test_a_network_with_attention_over_all_is_not_warned() -> None:
    assert short_sighted(build(recipe_from("experiment=mini", "model=unet1d", "size=tiny")), 10**9) is None
