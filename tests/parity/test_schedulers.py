"""Ancestral and DDIM reproduce trajectories that diffusers' DDPM and DDIM schedulers took on an exact denoiser.

Everything comes from the fixture: data distribution, betas, times, noise. A run is compared where the peer's
own rule for the next time (t - N / steps) is the next time of its grid; for other spacings the two differ in
what they compute, not in how.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler, Step
from audiodiff.diffusion.schedules import BetaTable, NoiseSchedule

TOLERANCE = 5e-5  # their tables are float32


@dataclass(frozen=True)
class Times:
    """The peer's integer steps n, counted from 0, as times (n + 1) / N, then 0."""

    rows: np.ndarray

    def __call__(self, schedule: NoiseSchedule) -> Tensor:
        times = (torch.from_numpy(self.rows) + 1).double() / schedule.steps
        return torch.cat([times, times.new_zeros(1)])


def mixture(arrays: Mapping[str, np.ndarray], schedule: NoiseSchedule) -> Denoise:
    """The expected clean signal for data from the fixture's mixture of isotropic Gaussians."""
    weights, means, stds = (
        torch.from_numpy(arrays[f"gmm_{name}"]).double() for name in ("weights", "means", "stds")
    )

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        variance = alpha**2 * stds**2 + sigma**2  # [K]
        difference = x[..., 0][:, None] - alpha * means  # [B, K, D]
        logits = weights.log() - difference.square().sum(-1) / (2 * variance)
        shares = (logits - means.shape[1] / 2 * variance.log()).softmax(-1)
        gains = (alpha * stds**2 / variance)[:, None]
        return (shares[..., None] * (means + gains * difference)).sum(1)[..., None]

    return denoise


def step_of(run: Mapping[str, Any]) -> Step | None:
    """The step of this project that a run of theirs is, None where there is none."""
    settings = run["config"]
    if settings.get("clip_sample") or settings.get("thresholding"):
        return None
    if run["scheduler"] == "DDPMScheduler" and settings["variance_type"] == "fixed_small":
        return Ancestral()
    if run["scheduler"] == "DDIMScheduler" and settings["set_alpha_to_one"]:
        return DDIM(run["step_kwargs"].get("eta", 0.0))
    return None


def walks_its_grid(rows: np.ndarray, stride: int) -> bool:
    return bool((rows[:-1] - stride == rows[1:]).all()) and rows[-1] - stride < 0


def test_trajectories_equal_the_stored_ones(fixtures_dir: Path) -> None:
    compared: set[str] = set()
    with np.load(fixtures_dir / "schedulers" / "trajectories.npz", allow_pickle=False) as arrays:
        runs = json.loads(str(arrays["meta_json"]))["runs"]
        for name, run in runs.items():
            step = step_of(run) if "scheduler" in run else None
            if step is None:
                continue
            schedule = BetaTable(arrays[f"betas|{run['betas']}"].astype(np.float64).tolist())
            rows, states = arrays[f"{name}|timesteps"], arrays[f"{name}|x"]
            if not walks_its_grid(rows, schedule.steps // run["steps"]):
                continue
            noise = arrays[f"{name}|noise"] if f"{name}|noise" in arrays.files else np.zeros((0,))
            assert_same_walk(name, step, schedule, rows, states, noise, mixture(arrays, schedule))
            compared.add(f"{type(step).__name__} {getattr(step, 'eta', '')}")
    assert compared >= {"Ancestral ", "DDIM 0.0", "DDIM 0.5", "DDIM 1.0"}, f"compared only {compared}"


def assert_same_walk(
    name: str, step: Step, schedule: BetaTable, rows: np.ndarray, states: np.ndarray, noise: np.ndarray,
    denoise: Denoise,
) -> None:  # fmt: skip
    visited: list[Tensor] = []

    def remember(x: Tensor, s: Tensor) -> Tensor:
        visited.append(x)
        return x

    start = torch.from_numpy(states[0]).double()[..., None]
    Sampler(step, Times(rows))(
        denoise,
        schedule,
        start,
        lambda number: torch.from_numpy(noise[number - 1])[..., None].double(),
        remember,
    )
    found, expected = torch.stack(visited)[..., 0], torch.from_numpy(states[1:]).double()
    error = float((found - expected).abs().max())
    assert error <= TOLERANCE * max(1.0, float(expected.abs().max())), f"{name}: {error:.1e}"


def test_a_wrong_sampler_does_not_pass(fixtures_dir: Path) -> None:
    with np.load(fixtures_dir / "schedulers" / "trajectories.npz", allow_pickle=False) as arrays:
        runs = json.loads(str(arrays["meta_json"]))["runs"]
        name, run = next((n, r) for n, r in runs.items() if r.get("scheduler") == "DDIMScheduler")
        schedule = BetaTable(arrays[f"betas|{run['betas']}"].astype(np.float64).tolist())
        rows, states = arrays[f"{name}|timesteps"], arrays[f"{name}|x"]
        noise = np.random.default_rng(0).standard_normal((run["steps"], *states.shape[1:]))
        with pytest.raises(AssertionError, match="ddim"):
            assert_same_walk(name, DDIM(0.2), schedule, rows, states, noise, mixture(arrays, schedule))
