"""The WaveNet with lmnt's weights gives lmnt's numbers: forward, schedule, sampling and training.

Every `NAME_weights.safetensors` in the fixtures folder is a model; what it was run on lies beside it. Sizes,
schedules, steps and learning rates are read from those files. Tolerances are those of the fixtures' README.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from audiodiff.diffusion.constraints import Clip
from audiodiff.diffusion.denoiser import Denoiser, StepIndex
from audiodiff.diffusion.objectives import MeanAbsoluteError
from audiodiff.diffusion.parameterizations import epsilon
from audiodiff.diffusion.samplers import Ancestral, Sampler
from audiodiff.diffusion.schedules import BetaTable, linear
from audiodiff.diffusion.times import FAST_SCHEDULES, BetaGrid, TableGrid
from audiodiff.errors import InputError
from audiodiff.interop import lmnt_diffwave, lmnt_family
from audiodiff.interop.lmnt_diffwave import LmntDiffWave
from audiodiff.networks.blocks import sinusoidal_embedding, step_embedding
from audiodiff.types import Condition

FORWARD = 1e-5
TRAJECTORY = 1e-4
FLOAT64 = 1e-9
UPDATE = 1e-2  # of the distance that a parameter can have moved
STRAY = 1e-3  # share of the entries of one parameter whose gradient may be nothing but rounding


@pytest.fixture(scope="module")
def folder(fixtures_dir: Path) -> Path:
    return fixtures_dir / "lmnt_diffwave"


@pytest.fixture(scope="module")
def names(folder: Path) -> list[str]:
    names = [path.name.removesuffix("_weights.safetensors") for path in folder.glob("*_weights.safetensors")]
    assert names, f"no *_weights.safetensors in {folder}"
    return sorted(names)


def arrays(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as content:
        tensors = {key: torch.from_numpy(content[key]) for key in content.files if key != "meta_json"}
        return tensors, json.loads(str(content["meta_json"]))


def load(folder: Path, name: str) -> LmntDiffWave:
    _, meta = arrays(folder / f"{name}_io.npz")
    return lmnt_diffwave.load(folder / f"{name}_weights.safetensors", meta["params"])


def condition(data: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Condition:
    mel = data.get("spectrogram")
    if mel is None:
        return Condition()
    return Condition(local=(mel if mel.dim() == 3 else mel[None]).to(dtype))


def assert_close(actual: Tensor, expected: Tensor, relative: float, what: str) -> None:
    """Compares at a tolerance relative to the largest reference value."""
    assert actual.shape == expected.shape, what
    largest = expected.double().abs().max()
    error = (actual.double() - expected.double()).abs().max()
    assert error <= relative * largest, f"{what}: error {error:.3g}, largest value {largest:.3g}"


@torch.no_grad()
def test_network_gives_lmnts_output_at_whole_steps(folder: Path, names: list[str]) -> None:
    for name in names:
        data, _ = arrays(folder / f"{name}_io.npz")
        network = load(folder, name).network
        output = network(data["audio"][:, None], data["step_int"], condition(data))
        assert_close(output, data["output_int"], FORWARD, name)


@torch.no_grad()
def test_network_gives_lmnts_output_at_fractional_steps(folder: Path, names: list[str]) -> None:
    for name in names:
        data, _ = arrays(folder / f"{name}_io.npz")
        network = load(folder, name).network
        audio = data["audio"][:, None]
        for step, expected in zip(data["step_float"], data["output_float"], strict=True):
            output = network(audio, step.expand(len(audio)), condition(data))
            assert_close(output, expected, FORWARD, f"{name} at step {step}")


@torch.no_grad()
def test_network_in_float64_gives_lmnts_float64_output(folder: Path, names: list[str]) -> None:
    for name in names:
        data, _ = arrays(folder / f"{name}_io.npz")
        network = load(folder, name).network.double()
        audio = data["audio"][:, None].double()
        output = network(audio, data["step_int"], condition(data, torch.float64))
        torch.testing.assert_close(output, data["output_int_float64"], rtol=0, atol=FLOAT64)


@torch.no_grad()
def test_step_embeddings_are_lmnts(folder: Path, names: list[str]) -> None:
    for name in names:
        data, _ = arrays(folder / f"{name}_io.npz")
        network = load(folder, name).network
        table = data["embedding_table"]
        dim, exponent = table.shape[1], network.noise_embedding.exponent
        assert_close(sinusoidal_embedding(torch.arange(len(table)), dim, exponent), table, FORWARD, name)
        for kind in ("int", "float"):
            embedding = network.embedding(step_embedding(data[f"step_{kind}"], dim, exponent))
            assert_close(embedding, data[f"embedding_{kind}"], FORWARD, f"{name} {kind}")


@torch.no_grad()
def test_upsampled_mel_is_lmnts(folder: Path, names: list[str]) -> None:
    for name in names:
        data, _ = arrays(folder / f"{name}_io.npz")
        network = load(folder, name).network
        if not network.upsamplers:
            assert data["upsampled_b0_every10th_mel"].numel() == 0
            continue
        upsampled = network.upsamplers[0](data["spectrogram"])
        assert_close(upsampled[0, ::10], data["upsampled_b0_every10th_mel"], FORWARD, name)


def test_schedules_are_lmnts(folder: Path) -> None:
    data, _ = arrays(folder / "schedule.npz")
    for kind in ("training", "inference"):
        table = BetaTable(data[f"{kind}_beta"].tolist())
        torch.testing.assert_close(table.alpha_bars, data[f"{kind}_alpha_bar"], rtol=1e-12, atol=0)
    training = BetaTable(data["training_beta"].tolist())
    assert_close(training.alpha_bars, data["learner_noise_level"], 1e-6, "learner_noise_level")


def test_weights_without_params_get_the_papers_schedules(folder: Path, names: list[str]) -> None:
    for name in names:
        imported = lmnt_diffwave.load(folder / f"{name}_weights.safetensors")
        paper = linear(1e-4, 0.05, 50).betas  # Kong et al. 2021, table 1: DiffWave BASE
        torch.testing.assert_close(BetaTable(imported.betas).betas, paper, rtol=1e-12, atol=0)
        assert imported.fast_betas == FAST_SCHEDULES["diffwave-base-6"]


def test_params_of_the_model_are_imported(folder: Path, names: list[str]) -> None:
    for name in names:
        imported = load(folder, name)
        _, meta = arrays(folder / f"{name}_io.npz")
        params = meta["params"]
        assert list(imported.betas) == params["noise_schedule"]
        assert list(imported.fast_betas) == params["inference_noise_schedule"]
        assert imported.sample_rate == params["sample_rate"]
        assert len(imported.network.layers) == params["residual_layers"]
        assert max(imported.network.dilations) == 2 ** (params["dilation_cycle_length"] - 1)
        assert (imported.mel_preset is None) == params["unconditional"]


def sampler_and_schedule(
    imported: LmntDiffWave, data: dict[str, Tensor], meta: dict[str, Any]
) -> tuple[Sampler, BetaTable]:
    schedule = BetaTable(meta.get("training_noise_schedule", imported.betas))
    if len(data["noise"]) == schedule.steps:
        return Sampler(Ancestral(), TableGrid()), schedule
    betas = meta.get("inference_noise_schedule", imported.fast_betas)
    return Sampler(Ancestral(), BetaGrid(tuple(betas))), schedule


def test_sampling_steps_are_aligned_as_lmnts(folder: Path, names: list[str]) -> None:
    for name in names:
        imported = load(folder, name)
        for path in sorted(folder.glob(f"{name}_sample_*.npz")):
            data, meta = arrays(path)
            sampler, schedule = sampler_and_schedule(imported, data, meta)
            labels = StepIndex()(schedule, sampler.grid(schedule)[:-1])
            torch.testing.assert_close(labels, data["T"].double(), rtol=1e-6, atol=1e-5)


@torch.no_grad()
def test_sampling_with_recorded_noise_gives_lmnts_trajectory(folder: Path, names: list[str]) -> None:
    for name in names:
        imported = load(folder, name)
        paths = sorted(folder.glob(f"{name}_sample_*.npz"))
        assert paths, name
        for path in paths:
            data, meta = arrays(path)
            sampler, schedule = sampler_and_schedule(imported, data, meta)
            denoise = Denoiser(imported.network, schedule, epsilon, StepIndex()).bind(condition(data))
            noise = data["noise"][:, :, None]
            inputs: list[Tensor] = []

            def recording(
                x: Tensor, t: Tensor, inputs: list[Tensor] = inputs, denoise: Any = denoise
            ) -> Tensor:
                inputs.append(x)
                return denoise(x, t)

            output = sampler(
                recording,
                schedule,
                noise[0],
                lambda step, draw, noise=noise: noise[step],
                Clip(*imported.clip),
            )
            assert_close(output[:, 0], data["output"], TRAJECTORY, path.name)
            states = torch.stack(inputs)[:, :, 0]
            if "x_in" in data:
                assert_close(states, data["x_in"], TRAJECTORY, path.name)
            else:
                assert_close(states[0], data["x_in_first"], TRAJECTORY, path.name)
                assert_close(states[-1], data["x_in_last"], TRAJECTORY, path.name)


@torch.no_grad()
def test_predicted_noise_at_every_sampling_step_is_lmnts(folder: Path, names: list[str]) -> None:
    for name in names:
        imported = load(folder, name)
        for path in sorted(folder.glob(f"{name}_sample_*.npz")):
            data, _ = arrays(path)
            if "eps" not in data:
                continue
            network = imported.network.bind(condition(data))
            for x, step, expected in zip(data["x_in"], data["T"], data["eps"], strict=True):
                output = network(x[:, None], step.expand(len(x)))
                assert_close(output[:, 0], expected, FORWARD, f"{path.name} at step {step}")


def test_training_steps_are_lmnts(folder: Path, names: list[str]) -> None:
    paths = [(name, folder / f"{name}_train3.npz") for name in names]
    paths = [(name, path) for name, path in paths if path.exists()]
    assert paths, f"no *_train3.npz in {folder}"
    for name, path in paths:
        data, meta = arrays(path)
        assert meta["loss"].startswith("L1")
        assert meta["max_grad_norm"] is None
        imported = load(folder, name)
        schedule = BetaTable(imported.betas)
        denoiser = Denoiser(imported.network, schedule, epsilon, StepIndex())
        optimizer = getattr(torch.optim, meta["optimizer"])(imported.network.parameters(), lr=meta["lr"])
        for update in range(len(data["t"])):
            t = (data["t"][update] + 1) / schedule.steps
            noise, clean = data["noise"][update][:, None], data["audio"][:, None]
            loss = MeanAbsoluteError()(denoiser, clean, condition(data), noise, t.double()).mean()
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.get_total_norm([p.grad for p in imported.network.parameters()])
            optimizer.step()
            assert loss.item() == pytest.approx(data["loss"][update].item(), rel=FORWARD), path.name
            assert norm.item() == pytest.approx(data["grad_norm"][update].item(), rel=FORWARD), path.name
        before = load_file(folder / f"{name}_weights.safetensors")
        assert_trained(imported, before, data, reach=meta["lr"] * len(data["t"]))


def assert_trained(
    imported: LmntDiffWave, before: dict[str, Tensor], data: dict[str, Tensor], reach: float
) -> None:
    """Compares parameters after training; `reach` is how far Adam can have moved one."""
    after = {key.removeprefix("after3:"): value for key, value in data.items() if key.startswith("after3:")}
    assert after
    names = lmnt_family.parameter_names(before)
    expected = lmnt_family.convert(before | after)
    trained = imported.network.state_dict()
    for ours, (theirs,) in names.items():
        if theirs not in after:
            continue
        error = (trained[ours] - expected[ours]).abs()
        # Adam divides a gradient by its own size: where much of it is rounding, so is the update.
        allowed = FORWARD * expected[ours].abs().max() + UPDATE * reach
        assert (error > allowed).double().mean() <= STRAY, theirs
        assert error.max() <= 2 * reach, theirs


def test_checkpoint_with_its_own_params_needs_no_argument(
    folder: Path, names: list[str], tmp_path: Path
) -> None:
    for name in names:
        _, meta = arrays(folder / f"{name}_io.npz")
        params = meta["params"] | {"dilation_cycle_length": 3, "noise_schedule": [0.1, 0.2]}
        weights = load_file(folder / f"{name}_weights.safetensors")
        content = {"step": 7, "model": weights, "optimizer": {}, "params": params, "scaler": {}}
        torch.save(content, tmp_path / "weights.pt")
        imported = lmnt_diffwave.load(tmp_path / "weights.pt")
        assert imported.betas == (0.1, 0.2)
        assert imported.network.dilations[:4] == (1, 2, 4, 1)
        expected = load(folder, name).network.state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in imported.network.state_dict().items())


def test_missing_and_unknown_parameters_are_all_named(folder: Path, names: list[str], tmp_path: Path) -> None:
    weights = load_file(folder / f"{names[-1]}_weights.safetensors")
    del weights["skip_projection.bias"], weights["residual_layers.0.dilated_conv.weight"]
    weights["surplus.weight"] = torch.zeros(1)
    torch.save({"model": weights}, tmp_path / "weights.pt")
    with pytest.raises(InputError) as caught:
        lmnt_diffwave.load(tmp_path / "weights.pt")
    for name in ("skip_projection.bias", "residual_layers.0.dilated_conv.weight", "surplus.weight"):
        assert name in str(caught.value)


def test_parameter_of_another_shape_is_named(folder: Path, names: list[str], tmp_path: Path) -> None:
    weights = load_file(folder / f"{names[-1]}_weights.safetensors")
    weights["residual_layers.1.dilated_conv.bias"] = torch.zeros(2)
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"layers\.1\.dilated\.bias"):
        lmnt_diffwave.load(tmp_path / "weights.pt")


def test_hop_length_that_the_upsampler_does_not_make_is_refused(folder: Path, names: list[str]) -> None:
    for name in names:
        imported = load(folder, name)
        if imported.network.upsamplers:
            with pytest.raises(InputError, match="hop_samples"):
                lmnt_diffwave.load(
                    folder / f"{name}_weights.safetensors", {"hop_samples": imported.network.hop_length + 1}
                )
            return
    pytest.skip("no model with a mel")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(InputError, match="no such file"):
        lmnt_diffwave.load(path)
    for content in (b"", b"RIFF....WAVEfmt "):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a checkpoint"):
            lmnt_diffwave.load(path)
