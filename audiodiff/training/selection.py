"""Which checkpoint is the best so far, by validation loss or by a metric of what it synthesizes; kept apart.

`RUN/checkpoints/best` is a model folder, written whole whenever a look finds a better one and never pruned. What it
was chosen by stands in its training.json under `selected`, which is how a run that goes on knows it again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from audiodiff.conditioning.mel import heard
from audiodiff.errors import InputError
from audiodiff.evaluation.metrics import Metric, NotMeasurable, load_metrics
from audiodiff.files import write_whole, writing_folder
from audiodiff.model import FACTS, AudioDiffusion
from audiodiff.training.heartbeat import read_json

VALIDATION_LOSS = "validation_loss"
LAST, BEST = "last", "best"


class Selection:
    """The best model so far of one run.

    Attributes:
        name: validation_loss or the key of a metric.
        metric: None for the validation loss.
        best: `name`, `value` and `update` of the best so far; None before the first look.
    """

    def __init__(self, run: Path, name: str) -> None:
        """Finds the best of a run that goes on, if it was chosen by the same.

        Raises:
            InputError: no such metric.
        """
        self.name = name
        self.metric = None if name == VALIDATION_LOSS else _metric(name)
        self.folder = run / "checkpoints" / BEST
        found = (read_json(self.folder / FACTS) or {}).get("selected")
        self.best: dict[str, Any] | None = found if found and found["name"] == name else None

    def better(self, value: float) -> bool:
        """Returns whether a value is the best so far; NaN never is."""
        if not np.isfinite(value):
            return False
        if self.best is None:
            return True
        higher = self.metric is not None and self.metric.better == "higher"
        return value > self.best["value"] if higher else value < self.best["value"]

    def keep(self, model: AudioDiffusion, value: float, update: int, texts: dict[str, Any]) -> None:
        """Writes a model as the best so far.

        Args:
            model: as it is saved.
            value: of the loss or metric.
            update: that it is of.
            texts: `recipe`, `facts` and `card` of AudioDiffusion.write.

        Raises:
            InputError: the disk is full or the place cannot be written; the best before stays.
        """
        best = {"name": self.name, "value": value, "update": update}
        with writing_folder(self.folder) as draft:
            model.write(draft, texts["recipe"], texts["facts"] | {"selected": best}, texts["card"])
        self.best = best


def check_selection(settings: dict[str, Any], model: AudioDiffusion, adapted: bool) -> None:
    """Refuses a choice that would mean nothing.

    Args:
        settings: the recipe's training node.
        model: to be trained.
        adapted: whether through an adapter.

    Raises:
        InputError: no such metric, a metric for a model that is not told the recording, or no such end.
    """
    name, end = settings["select_by"], settings["finish_with"]
    if name != VALIDATION_LOSS:
        _metric(name)
        if heard(model.conditioner) is None:
            raise InputError(
                f"training.select_by: {name} compares a sound with the recording whose mel it is made from, and this "
                "model is told no mel; choose by validation_loss"
            )
    if end not in (LAST, BEST):
        raise InputError(f"training.finish_with: got {end!r}, expected {LAST} or {BEST}")
    if end == BEST and adapted:
        raise InputError(
            "training.finish_with: best is not kept as an adapter; finish with last, the best model is in "
            "checkpoints/best"
        )


def score(
    metric: Metric, references: Sequence[Tensor], estimates: Sequence[Tensor], sample_rate: int
) -> float | None:
    """Returns the mean of a metric over clips and channels; None if no clip can be measured.

    Args:
        metric: of pairs of signals.
        references: the recordings [C, T].
        estimates: what was made of them [C, T].
        sample_rate: Hz.
    """
    values = []
    for reference, estimate in zip(references, estimates, strict=True):
        for clean, made in zip(reference.cpu().numpy(), estimate.cpu().numpy(), strict=True):
            try:
                values.append(metric.function(clean, made, sample_rate))
            except NotMeasurable:
                continue
    return float(np.mean(values)) if values else None


def finish_with_best(run: Path, model: Path, facts: dict[str, Any]) -> None:
    """Makes the best model the finished one.

    Args:
        run: the run folder; a run whose looks found none (no finite value) has no best, and its last model stays.
        model: folder of the finished model, replaced whole.
        facts: of the whole training, kept beside those of the best.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    best = run / "checkpoints" / BEST
    known = read_json(best / FACTS)
    if known is None:
        return
    with writing_folder(model) as draft:
        shutil.copytree(best, draft, dirs_exist_ok=True)
        merged = facts | known | {"finished_with": BEST, "trained_updates": facts["updates"]}
        write_whole({draft / FACTS: (json.dumps(merged, indent=2) + "\n").encode()})


def _metric(name: str) -> Metric:
    metrics = {metric.key: metric for metric in load_metrics()}
    if name not in metrics:
        known = ", ".join([VALIDATION_LOSS, *metrics])
        raise InputError(f"training.select_by: got {name!r}, expected one of {known}")
    return metrics[name]
