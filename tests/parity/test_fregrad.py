"""The WaveNet on Haar bands with FreGrad's weights gives FreGrad's numbers.

numbers/fregrad.npz was made by running that project's own model, dataset, sampling loop and wavelet transform
(commit 29889cb, pytorch_wavelets 1.3.0) on a synthetic voice of twelve frames and on random weights (see
stored_numbers), for the states in float64. Outputs, states and bands are every fourth position, the decoded
waveform every eighth sample.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from audiodiff.audio.wavelet import Wavelet
from audiodiff.diffusion.times import TableGrid
from audiodiff.errors import InputError
from audiodiff.interop import fregrad
from audiodiff.interop.fregrad import FreGrad
from audiodiff.types import Batch, Condition
from tests.parity.stored_numbers import arrays, assert_close, lmnt_states, rebuilt, recorded

FORWARD = 1e-5
MEL = 1e-4  # of a logarithm
DATA, META = arrays("fregrad")
LENGTH = DATA["audio"].shape[-1]


def weights() -> dict[str, Tensor]:
    """The state of the project's model: parameters, and the filters of its wavelet transforms."""
    layers = range(META["params"]["residual_layers"])
    filters = {
        f"residual_layers.{n}.dilated_conv.{name}": torch.tensor(taps)
        for n in layers
        for name, taps in META["filters"].items()
    }
    return rebuilt(META["shapes"], META["seed"]) | filters


def prior_std() -> Tensor:
    """The project's deviation of the noise [2, F] at the positions of the bands."""
    return DATA["target_std"].repeat_interleave(LENGTH // DATA["target_std"].shape[-1] // 2, -1)


def checkpoint(folder: Path) -> Path:
    """A checkpoint as the project's learner writes it."""
    torch.save(
        {"step": 3, "model": weights(), "optimizer": {}, "params": META["params"]}, folder / "weights.pt"
    )
    return folder / "weights.pt"


@pytest.fixture
def imported(tmp_path: Path) -> FreGrad:
    np.save(tmp_path / "energy_min_train.npy", DATA["energy_min"].numpy())
    return fregrad.load(checkpoint(tmp_path), tmp_path)


@torch.no_grad()
def test_network_gives_fregrads_output_at_whole_and_fractional_steps(imported: FreGrad) -> None:
    x, told = recorded(2, 2, 2, LENGTH // 2), Condition(local=DATA["spectrogram"].expand(2, -1, -1))
    for label, name in ((DATA["steps"], "output"), (torch.tensor([0, 49]), "output_whole")):
        assert_close(imported.network(x, label, told)[..., ::4], DATA[name], FORWARD, name)


def test_bands_are_fregrads(imported: FreGrad) -> None:
    bands = imported.representation().encode(DATA["audio"][:, None])
    torch.testing.assert_close(bands[0, :, ::4], DATA["bands"], rtol=1e-6, atol=1e-6)


def test_prior_of_each_band_is_fregrads(imported: FreGrad) -> None:
    expected = prior_std()
    lengths = torch.tensor([LENGTH])
    for batch, tolerance in (
        (Batch(None, lengths, mel=DATA["spectrogram"]), FORWARD),
        (Batch(DATA["audio"][:, None], lengths), MEL),
    ):
        found = imported.conditioner()(batch).prior_std
        assert found is not None
        assert_close(found[0], expected, tolerance, "prior_std")


@torch.no_grad()
def test_sampling_with_recorded_noise_gives_fregrads_trajectory_and_waveform(imported: FreGrad) -> None:
    told = Condition(local=DATA["spectrogram"].double(), prior_std=prior_std()[None].double())
    states = lmnt_states(
        imported.network.double(), imported.betas, TableGrid(), told,
        lambda step: recorded(100 + step, 1, 2, LENGTH // 2).double(),
    )  # fmt: skip
    assert_close(states[[0, 24, 49], 0, :, ::4], DATA["states"], FORWARD, "states")
    assert (DATA["states"][1:].abs() < 1).double().mean() > 0.4  # what is compared is not only the clamp
    waveform = imported.representation().double().decode(states[-1], LENGTH)
    assert_close(waveform[0, 0, ::8], DATA["decoded"], FORWARD, "waveform")


def test_default_table_is_that_of_the_projects_params(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "weights.pt")
    imported = fregrad.load(tmp_path / "weights.pt")
    assert len(imported.betas) == 50
    # The project makes its table in float32.
    theirs, ours = torch.tensor(META["params"]["noise_schedule"]), torch.tensor(imported.betas)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert imported.network.dilations == (1, 2, 4, 8)


def test_facts_fit_one_another(imported: FreGrad) -> None:
    representation = imported.representation()
    assert isinstance(representation, Wavelet)
    assert representation.hop_length * imported.network.hop_length == imported.log_mel.hop_length
    assert representation.sample_rate == imported.sample_rate == 22050
    assert imported.network.dilations == (1, 2, 4, 1)


def test_checkpoint_of_a_network_without_bands_is_refused(tmp_path: Path) -> None:
    state, key = weights(), "residual_layers.0.dilated_conv.weight"
    state[key] = state[key][:12, :6]
    torch.save({"model": state, "params": META["params"]}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"layers.0.dilated.weight is \[12, 6, 3\], expected \[24, 12, 3\]"):
        fregrad.load(tmp_path / "weights.pt")


def test_checkpoint_with_another_wavelet_is_refused(tmp_path: Path) -> None:
    state = weights()
    state["residual_layers.2.dilated_conv.dwt.h1"] = torch.tensor([[[0.5, 0.2, 0.2, 0.1]]])
    torch.save({"model": state, "params": META["params"]}, tmp_path / "weights.pt")
    with pytest.raises(
        InputError, match=r"residual_layers.2.dilated_conv.dwt.h1 is .*, expected the filter of Haar"
    ):
        fregrad.load(tmp_path / "weights.pt")
