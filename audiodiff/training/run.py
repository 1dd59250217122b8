"""Run: everything that one training run holds, and how it is put together before its first update.

What a run is can be read from three places: the recipe (what is trained, how), the prepared corpus (on what), and
its folder, in which statistics, checkpoints, log and finished model stand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from torch import nn
from torch.optim.swa_utils import AveragedModel

from audiodiff.data.collate import collate
from audiodiff.data.labels import check_labels
from audiodiff.data.order import Share, fixed_requests
from audiodiff.data.segments import Clips, SegmentDataset
from audiodiff.data.sequences import ClipSequences, Sequencing
from audiodiff.data.shards import open_clips
from audiodiff.diffusion.times import TimeDensity
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, build, instantiate
from audiodiff.training import checkpoint, statistics
from audiodiff.training.adapter import save_adapter
from audiodiff.training.allocator import keep_freed_memory
from audiodiff.training.batching import Batching, batching
from audiodiff.training.checkpoint import clean_up
from audiodiff.training.ema import averaged
from audiodiff.training.engine import LossScale, open_accelerator, shared
from audiodiff.training.given_mels import given_mels
from audiodiff.training.guards import Guard
from audiodiff.training.interruption import StopRequest
from audiodiff.training.intervals import check_intervals, due
from audiodiff.training.lora import low_rank, merged
from audiodiff.training.optimization import build_optimizer, learning_rate
from audiodiff.training.posthoc_ema import PowerAverages, power_averages
from audiodiff.training.receptive_field import short_sighted
from audiodiff.training.record import model_card, run_facts
from audiodiff.training.saved_autoencoder import adopt
from audiodiff.training.selection import BEST, finish_with_best
from audiodiff.training.start import start
from audiodiff.training.teacher import Teacher
from audiodiff.training.texts import TokensOf, front_end_of, transcribed
from audiodiff.training.updates import TrainingStep
from audiodiff.training.windows import window_frames

Segments = SegmentDataset | ClipSequences
SILENT = Console(quiet=True)
_AUGMENTATIONS = ("audiodiff.data.augmentation.", "audiodiff.data.relabelling.")


@dataclass
class Run:
    """Everything that one training run holds."""

    folder: Path
    recipe: dict[str, Any]
    accelerator: Accelerator
    step: nn.Module
    density: TimeDensity
    average: AveragedModel
    optimizer: Any
    learning_rate: Callable[[int], float]
    train_set: Segments
    dev_set: Segments
    batching: Batching
    longest: int
    guard: Guard
    facts: dict[str, Any]
    update: int = 0
    seconds: float = 0.0
    rollbacks: int = 0
    posthoc: PowerAverages | None = None
    scale: LossScale | None = None
    stop: StopRequest = field(default_factory=StopRequest)

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe's training node."""
        return self.recipe["training"]

    @property
    def segment_length(self) -> int:
        """Samples of a training segment."""
        return segment_length(self.recipe)

    @property
    def share(self) -> Share:
        """Which part of every update this process takes."""
        return self.batching.share(self.accelerator.process_index)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.accelerator.is_main_process

    @property
    def model(self) -> AudioDiffusion:
        """The model with its raw weights."""
        return self.accelerator.unwrap_model(self.step).model

    @property
    def averaged_model(self) -> AudioDiffusion:
        """The model with its averaged weights, the one that is validated."""
        model = self.average.module
        assert isinstance(model, AudioDiffusion)
        return model

    @property
    def finished_model(self) -> AudioDiffusion:
        """The averaged model as it is saved: an ordinary one, adapters added to the weights."""
        node = self.recipe["lora"]
        return self.averaged_model if node is None else merged(self.averaged_model, low_rank(node))

    def due(self, every: str) -> bool:
        """Returns whether something done every so many updates is due, as it always is at the end."""
        return due(self.update, every, self.settings)


def open_run(
    recipe: dict[str, Any], data_dir: Path | str, folder: Path, command: str, console: Console
) -> Run:
    """Builds model, data, optimizer and averages of a run that has not started.

    Raises:
        InputError: settings that are out of range, or that do not fit data, folder or number of processes.
    """
    settings = recipe["training"]
    check_intervals(settings)
    accelerator = open_accelerator(settings)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    guard = Guard(settings["patience"], settings["spike_deviations"])
    parts = batching(settings, recipe["data"]["segment_seconds"], accelerator.num_processes)
    with accelerator.main_process_first():  # which indexes the manifests that the others open
        told = console if accelerator.is_main_process else SILENT
        train_set, dev_set = (open_split(recipe, data_dir, split, told) for split in ("train", "dev"))
    if accelerator.is_main_process:
        clean_up(folder)
        console.print(parts.describe(recipe["data"]["segment_seconds"]), soft_wrap=True)
    accelerator.wait_for_everyone()
    resumed = checkpoint.newest(folder) is not None
    model, started = start_model(recipe, train_set, folder, resumed, accelerator, console)
    average = averaged(model.to(accelerator.device), settings["ema_decay"])
    posthoc = power_averages(settings["posthoc_ema"], model, recipe["lora"] is not None)
    if posthoc is not None and accelerator.is_main_process:
        console.print(posthoc.describe(settings["updates"]), soft_wrap=True)
    window = window_frames(model, settings["window_seconds"])
    step = TrainingStep(model, instantiate(recipe["objective"]), window)
    teacher = getattr(step.objective, "teacher", None)
    if isinstance(teacher, Teacher) and not resumed:
        teacher.check(model)
    if settings["compile"]:
        model.denoiser.network.compile()  # type: ignore[attr-defined]
    longest = min(segment_length(recipe), int(max(train_set.lengths.max(), dev_set.lengths.max())))
    facts = run_facts(recipe, command, train_set.clips.summary.seconds / 3600, accelerator) | started
    facts["processes"] = accelerator.num_processes
    if recipe["augmentation"] is not None:
        facts["augmentation"] = recipe["augmentation"]
    facts["median_seconds"] = round(float(np.median(train_set.lengths)) / recipe["data"]["sample_rate"], 3)
    sharing = shared(step, accelerator, settings["sharding"])
    return Run(
        folder=folder,
        recipe=recipe,
        accelerator=accelerator,
        step=sharing,
        density=instantiate(recipe["times"]),
        average=average,
        optimizer=build_optimizer(recipe["optimizer"], sharing, accelerator.device),
        learning_rate=learning_rate(recipe["optimizer"]["lr"], settings),
        train_set=train_set,
        dev_set=dev_set,
        batching=parts,
        longest=model.representation.shape(longest)[1],
        guard=guard,
        facts=facts,
        posthoc=posthoc,
        scale=LossScale() if settings["precision"] == "fp16" else None,
    )


def start_model(
    recipe: dict[str, Any],
    train_set: Segments,
    folder: Path,
    resumed: bool,
    accelerator: Accelerator,
    console: Console,
) -> tuple[AudioDiffusion, dict[str, Any]]:
    """Returns the model as training begins with it, the same on all ranks, and facts about where it comes from."""
    with torch.random.fork_rng():
        # Layers draw their initial weights from the global generator; it is given back as it was.
        torch.manual_seed(recipe["training"]["seed"])
        model = build(recipe)
    adopted = adopt(model, recipe.get("autoencoder"))
    told = console if accelerator.is_main_process else SILENT
    with accelerator.main_process_first():  # which measures the statistics that the others read
        measured = training_statistics(recipe, model, train_set, folder, told)
    statistics.apply(model, measured)
    started = start(model, recipe, resumed, told) | adopted
    warning = short_sighted(model, segment_length(recipe))
    if warning is not None:
        told.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    return model, started


def open_split(
    recipe: dict[str, Any], data_dir: Path | str, split: str, console: Console = SILENT
) -> Segments:
    """Returns the clips of one split of a prepared corpus or of its shards; those of "train" are augmented.

    A model that is told a text has those clips whose text it can learn from, or sequences that are put together.

    Args:
        recipe: resolved.
        data_dir: see `train`.
        split: "train", "dev" or "test".
        console: told which clips are left out.

    Raises:
        InputError: nothing there, or other labels, rate, channels or texts than the recipe's.
    """
    data, settings = recipe["data"], recipe["training"]
    training = split == "train"
    clips: Clips = open_clips(data_dir, split)
    if training:
        check_labels(clips.summary, data["labels"])
    augmented = training and recipe["augmentation"] is not None
    sequences = data.get("sequences")
    if sequences is None:
        clips = transcribed(clips, recipe, console)
    dataset = SegmentDataset(
        clips,
        data["sample_rate"],
        data["channels"],
        tuple(data["labels"]) if sequences is None else (sequences["of"], sequences["by"]),
        settings["cache_megabytes"],
        instantiate(recipe["augmentation"], _AUGMENTATIONS) if augmented else None,
        settings["seed"],
        given_mels(recipe, data_dir),
    )
    if sequences is None:
        return dataset
    front_end = front_end_of(recipe)
    if front_end is None:
        raise InputError(
            "data.sequences are made for a model that is told a text; choose one with text=graphemes"
        )
    how = Sequencing.of_recipe(data, held_out=not training)
    return ClipSequences(dataset, how, TokensOf(front_end), settings["seed"])


def training_statistics(
    recipe: dict[str, Any], model: AudioDiffusion, train_set: Segments, folder: Path, console: Console
) -> dict[str, Any]:
    """Returns the statistics kept in the run folder, after measuring them if they are not there."""
    path = folder / "statistics.json"
    if not path.is_file():
        requests = fixed_requests(train_set.lengths, segment_length(recipe))
        chosen = requests[:: max(1, len(requests) // recipe["training"]["statistics_clips"])]
        batches = (collate([train_set[request]]) for request in chosen)
        statistics.save(statistics.measure(model, batches), path)
        console.print(f"statistics of {len(chosen)} training clips: {path}", soft_wrap=True)
    return statistics.load(path)


def segment_length(recipe: dict[str, Any]) -> int:
    """Returns the samples of a training segment."""
    return round(recipe["data"]["segment_seconds"] * recipe["data"]["sample_rate"])


def save_model(run: Run) -> None:
    """Saves the finished model, and apart from it the adapter if it was trained through one."""
    written = texts(run)
    run.finished_model.save(run.folder / "model", written["recipe"], written["facts"], written["card"])
    if run.recipe["lora"] is not None:
        save_adapter(run.folder / "adapter", run.averaged_model, written["recipe"], written["facts"])
    if run.settings["finish_with"] == BEST:
        finish_with_best(run.folder, run.folder / "model", written["facts"])


def texts(run: Run) -> dict[str, Any]:
    """Returns what is written beside the weights."""
    counts = run.guard.facts() | {"rollbacks": run.rollbacks}
    facts = run.facts | counts | {"updates": run.update, "train_seconds": round(run.seconds, 1)}
    # Their paths are of this machine; the facts name them.
    recipe = run.recipe | {"init": None, "autoencoder": None, "augmentation": None}
    return {"recipe": recipe, "facts": facts, "card": model_card(recipe, facts, run.model.labels)}
