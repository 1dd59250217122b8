"""The WaveNet with SpeechBrain's weights gives SpeechBrain's numbers, as a vocoder and unconditional.

numbers/speechbrain_diffwave.npz was made by running that project's own model, diffusion and mel (commit 9c826ef) on
a synthetic voice of eight frames and on random weights (see stored_numbers). The states are in float64, with the
project's tables in float64 too. Outputs are every second sample, states every sixth.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiodiff.diffusion.schedules import linear
from audiodiff.diffusion.times import BetaGrid
from audiodiff.errors import InputError
from audiodiff.interop import speechbrain_diffwave
from audiodiff.interop.speechbrain_diffwave import SpeechBrainDiffWave
from audiodiff.types import Condition
from tests.parity.stored_numbers import arrays, assert_close, lmnt_states, rebuilt, recorded

FORWARD = 1e-5
MEL = 1e-4  # of a logarithm
DATA, META = arrays("speechbrain_diffwave")
LENGTHS = {"vocoder": 256 * DATA["spectrogram"].shape[-1], "unconditional": 777}
KINDS = list(LENGTHS)


def load(folder: Path, kind: str) -> SpeechBrainDiffWave:
    torch.save(rebuilt(META["shapes"][kind], META["seed"]), folder / "diffwave.ckpt")
    return speechbrain_diffwave.load(folder / "diffwave.ckpt", META["hparams"])


def condition(kind: str, dtype: torch.dtype = torch.float32) -> Condition:
    return Condition(local=DATA["spectrogram"].to(dtype)) if kind == "vocoder" else Condition()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_network_gives_speechbrains_output_at_whole_and_fractional_steps(kind: str, tmp_path: Path) -> None:
    network, x = load(tmp_path, kind).network, recorded(2, 2, 1, LENGTHS[kind])
    for labels, name in ((DATA["steps"], "output"), (torch.tensor([0, 49]), "output_whole")):
        for item, label, expected in zip(x, labels, DATA[f"{kind}_{name}"], strict=True):
            output = network(item[None], label[None], condition(kind))[0, 0, ::2]
            assert_close(output, expected, FORWARD, f"{name} at {label}")


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_six_steps_with_recorded_noise_give_speechbrains_trajectory(kind: str, tmp_path: Path) -> None:
    imported, noise = load(tmp_path, kind), recorded(1, 6, 1, 1, LENGTHS[kind]).double()
    states = lmnt_states(
        imported.network.double(), imported.betas, BetaGrid(imported.fast_betas),
        condition(kind, torch.float64), noise.__getitem__,
    )  # fmt: skip
    assert_close(states[:, 0, 0, ::6], DATA[f"{kind}_states"], FORWARD, kind)
    assert (DATA[f"{kind}_states"].abs() < 1).double().mean() > 0.5  # what is compared is not only the clamp


def test_mel_is_speechbrains(tmp_path: Path) -> None:
    log_mel = load(tmp_path, "vocoder").log_mel
    assert log_mel is not None
    torch.testing.assert_close(log_mel(DATA["audio"]), DATA["spectrogram"], rtol=0, atol=MEL)


def test_facts_are_those_of_the_recipe(tmp_path: Path) -> None:
    imported = load(tmp_path, "unconditional")
    assert imported.log_mel is None
    assert imported.sample_rate == 22050
    assert imported.betas == tuple(linear(1e-4, 0.05, 50).betas.tolist())
    assert imported.fast_betas == (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5)
    assert imported.network.dilations == (1, 2, 4, 8, 1)


def test_hop_length_that_the_upsampler_does_not_make_is_refused(tmp_path: Path) -> None:
    load(tmp_path, "vocoder")
    with pytest.raises(InputError, match="every 256 samples, the configuration says 80 every 300"):
        speechbrain_diffwave.load(tmp_path / "diffwave.ckpt", META["hparams"] | {"spec_hop_length": 300})


def test_missing_parameters_are_named(tmp_path: Path) -> None:
    weights = rebuilt(META["shapes"]["vocoder"], META["seed"])
    del weights["residual_layers.1.dilated_conv.conv.weight"]
    torch.save(weights, tmp_path / "diffwave.ckpt")
    with pytest.raises(InputError, match=r"missing: residual_layers.1.dilated_conv.weight"):
        speechbrain_diffwave.load(tmp_path / "diffwave.ckpt")


def test_checkpoint_of_a_project_with_zeros_beyond_the_ends_is_refused(tmp_path: Path) -> None:
    weights = rebuilt(META["shapes"]["vocoder"], META["seed"])
    lmnt = {key.replace(".conv.", ".").replace(".w.", "."): value for key, value in weights.items()}
    torch.save(lmnt, tmp_path / "diffwave.ckpt")
    with pytest.raises(InputError, match=r"import it as a checkpoint of lmnt's DiffWave"):
        speechbrain_diffwave.load(tmp_path / "diffwave.ckpt")
