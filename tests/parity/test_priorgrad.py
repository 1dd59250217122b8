"""The WaveNet and the energy prior with PriorGrad's weights give PriorGrad's numbers.

numbers/priorgrad.npz was made by running that project's own model, dataset, sampling loop and loss (NeuralSpeech,
commit 8cf4fbc) on a synthetic voice of twelve frames and on random weights (see stored_numbers). Outputs and states
are every fourth sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audiodiff.conditioning.mel import Mel
from audiodiff.diffusion.denoiser import Denoiser, StepIndex
from audiodiff.diffusion.objectives import MeanSquaredError
from audiodiff.diffusion.parameterizations import epsilon
from audiodiff.diffusion.priors import whiten
from audiodiff.diffusion.schedules import BetaTable
from audiodiff.diffusion.times import BetaGrid
from audiodiff.errors import InputError
from audiodiff.interop import priorgrad
from audiodiff.interop.priorgrad import PriorGrad
from audiodiff.types import Batch, Condition
from tests.parity.stored_numbers import arrays, assert_close, lmnt_states, rebuilt, recorded

FORWARD = 1e-5
MEL = 1e-4  # of a logarithm
DATA, META = arrays("priorgrad")


def checkpoint(folder: Path, **changes: Any) -> Path:
    """A checkpoint as the project's learner writes it."""
    weights = rebuilt(META["shapes"], META["seed"])
    content = {"step": 3, "model": weights, "optimizer": {}, "params": META["params"] | changes, "scaler": {}}
    torch.save(content, folder / "weights-3.pt")
    return folder / "weights-3.pt"


def stats(folder: Path) -> Path:
    place = folder / "stats_priorgrad"
    place.mkdir()
    np.save(place / "energy_min_train.npy", DATA["energy_min"].numpy())
    np.save(place / "energy_max_train.npy", np.float32(5.0))
    return place


@pytest.fixture
def imported(tmp_path: Path) -> PriorGrad:
    return priorgrad.load(checkpoint(tmp_path), stats(tmp_path))


def condition(imported: PriorGrad) -> Condition:
    """What the model is told of the audio."""
    length = DATA["audio"].shape[-1]
    return imported.conditioner()(Batch(None, torch.tensor([length]), mel=DATA["spectrogram"]))


@torch.no_grad()
def test_network_gives_priorgrads_output_at_whole_and_fractional_steps(imported: PriorGrad) -> None:
    x = recorded(2, 2, DATA["audio"].shape[-1])[:, None]
    told = Condition(local=DATA["spectrogram"].expand(2, -1, -1))
    for label, name in ((DATA["steps"], "output"), (torch.tensor([0, 49]), "output_whole")):
        output = imported.network(x, label, told)[:, 0, ::4]
        assert_close(output, DATA[name], FORWARD, name)


def test_mel_and_prior_of_the_audio_are_priorgrads(imported: PriorGrad) -> None:
    audio = DATA["audio"][:, None]
    found = imported.conditioner()(Batch(audio, torch.tensor([audio.shape[-1]])))
    assert found.local is not None
    assert found.prior_std is not None
    torch.testing.assert_close(found.local, DATA["spectrogram"], rtol=0, atol=MEL)
    assert found.prior_std.shape == audio.shape
    assert_close(found.prior_std[0, 0], DATA["target_std"], MEL, "prior_std")


def test_prior_of_a_given_mel_is_priorgrads(imported: PriorGrad) -> None:
    found = condition(imported).prior_std
    assert found is not None
    assert_close(found[0, 0], DATA["target_std"], 1e-6, "prior_std")


@torch.no_grad()
def test_six_steps_with_recorded_noise_give_priorgrads_trajectory(imported: PriorGrad) -> None:
    noise = recorded(1, 6, 1, 1, DATA["audio"].shape[-1])
    grid = BetaGrid(imported.fast_betas)
    states = lmnt_states(imported.network, imported.betas, grid, condition(imported), noise.__getitem__)
    for step, (state, expected) in enumerate(zip(states[:, 0, 0, ::4], DATA["states"], strict=True), 1):
        assert_close(state, expected, FORWARD, f"step {step}")
    inside = (DATA["states"].abs() < 1).double().mean()
    assert inside > 0.5  # what is compared is not only the clamp


def test_loss_of_the_whitened_signal_is_priorgrads(imported: PriorGrad) -> None:
    told, schedule = condition(imported), BetaTable(imported.betas)
    denoiser = Denoiser(imported.network, schedule, epsilon, StepIndex())
    noise = recorded(3, 1, DATA["audio"].shape[-1])[:, None]
    t = torch.tensor([(META["loss_step"] + 1) / schedule.steps], dtype=torch.float64)
    loss = MeanSquaredError()(denoiser, whiten(DATA["audio"][:, None], told), told, noise, t)
    assert loss.item() == pytest.approx(META["loss"], rel=FORWARD)


def test_params_of_the_checkpoint_are_imported(tmp_path: Path) -> None:
    imported = priorgrad.load(
        checkpoint(tmp_path, noise_schedule=[0.1, 0.2], std_min=0.3, max_energy_override=2.0)
    )
    assert imported.betas == (0.1, 0.2)
    assert imported.energies is not None
    assert (imported.energies.std_min, imported.energies.energy_max) == (0.3, 2.0)
    # Without stats the quietest frame is silence: 80 bands at the floor of 1e-5.
    assert imported.energies.energy_min == pytest.approx((80 * 1e-5) ** 0.5, rel=1e-5)
    assert imported.fast_betas == tuple(META["params"]["inference_noise_schedule"])
    assert imported.sample_rate == 22050
    assert imported.network.dilations == (1, 2, 4, 1, 2)


def test_energy_max_is_that_of_the_stats_where_the_project_did_not_override_it(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, max_energy_override=None)
    energies = priorgrad.load(path, stats(tmp_path)).energies
    assert energies is not None
    assert energies.energy_max == 5.0
    with pytest.raises(InputError, match="give the folder stats_priorgrad"):
        priorgrad.load(path)


def test_model_that_was_trained_with_plain_noise_has_no_prior(tmp_path: Path) -> None:
    imported = priorgrad.load(checkpoint(tmp_path, use_prior=False))
    assert imported.energies is None
    assert type(imported.conditioner()) is Mel
    assert condition(imported).prior_std is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_of_a_parallel_model_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = rebuilt(META["shapes"], META["seed"])
    content = {
        "model": {f"module.{key}": value.to(dtype) for key, value in weights.items()},
        "params": META["params"],
    }
    torch.save(content, tmp_path / "weights.pt")
    found = priorgrad.load(tmp_path / "weights.pt").network.state_dict()
    expected = priorgrad.load(checkpoint(tmp_path)).network.state_dict()
    for key, value in found.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[key].to(dtype).float()), key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_mels": 79}, r"hears 80 bands every 256 samples, the configuration says 79 every 256"),
        ({"hop_samples": 128}, r"the configuration says 80 every 128"),
    ],
)
def test_params_that_do_not_fit_the_network_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        priorgrad.load(checkpoint(tmp_path, **changes))


def test_missing_and_unknown_parameters_are_all_named(tmp_path: Path) -> None:
    weights = rebuilt(META["shapes"], META["seed"])
    del weights["skip_projection.bias"]
    weights["global_condition_upsampler.conv1.weight"] = torch.zeros(1)
    torch.save({"model": weights}, tmp_path / "weights.pt")
    with pytest.raises(
        InputError, match=r"missing: skip_projection.bias; unexpected: global_condition_upsampler"
    ):
        priorgrad.load(tmp_path / "weights.pt")


def test_damaged_stats_are_refused(tmp_path: Path) -> None:
    place = stats(tmp_path)
    (place / "energy_min_train.npy").write_bytes(b"not numbers")
    with pytest.raises(InputError, match=r"energy_min_train.npy: cannot be read"):
        priorgrad.load(checkpoint(tmp_path), place)
