"""Distillation: no loss for the student that the teacher makes, on Gaussian data in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from audiodiff.diffusion import parameterizations
from audiodiff.diffusion.denoiser import Denoise, Denoiser, Time
from audiodiff.diffusion.distillation import ConsistencyDistillation, ProgressiveDistillation, next_time
from audiodiff.diffusion.guidance import Guidance, guided
from audiodiff.diffusion.process import diffuse
from audiodiff.diffusion.samplers import DDIM, move
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.times import GridTimes, UniformGrid
from audiodiff.errors import InputError
from audiodiff.instantiation import instantiate
from audiodiff.recipes_folder import recipes_folder
from audiodiff.types import Condition
from tests.laws.exact import MEAN, SCHEDULES, denoiser_of, draw, flow_map, gaussian, moments

GRID = UniformGrid(4)
T = torch.tensor([1.0, 0.75, 0.5, 0.25], dtype=torch.float64)
S = T - 0.25
CLEAN, NOISE = draw(2, 4, 2, 6)
NOTHING = Condition()
every_schedule = pytest.mark.parametrize("kind", list(SCHEDULES))


@dataclass
class Exact:
    """A teacher with a known denoise."""

    denoise: Denoise
    schedule: NoiseSchedule
    asked: list[Tensor] = field(default_factory=list)

    def bind(self, condition: Condition) -> Denoise:
        def denoise(x: Tensor, t: Tensor) -> Tensor:
            self.asked.append(t)
            return self.denoise(x, t)

        return denoise


def loss_of(
    objective: Any, student: Denoise, schedule: NoiseSchedule, condition: Condition = NOTHING
) -> Tensor:
    model = denoiser_of(student, schedule, parameterizations.edm)
    loss: Tensor = objective(model, CLEAN, condition, NOISE, T)
    assert loss.shape == (4,)
    return loss


def teacher_of(kind: str) -> Exact:
    return Exact(gaussian(SCHEDULES[kind]), SCHEDULES[kind])


def gain(schedule: NoiseSchedule, t: Tensor, s: Tensor) -> Tensor:
    """What the exact denoiser's DDIM step multiplies x - alpha m by, on its way from t to s."""
    clean = 0.4**2 * schedule.alpha(t) / moments(schedule, t)[1] ** 2
    return schedule.alpha(s) * clean + schedule.sigma(s) * (1 - schedule.alpha(t) * clean) / schedule.sigma(t)


def landing_student(schedule: NoiseSchedule, total: Any) -> Denoise:
    """The clean estimate whose DDIM step on the grid multiplies x - alpha m by `total(t, s)`."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        s = next_time(GRID(schedule), t)
        ratio = schedule.sigma(s) / schedule.sigma(t)
        reached = schedule.alpha(s) * MEAN
        wide = (-1, 1, 1)
        target = reached.view(wide) + total(t, s).view(wide) * (x - (schedule.alpha(t) * MEAN).view(wide))
        return (target - ratio.view(wide) * x) / (schedule.alpha(s) - ratio * schedule.alpha(t)).view(wide)

    return denoise


# --- Progressive distillation ---


@every_schedule
def test_the_student_that_lands_where_two_steps_of_the_teacher_land_has_no_loss(kind: str) -> None:
    schedule = SCHEDULES[kind]

    def two_steps(t: Tensor, s: Tensor) -> Tensor:
        middle = (t + s) / 2
        return gain(schedule, t, middle) * gain(schedule, middle, s)

    objective = ProgressiveDistillation(teacher_of(kind), GRID)
    scale = float(loss_of(objective, gaussian(schedule), schedule).max())
    assert scale > 1e-5  # the teacher itself is not such a student
    assert float(loss_of(objective, landing_student(schedule, two_steps), schedule).max()) < 1e-9 * scale


@every_schedule
def test_with_one_substep_the_teacher_is_its_own_student(kind: str) -> None:
    schedule = SCHEDULES[kind]
    objective = ProgressiveDistillation(teacher_of(kind), GRID, substeps=1)
    assert float(loss_of(objective, gaussian(schedule), schedule).max()) < 1e-12


def test_many_substeps_approach_the_flow_map_with_first_order() -> None:
    schedule = SCHEDULES["vpsde"]

    def whole(t: Tensor, s: Tensor) -> Tensor:
        return moments(schedule, s)[1] / moments(schedule, t)[1]

    student = landing_student(schedule, whole)
    coarse, fine, finest = (
        loss_of(ProgressiveDistillation(teacher_of("vpsde"), GRID, n), student, schedule).max().sqrt()
        for n in (100, 200, 400)
    )
    assert float(coarse / fine) == pytest.approx(2, abs=0.3)
    assert float(fine / finest) == pytest.approx(2, abs=0.3)
    assert float(finest) < 0.05


def test_loss_is_the_squared_distance_of_the_landings() -> None:
    schedule, off = SCHEDULES["vpsde"], 0.3
    objective = ProgressiveDistillation(teacher_of("vpsde"), GRID, substeps=1)
    found = loss_of(objective, lambda x, t: gaussian(schedule)(x, t) + off, schedule)
    slope = schedule.alpha(S) - schedule.sigma(S) * schedule.alpha(T) / schedule.sigma(T)
    torch.testing.assert_close(found.double(), (off * slope) ** 2, rtol=1e-5, atol=1e-9)


def test_the_teacher_is_asked_at_even_times_within_the_step() -> None:
    teacher = teacher_of("flow")
    loss_of(ProgressiveDistillation(teacher, GRID, 5), gaussian(teacher.schedule), teacher.schedule)
    expected = [T - 0.25 * part / 5 for part in range(5)]
    for found, time in zip(teacher.asked, expected, strict=True):
        torch.testing.assert_close(found, time)


def test_a_guided_teacher_teaches_its_guidance() -> None:
    schedule = SCHEDULES["vpsde"]
    pair = guided(gaussian(schedule), gaussian(schedule, -1.0), Guidance(2.0, interval=(0.3, 0.8)))
    objective = ProgressiveDistillation(Exact(pair, schedule), GRID, substeps=1)
    assert float(loss_of(objective, pair, schedule).max()) < 1e-12
    loss = loss_of(objective, gaussian(schedule), schedule)
    assert bool((loss[[0, 3]] < 1e-12).all())  # outside of the interval
    assert bool((loss[[1, 2]] > 1e-3).all())


# --- Consistency distillation ---


@every_schedule
def test_the_student_that_knows_a_point_has_no_loss(kind: str) -> None:
    schedule, point = SCHEDULES[kind], draw(1, 2, 6, seed=9)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return point.expand_as(x)

    objective = ConsistencyDistillation(Exact(denoise, schedule), GRID)
    found = objective(denoiser_of(denoise, schedule), point.expand_as(CLEAN), Condition(), NOISE, T)
    assert float(found.max()) < 1e-12


@every_schedule
def test_the_flow_map_has_no_loss_under_a_teacher_that_steps_along_the_flow(kind: str) -> None:
    schedule = SCHEDULES[kind]

    def whole(t: Tensor, s: Tensor) -> Tensor:
        return moments(schedule, s)[1] / moments(schedule, t)[1]

    def student(x: Tensor, t: Tensor) -> Tensor:
        return flow_map(schedule, x, t, torch.zeros_like(t))

    objective = ConsistencyDistillation(Exact(landing_student(schedule, whole), schedule), GRID)
    assert float(loss_of(objective, student, schedule).max()) < 1e-12
    assert float(loss_of(objective, gaussian(schedule), schedule).max()) > 1e-7


def test_the_flow_map_has_ever_less_loss_as_the_steps_of_the_exact_teacher_shrink() -> None:
    schedule = SCHEDULES["vpsde"]
    model = denoiser_of(
        lambda x, t: flow_map(schedule, x, t, torch.zeros_like(t)), schedule, parameterizations.edm
    )

    def error(steps: int) -> float:
        objective = ConsistencyDistillation(teacher_of("vpsde"), UniformGrid(steps), delta=1e3)
        loss = objective(model, CLEAN, Condition(), NOISE, T)
        return float((loss / (schedule.earliest * steps)).max()) ** 0.5

    # One step's error falls with the square of its length.
    assert error(40) / error(80) == pytest.approx(4, abs=1.2)


def test_the_end_of_the_flow_is_what_the_teacher_reaches() -> None:
    schedule, t = SCHEDULES["vpsde"], torch.full((4,), 0.25, dtype=torch.float64)
    teacher = teacher_of("vpsde")
    found = ConsistencyDistillation(teacher, GRID)(
        denoiser_of(gaussian(schedule), schedule), CLEAN, Condition(), NOISE, t
    )
    assert float(found.max()) < 1e-12  # both say the expected clean signal


def test_no_gradient_flows_through_the_target() -> None:
    """With f = theta t the target's own slope is s; only that of the estimate, t, may show."""
    schedule = SCHEDULES["flow"]

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
            return self.theta * noise_label.view(-1, 1, 1).expand_as(x)

    network = Scaled()
    model = Denoiser(network, schedule, parameterizations.clean, Time())
    t = torch.full((4,), 0.75, dtype=torch.float64)
    ConsistencyDistillation(teacher_of("flow"), GRID, delta=1e6)(
        model, CLEAN, Condition(), NOISE, t
    ).sum().backward()
    weight = schedule.earliest / 0.25
    assert network.theta.grad is not None
    # The error is theta (t - s); of four items each.
    assert float(network.theta.grad) == pytest.approx(4 * weight * 2 * 0.5 * 0.25 * 0.75, rel=1e-5)


# --- Both ---

OBJECTIVES = [
    ProgressiveDistillation(teacher_of("vpsde"), GRID),
    ConsistencyDistillation(teacher_of("vpsde"), GRID),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda part: type(part).__name__)
def test_padding_does_not_count(objective: Any) -> None:
    schedule, lengths = SCHEDULES["vpsde"], torch.tensor([6, 3, 1, 2])
    padding = (torch.arange(6) >= lengths[:, None])[:, None]

    def student(x: Tensor, t: Tensor, shift: float = 0.0) -> Tensor:
        return gaussian(schedule, 0.2)(x, t) + shift * padding

    plain = loss_of(objective, student, schedule, Condition(frames=lengths))
    moved = loss_of(objective, lambda x, t: student(x, t, 50.0), schedule, Condition(frames=lengths))
    torch.testing.assert_close(moved, plain, rtol=0, atol=0)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda part: type(part).__name__)
def test_a_time_off_the_grid_is_refused(objective: Any) -> None:
    model = denoiser_of(gaussian(SCHEDULES["vpsde"]), SCHEDULES["vpsde"])
    with pytest.raises(InputError, match="t is not on the objective's grid; train with times GridTimes"):
        objective(model, CLEAN, Condition(), NOISE, T - 0.01)


def test_times_of_the_grid_are_accepted_and_followed_by_the_next() -> None:
    schedule = SCHEDULES["table"]
    grid = UniformGrid(7)
    times = GridTimes(grid)(50, schedule, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        next_time(grid(schedule), times), (times - 1 / 7).clamp(min=0), rtol=0, atol=1e-12
    )


@every_schedule
def test_ddim_of_a_batch_is_the_sampler_step_of_each_item(kind: str) -> None:
    schedule = SCHEDULES[kind]
    x = diffuse(schedule, CLEAN, NOISE, T)
    together = move(schedule, x, gaussian(schedule)(x, T), T, S)
    for i in range(4):
        alone, _ = DDIM()(gaussian(schedule), schedule, x[i : i + 1], T[i], S[i], None, lambda: x)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["progressive", "consistency"])
def test_recipes_of_distillation_instantiate(name: str) -> None:
    node = yaml.safe_load((recipes_folder() / "objective" / f"{name}.yaml").read_text())
    assert node.pop("teacher")["_target_"] == "audiodiff.training.teacher.Teacher"
    assert node.pop("grid").endswith("grid}")
    part = instantiate(node | {"_partial_": True})(teacher=teacher_of("vpsde"), grid=GRID)
    assert bool(loss_of(part, gaussian(SCHEDULES["vpsde"]), SCHEDULES["vpsde"]).isfinite().all())


def test_no_substep_is_refused() -> None:
    with pytest.raises(InputError, match="substeps: got 0"):
        ProgressiveDistillation(teacher_of("flow"), GRID, 0)
