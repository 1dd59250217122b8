"""Learning rate, optimizer groups, average of weights, statistics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from audiodiff.data.collate import collate
from audiodiff.data.order import fixed_requests
from audiodiff.errors import InputError
from audiodiff.model import build
from audiodiff.training import statistics
from audiodiff.training.ema import averaged
from audiodiff.training.optimization import build_optimizer, learning_rate
from audiodiff.training.run import open_split
from tests.tiny import tiny_recipe

ADAM = {"name": "AdamW", "lr": 0.1, "betas": [0.9, 0.99], "weight_decay": 0.5}


def test_learning_rate_rises_then_falls_to_its_final_share() -> None:
    factor = learning_rate(1.0, {"warmup_updates": 10, "updates": 110, "final_lr_factor": 0.1})
    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == pytest.approx(1.0)
    assert factor(60) == pytest.approx(0.55)
    assert factor(110) == pytest.approx(0.1)
    values = [factor(update) for update in range(10, 111)]
    assert values == sorted(values, reverse=True)


def test_learning_rate_with_final_share_one_is_constant_after_the_warm_up() -> None:
    factor = learning_rate(1.0, {"warmup_updates": 0, "updates": 50, "final_lr_factor": 1.0})
    assert {factor(update) for update in range(50)} == {1.0}


def test_weight_decay_spares_biases() -> None:
    layer = nn.Linear(3, 3)
    nn.init.ones_(layer.bias)
    nn.init.ones_(layer.weight)
    optimizer = build_optimizer(ADAM, layer, torch.device("cpu"))
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(layer.weight, torch.full((3, 3), 0.95))
    assert torch.equal(layer.bias, torch.ones(3))


def test_unknown_optimizer_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match="Adam, AdamW"):
        build_optimizer(ADAM | {"name": "SGDD"}, nn.Linear(2, 2), torch.device("cpu"))


def test_average_follows_its_rule_and_starts_near_the_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = averaged(model, 0.9)
    expected, kept_at = None, []
    for update in range(40):
        nn.init.constant_(model.weight, float(update))
        average.update_parameters(model)
        kept = min(0.9, (1 + update) / (10 + update))
        kept_at.append(kept)
        # The first call copies the weights.
        expected = float(update) if expected is None else kept * expected + (1 - kept) * update
    assert kept_at[1] < 0.2
    assert kept_at[-1] < 0.9
    assert float(next(average.parameters()).detach()) == pytest.approx(expected, rel=1e-5)


def test_statistics_give_x_unit_variance_and_the_mel_zero_mean(mini_corpus: Path) -> None:
    recipe = tiny_recipe("features=mel_8k40", "conditioner=mel")
    model = build(recipe)
    clips = open_split(recipe, mini_corpus, "train")
    batches = [collate([clips[request]]) for request in fixed_requests(clips.lengths, 4000)]
    statistics.apply(model, statistics.measure(model, batches))
    x = torch.cat([model.representation.encode(batch.waveform)[0] for batch in batches], dim=-1)
    bins = model.representation.variances(x)
    # Bins of next to no energy are held at the floor and stay below one.
    assert float(bins.max()) == pytest.approx(1.0, abs=2e-3)
    assert float((bins > 0.99).float().mean()) > 0.9
    mel = torch.cat([model.conditioner(batch).local[0] for batch in batches], dim=-1)
    assert torch.allclose(mel.mean(-1), torch.zeros(40), atol=1e-3)
    assert torch.allclose(mel.std(-1), torch.ones(40), atol=1e-3)


def test_statistics_give_the_whitened_coefficients_of_a_spectral_prior_unit_power(mini_corpus: Path) -> None:
    recipe = tiny_recipe("features=mel_8k40", "conditioner=spectral_prior")
    model = build(recipe)
    clips = open_split(recipe, mini_corpus, "train")
    batches = [collate([clips[request]]) for request in fixed_requests(clips.lengths, 4000)]
    statistics.apply(model, statistics.measure(model, batches))
    z = torch.cat([model.encode(batch)[0][0] for batch in batches], dim=-1)
    power = model.representation.variances(z)
    torch.testing.assert_close(power, torch.ones_like(power), rtol=2e-3, atol=0)


def test_statistics_of_another_representation_are_refused() -> None:
    model = build(tiny_recipe())
    with pytest.raises(InputError, match="3 features"):
        statistics.apply(model, {"std": [1.0, 1.0, 1.0]})


def test_damaged_statistics_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "statistics.json").write_text('{"std": [1.0, ')
    with pytest.raises(InputError, match=r"statistics\.json: cannot be read"):
        statistics.load(tmp_path / "statistics.json")
