"""The teacher of a distillation: a saved model, guided as it samples, that is never trained."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from audiodiff.conditioning.label import Labels
from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.guidance import Guidance, guided
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.errors import InputError
from audiodiff.model import load
from audiodiff.types import Batch, Condition


class Teacher:
    """Binds conditions of the student's conditioner, which must be the teacher's, frozen."""

    def __init__(self, folder: str | None, guidance: float | None = None) -> None:
        """Loads the model.

        Args:
            folder: a model folder, or the run folder that holds it.
            guidance: scale of its guidance; None for that which it was saved with.

        Raises:
            InputError: no model there, or guidance of a model that is told no labels.
        """
        if folder is None:
            raise InputError(
                "this objective learns from a teacher; name its model folder with teacher=FOLDER"
            )
        self.model = load(folder).requires_grad_(False)
        own = self.model.steering.guidance
        self.guidance: Guidance = own if guidance is None else replace(own, scale=guidance)
        self._labels = next((part for part in self.model.modules() if isinstance(part, Labels)), None)
        if self.guidance.scale != 1 and self._labels is None:
            raise InputError(
                f"teacher {folder}: guidance {self.guidance.scale} of a model that is told no labels"
            )

    @property
    def schedule(self) -> NoiseSchedule:
        """The teacher's schedule."""
        return self.model.denoiser.schedule

    def bind(self, condition: Condition) -> Denoise:
        """Returns (x, t) -> clean, guided; the model follows x to its device."""
        bound: list[Denoise] = []

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            if not bound:
                self.model.to(x.device)
                bound.append(self._guided(condition, x.shape[0]))
            return bound[0](x, t)

        return denoise

    def _guided(self, condition: Condition, size: int) -> Denoise:
        denoiser = self.model.denoiser
        if self.guidance.scale == 1 or self._labels is None:
            return denoiser.bind(condition)
        nothing = self._labels.null(Batch(waveform=None, lengths=torch.ones(size, dtype=torch.int64))).vector
        return guided(
            denoiser.bind(condition), denoiser.bind(replace(condition, vector=nothing)), self.guidance
        )
