"""train(): batch -> encode -> t and noise -> objective -> backward -> clip -> optimizer -> average of weights.

All randomness is keyed by (seed, batch number, rank): a run that died goes on from its last checkpoint with
the numbers it would have drawn. Accelerate moves tensors, scales gradients and synchronises ranks; the data
loader is sharded by the batch sampler itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from audiodiff.data.collate import collate
from audiodiff.data.manifests import load_cuts, total_seconds
from audiodiff.data.order import SegmentBatchSampler, Share, fixed_requests
from audiodiff.data.segments import SegmentDataset, training_loader
from audiodiff.diffusion.objectives import Objective
from audiodiff.diffusion.times import TimeDensity
from audiodiff.errors import InputError
from audiodiff.model import FACTS, AudioDiffusion, build, instantiate, load
from audiodiff.training import checkpoint, draws, statistics
from audiodiff.training.adapter import save_adapter
from audiodiff.training.ema import averaged
from audiodiff.training.interruption import StopRequest
from audiodiff.training.logging import ProgressBar, RunLog
from audiodiff.training.lora import low_rank, merged, trained_weights
from audiodiff.training.optimization import build_optimizer, learning_rate_factor
from audiodiff.training.receptive_field import short_sighted
from audiodiff.training.record import model_card, run_facts
from audiodiff.training.start import start
from audiodiff.training.teacher import Teacher
from audiodiff.types import Batch

_LOGGED_ITEMS = 4


class TrainingStep(nn.Module):
    """Model and objective in one forward, where distributed training synchronises."""

    def __init__(self, model: AudioDiffusion, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch, t: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the loss [B] of a batch at times t [B]; noise is drawn from the generator.

        The losses of the conditioner, means over the batch, are added to every item's.
        """
        clean, condition, losses = self.model.encode_with_losses(batch)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        loss = self.objective(self.model.denoiser, clean, condition, noise, t)
        return sum(losses.values(), loss)


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
    lr_schedule: torch.optim.lr_scheduler.LRScheduler
    train_set: SegmentDataset
    dev_set: SegmentDataset
    facts: dict[str, Any]
    update: int = 0
    seconds: float = 0.0

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe's training node."""
        return self.recipe["training"]

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


def train(recipe: dict[str, Any], data_dir: Path, folder: Path, command: str, console: Console) -> Path:
    """Trains until recipe["training"]["updates"] and returns the folder of the finished model.

    Args:
        recipe: the resolved recipe (see recipes/train.yaml), without paths.
        data_dir: a prepared corpus.
        folder: where checkpoints, log and model go; a run found there is resumed.
        command: what the user typed, for the record.
        console: where progress is shown.

    Raises:
        InputError: data, recipe and run folder that do not fit one another; Ctrl-C, after saving.
        FloatingPointError: the loss stopped being finite; checkpoints from before are kept.
    """
    run = open_run(recipe, data_dir, folder, command, console)
    resume(run)
    main = run.accelerator.is_main_process
    log = RunLog(folder / "log", run.update) if main else None
    batches = training_batches(run)
    started = monotonic() - run.seconds
    losses: list[Tensor] = []
    bar = ProgressBar(console, run.settings["updates"], run.update, visible=main)
    with bar, StopRequest() as stop:
        try:
            while run.update < run.settings["updates"] and not stop.requested:
                losses.append(one_update(run, batches))
                run.update += 1
                run.seconds = monotonic() - started
                if due(run, "log_every"):
                    mean = finite_mean(losses, run.update)
                    bar.show_loss(mean)
                    losses.clear()
                    if log:
                        rate = float(run.optimizer.param_groups[0]["lr"])
                        log.scalars({"loss": mean, "learning_rate": rate}, run.update)
                bar.advance_to(run.update)
                after_update(run, log)
        finally:
            if log:
                log.close()
    if run.update < run.settings["updates"]:
        save_checkpoint(run)
        raise InputError(
            f"interrupted at update {run.update}, which is saved in {folder}; the same command goes on from there"
        )
    if main:
        save_model(run)
    run.accelerator.wait_for_everyone()
    return folder / "model"


def open_run(recipe: dict[str, Any], data_dir: Path, folder: Path, command: str, console: Console) -> Run:
    """Builds model, data, optimizer and average of a run that has not started."""
    settings = recipe["training"]
    # Accelerate joins processes on CPUs only when told that there is nothing else.
    on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    accelerator = Accelerator(mixed_precision=settings["precision"], cpu=on_cpu)
    with torch.random.fork_rng():
        # Layers draw their initial weights from the global generator; it is given back as it was.
        torch.manual_seed(settings["seed"])
        model = build(recipe)
    train_set, dev_set = (open_split(recipe, data_dir, split) for split in ("train", "dev"))
    statistics.apply(model, training_statistics(recipe, model, train_set, folder, console))
    resumed = checkpoint.newest(folder) is not None
    started = start(model, recipe, resumed, console)
    warning = short_sighted(model, segment_length(recipe))
    if warning is not None and accelerator.is_main_process:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    average = averaged(model.to(accelerator.device), settings["ema_decay"])
    step = TrainingStep(model, instantiate(recipe["objective"]))
    teacher = getattr(step.objective, "teacher", None)
    if isinstance(teacher, Teacher) and not resumed:
        teacher.check(model)
    optimizer = build_optimizer(recipe["optimizer"], model, accelerator.device)
    lr_schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(settings))
    step, optimizer = accelerator.prepare(step, optimizer)
    hours = total_seconds(train_set.cuts) / 3600
    facts = run_facts(recipe, command, hours, accelerator) | {
        **started,
        "median_seconds": round(float(np.median(train_set.lengths)) / recipe["data"]["sample_rate"], 3),
    }
    density = instantiate(recipe["times"])
    return Run(
        folder, recipe, accelerator, step, density, average, optimizer, lr_schedule, train_set, dev_set, facts
    )


def open_split(recipe: dict[str, Any], data_dir: Path, split: str) -> SegmentDataset:
    """Returns the clips of one split of a prepared corpus."""
    data = recipe["data"]
    return SegmentDataset(
        load_cuts(data_dir / f"{split}.jsonl.gz"),
        data["sample_rate"],
        data["channels"],
        tuple(data["labels"]),
        recipe["training"]["cache_megabytes"],
    )


def training_statistics(
    recipe: dict[str, Any], model: AudioDiffusion, train_set: SegmentDataset, folder: Path, console: Console
) -> dict[str, Any]:
    """Returns the statistics kept in the run folder, after measuring them if they are not there."""
    path = folder / "statistics.json"
    if not path.is_file():
        requests = fixed_requests(train_set.lengths, segment_length(recipe))
        requests = requests[:: max(1, len(requests) // recipe["training"]["statistics_clips"])]
        batches = (collate([train_set[request]]) for request in requests)
        statistics.save(statistics.measure(model, batches), path)
        console.print(f"statistics of {len(requests)} training clips: {path}", soft_wrap=True)
    return statistics.load(path)


def segment_length(recipe: dict[str, Any]) -> int:
    """Returns the samples of a training segment."""
    return round(recipe["data"]["segment_seconds"] * recipe["data"]["sample_rate"])


def training_batches(run: Run) -> Iterator[tuple[int, Batch]]:
    """Yields (batch number, batch) without end, from the batch at which the run stands."""
    first = run.update * run.settings["accumulate"]
    sampler = SegmentBatchSampler(
        run.train_set.lengths,
        segment_length(run.recipe),
        run.settings["batch_size"] * run.accelerator.num_processes * run.settings["accumulate"],
        run.settings["seed"],
        Share(run.accelerator.process_index, run.accelerator.num_processes, run.settings["accumulate"]),
        run.update,
    )
    loader = training_loader(run.train_set, sampler, run.settings["num_workers"])
    yield from enumerate(iter(loader), start=first)


def one_update(run: Run, batches: Iterator[tuple[int, Batch]]) -> Tensor:
    """Runs forward and backward over the accumulated batches and one optimizer update; returns the loss."""
    accumulate = run.settings["accumulate"]
    run.step.train()
    total = torch.zeros((), device=run.accelerator.device)
    for part in range(accumulate):
        number, batch = next(batches)
        generator = draws.generator(run.settings["seed"], draws.TRAINING, number, run.accelerator)
        batch = draws.drop_labels(batch, run.settings["label_drop"], generator).to(run.accelerator.device)
        last = part == accumulate - 1
        with run.accelerator.autocast(), _synchronised(run, last):
            t = shared_times(run, number, batch.size, generator)
            loss = run.step(batch, t, generator).mean() / accumulate
            run.accelerator.backward(loss)
        total += loss.detach()
    if run.settings["clip_norm"] is not None:
        run.accelerator.clip_grad_norm_(run.step.parameters(), run.settings["clip_norm"])
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.lr_schedule.step()
    run.average.update_parameters(run.model)
    return total


def _synchronised(run: Run, last: bool) -> Any:
    """Returns a context in which gradients travel between ranks only with the last batch of an update."""
    from contextlib import nullcontext

    return nullcontext() if last else run.accelerator.no_sync(run.step)


def shared_times(run: Run, number: int, size: int, generator: torch.Generator) -> Tensor:
    """Returns this rank's t [size], a share of those drawn for the batch of all ranks together."""
    ranks, rank = run.accelerator.num_processes, run.accelerator.process_index
    if ranks > 1:
        generator = draws.generator(run.settings["seed"], draws.TIMES, number, run.accelerator, rank=0)
    return run.density(size * ranks, run.model.denoiser.schedule, generator)[rank::ranks]


def finite_mean(losses: list[Tensor], update: int) -> float:
    """Returns the mean of the losses since the last look at them."""
    mean = float(torch.stack(losses).mean())
    if not np.isfinite(mean):
        raise FloatingPointError(
            f"loss is {mean} at update {update}; lower optimizer.lr or training.clip_norm, "
            "or train without mixed precision"
        )
    return mean


def due(run: Run, every: str) -> bool:
    """Returns whether something done every so many updates is due, as it always is at the end."""
    return run.update % run.settings[every] == 0 or run.update == run.settings["updates"]


def after_update(run: Run, log: RunLog | None) -> None:
    """Validates, logs samples and saves when it is time."""
    if due(run, "validate_every") and log:
        value = validation_loss(run)
        run.facts["validation_loss"] = round(value, 6)
        log.scalars({"validation_loss": value}, run.update)
    if due(run, "sample_every") and log:
        log_samples(run, log)
    if due(run, "checkpoint_every"):
        save_checkpoint(run)


@torch.inference_mode()
def validation_loss(run: Run) -> float:
    """Returns the averaged model's loss on fixed segments with fixed times and noise: comparable all along."""
    trained = run.accelerator.unwrap_model(run.step)
    step = TrainingStep(run.averaged_model, trained.objective).eval()
    requests = fixed_requests(run.dev_set.lengths, segment_length(run.recipe))[
        : run.settings["validation_clips"]
    ]
    size = run.settings["batch_size"]
    total = 0.0
    for first in range(0, len(requests), size):
        batch = collate([run.dev_set[request] for request in requests[first : first + size]])
        generator = draws.generator(run.settings["seed"], draws.VALIDATION, first, run.accelerator, rank=0)
        t = run.density(batch.size, run.model.denoiser.schedule, generator)
        total += float(step(batch.to(run.accelerator.device), t, generator).sum())
    return total / len(requests)


def log_samples(run: Run, log: RunLog) -> None:
    """Synthesizes for the first validation clips and logs what comes out."""
    requests = fixed_requests(run.dev_set.lengths, segment_length(run.recipe))
    chosen = requests[:: max(1, len(requests) // _LOGGED_ITEMS)][:_LOGGED_ITEMS]
    batch = collate([run.dev_set[request] for request in chosen]).to(run.accelerator.device)
    model = run.averaged_model
    sampler = instantiate(run.recipe["sampler"])
    waveforms = model.eval().synthesize(batch, sampler, run.settings["seed"], steering=model.steering)
    log.audio(waveforms, batch.ids, model.sample_rate, run.update)


def save_model(run: Run) -> None:
    """Saves the finished model, and apart from it the adapter if it was trained through one."""
    written = texts(run)
    run.finished_model.save(run.folder / "model", written["recipe"], written["facts"], written["card"])
    if run.recipe["lora"] is not None:
        save_adapter(run.folder / "adapter", run.averaged_model, written["recipe"], written["facts"])


def texts(run: Run) -> dict[str, Any]:
    """Returns what is written beside the weights."""
    facts = run.facts | {"updates": run.update, "train_seconds": round(run.seconds, 1)}
    recipe = run.recipe | {"init": None}  # a path of this machine; the facts name the model
    return {"recipe": recipe, "facts": facts, "card": model_card(recipe, facts, run.model.labels)}


def save_checkpoint(run: Run) -> None:
    """Saves the run at its present update; one process writes, the others wait."""
    run.accelerator.wait_for_everyone()
    if run.accelerator.is_main_process:
        state = {
            "raw": run.model.state_dict(),
            "averaged_updates": int(run.average.n_averaged),
            "optimizer": run.optimizer.state_dict(),
            "lr_schedule": run.lr_schedule.state_dict(),
            "update": run.update,
            "seconds": run.seconds,
        }
        if run.recipe["lora"] is not None:  # the merged weights in the folder do not tell A from B
            state["averaged"] = trained_weights(run.averaged_model)
        checkpoint.save(run.folder, run.update, run.finished_model, state, texts(run))
        checkpoint.prune(run.folder, run.settings["keep_checkpoints"])
    run.accelerator.wait_for_everyone()


def resume(run: Run) -> None:
    """Brings the run to its newest checkpoint, if it has one.

    Raises:
        InputError: the checkpoint is damaged or belongs to another recipe.
    """
    newest = checkpoint.newest(run.folder)
    if newest is None:
        return
    saved = load(newest)
    checkpoint.check_same(run.folder, saved.recipe, run.recipe)
    state = checkpoint.read_state(newest)
    if state["update"] > run.settings["updates"]:
        raise InputError(
            f"{run.folder} holds a run of {state['update']} updates, asked for are {run.settings['updates']}; "
            "give a new folder with out=..., or remove it to start again"
        )
    facts = json.loads((newest / FACTS).read_text(encoding="utf-8"))
    run.facts |= {key: facts[key] for key in ("validation_loss", "init", "init_sha256") if key in facts}
    run.model.load_state_dict(state["raw"])
    averaged_weights = state["raw"] | state["averaged"] if "averaged" in state else saved.state_dict()
    run.average.module.load_state_dict(averaged_weights)
    run.average.n_averaged.fill_(state["averaged_updates"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.lr_schedule.load_state_dict(state["lr_schedule"])
    run.update, run.seconds = state["update"], state["seconds"]
