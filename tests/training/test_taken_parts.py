"""Parts of one model in another: taken as they are, with the scale that they speak in, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiodiff.errors import InputError
from audiodiff.model import load
from audiodiff.training.taken_parts import take_parts
from audiodiff.types import Batch
from tests.tiny_text import random_weights, saved, text_recipe

PARTS = ["conditioner.encoder", "conditioner.speaker"]


def said() -> Batch:
    tokens = torch.tensor([[1, 5, 7, 3], [2, 4, 6, 8]])
    labels = {"speaker": ("anna", "bob")}
    return Batch(
        None, torch.zeros(2, dtype=torch.int64), labels, tokens=tokens, token_counts=torch.tensor([4, 3])
    )


def test_a_model_of_audio_times_and_hears_a_text_as_the_model_of_mels_that_it_started_from(
    tmp_path: Path,
) -> None:
    folder = saved(tmp_path / "mels", text_recipe("speakers"))
    model = random_weights(text_recipe("aligned"))
    with torch.no_grad():
        for weight in model.conditioner.parameters():  # type: ignore[attr-defined]
            weight.add_(0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    taken = take_parts(model, folder, PARTS)
    source = load(folder)
    batch = said()
    assert torch.equal(model.conditioner.durations(batch), source.conditioner.durations(batch))  # type: ignore[attr-defined]
    ours, theirs = model.condition(batch).local, source.condition(batch).local
    assert ours is not None
    assert theirs is not None
    frames = min(ours.shape[2], theirs.shape[2])
    torch.testing.assert_close(ours[..., :frames], theirs[..., :frames])
    # The mean frames are mels in the other model's scale, which comes along; nothing else changes.
    assert torch.equal(model.state_dict()["conditioner.mel.mean"], source.state_dict()["representation.mean"])
    assert {"conditioner.mel.mean", "conditioner.mel.std"} <= set(taken.same)
    rest = [name for name in before if name not in taken.same]
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in rest)
    assert "conditioner.deviation.projection.weight" in taken.new


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["conditioner.ear"], "no part of this model"),
        (["conditioner.deviation"], "lacks it"),
        (["denoiser.network"], "do not fit"),
    ],
)
def test_what_is_not_the_same_in_both_is_refused(tmp_path: Path, parts: list[str], message: str) -> None:
    folder = saved(tmp_path / "mels", text_recipe("speakers"))
    with pytest.raises(InputError, match=message):
        take_parts(random_weights(text_recipe("aligned")), folder, parts)


def test_an_encoder_of_another_mel_is_refused(tmp_path: Path) -> None:
    recipe = text_recipe("speakers")
    mel = {**recipe["model"]["representation"]["log_mel"], "f_min": 30.0}
    recipe["model"]["representation"] = {**recipe["model"]["representation"], "log_mel": mel}
    folder = saved(tmp_path / "mels", recipe)
    with pytest.raises(InputError, match=r"another mel.*f_min"):
        take_parts(random_weights(text_recipe("aligned")), folder, PARTS)
