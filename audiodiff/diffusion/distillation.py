"""Objectives with a teacher: a student that needs fewer steps than the model it learned from.

Progressive distillation (Salimans and Ho 2022, algorithm 2): one student step lands where two or more teacher
steps land. Consistency distillation (Song et al. 2023, algorithm 2): the student's estimate is the same all
along the teacher's probability flow. The teacher is a Denoiser, or anything that binds a condition, so it may
itself be guided; the student then needs no guidance. Student and teacher share their conditioner, which is
therefore frozen in these trainings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise, Denoiser
from audiodiff.diffusion.objectives import masked_mean, pseudo_huber
from audiodiff.diffusion.process import diffuse, expand
from audiodiff.diffusion.samplers import move
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.times import Grid
from audiodiff.errors import InputError
from audiodiff.types import Condition


class Teacher(Protocol):
    """What distillation needs of a teacher."""

    schedule: NoiseSchedule

    def bind(self, condition: Condition) -> Denoise:
        """Returns (x, t) -> clean for a condition of the student's conditioner."""
        ...


@dataclass(frozen=True)
class ProgressiveDistillation:
    """The student's DDIM step from t to s lands where `substeps` steps of the teacher land.

    The error is that of x_s, so every step counts by what it does to the sample. The paper's own loss weighs the
    clean estimate instead, which for a noise prediction lets the step from pure noise drown all others.

    Attributes:
        teacher: its schedule must be the student's.
        grid: the student's times; training needs the density GridTimes of the same grid.
        substeps: teacher steps within a student step, evenly spaced in t.
    """

    teacher: Teacher
    grid: Grid
    substeps: int = 2

    def __post_init__(self) -> None:
        if self.substeps < 1:
            raise InputError(f"substeps: got {self.substeps}, expected 1 or more")

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Returns the loss [B]; t [B] on the grid."""
        schedule = denoiser.schedule
        x_t = diffuse(schedule, clean, noise, t)
        s = next_time(self.grid(schedule), t)
        with torch.no_grad():
            teach, x = self.teacher.bind(condition), x_t
            for part in range(self.substeps):
                u, v = (t + (s - t) * (part + i) / self.substeps for i in (0, 1))
                x = move(schedule, x, teach(x, u), u, v)
        landed = move(schedule, x_t, denoiser(x_t, t, condition), t, s)
        return masked_mean((landed - x).float().square(), condition.mask(clean))


@dataclass(frozen=True)
class ConsistencyDistillation:
    """The student's estimate at t equals its own at the next time of the teacher's flow, without gradient there.

    The student must be the identity where there is no noise, as epsilon, velocity, flow and edm predictions are.

    Attributes:
        teacher: its schedule must be the student's.
        grid: times between which the teacher makes one DDIM step; training needs GridTimes of the same grid.
        delta: of the pseudo-Huber distance (Song and Dhariwal 2024, section 3.3), per position.
    """

    teacher: Teacher
    grid: Grid
    delta: float = 0.03

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Condition, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Returns the loss [B]; t [B] on the grid."""
        schedule = denoiser.schedule
        x_t = diffuse(schedule, clean, noise, t)
        s = next_time(self.grid(schedule), t)
        with torch.no_grad():
            x_s = move(schedule, x_t, self.teacher.bind(condition)(x_t, t), t, s)
            ended = expand(s, x_t) <= 0
            # Where it ended there is no level to ask at; any will do.
            reached = torch.where(ended, x_s, denoiser(x_s, torch.where(s > 0, s, t), condition))
        error = denoiser(x_t, t, condition).float() - reached.float()
        # Near steps differ little; over their distance in t all levels count alike.
        weight = (schedule.earliest / (t - s)).clamp(max=1)
        return masked_mean(expand(weight, error) * pseudo_huber(error, self.delta), condition.mask(clean))


def next_time(times: Tensor, t: Tensor) -> Tensor:
    """Returns for each t [B] the next time below it on a grid.

    Raises:
        InputError: a t that is none of the grid's times.
    """
    times = times.to(t.device)
    distance, index = (times[:-1] - t[:, None]).abs().min(dim=1)
    if bool((distance > 1e-9).any()):
        raise InputError(
            "distillation: t is not on the objective's grid; train with times GridTimes of the same grid"
        )
    return times[index + 1]
