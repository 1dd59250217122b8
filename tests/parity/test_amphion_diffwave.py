"""The WaveNet with Amphion's weights gives Amphion's numbers.

numbers/amphion_diffwave.npz was made by running that project's own model, sampling loop and mel (commit d3de90f) on
a synthetic voice of six frames and on random weights (see stored_numbers).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from audiodiff.diffusion.times import BetaGrid
from audiodiff.errors import InputError
from audiodiff.interop import amphion_diffwave
from audiodiff.interop.amphion_diffwave import AmphionDiffWave
from audiodiff.types import Condition
from tests.parity.stored_numbers import arrays, assert_close, lmnt_states, rebuilt, recorded

FORWARD = 1e-5
MEL = 1e-4  # of a logarithm
DATA, META = arrays("amphion_diffwave")
LENGTH = DATA["audio"].shape[-1]


@pytest.fixture
def imported(tmp_path: Path) -> AmphionDiffWave:
    torch.save(rebuilt(META["shapes"], META["seed"]), tmp_path / "pytorch_model.bin")
    return amphion_diffwave.load(tmp_path / "pytorch_model.bin", META["config"])


@torch.no_grad()
def test_network_gives_amphions_output_at_whole_and_fractional_steps(imported: AmphionDiffWave) -> None:
    x, told = recorded(2, 2, LENGTH)[:, None], Condition(local=DATA["spectrogram"].expand(2, -1, -1))
    for label, name in ((DATA["steps"], "output"), (torch.tensor([0, 49]), "output_whole")):
        assert_close(imported.network(x, label, told)[:, 0], DATA[name], FORWARD, name)


@torch.no_grad()
def test_six_steps_with_recorded_noise_give_amphions_trajectory(imported: AmphionDiffWave) -> None:
    noise, told = recorded(1, 6, 1, 1, LENGTH), Condition(local=DATA["spectrogram"])
    grid = BetaGrid(imported.fast_betas)
    states = lmnt_states(imported.network, imported.betas, grid, told, noise.__getitem__)
    assert_close(states[:, 0, 0], DATA["states"], FORWARD, "states")
    assert (DATA["states"].abs() < 1).double().mean() > 0.5  # what is compared is not only the clamp


def test_mel_of_the_configuration_is_amphions(imported: AmphionDiffWave) -> None:
    torch.testing.assert_close(imported.log_mel(DATA["audio"]), DATA["spectrogram"], rtol=0, atol=MEL)


def test_mel_of_the_default_configuration_is_amphions() -> None:
    mel = amphion_diffwave.preset(amphion_diffwave.MEL_PRESET)
    torch.testing.assert_close(mel(DATA["audio"]), DATA["published_mel"], rtol=0, atol=MEL)


@pytest.mark.parametrize("place", ["generator_state_dict", "state_dict", "safetensors"])
def test_files_of_every_version_are_read(imported: AmphionDiffWave, place: str, tmp_path: Path) -> None:
    weights = {f"module.{key}": value for key, value in rebuilt(META["shapes"], META["seed"]).items()}
    path = tmp_path / f"model.{place}"
    if place == "safetensors":
        save_file(weights, path)
    else:
        torch.save({place: weights}, path)
    found = amphion_diffwave.load(path, META["config"]).network.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in imported.network.state_dict().items())


def test_facts_are_those_of_the_configuration(imported: AmphionDiffWave) -> None:
    diffwave: dict[str, Any] = META["config"]["model"]["diffwave"]
    assert imported.network.condition_shape.upsample_factors == tuple(diffwave["upsample_factors"])
    assert imported.fast_betas == tuple(diffwave["inference_noise_schedule"])
    assert (len(imported.betas), imported.betas[0], imported.betas[-1]) == (50, 1e-4, 0.05)
    assert imported.sample_rate == 24000


def test_configuration_that_does_not_fit_the_network_is_refused(tmp_path: Path) -> None:
    torch.save(rebuilt(META["shapes"], META["seed"]), tmp_path / "pytorch_model.bin")
    with pytest.raises(
        InputError, match="hears 20 bands every 128 samples, the configuration says 100 every 256"
    ):
        amphion_diffwave.load(tmp_path / "pytorch_model.bin")
