"""The WaveNet with the DiffWave first author's weights gives that code's numbers.

Every `philsyn_*` folder of the fixtures is a model: one `.pkl` checkpoint, its `config.json`, and what it was
run on. Sizes and schedules are read from those files. Tolerances are those of the fixtures' README.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from audiodiff.diffusion.denoiser import Denoiser, StepIndex
from audiodiff.diffusion.objectives import MeanSquaredError
from audiodiff.diffusion.parameterizations import epsilon
from audiodiff.diffusion.process import posterior
from audiodiff.diffusion.samplers import Ancestral, Sampler
from audiodiff.diffusion.schedules import BetaTable, linear
from audiodiff.diffusion.times import TableGrid
from audiodiff.errors import InputError
from audiodiff.interop import concatenate, philsyn_diffwave
from audiodiff.interop.philsyn_diffwave import PhilsynDiffWave
from audiodiff.networks.blocks import step_embedding
from audiodiff.types import Condition

FORWARD = 1e-5
TRAJECTORY = 1e-4
ROUNDING = 1e-7

# Name of the recorded output, and whether its code lets the step embedding into the residual path.
VARIANTS = [("output", True), ("output_noinplace", False)]


@pytest.fixture(scope="module")
def folders(fixtures_dir: Path) -> list[Path]:
    folders = [path.parent for path in sorted(fixtures_dir.glob("philsyn_*/config.json"))]
    assert folders, f"no philsyn_*/config.json in {fixtures_dir}"
    return folders


def arrays(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as content:
        tensors = {key: torch.from_numpy(content[key]) for key in content.files if key != "meta_json"}
        return tensors, json.loads(str(content["meta_json"]))


def checkpoint(folder: Path) -> Path:
    (path,) = folder.glob("*.pkl")
    return path


def load(folder: Path, in_residual: bool) -> PhilsynDiffWave:
    return philsyn_diffwave.load(checkpoint(folder), embedding_in_residual=in_residual)


def schedule_of(meta: dict[str, Any]) -> BetaTable:
    return linear(meta["beta_0"], meta["beta_T"], meta["T"])


def assert_close(actual: Tensor, expected: Tensor, relative: float, what: str) -> None:
    """Compares at a tolerance relative to the largest reference value."""
    assert actual.shape == expected.shape, what
    largest = expected.double().abs().max()
    error = (actual.double() - expected.double()).abs().max()
    assert error <= relative * largest, f"{what}: error {error:.3g}, largest value {largest:.3g}"


@torch.no_grad()
@pytest.mark.parametrize(("output", "in_residual"), VARIANTS)
def test_network_gives_the_codes_output(folders: list[Path], output: str, in_residual: bool) -> None:
    for folder in folders:
        data, _ = arrays(folder / "io.npz")
        network = load(folder, in_residual).network
        found = network(data["audio"], data["steps"].flatten(), Condition(local=data.get("mel")))
        assert_close(found, data[output], FORWARD, folder.name)


def test_step_embedding_is_the_codes(folders: list[Path]) -> None:
    for folder in folders:
        data, _ = arrays(folder / "io.npz")
        embedding = load(folder, True).network.noise_embedding
        found = step_embedding(data["steps"].flatten(), embedding.dim, embedding.exponent)
        assert_close(found, data["step_embedding"], FORWARD, folder.name)


def test_schedule_and_posterior_deviation_are_the_codes(folders: list[Path]) -> None:
    for folder in folders:
        paths = sorted(folder.glob("hyper_*.npz"))
        assert paths, folder
        for path in paths:
            data, meta = arrays(path)
            table = schedule_of(meta)
            assert_close(table.betas, data["Beta"], FORWARD, path.name)
            assert_close(1 - table.betas, data["Alpha"], FORWARD, path.name)
            assert_close(table.alpha_bars, data["Alpha_bar"], FORWARD, path.name)
            t = torch.arange(1, table.steps + 1).double() / table.steps
            signal = torch.zeros(table.steps, 1, 1)
            _, variance = posterior(table, signal, signal, t, t - 1 / table.steps)
            # Its first entry is the deviation of x_1 given x_0, which the sampler never draws.
            assert_close(variance.sqrt()[1:], data["Sigma"][1:], FORWARD, path.name)


def test_schedule_of_the_configuration_is_imported(folders: list[Path]) -> None:
    for folder in folders:
        config = json.loads((folder / "config.json").read_text())["diffusion_config"]
        table = BetaTable(load(folder, True).betas)
        torch.testing.assert_close(table.betas, schedule_of(config).betas, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize(("output", "in_residual"), VARIANTS)
def test_sampling_with_recorded_noise_gives_the_codes_audio(
    folders: list[Path], output: str, in_residual: bool
) -> None:
    for folder in folders:
        network = load(folder, in_residual).network
        paths = sorted(folder.glob("sample_*.npz"))
        assert paths, folder
        for path in paths:
            data, meta = arrays(path)
            schedule = schedule_of(meta)
            denoiser = Denoiser(network, schedule, epsilon, StepIndex())
            denoise = denoiser.bind(Condition(local=data.get("mel")))
            sampler = Sampler(Ancestral(), TableGrid())
            found = sampler(
                denoise, schedule, data["noise"][0], lambda step, draw, noise=data["noise"]: noise[step]
            )
            assert_close(found, data[output], TRAJECTORY, f"{folder.name}/{path.name} {output}")


class Loss(nn.Module):
    """The objective as a module, so that its parameters can be replaced by functions of other tensors."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor) -> Tensor:
        return MeanSquaredError()(self.denoiser, clean, condition, noise, t).mean()


def test_loss_and_gradients_are_the_codes(folders: list[Path]) -> None:
    paths = [folder / "train_loss.npz" for folder in folders if (folder / "train_loss.npz").exists()]
    assert paths
    for path in paths:
        data, meta = arrays(path)
        assert meta["loss"].startswith("MSE")
        schedule = schedule_of(meta)
        loss = Loss(Denoiser(load(path.parent, False).network, schedule, epsilon, StepIndex()))
        # The gradients are those of weight_g and weight_v, so they go through the import itself.
        content = torch.load(checkpoint(path.parent), weights_only=True)["model_state_dict"]
        leaves = {key: value.clone().requires_grad_() for key, value in content.items()}
        state = philsyn_diffwave.fold_weight_norm(leaves)
        weights = concatenate(state, philsyn_diffwave.parameter_names(state))
        t = (data["steps"].flatten() + 1).double() / schedule.steps
        arguments = (data["audio"], Condition(local=data.get("mel")), data["noise"], t)
        named = {f"denoiser.network.{key}": value for key, value in weights.items()}
        value = torch.func.functional_call(loss, named, arguments)
        value.backward()
        assert value.item() == pytest.approx(data["loss"].item(), rel=FORWARD)
        gradients = {key: grad.double() for key, grad in data.items() if key.startswith("grad:")}
        # A few gradients cancel to (nearly) zero: there the rounding of the largest ones is what is left.
        rounding = ROUNDING * max(grad.abs().max() for grad in gradients.values())
        for key, expected in gradients.items():
            error = (leaves[key.removeprefix("grad:")].grad - expected).abs().max()
            assert error <= FORWARD * expected.abs().max() + rounding, key


def test_half_a_weight_norm_pair_is_named(folders: list[Path], tmp_path: Path) -> None:
    content = torch.load(checkpoint(folders[0]), weights_only=True)
    del content["model_state_dict"]["init_conv.0.conv.weight_v"]
    torch.save(content, tmp_path / "1.pkl")
    with pytest.raises(InputError, match=r"init_conv\.0\.conv\.weight_g"):
        philsyn_diffwave.load(tmp_path / "1.pkl", folders[0] / "config.json")


def test_layer_without_its_parts_is_named(folders: list[Path], tmp_path: Path) -> None:
    content = torch.load(checkpoint(folders[0]), weights_only=True)
    lost = [key for key in content["model_state_dict"] if ".residual_blocks.1.skip_conv." in key]
    for key in lost:
        del content["model_state_dict"][key]
    torch.save(content, tmp_path / "1.pkl")
    with pytest.raises(InputError, match=r"missing: .*residual_blocks\.1\.skip_conv\.bias"):
        philsyn_diffwave.load(tmp_path / "1.pkl", folders[0] / "config.json")


@pytest.mark.parametrize("text", [None, "{", "{}", '{"wavenet_config": {"dilation_cycle": 4}}', "[]"])
def test_checkpoint_without_its_configuration_is_refused(
    folders: list[Path], tmp_path: Path, text: str | None
) -> None:
    config = tmp_path / "config.json"
    if text is not None:
        config.write_text(text)
    with pytest.raises(InputError, match=r"config\.json.*dilation_cycle"):
        philsyn_diffwave.load(checkpoint(folders[0]), config)


class Malicious:
    """Unpickles to a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    target = tmp_path / "made"
    torch.save({"model_state_dict": Malicious(target)}, tmp_path / "1.pkl")
    (tmp_path / "2.pkl").write_bytes(pickle.dumps(Malicious(target)))
    for name in ("1.pkl", "2.pkl"):
        with pytest.raises(InputError, match="not a checkpoint"):
            philsyn_diffwave.load(tmp_path / name)
    assert not target.exists()
