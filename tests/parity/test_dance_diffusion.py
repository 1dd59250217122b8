"""The waveform U-Net with Dance Diffusion's weights gives that project's numbers.

`numbers/dance_diffusion.npz` was made by running the project's own class and sampler (Harmonai-org's
sample-generator at commit 6a3402df) on the CPU, at a small size and with weights drawn by a rule from their
names; `meta_json` holds configuration, names, shapes and the rule, so that no weights are stored.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.continuous import Cosine
from audiodiff.diffusion.denoiser import Denoiser, Time
from audiodiff.diffusion.parameterizations import velocity
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.times import TimesGrid
from audiodiff.errors import InputError
from audiodiff.interop import dance_diffusion
from audiodiff.interop.dance_diffusion import DanceDiffusion
from audiodiff.networks.unet1d import UNet1d
from audiodiff.networks.unet1d_layers import cubic_kernel
from audiodiff.networks.unet1d_levels import Levels
from audiodiff.types import Condition

NUMBERS = Path(__file__).parent / "numbers" / "dance_diffusion.npz"
FORWARD = 1e-5
TRAJECTORY = 1e-4
RATE = 48000


@pytest.fixture(scope="module")
def numbers() -> tuple[dict[str, Tensor], dict[str, Any]]:
    with np.load(NUMBERS, allow_pickle=False) as content:
        tensors = {key: torch.from_numpy(content[key]) for key in content.files if key != "meta_json"}
        return tensors, json.loads(str(content["meta_json"]))


@pytest.fixture(scope="module")
def state(numbers: tuple[dict[str, Tensor], dict[str, Any]]) -> dict[str, Tensor]:
    """The project's state dict: kernels as recorded, weights by the rule in `meta_json`."""
    data, meta = numbers
    kernels = {"main.0.kernel": data["down_kernel"], "main.14.kernel": data["up_kernel"]}
    return {
        key: kernels["main." + key.split("main.")[-1]]
        if key.endswith(".kernel")
        else drawn(key, tuple(shape))
        for key, shape in meta["shapes"].items()
    }


def drawn(key: str, shape: tuple[int, ...]) -> Tensor:
    """Returns the weight of that name."""
    generator = np.random.RandomState((zlib.crc32(key.encode()) ^ 1234) & 0xFFFFFFFF)
    values = generator.standard_normal(shape)
    if len(shape) > 1:
        values = values / np.sqrt(np.prod(shape[1:]))
    else:
        values = values * 0.05 + (1.0 if key.endswith(".weight") else 0.0)
    return torch.from_numpy(values.astype(np.float32))


def saved(folder: Path, content: Mapping[str, Any], name: str = "model.ckpt") -> Path:
    torch.save(dict(content), folder / name)
    return folder / name


def loaded(folder: Path, state: Mapping[str, Tensor], steps: int = 250) -> DanceDiffusion:
    return dance_diffusion.load(saved(folder, state), sample_rate=RATE, steps=steps)


def assert_close(actual: Tensor, expected: Tensor, relative: float) -> None:
    """Compares at a tolerance relative to the largest reference value."""
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max()
    assert error <= relative * expected.double().abs().max(), f"error {error:.3g}"


@torch.no_grad()
def test_network_gives_the_projects_output(numbers: Any, state: dict[str, Tensor], tmp_path: Path) -> None:
    data, _ = numbers
    network = loaded(tmp_path, state).network
    assert_close(network(data["x"], data["t"], Condition()), data["output"], FORWARD)


@torch.no_grad()
def test_sampling_gives_the_projects_audio(numbers: Any, state: dict[str, Tensor], tmp_path: Path) -> None:
    data, meta = numbers
    model = loaded(tmp_path, state, meta["steps"])
    denoiser = Denoiser(model.network, Cosine(), velocity, Time())
    sampler = Sampler(DDIM(model.eta), TimesGrid(model.times))

    def no_noise(step: int, draw: int = 0) -> Tensor:
        raise AssertionError("DDIM with eta 0 draws no noise")

    found = sampler(denoiser.bind(Condition()), denoiser.schedule, data["noise"], no_noise)
    assert_close(found, data["sampled"], TRAJECTORY)


def test_times_are_the_projects(numbers: Any) -> None:
    data, meta = numbers
    times = dance_diffusion.crash_times(meta["steps"])
    assert times[0] == 1
    assert times[-1] == 0
    torch.testing.assert_close(torch.tensor(times[:-1]), data["crash"], rtol=0, atol=5e-7)


def test_resampling_kernels_are_the_projects(numbers: Any) -> None:
    data, _ = numbers
    torch.testing.assert_close(cubic_kernel(2), data["down_kernel"], rtol=0, atol=0)
    torch.testing.assert_close(2 * cubic_kernel(2), data["up_kernel"], rtol=0, atol=0)


def test_published_configurations_have_the_projects_number_of_parameters(numbers: Any) -> None:
    _, meta = numbers
    for attention_layers, expected in meta["parameters"].items():
        first = 14 - int(attention_layers) - 1  # level, counted from 1, from which on there is attention
        levels = Levels(
            widths=(128, 128, 256, 256, *[512] * 10),
            factors=(1, *[2] * 13),
            blocks=(3,) * 14,
            attention=tuple(level >= first for level in range(1, 15)),
        )
        with torch.device("meta"):
            network = UNet1d(2, levels)
        assert sum(parameter.numel() for parameter in network.parameters()) == expected


@torch.no_grad()
def test_fresh_weights_are_half_of_the_layers_own(state: dict[str, Tensor]) -> None:
    network = dance_diffusion.build_network(state, "state")
    for name, parameter in network.levels.named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.full_like(parameter, 0.5 if name.endswith("weight") else 0.0))
        elif parameter.dim() == 3:  # uniform within 1 / sqrt(fan in), halved
            bound = 0.5 / (parameter.shape[1] * parameter.shape[2]) ** 0.5
            assert 0.9 * bound < float(parameter.abs().max()) <= bound * 1.0001, name


@pytest.mark.parametrize(
    ("prefix", "averaged"),
    [
        ("", False),
        ("diffusion.", False),
        ("diffusion_ema.", True),
        ("diffusion_ema.ema_model.", True),
        ("model.", False),
        ("module.diffusion_ema.", True),
    ],
)
def test_weights_are_found_wherever_they_stand_in_the_file(
    prefix: str, averaged: bool, state: dict[str, Tensor], tmp_path: Path
) -> None:
    file = saved(tmp_path, {"state_dict": {prefix + key: value for key, value in state.items()}, "epoch": 3})
    model = dance_diffusion.load(file, sample_rate=RATE)
    assert model.averaged is averaged
    assert torch.equal(model.network.fourier.weight, state["timestep_embed.weight"])


def test_averaged_weights_come_before_the_raw_ones(state: dict[str, Tensor], tmp_path: Path) -> None:
    raw = {f"diffusion.{key}": torch.zeros_like(value) for key, value in state.items()}
    averaged = {f"diffusion_ema.{key}": value for key, value in state.items()}
    model = dance_diffusion.load(saved(tmp_path, {"state_dict": raw | averaged}), sample_rate=RATE)
    assert torch.equal(model.network.fourier.weight, state["timestep_embed.weight"])


def test_half_precision_weights_are_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    model = loaded(tmp_path, {key: value.half() for key, value in state.items()})
    assert torch.equal(model.network.fourier.weight, state["timestep_embed.weight"].half().float())


def test_sample_rate_is_that_of_the_published_file_or_given(state: dict[str, Tensor], tmp_path: Path) -> None:
    published = saved(tmp_path, state, "jmann-large-580k.ckpt")
    assert dance_diffusion.load(published).sample_rate == 48000
    assert dance_diffusion.load(published).sample_size == 131072
    assert dance_diffusion.load(published, sample_rate=44100, sample_size=5).sample_rate == 44100
    with pytest.raises(InputError, match=r"does not say its sample rate.*maestro-uncond-150k"):
        dance_diffusion.load(saved(tmp_path, state))


def test_facts_of_the_project_are_stated(state: dict[str, Tensor], tmp_path: Path) -> None:
    model = loaded(tmp_path, state)
    assert (model.parameterization, model.schedule, model.noise_label) == ("velocity", "cosine", "time")
    assert model.sample_size == 65536
    assert len(model.times) == 251
    assert "MIT" in model.licence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net.0.main.1.bias": None}, r"missing: net\.0\.main\.1\.bias; unexpected: none"),
        ({"net.0.main.0.weight": None}, r"missing: net\.0\.main\.0\.weight"),
        ({"net.3.main.2.extra": torch.zeros(1)}, r"unexpected: net\.3\.main\.2\.extra"),
        (
            {"net.1.main.0.weight": torch.zeros(32, 31, 5)},
            r"levels\.0\.before\.1\.block\.first\.weight is \[32, 31, 5\], expected \[32, 32, 5\]",
        ),
        ({"net.0.main.0.weight": torch.zeros(32, 25, 5)}, "got an input of 25 channels, expected 2 of audio"),
        ({"net.3.main.0.kernel": torch.ones(4) / 4}, r"net\.3\.main\.0\.kernel is .* expected the cubic"),
        ({"timestep_embed.weight": None}, "got parameters such as .*, expected those of Dance Diffusion"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    change: dict[str, Tensor | None], message: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    changed = {key: value for key, value in {**state, **change}.items() if value is not None}
    with pytest.raises(InputError, match=message):
        loaded(tmp_path, changed)
