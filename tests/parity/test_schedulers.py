"""Every stored run of diffusers, k-diffusion and EDM, repeated by the steps of this project on the same denoiser.

Everything comes from the fixture: data distribution, betas, levels, noise. Rules of the peer that are no part of
a step are spelled out here, from its own settings: to which level it moves, and that it lowers the order of
its last steps. Compared is every x at which it evaluated the network, and the result.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from audiodiff.diffusion import multistep, parameterizations
from audiodiff.diffusion.continuous import VPSDE, Karras
from audiodiff.diffusion.denoiser import Denoise, Denoiser, Time
from audiodiff.diffusion.multistep import PLMS, PNDM, CleanMultistep, NoiseMultistep, UniPC, noise_move
from audiodiff.diffusion.process import epsilon_from_clean, noise_ratio, time_of_ratio
from audiodiff.diffusion.renoising import AddedNoise, Churn
from audiodiff.diffusion.samplers import DDIM, Ancestral, Step
from audiodiff.diffusion.schedules import BetaTable, NoiseSchedule
from audiodiff.diffusion.singlestep import DPM2, DPMSolverSinglestep, Heun, TimeHeun
from audiodiff.diffusion.times import KarrasGrid, LeadingGrid, LinspaceGrid, LogSnrGrid, UniformGrid
from audiodiff.types import Condition

F64 = {"dtype": torch.float64}
TOLERANCE = 5e-5  # their tables are float32
ANY = Karras(sigma_max=1e4, rho=7)  # a variance-exploding schedule that every level of EDM fits into


@dataclass
class Recorder:
    """A Denoise that keeps the x it was asked about, and when."""

    denoise: Denoise
    asked: list[Tensor] = field(default_factory=list)
    times: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked.append(x)
        self.times.append(t)
        return self.denoise(x, t)


def mixture(arrays: Mapping[str, np.ndarray], schedule: NoiseSchedule) -> Denoise:
    """The expected clean signal for data from the fixture's mixture of isotropic Gaussians."""
    weights, means, stds = (
        torch.from_numpy(arrays[f"gmm_{name}"]).double() for name in ("weights", "means", "stds")
    )

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t).reshape(-1)[0], schedule.sigma(t).reshape(-1)[0]
        variance = alpha**2 * stds**2 + sigma**2  # [K]
        difference = x[..., 0][:, None] - alpha * means  # [B, K, D]
        logits = weights.log() - difference.square().sum(-1) / (2 * variance)
        shares = (logits - means.shape[1] / 2 * variance.log()).softmax(-1)
        gains = (alpha * stds**2 / variance)[:, None]
        return (shares[..., None] * (means + gains * difference)).sum(1)[..., None]

    return denoise


class Exact(nn.Module):
    """A network that predicts, in any parameterization, what makes the clean estimate exact."""

    def __init__(self, denoise: Denoise, schedule: NoiseSchedule, parameterization: Any) -> None:
        super().__init__()
        self.denoise, self.schedule, self.parameterization = denoise, schedule, parameterization

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        t = noise_label[:1]
        c_in, c_skip, c_out = self.parameterization(self.schedule.alpha(t), self.schedule.sigma(t))
        return (self.denoise(x / c_in, t) - c_skip * x / c_in) / c_out

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, noise_label: self(x, noise_label, condition)


def predicted(name: str, denoise: Denoise, schedule: NoiseSchedule) -> Denoise:
    kind = {"epsilon": "epsilon", "v_prediction": "velocity", "sample": "clean"}[name]
    parameterization = getattr(parameterizations, kind)
    network = Exact(denoise, schedule, parameterization)
    return Denoiser(network, schedule, parameterization, Time()).bind(Condition())


@dataclass(frozen=True)
class Walk:
    """What to repeat: the moves (t, s) with the step of each, in this project's x."""

    schedule: NoiseSchedule
    moves: list[tuple[Tensor, Tensor, Step]]
    start: Tensor
    noise: np.ndarray

    def run(self, denoise: Denoise) -> Tensor:
        x, memory, drawn = self.start, None, iter(self.noise)
        for number, (t, s, step) in enumerate(self.moves):
            if len(self.noise) == len(self.moves):  # the peer draws at every step, whether it needs it or not
                drawn = iter(self.noise[number:])

            def draw() -> Tensor:
                return torch.from_numpy(next(drawn)).double()[..., None]  # noqa: B023

            x, memory = step(denoise, self.schedule, x, t, s, memory, draw)
        return x


Runs = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def arrays(fixtures_dir: Path) -> Iterator[Mapping[str, np.ndarray]]:
    with np.load(fixtures_dir / "schedulers" / "trajectories.npz", allow_pickle=False) as stored:
        yield {name: stored[name] for name in stored.files}


@pytest.fixture(scope="module")
def runs(arrays: Mapping[str, np.ndarray]) -> Runs:
    return {
        name: run for name, run in json.loads(str(arrays["meta_json"]))["runs"].items() if "scheduler" in run
    }


def falling(steps: int, kind: Callable[[int], Step], order: int, lowered: int) -> list[Step]:
    """Steps of `order`, the last `lowered` of them of order 1, 2, ... counted from the end."""
    orders = [min(order, steps - i) if steps - i <= lowered else order for i in range(steps)]
    return [kind(order) for order in orders]


def clean_rule(solver: str) -> Callable[[int], multistep.Rule]:
    second = multistep.dpmpp_heun if solver == "heun" else multistep.dpmpp_midpoint
    return lambda order: multistep.dpmpp_third if order == 3 else second


def steps_of(run: Mapping[str, Any], count: int) -> list[Step]:
    """The steps of this project that a run of diffusers makes, one a move."""
    name, settings = run["scheduler"].removesuffix("Scheduler"), run["config"]
    order = settings.get("solver_order", 1)
    few = 15  # below which diffusers lowers the order of the last steps
    if name in ("DPMSolverMultistep", "EDMDPMSolverMultistep"):
        lowered = order if count < few else int(settings["final_sigmas_type"] == "zero")
        rule = clean_rule(settings["solver_type"])
        eta = float(settings["algorithm_type"].startswith("sde"))
        if settings["algorithm_type"] == "dpmsolver":
            return falling(count, partial(NoiseMultistep, multistep.dpm_midpoint), order, lowered)
        return falling(count, lambda n: CleanMultistep(rule(n), n, eta), order, lowered)
    if name == "DEISMultistep":
        return falling(count, partial(NoiseMultistep, multistep.deis), order, order if count < few else 0)
    if name == "UniPCMultistep":
        return falling(count, lambda n: UniPC(n, int(settings["solver_type"][-1])), order, order)
    single: dict[str, Step] = {
        "DDPM": Ancestral(settings.get("variance_type", "fixed_small").removeprefix("fixed_")),
        "DDIM": DDIM(run["step_kwargs"].get("eta", 0.0)),
        "PNDM": pseudo_linear(run),
        "EulerDiscrete": DDIM(), "EDMEuler": DDIM(), "EulerAncestralDiscrete": AddedNoise(DDIM()),
        "HeunDiscrete": Heun(), "KDPM2Discrete": their_midpoint, "LMSDiscrete": NoiseMultistep(multistep.lms, 4),
    }  # fmt: skip
    return [single[name]] * count


def pseudo_linear(run: Mapping[str, Any]) -> Step:
    if run["config"].get("skip_prk_steps"):
        return PLMS()
    stride = run["config"]["num_train_timesteps"] // run["steps"]
    return PNDM() if stride % 2 == 0 else their_runge_kutta(stride)


def their_runge_kutta(stride: int) -> Step:
    """PNDM on whole rows: with an odd stride, the second stage moves to one row and tells the network another."""

    def step(denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, *rest: Any) -> Any:
        assert isinstance(schedule, BetaTable)
        reached, history = NoiseMultistep(multistep.adams_bashforth, 4)(denoise, schedule, x, t, s, *rest)
        if len(history.estimates) > 3:
            return reached, history
        half = stride // 2 / schedule.steps
        slopes = [history.estimates[0]]
        for level, told in ((t - half, s + half), (s + half, s + half), (s, s)):
            there = noise_move(schedule, x, slopes[-1], t, level)
            slopes.append(epsilon_from_clean(schedule, there, denoise(there, told), told))
        mean = (slopes[0] + 2 * slopes[1] + 2 * slopes[2] + slopes[3]) / 6
        return noise_move(schedule, x, mean, t, s), history

    return step


def their_midpoint(
    denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, *rest: Any
) -> tuple[Tensor, Any]:
    """DPM2 as it was recorded: in the middle, the network was asked at the level of the step's end."""

    def recorded(there: Tensor, u: Tensor) -> Tensor:
        if bool(u == t):
            return denoise(there, u)
        moved = there * (schedule.alpha(s) / schedule.alpha(u))
        epsilon = epsilon_from_clean(schedule, moved, denoise(moved, s), s)
        return (there - schedule.sigma(u) * epsilon) / schedule.alpha(u)

    return DPM2()(recorded, schedule, x, t, s, *rest)


def walk_of(name: str, run: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Walk:
    exploding = run["betas"] == "edm"
    schedule: NoiseSchedule = ANY if exploding else table(arrays, run["betas"])
    times = level_times(name, run, schedule, arrays)
    start = torch.from_numpy(arrays[f"{name}|x"][0]).double()[..., None]
    if holds_ratios(run):
        start = start * schedule.alpha(times[0][0])
    noise = arrays.get(f"{name}|noise", np.zeros((0,)))
    if run["scheduler"] == "DPMSolverSinglestepScheduler":
        return Walk(schedule, singlestep_moves(run, schedule, times), start, noise)
    steps = steps_of(run, len(times))
    if run["scheduler"] == "EDMEulerScheduler" and run["step_kwargs"]:
        steps = [their_churn(run, schedule)] * len(times)
    return Walk(schedule, [(t, s, step) for (t, s), step in zip(times, steps, strict=True)], start, noise)


def holds_ratios(run: Mapping[str, Any]) -> bool:
    """Whether the peer's x is x / alpha of this project."""
    return run["scheduler"].startswith(("Euler", "Heun", "KDPM2", "LMS", "EDM"))


def table(arrays: Mapping[str, np.ndarray], betas: str) -> BetaTable:
    return BetaTable(arrays[f"betas|{betas}"].astype(np.float64).tolist())


def level_times(
    name: str, run: Mapping[str, Any], schedule: NoiseSchedule, arrays: Mapping[str, np.ndarray]
) -> list[tuple[Tensor, Tensor]]:
    """The (t, s) of every move: by the stored noise levels, or by the peer's rule t - N // steps."""
    if f"{name}|sigmas" in arrays:
        sigmas = torch.from_numpy(arrays[f"{name}|sigmas"]).double()
        distinct = torch.cat(
            [sigmas[:1], sigmas[1:][sigmas[1:] < sigmas[:-1]]]
        )  # Heun's list has each one twice
        if run["scheduler"].startswith("KDPM2"):
            distinct = torch.cat([distinct[distinct > 0], distinct.new_zeros(1)])
        times = time_of_ratio(schedule, distinct)
        return list(itertools.pairwise(times))
    assert isinstance(schedule, BetaTable)
    stride = schedule.steps // run["steps"]
    rows = list(dict.fromkeys(arrays[f"{name}|timesteps"].tolist()))
    if run["scheduler"] == "PNDMScheduler":  # its list holds the Runge-Kutta stages too
        rows = [row for row in rows if (row - rows[0]) % stride == 0]
    last = 0.0 if run["config"].get("set_alpha_to_one", True) else 1.0
    ends = [row - stride + 1 if row >= stride else last for row in rows]
    return [
        (torch.tensor((row + 1) / schedule.steps, **F64), torch.tensor(end / schedule.steps, **F64))
        for row, end in zip(rows, ends, strict=True)
    ]


def singlestep_moves(
    run: Mapping[str, Any], schedule: NoiseSchedule, times: list[tuple[Tensor, Tensor]]
) -> list[tuple[Tensor, Tensor, Step]]:
    """Blocks of `solver_order` levels, one step each; what is left over at the end is of lower order."""
    order, count = run["config"]["solver_order"], len(times)
    blocks = [order] * (count // order) + ([count % order] if count % order else [])
    if order == 3 and count % 3 == 0:  # diffusers ends with 2 + 1
        blocks = [3] * (count // 3 - 1) + [2, 1]
    if order == 2 and count % 2 == 0:  # and with 1 + 1
        blocks = [2] * (count // 2 - 1) + [1, 1]
    moves, first = [], 0
    for size in blocks:
        t, s = times[first][0], times[first + size - 1][1]
        levels = [noise_ratio(schedule, u).log() for u in (t, *(times[first + i][0] for i in range(1, size)))]
        fractions = [
            float((levels[0] - level) / (levels[0] - noise_ratio(schedule, s).log())) for level in levels[1:]
        ]
        moves.append((t, s, DPMSolverSinglestep(tuple(fractions)) if fractions else DDIM()))
        first += size
    return moves


def their_churn(run: Mapping[str, Any], schedule: NoiseSchedule) -> Step:
    """Churn as diffusers has it: the network is evaluated before the noise is added, preconditioned after."""
    asked = run["step_kwargs"]
    gamma = min(asked["s_churn"] / run["steps"], 2**0.5 - 1)
    churn = Churn(DDIM(), gamma, asked["s_tmin"], asked["s_tmax"], asked["s_noise"])
    data_std = run["config"]["sigma_data"]

    def coefficients(t: Tensor) -> parameterizations.Coefficients:
        return parameterizations.edm(schedule.alpha(t), schedule.sigma(t), data_std=data_std)

    def step(
        denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, *rest: Any
    ) -> tuple[Tensor, Any]:
        _, c_skip, c_out = coefficients(t)
        output = (denoise(x, t) - c_skip * x) / c_out

        def preconditioned(noisy: Tensor, u: Tensor) -> Tensor:
            _, c_skip, c_out = coefficients(u)
            return c_skip * noisy + c_out * output

        return churn(preconditioned, schedule, x, t, *rest)

    return step


def error_of(name: str, run: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> float:
    """The largest difference in any x that the network was asked about and in the result, over the range."""
    walk = walk_of(name, run, arrays)
    denoise = mixture(arrays, walk.schedule)
    if run["betas"] != "edm":
        denoise = predicted(run["config"]["prediction_type"], denoise, walk.schedule)
    recorder = Recorder(denoise)
    result = walk.run(recorder)
    expected = torch.from_numpy(arrays[f"{name}|x"]).double()
    found = torch.stack([*recorder.asked, result])[..., 0]
    if holds_ratios(run):
        times = torch.stack([*recorder.times, walk.moves[-1][1]])
        levels = walk.schedule.alpha(times)
        found = found / levels[:, None, None]
    assert found.shape == expected.shape, (
        f"{name}: {tuple(found.shape)} evaluations, theirs {tuple(expected.shape)}"
    )
    return float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))


def test_every_run_of_diffusers_is_reproduced(arrays: Mapping[str, np.ndarray], runs: Runs) -> None:
    assert runs
    errors = {name: error_of(name, run, arrays) for name, run in runs.items()}
    wrong = {name: f"{error:.1e}" for name, error in errors.items() if not error <= TOLERANCE}
    assert not wrong, f"{len(wrong)} of {len(runs)} runs differ: {wrong}"


def test_a_wrong_step_does_not_pass(arrays: Mapping[str, np.ndarray], runs: Runs) -> None:
    name, run = next((n, r) for n, r in runs.items() if r["scheduler"] == "DDIMScheduler")
    other = run | {"step_kwargs": {"eta": 0.2}}
    noisy = dict(arrays) | {f"{name}|noise": np.random.default_rng(0).standard_normal((run["steps"], 5, 4))}
    assert error_of(name, other, noisy) > 100 * TOLERANCE


def start_of(arrays: Mapping[str, np.ndarray], level: float) -> Tensor:
    return torch.from_numpy(arrays["xT"]).double()[..., None] * level


def result_of(
    arrays: Mapping[str, np.ndarray], step: Step, schedule: NoiseSchedule, times: Tensor, noise: str = ""
) -> np.ndarray:
    """The result of walking the times from the stored unit latent."""
    moves = [(t, s, step) for t, s in itertools.pairwise(times)]
    start = start_of(arrays, float(schedule.sigma(times[0])))
    drawn = arrays[noise] if noise else np.zeros((0,))
    return Walk(schedule, moves, start, drawn).run(mixture(arrays, schedule))[..., 0].numpy()


K_STEPS = {
    "k_euler": DDIM(), "k_heun": Heun(), "k_dpm_2": DPM2(), "k_lms": NoiseMultistep(multistep.lms, 4),
    "k_dpmpp_2m": CleanMultistep(multistep.dpmpp_midpoint), "k_euler_ancestral": AddedNoise(DDIM()),
    "k_dpm_2_ancestral": AddedNoise(DPM2()), "k_dpmpp_2s_ancestral": AddedNoise(DPMSolverSinglestep()),
}  # fmt: skip


def test_every_sampler_of_k_diffusion_is_reproduced(arrays: Mapping[str, np.ndarray]) -> None:
    stored = {name.removeprefix("kdiffusion|") for name in arrays if name.startswith("kdiffusion|")}
    assert {name for name in stored if not name.endswith("_noise") and "sigmas" not in name} == set(K_STEPS)
    times = time_of_ratio(ANY, torch.from_numpy(arrays["kdiffusion|k_sigmas_karras"]).double())
    for name, step in K_STEPS.items():
        noise = f"kdiffusion|{name}_noise"
        found = result_of(arrays, step, ANY, times, noise if noise in arrays else "")
        np.testing.assert_allclose(found, arrays[f"kdiffusion|{name}"], rtol=0, atol=TOLERANCE, err_msg=name)


def test_grids_of_k_diffusion_are_reproduced(arrays: Mapping[str, np.ndarray]) -> None:
    stored = {name: arrays[f"kdiffusion|k_sigmas_{name}"] for name in ("karras", "exponential", "polyexp")}
    count, low, high = len(stored["karras"]) - 1, *stored["karras"][[-2, 0]].tolist()
    grids = {"karras": KarrasGrid(count, 7.0, low, high), "exponential": LogSnrGrid(count, low, high)}
    for name, grid in grids.items():
        found = noise_ratio(ANY, grid(ANY))
        np.testing.assert_allclose(found, stored[name], rtol=2e-6, atol=1e-9, err_msg=name)


def test_grids_of_diffusers_are_reproduced(arrays: Mapping[str, np.ndarray], runs: Runs) -> None:
    compared = set()
    for name, run in runs.items():
        if run["scheduler"] != "DDIMScheduler" and not run["scheduler"].startswith("EulerDiscrete"):
            continue
        schedule, steps = table(arrays, run["betas"]), run["steps"]
        if run["config"].get("use_karras_sigmas"):
            sigmas = arrays[f"{name}|sigmas"]
            ends = noise_ratio(schedule, torch.tensor([1 / schedule.steps, 1.0], **F64))
            np.testing.assert_allclose(ends, sigmas[[-2, 0]], rtol=2e-4)  # of a float32 1 - alpha-bar
            found = noise_ratio(schedule, KarrasGrid(steps, 7.0, *sigmas[[-2, 0]].tolist())(schedule))
            np.testing.assert_allclose(found, sigmas, rtol=1e-6, atol=1e-9, err_msg=name)
            compared.add("karras")
            continue
        spacing = run["config"]["timestep_spacing"]
        grid = {"leading": LeadingGrid, "trailing": UniformGrid, "linspace": LinspaceGrid}[spacing](steps)
        rows = grid(schedule)[:-1].numpy() * schedule.steps - 1
        # DDIM rounds to whole rows
        np.testing.assert_allclose(rows, arrays[f"{name}|timesteps"], atol=0.51 if "ddim" in name else 1e-4)
        compared.add(spacing)
    assert compared == {"karras", "leading", "trailing", "linspace"}


def edm_times(steps: int) -> Tensor:
    return time_of_ratio(ANY, noise_ratio(ANY, KarrasGrid(steps, 7.0, 0.002, 80.0)(ANY)))


def test_every_sampler_of_edm_is_reproduced(arrays: Mapping[str, np.ndarray]) -> None:
    vp, ve = VPSDE(0.1, 20.0), Karras(sigma_max=100.0, rho=0.5)
    vp_times = torch.cat([torch.linspace(1, 1e-3, 18, dtype=torch.float64), torch.zeros(1)])
    shares = torch.linspace(0, 1, 18, dtype=torch.float64)
    ve_times = torch.cat([(0.02**2 / 100**2) ** shares, torch.zeros(1)])
    churn = Churn(Heun(), 40 / 18, 0.05, 50, 1.003)
    noise = "nvlabs_edm|edm_heun18_churn_noise"
    found = {
        "edm_heun18": result_of(arrays, Heun(), ANY, edm_times(18)),
        "edm_heun8": result_of(arrays, Heun(), ANY, edm_times(8)),
        "edm_euler18": result_of(arrays, DDIM(), ANY, edm_times(18)),
        "edm_heun18_churn": result_of(arrays, churn, ANY, edm_times(18), noise),
        "edm_vp_heun18": result_of(arrays, TimeHeun(), vp, vp_times),
        "edm_ve_heun18": result_of(arrays, TimeHeun(), ve, ve_times),
    }
    stored = {name for name in arrays if name.startswith("nvlabs_edm|") and not name.endswith("_noise")}
    assert stored == {f"nvlabs_edm|{name}" for name in found}
    for name, result in found.items():
        np.testing.assert_allclose(result, arrays[f"nvlabs_edm|{name}"], rtol=0, atol=TOLERANCE, err_msg=name)
