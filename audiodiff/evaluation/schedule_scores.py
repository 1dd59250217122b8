"""What a sampler is worth on some clips: the number that a schedule search makes better.

- trajectory: the mean squared difference of the result from what the model itself makes of the same starting
  noise in 100 DDIM steps without new noise (Song et al. 2021, eq. 12). It is taken in the coordinates that are
  diffused, whose variance is about 1, and needs no recording.
- any metric of `evaluation.metrics`, between the clips and what a model that hears a mel makes of their mels, as
  sampled: no waveform is moved to its mel afterwards, which would hide what the sampler does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from audiodiff.conditioning.mel import heard
from audiodiff.data.collate import collate
from audiodiff.data.manifests import load_cuts
from audiodiff.data.order import fixed_requests
from audiodiff.data.segments import SegmentDataset
from audiodiff.diffusion.data_space import in_data_space
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.priors import color
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.evaluation.metrics import Metric, NotMeasurable, load_metrics
from audiodiff.model import AudioDiffusion
from audiodiff.types import Batch

TRAJECTORY = "trajectory"
DEFAULT_METRIC = "lsd"
REFERENCE_STEPS = 100


@dataclass(frozen=True)
class Clips:
    """Some clips of a prepared corpus.

    Attributes:
        batches: at least one; with waveforms for a model that hears a mel, else lengths and labels alone.
    """

    batches: tuple[Batch, ...]

    @property
    def ids(self) -> list[str]:
        """Names of the clips."""
        return [name for batch in self.batches for name in batch.ids]

    def numbered(self) -> list[tuple[Batch, range]]:
        """Returns each batch with the numbers of its clips, which key their noise."""
        ends = np.cumsum([batch.size for batch in self.batches]).tolist()
        return [(batch, range(end - batch.size, end)) for batch, end in zip(self.batches, ends, strict=True)]


@dataclass(frozen=True)
class Draws:
    """Noise that a score is averaged over.

    Attributes:
        seed: of the first draw.
        count: draws per clip, of the seeds from `seed` on.
    """

    seed: int = 0
    count: int = 1

    @property
    def seeds(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.count)


@dataclass(frozen=True)
class Scale:
    """What a score means.

    Attributes:
        key: as `--score` names it.
        name: heading in tables.
        unit: of its values; empty when it has none.
        better: "higher" or "lower".
    """

    key: str
    name: str
    unit: str
    better: str

    def cost(self, values: Sequence[float]) -> float:
        """Returns what a search makes smaller; infinite when a clip has no value."""
        mean = math.fsum(values) / len(values)
        return math.inf if math.isnan(mean) else mean if self.better == "lower" else -mean

    def mean(self, cost: float) -> float:
        """Returns the mean value that a cost stands for."""
        return cost if self.better == "lower" else -cost


class Score(Protocol):
    """Sampler -> one value per clip, NaN where the result has none."""

    @property
    def clips(self) -> Clips:
        """The clips that are scored."""
        ...

    @property
    def scale(self) -> Scale:
        """What the values mean."""
        ...

    def __call__(self, sampler: Sampler) -> list[float]:
        """Returns one value per clip."""
        ...


def hears_mel(model: AudioDiffusion) -> bool:
    """Returns whether a model is conditioned on a mel."""
    return heard(model.conditioner) is not None


def read_clips(
    manifest: Path, model: AudioDiffusion, count: int, seconds: float, batch: int, seed: int
) -> Clips:
    """Returns some clips of a manifest, drawn by a seed.

    Args:
        manifest: a split of a prepared corpus.
        model: tells rate, channels and labels.
        count: clips; all when the manifest has less.
        seconds: the middle of a longer clip is taken.
        batch: clips per batch.
        seed: of the choice.

    Raises:
        InputError: no manifest, audio that cannot be read or does not fit the model, a clip without a label
            that the model is told.
    """
    cuts = load_cuts(manifest)
    picks = np.random.default_rng(seed).permutation(len(cuts))[:count]
    # Clips of like length share a batch; the id decides among equals.
    chosen = sorted((cuts[pick] for pick in picks), key=lambda cut: (cut.num_samples, cut.id))
    representation = model.representation
    dataset = SegmentDataset(chosen, model.sample_rate, representation.channels, tuple(model.labels))
    items = [
        dataset[request] for request in fixed_requests(dataset.lengths, round(seconds * model.sample_rate))
    ]
    batches = [collate(items[first : first + batch]) for first in range(0, len(items), batch)]
    if not hears_mel(model):
        batches = [Batch(None, part.lengths, part.labels, ids=part.ids) for part in batches]
    return Clips(tuple(batches))


def make_score(name: str | None, model: AudioDiffusion, clips: Clips, draws: Draws) -> Score:
    """Returns the score of that name on some clips.

    Args:
        name: "trajectory" or a metric; None for the log-spectral distance if the model hears a mel, else the
            trajectory.
        model: the model.
        clips: what it is asked for.
        draws: the noise.

    Raises:
        InputError: unknown name, a metric for a model that hears no mel, clips that have no such score.
    """
    mel = hears_mel(model)
    metrics = {metric.key: metric for metric in load_metrics()}
    wanted = name or (DEFAULT_METRIC if mel else TRAJECTORY)
    if wanted == TRAJECTORY:
        return TrajectoryScore(model, clips, draws)
    if wanted not in metrics:
        raise InputError(f"--score {wanted}: unknown; choose one of {', '.join([TRAJECTORY, *metrics])}")
    if not mel:
        raise InputError(
            f"--score {wanted}: compares with a recording, but this model hears no mel, so what it makes has none; "
            f"choose --score {TRAJECTORY}"
        )
    return MetricScore(model, measurable(clips, metrics[wanted], model.sample_rate), draws, metrics[wanted])


def measurable(clips: Clips, metric: Metric, sample_rate: int) -> Clips:
    """Returns the clips that a metric can measure at all: those that it can compare with themselves.

    Raises:
        InputError: there is none.
    """
    kept, reason = [], ""
    for batch in clips.batches:
        rows = []
        for row, waveform in enumerate(_rows(batch)):
            try:
                _compare(metric, waveform, waveform, sample_rate)
                rows.append(row)
            except NotMeasurable as error:
                reason = str(error)
        if rows:
            kept.append(_picked(batch, rows))
    if not kept:
        raise InputError(
            f"--score {metric.key}: none of the {len(clips.ids)} clips has a value ({reason}); choose another score, "
            "more clips or longer ones"
        )
    return Clips(tuple(kept))


@dataclass(frozen=True)
class MetricScore:
    """A metric between the clips and their resynthesis.

    Attributes:
        model: hears a mel.
        clips: with waveforms.
        draws: the noise.
        metric: the metric.
    """

    model: AudioDiffusion
    clips: Clips
    draws: Draws
    metric: Metric

    @property
    def scale(self) -> Scale:
        """That of the metric."""
        return Scale(self.metric.key, self.metric.name, self.metric.unit, self.metric.better)

    def __call__(self, sampler: Sampler) -> list[float]:
        """Returns the metric of each clip, its mean over the draws; NaN where the resynthesis has none."""
        steering = self.model.steering
        values = np.zeros((self.draws.count, len(self.clips.ids)))
        for row, seed in zip(values, self.draws.seeds, strict=True):
            for batch, items in self.clips.numbered():
                try:
                    made = self.model.synthesize(batch.to(self.model.device), sampler, seed, items, steering)
                except FloatingPointError:
                    row[items.start : items.stop] = math.nan
                    continue
                for item, reference, waveform in zip(items, _rows(batch), made, strict=True):
                    row[item] = self._value(reference, waveform.cpu().numpy())
        return [float(value) for value in values.mean(axis=0)]

    def _value(self, reference: np.ndarray, estimate: np.ndarray) -> float:
        try:
            return _compare(self.metric, reference, estimate, self.model.sample_rate)
        except NotMeasurable:
            return math.nan


@dataclass(frozen=True)
class TrajectoryScore:
    """Distance of the result from the model's own result in many steps without new noise.

    Attributes:
        model: any model.
        clips: tell lengths, labels and mels.
        draws: the starting noise.
    """

    model: AudioDiffusion
    clips: Clips
    draws: Draws

    @property
    def scale(self) -> Scale:
        """Mean square, in units of the variance of what is diffused."""
        return Scale(TRAJECTORY, "Trajectory error", "", "lower")

    @cached_property
    def references(self) -> list[Tensor]:
        """The result in many steps of each draw and batch."""
        sampler = Sampler(DDIM(), UniformGrid(REFERENCE_STEPS))
        return [
            final_state(self.model, batch, sampler, seed, items)[0]
            for seed in self.draws.seeds
            for batch, items in self.clips.numbered()
        ]

    def __call__(self, sampler: Sampler) -> list[float]:
        """Returns the mean squared difference of each clip, its mean over the draws; NaN where it is not finite.

        Raises:
            InputError: a sampler that draws new noise, which leaves the trajectory by intent.
        """
        values = np.zeros((self.draws.count, len(self.clips.ids)))
        pairs = [
            (row, seed, part) for row, seed in enumerate(self.draws.seeds) for part in self.clips.numbered()
        ]
        for number, (row, seed, (batch, items)) in enumerate(pairs):
            try:
                state, mask = final_state(self.model, batch, sampler, seed, items)
                squared = (state - self.references[number]).square() * mask
                means = squared.sum((1, 2)) / (mask.sum((1, 2)) * state.shape[1])
                values[row, items.start : items.stop] = means.double().cpu().numpy()
            except FloatingPointError:
                values[row, items.start : items.stop] = math.nan
        return [float(value) for value in values.mean(axis=0)]


def final_state(
    model: AudioDiffusion, batch: Batch, sampler: Sampler, seed: int, items: range
) -> tuple[Tensor, Tensor]:
    """Returns what sampling ends with before it becomes audio [B, C, F], and 1 at its valid positions [B, 1, F].

    Raises:
        InputError: the sampler draws new noise.
        FloatingPointError: x stopped being finite.
    """
    noise = KeyedNoise(seed, items)
    shape = (batch.size, *model.representation.shape(int(batch.lengths.max())))
    schedule = model.denoiser.schedule

    def refuse(step: int, draw: int) -> Tensor:
        raise InputError(
            f"--score {TRAJECTORY}: {type(sampler.step).__name__} draws new noise in every step, so it follows no one "
            "trajectory; choose a deterministic sampler, such as --sampler ddim, or another score"
        )

    with torch.inference_mode():
        denoise, condition = model.bind(batch.to(model.device), model.steering)
        start = sampler.start(schedule, noise(0, shape, model.device))
        x = in_data_space(sampler, condition)(denoise, schedule, start, refuse)
        mask = condition.mask(x)
        return color(x, condition), torch.ones_like(x[:, :1]) if mask is None else mask


def _rows(batch: Batch) -> list[np.ndarray]:
    """Returns the waveforms [C, T] of a batch, each at its own length."""
    assert batch.waveform is not None
    return [w[:, :length].numpy() for w, length in zip(batch.waveform, batch.lengths.tolist(), strict=True)]


def _picked(batch: Batch, rows: Sequence[int]) -> Batch:
    assert batch.waveform is not None
    lengths = batch.lengths[list(rows)]
    labels = {name: tuple(values[row] for row in rows) for name, values in batch.labels.items()}
    waveform = batch.waveform[list(rows), :, : int(lengths.max())]
    return Batch(waveform, lengths, labels, ids=tuple(batch.ids[row] for row in rows))


def _compare(metric: Metric, reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Returns the metric of [C, T], channel by channel and averaged."""
    return float(
        np.mean([metric.function(r, e, sample_rate) for r, e in zip(reference, estimate, strict=True)])
    )
