"""From items to files: sounds are made in batches, heard by the filters, and those that pass are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audiodiff.diffusion.samplers import Sampler
from audiodiff.evaluation.augmentation.attempts import Attempt, Attempts, Progress
from audiodiff.evaluation.augmentation.cells import Cell, Draw, Drawn
from audiodiff.evaluation.augmentation.filters import Filters, Verdict
from audiodiff.model import AudioDiffusion, Steering
from audiodiff.progress import progress_bar
from audiodiff.synthesis.generation import file_name
from audiodiff.synthesis.samples import Sample, write_sample
from audiodiff.types import Batch


@dataclass(frozen=True)
class Manner:
    """How sounds are made.

    Attributes:
        sampler: as asked for.
        steering: guidance.
        seed: of the noise.
        batch: sounds at a time.
        samples: length of every sound; None: that of the training clip that is drawn.
    """

    sampler: Sampler
    steering: Steering
    seed: int
    batch: int
    samples: int | None


@dataclass(frozen=True)
class Maker:
    """Makes sounds of given items and asks the filters about them.

    Attributes:
        model: is told labels.
        manner: how.
        draw: says what an item is asked to be.
        filters: which are kept.
        label: name of the class; None where there is none.
        audio: folder of the files.
    """

    model: AudioDiffusion
    manner: Manner
    draw: Draw
    filters: Filters
    label: str | None
    audio: Path

    def work(self, attempts: Attempts, cells: Sequence[Cell], limit: int) -> Progress:
        """Makes sounds until nothing is missing or no attempt is left.

        Args:
            attempts: those of earlier runs; new ones are added.
            cells: what is wanted.
            limit: attempts at most, for each sound that is wanted.
        """
        with progress_bar() as bar:
            task = bar.add_task("augment", total=sum(cell.wanted for cell in cells))
            while True:
                progress = attempts.progress(cells, limit)
                bar.update(task, completed=progress.done)
                if not progress.missing:
                    return progress
                # Short ones first: a batch costs as much as if all were as long as its longest.
                drawn = sorted(
                    (self.draw(item, self.manner.samples) for item in progress.missing),
                    key=lambda each: (each.samples, each.item),
                )
                for first in range(0, len(drawn), self.manner.batch):
                    new = self.make(drawn[first : first + self.manner.batch])
                    attempts.add(new)
                    bar.advance(task, sum(not attempt.verdict.reason for attempt in new))

    def make(self, drawn: Sequence[Drawn]) -> list[Attempt]:
        """Returns the attempts of a batch, after writing the files of those that are kept.

        Raises:
            InputError: a file cannot be written.
            FloatingPointError: the model gave a number that is not finite.
        """
        batch = Batch(
            waveform=None,
            lengths=torch.tensor([each.samples for each in drawn]),
            labels={name: tuple(each.labels[name] for each in drawn) for name in self.model.labels},
        )
        items = [each.item for each in drawn]
        manner = self.manner
        made = self.model.synthesize(batch, manner.sampler, manner.seed, items, manner.steering)
        waveforms = [waveform.cpu() for waveform in made]
        classes = ["" if self.label is None else each.labels[self.label] for each in drawn]
        verdicts = self.filters(waveforms, classes)
        return [self._attempt(*each) for each in zip(drawn, waveforms, verdicts, strict=True)]

    def _attempt(self, drawn: Drawn, waveform: Tensor, verdict: Verdict) -> Attempt:
        if verdict.reason:
            return Attempt(drawn.item, drawn.labels, waveform.shape[-1], verdict)
        sample = Sample(file_name(drawn.labels, drawn.item), drawn.labels)
        sample = write_sample(self.audio, sample, waveform, self.model.sample_rate)
        return Attempt(drawn.item, drawn.labels, waveform.shape[-1], verdict, sample.file, sample.clipped)
