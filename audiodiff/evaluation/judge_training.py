"""Trains a judge on the train split, chooses the best weights on the dev split, tests once on the test split.

Cross entropy with AdamW and a one-cycle learning rate. Every clip comes with silence of random length before
and after it, half of them with white noise, so that samples that are noisy or placed otherwise than the
recordings are still judged by what they say.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from audiodiff.data.manifests import label_of, label_values
from audiodiff.data.order import SegmentBatchSampler
from audiodiff.data.problems import refuse_unreadable
from audiodiff.data.segments import SegmentDataset, read_cut, training_loader
from audiodiff.errors import InputError
from audiodiff.evaluation.judge import BATCH, Judge, judge_mel
from audiodiff.progress import track

if TYPE_CHECKING:
    from lhotse.cut import Cut

LONGEST_SECONDS = 4.0  # longer training clips are cropped at random
SHIFT_SECONDS, PADDING_SECONDS = 0.1, 0.3
NOISE_DB = (-60.0, -5.0)  # of the added noise, relative to the clip
CACHE_MEGABYTES = 1000.0
CHECKS = 10  # how often the dev split is looked at


@dataclass(frozen=True)
class JudgeTraining:
    """How long and how fast a judge learns.

    Attributes:
        updates: optimizer updates.
        batch_size: clips per update.
        learning_rate: highest of the cycle.
        weight_decay: of AdamW.
    """

    updates: int = 400
    batch_size: int = BATCH
    learning_rate: float = 3e-3
    weight_decay: float = 0.01


def train_judge(
    train: Sequence[Cut],
    dev: Sequence[Cut],
    label: str,
    seed: int,
    options: JudgeTraining,
    show: bool = False,
) -> Judge:
    """Returns a trained judge in evaluation mode; the same arguments give the same judge.

    Args:
        train: clips to learn from, mono, of one sample rate.
        dev: clips that choose the best weights.
        label: which label of the clips.
        seed: of weights, order and augmentation.
        options: length and speed.
        show: a progress bar on the terminal.

    Raises:
        InputError: no such label, values in dev that train lacks, mixed rates, more than one channel.
    """
    names = label_values(train, label)
    truth = class_numbers(dev, label, names)
    rate = int(train[0].sampling_rate)
    dataset = SegmentDataset(train, rate, 1, (label,), CACHE_MEGABYTES)
    segment = int(LONGEST_SECONDS * rate)
    sampler = SegmentBatchSampler(dataset.lengths, segment, min(options.batch_size, len(train)), seed)
    batches = zip(range(1, options.updates + 1), training_loader(dataset, sampler, 0), strict=False)
    generator = torch.Generator().manual_seed(seed)
    began = time.monotonic()
    problems: set[str] = set()
    # Weights and dropout draw from the global generator; its state is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(label, names, judge_mel(rate))
        optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=options.weight_decay)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, options.updates)
        best, weights = -1.0, judge.state_dict()
        for update, batch in track(batches, "judge", options.updates, show):
            assert batch.waveform is not None
            problems |= set(batch.problems)
            refuse_unreadable(len(problems), len(train), sorted(problems))
            judge.train()
            heard = augment(batch.waveform[:, 0], batch.lengths, rate, generator)
            targets = torch.tensor([names.index(name) for name in batch.labels[label]])
            loss = nn.functional.cross_entropy(judge(*heard), targets, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            if update % max(options.updates // CHECKS, 1) == 0 or update == options.updates:
                accuracy = _accuracy(hear(judge.eval(), dev), truth)
                if accuracy >= best:
                    best, weights = accuracy, copy.deepcopy(judge.state_dict())
    judge.load_state_dict(weights)
    judge.facts = asdict(options) | {
        "seed": seed,
        "train_clips": len(train),
        "dev_clips": len(dev),
        "dev_accuracy": best,
        "unreadable": sorted(problems),
        "train_seconds": round(time.monotonic() - began, 1),
    }
    return judge.eval()


def augment(
    waveform: Tensor, lengths: Tensor, sample_rate: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns waveform [B, T'] and lengths [B] with random silence around each clip, and noise in half.

    Args:
        waveform: [B, T], zero beyond the lengths.
        lengths: [B], samples.
        sample_rate: Hz.
        generator: source of everything random.
    """
    batch = waveform.shape[0]

    def uniform() -> Tensor:
        return torch.rand(batch, generator=generator)

    shift = (uniform() * SHIFT_SECONDS * sample_rate).long()
    longer = lengths + shift + (uniform() * PADDING_SECONDS * sample_rate).long()
    positions = torch.arange(int(longer.max())) - shift[:, None]
    inside = (positions >= 0) & (positions < lengths[:, None])
    moved = waveform.gather(1, positions.clamp(0, waveform.shape[1] - 1)) * inside
    low, high = NOISE_DB
    decibels = low + (high - low) * uniform()
    level = (waveform.square().sum(1) / lengths).sqrt() * 10 ** (decibels / 20) * (uniform() < 0.5)
    noise = torch.randn(moved.shape, generator=generator) * level[:, None]
    return moved + noise * (torch.arange(moved.shape[1]) < longer[:, None]), longer


def examine_judge(judge: Judge, cuts: Sequence[Cut], show: bool = False) -> np.ndarray:
    """Adds the accuracy on clips that were never trained on to `judge.facts`; returns the confusion matrix.

    Also noted is how different the clips of one class are, which tells later whether generated ones are as
    diverse.

    Args:
        judge: a trained judge.
        cuts: the test split.
        show: a progress bar on the terminal.

    Returns:
        [N, N] counts, true class in rows, recognised class in columns.

    Raises:
        InputError: a clip has no such label or a value that the judge does not know.
    """
    truth = class_numbers(cuts, judge.label, judge.names)
    probabilities = hear(judge, cuts, show)
    matrix = confusion(truth, probabilities.argmax(-1), len(judge.names))
    waveforms = [read_cut(cut, 0, cut.num_samples) for cut in cuts]
    judge.facts |= {
        "test_clips": len(cuts),
        "test_accuracy": _accuracy(probabilities, truth),
        "test_confusion": matrix.tolist(),
        "test_spread": spread(judge.describe(waveforms), truth),
    }
    return matrix


def hear(judge: Judge, cuts: Sequence[Cut], show: bool = False) -> Tensor:
    """Returns the probabilities [B, N] of cuts at the judge's sample rate, read a batch at a time."""
    starts = range(0, len(cuts), BATCH)
    results = []
    for start in track(starts, "listening", len(starts), show):
        part = cuts[start : start + BATCH]
        for cut in part:
            if cut.sampling_rate != judge.sample_rate or cut.num_channels != 1:
                raise InputError(
                    f"cut {cut.id}: {cut.sampling_rate} Hz, {cut.num_channels} channel(s); the judge hears "
                    f"{judge.sample_rate} Hz mono; prepare with --sample-rate {judge.sample_rate} --mono"
                )
        results.append(judge.predict([read_cut(cut, 0, cut.num_samples) for cut in part]))
    return torch.cat(results)


def class_numbers(cuts: Sequence[Cut], label: str, names: Sequence[str]) -> Tensor:
    """Returns the class [B] of each cut.

    Raises:
        InputError: a cut has no such label, or a value outside `names`.
    """
    values = [label_of(cut, label) for cut in cuts]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise InputError(
            f"label {label!r}: the values {', '.join(unknown)} do not occur in training; "
            f"known are {', '.join(names)}"
        )
    return torch.tensor([names.index(value) for value in values])


def confusion(truth: Tensor, recognised: Tensor, classes: int) -> np.ndarray:
    """Returns the counts [N, N], true class in rows, recognised class in columns."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (truth.numpy(), recognised.numpy()), 1)
    return matrix


def spread(features: Tensor, classes: Tensor) -> float | None:
    """Returns the mean distance between features [B, D] of two different clips of one class [B].

    Averaged over the classes that have at least two clips; None when there is none.
    """
    distances = []
    for number in classes.unique():
        group = features[classes == number]
        if len(group) > 1:
            distances.append(float(torch.pdist(group).mean()))
    return float(np.mean(distances)) if distances else None


def _accuracy(probabilities: Tensor, truth: Tensor) -> float:
    return float((probabilities.argmax(-1) == truth).double().mean())
