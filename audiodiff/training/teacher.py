"""The teacher of a distillation: a saved model, guided as it samples, that is never trained.

It looks at the student's x under the student's condition, so it must agree with the student about both: the same
statistics and the same conditioner, which the student therefore takes over and keeps (`init`, `training.freeze`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from audiodiff.conditioning.label import Labels
from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.guidance import Guidance, guided
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, load
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

    def check(self, student: AudioDiffusion) -> None:
        """Refuses a student whose x or condition would mean something else to the teacher.

        Raises:
            InputError: statistics or conditioner weights that are not the teacher's, or a conditioner in training.
        """
        for part in ("representation", "conditioner"):
            ours, theirs = (getattr(model, part).state_dict() for model in (student, self.model))
            differing = sorted(ours.keys() ^ theirs.keys())
            differing += [
                name
                for name in ours
                if name in theirs and not torch.equal(ours[name].cpu(), theirs[name].cpu())
            ]
            if differing:
                raise InputError(
                    f"teacher: its {part} is not the student's ({', '.join(differing[:4])}), so it would misunderstand "
                    "what the student shows it; start the student from the teacher with init=FOLDER"
                )
        trained = [name for name, weight in student.conditioner.named_parameters() if weight.requires_grad]  # type: ignore[attr-defined]
        if trained:
            raise InputError(
                f"teacher: the student's conditioner is trained ({trained[0]}) and would grow away from the teacher's; "
                "keep it with training.freeze=[conditioner]"
            )

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
