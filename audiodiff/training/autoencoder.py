"""train_autoencoder(): the training of an autoencoder, read top to bottom.

The house's own parts (loader, processes, optimizer, average, checkpoints, log) about another step than diffusion's. As
there, all is counted in updates, the order of clips and the noise of the posterior are keyed by update and position of
the clip, and a run that died goes on from its newest checkpoint with the numbers it would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from audiodiff.data.collate import collate
from audiodiff.data.order import SegmentBatchSampler, fixed_requests
from audiodiff.data.problems import refuse_unreadable
from audiodiff.data.segments import training_loader
from audiodiff.errors import InputError
from audiodiff.instantiation import instantiate
from audiodiff.networks.autoencoder import ConvolutionalAutoencoder
from audiodiff.training import checkpoint, draws, engine
from audiodiff.training.allocator import keep_freed_memory
from audiodiff.training.autoencoder_watch import AutoencoderWatch
from audiodiff.training.batching import Batching, batching
from audiodiff.training.ema import averaged
from audiodiff.training.guards import Guard
from audiodiff.training.interruption import StopRequest
from audiodiff.training.intervals import check_intervals, due
from audiodiff.training.optimization import build_optimizer, learning_rate, set_learning_rate
from audiodiff.training.record import autoencoder_card, run_facts
from audiodiff.training.run import SILENT, Segments, open_split, segment_length
from audiodiff.training.saved_autoencoder import SavedAutoencoder, load_autoencoder, save_autoencoder
from audiodiff.training.start import parameter_count
from audiodiff.types import Batch

_PARTS = ("audiodiff.training.reconstruction.ReconstructionLoss",)


class ReconstructionStep(nn.Module):
    """Autoencoder and loss in one forward, where processes share their work.

    Attributes:
        parts: of the loss of the last forward by name, means over its items, detached.
    """

    def __init__(self, autoencoder: ConvolutionalAutoencoder, loss: nn.Module) -> None:
        super().__init__()
        self.autoencoder, self.loss = autoencoder, loss
        self.parts: Mapping[str, Tensor] = {}

    def forward(self, batch: Batch, noise_like: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Returns the loss [B].

        Args:
            batch: with waveforms.
            noise_like: mean [B, D, F] -> the posterior's noise; None decodes the mean.
        """
        assert batch.waveform is not None
        mean, std = self.autoencoder.posterior(batch.waveform)
        latents = mean if noise_like is None else mean + std * noise_like(mean)
        estimate = self.autoencoder.decode(latents)[..., : batch.waveform.shape[-1]]
        with torch.autocast(mean.device.type, enabled=False):
            parts = self.loss(estimate, batch.waveform, batch.lengths, mean.float(), std.float())
        self.parts = {name: value.detach().mean() for name, value in parts.items()}
        return torch.stack(tuple(parts.values())).sum(0)


@dataclass
class AutoencoderRun:
    """Everything that one training of an autoencoder holds."""

    folder: Path
    recipe: dict[str, Any]
    accelerator: Accelerator
    step: nn.Module
    average: AveragedModel
    optimizer: Any
    learning_rate: Callable[[int], float]
    train_set: Segments
    dev_set: Segments
    batching: Batching
    guard: Guard
    facts: dict[str, Any]
    update: int = 0
    seconds: float = 0.0
    stop: StopRequest = field(default_factory=StopRequest)

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe's training node."""
        return self.recipe["training"]

    @property
    def plain_step(self) -> ReconstructionStep:
        """The step, without what processes wrap it in."""
        step: ReconstructionStep = self.accelerator.unwrap_model(self.step)
        return step

    @property
    def averaged_autoencoder(self) -> ConvolutionalAutoencoder:
        """The autoencoder with its averaged weights, the one that is saved."""
        module = self.average.module
        assert isinstance(module, ConvolutionalAutoencoder)
        return module

    @property
    def done(self) -> bool:
        """Whether all updates are made."""
        return self.update >= self.settings["updates"]

    def due(self, every: str) -> bool:
        """Returns whether something done every so many updates is due, as it always is at the end."""
        return due(self.update, every, self.settings)

    def texts(self) -> dict[str, Any]:
        """Returns what is written beside the weights."""
        counts = {"updates": self.update, "train_seconds": round(self.seconds, 1)}
        facts = self.facts | self.guard.facts() | counts
        recipe = self.recipe | {"augmentation": None}
        return {"recipe": recipe, "facts": facts, "card": autoencoder_card(recipe, facts)}


def train_autoencoder(
    recipe: dict[str, Any], data_dir: Path | str, folder: Path, command: str, console: Console
) -> Path:
    """Trains until recipe["training"]["updates"] and returns the folder of the finished autoencoder.

    Args:
        recipe: resolved (recipes/train_autoencoder.yaml), with the node `autoencoder`, without paths.
        data_dir: a prepared corpus, or the folder or address of its shards.
        folder: where checkpoints, log and autoencoder go; a run found there is resumed.
        command: what the user typed, for the record.
        console: where progress is shown.

    Raises:
        InputError: data, recipe and folder that do not fit one another; Ctrl-C or SIGTERM, after saving.
        FloatingPointError: loss or gradient stay not finite; checkpoints from before are kept.
    """
    run = open_run(recipe, data_dir, folder, command, console)
    resume(run)
    batches, began = training_batches(run), monotonic() - run.seconds
    main = run.accelerator.is_main_process
    with run.stop, AutoencoderWatch(run, console) as watch:
        while not run.done:
            parts, stopping = one_update(run, batches)
            run.seconds = monotonic() - began
            watch.observe(parts)
            if main and run.due("validate_every"):
                watch.validate()
            if run.due("checkpoint_every") or stopping:
                save_checkpoint(run)
            if stopping and not run.done:
                raise InputError(
                    f"interrupted at update {run.update}, which is saved in {folder}; the same command goes on from "
                    "there"
                )
    if main:
        save_autoencoder(folder / "model", run.averaged_autoencoder, **run.texts())
    run.accelerator.wait_for_everyone()
    return folder / "model"


def open_run(
    recipe: dict[str, Any], data_dir: Path | str, folder: Path, command: str, console: Console
) -> AutoencoderRun:
    """Builds network, data, optimizer and average of a training that has not started; see `train_autoencoder`."""
    settings = recipe["training"]
    check_intervals(settings)
    if settings["precision"] not in ("no", "bf16"):
        raise InputError(f"training.precision: got {settings['precision']!r}, expected no or bf16")
    accelerator = engine.open_accelerator(settings | {"sharding": None})
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    told = console if accelerator.is_main_process else SILENT
    parts = batching(settings, recipe["data"]["segment_seconds"], accelerator.num_processes)
    told.print(parts.describe(recipe["data"]["segment_seconds"]), soft_wrap=True)
    with accelerator.main_process_first():  # which indexes the manifests that the others open
        train_set, dev_set = (open_split(recipe, data_dir, split, told) for split in ("train", "dev"))
    if accelerator.is_main_process:
        checkpoint.clean_up(folder)
    with torch.random.fork_rng():
        torch.manual_seed(settings["seed"])
        autoencoder = instantiate(recipe["autoencoder"])
    if not isinstance(autoencoder, ConvolutionalAutoencoder):
        raise InputError(
            f"a {type(autoencoder).__name__} is not trained here, only a ConvolutionalAutoencoder"
        )
    average = averaged(autoencoder.to(accelerator.device), settings["ema_decay"])
    loss = instantiate(recipe["loss"], _PARTS).to(accelerator.device)
    step = engine.shared(ReconstructionStep(autoencoder, loss), accelerator, None)
    facts = run_facts(recipe, command, train_set.clips.summary.seconds / 3600, accelerator)
    return AutoencoderRun(
        folder=folder,
        recipe=recipe,
        accelerator=accelerator,
        step=step,
        average=average,
        optimizer=build_optimizer(recipe["optimizer"], step, accelerator.device),
        learning_rate=learning_rate(recipe["optimizer"]["lr"], settings),
        train_set=train_set,
        dev_set=dev_set,
        batching=parts,
        guard=Guard(settings["patience"], math.inf),
        facts=facts | {"parameters": parameter_count(autoencoder), "processes": accelerator.num_processes},
    )


def training_batches(run: AutoencoderRun) -> Iterator[Batch]:
    """Yields the batches of this process without end, from the update at which the run stands."""
    share = run.batching.share(run.accelerator.process_index)
    clips, seed = run.batching.clips, run.settings["seed"]
    length, shards = segment_length(run.recipe), run.train_set.shards
    sampler = SegmentBatchSampler(run.train_set.lengths, length, clips, seed, share, run.update, shards)
    yield from training_loader(run.train_set, sampler, run.settings["num_workers"])


def one_update(run: AutoencoderRun, batches: Iterator[Batch]) -> tuple[Mapping[str, float], bool]:
    """Runs forward and backward over the passes of one update and the optimizer; `run.update` goes up by one.

    Returns:
        The parts of the loss and its gradient's norm by name, and whether the run is asked to stop.

    Raises:
        FloatingPointError: too many updates in a row were not finite.
        InputError: too many clips cannot be read.
    """
    run.step.train()
    passes = [one_pass(run, batches, part) for part in range(run.batching.passes)]
    weights = [weight for weight in run.step.parameters() if weight.grad is not None]
    norm = engine.gradient_norm(weights)
    names = sorted(passes[0])
    means = torch.stack([torch.stack([one[name] for one in passes]).mean() for name in names])
    stopping = torch.tensor([float(run.stop.stopping)], device=means.device)
    *values, asked = engine.total(torch.cat([means / run.batching.ranks, stopping])).tolist()
    parts = dict(zip(names, values, strict=True)) | {"gradient_norm": float(norm)}
    set_learning_rate(run.optimizer, run.learning_rate(run.update))
    if all(math.isfinite(value) for value in parts.values()):
        limit = run.settings["clip_norm"]
        engine.scale_gradients(weights, (limit / (norm + 1e-6)).clamp(max=1.0))
        run.optimizer.step()
        run.guard.accept(sum(values))
    else:
        run.guard.skip(overflow=False)
    run.optimizer.zero_grad(set_to_none=True)
    run.average.update_parameters(run.plain_step.autoencoder)
    run.update += 1
    if run.guard.exhausted:
        raise FloatingPointError(
            f"{run.guard.streak} updates in a row up to {run.update} had a loss or gradient that is not finite; lower "
            "optimizer.lr; the newest checkpoint is kept"
        )
    return parts, asked > 0


def one_pass(run: AutoencoderRun, batches: Iterator[Batch], part: int) -> Mapping[str, Tensor]:
    """Adds the gradient of one pass of an update; returns the parts of its loss."""
    batch = next(batches)
    run.guard.unread(list(batch.problems))
    refuse_unreadable(run.guard.unreadable, (run.update + 1) * run.batching.clips, run.guard.problems)
    positions = run.batching.share(run.accelerator.process_index).positions(run.batching.clips, part)
    noise = posterior_noise(run, (run.update,), draws.NOISE, positions)
    device = run.accelerator.device
    with engine.accumulating(run.step, part == run.batching.passes - 1):
        with engine.autocast(device, run.settings["precision"]):
            loss = run.step(batch.to(device), noise)
        (loss.sum() * (run.batching.ranks / run.batching.clips)).backward()
    return run.plain_step.parts


def posterior_noise(
    run: AutoencoderRun, numbers: tuple[int, ...], purpose: int, positions: range
) -> draws.ItemNoise:
    """Returns the noise of some clips of an update, drawn for the longest segment there is."""
    longest = -(-segment_length(run.recipe) // run.plain_step.autoencoder.hop_length)
    return draws.ItemNoise(run.settings["seed"], purpose, numbers, positions, longest)


@torch.inference_mode()
def validation_parts(run: AutoencoderRun) -> dict[str, float]:
    """Returns the averaged autoencoder's loss by parts on fixed segments, without noise: comparable all along."""
    step = ReconstructionStep(run.averaged_autoencoder, run.plain_step.loss).eval()
    requests = fixed_requests(run.dev_set.lengths, segment_length(run.recipe))[
        : run.settings["validation_clips"]
    ]
    sums: dict[str, float] = {}
    for request in requests:
        step(collate([run.dev_set[request]]).to(run.accelerator.device), None)
        for name, value in step.parts.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return {name: value / len(requests) for name, value in sums.items()}


def save_checkpoint(run: AutoencoderRun) -> None:
    """Saves the run at its present update; the main process writes, the others wait.

    Raises:
        InputError: the disk is full or cannot be written; earlier checkpoints stay.
    """
    if run.accelerator.is_main_process:
        state = {
            "raw": run.plain_step.autoencoder.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "averaged_updates": int(run.average.n_averaged),
            "update": run.update,
            "seconds": run.seconds,
            "guard": run.guard.state_dict(),
        }
        saved = SavedAutoencoder(run.averaged_autoencoder)
        checkpoint.save(run.folder, run.update, saved, state, run.texts())
        checkpoint.prune(run.folder, run.settings["keep_checkpoints"])
    run.accelerator.wait_for_everyone()


def resume(run: AutoencoderRun) -> None:
    """Brings the run to its newest checkpoint, if it has one.

    Raises:
        InputError: the checkpoint is damaged or of another autoencoder, data or loss, or of more updates.
    """
    newest = checkpoint.newest(run.folder)
    if newest is None:
        return
    import yaml

    saved = yaml.safe_load((newest / "config.yaml").read_text(encoding="utf-8"))
    state = checkpoint.read_state(newest)
    differing = [key for key in ("autoencoder", "data", "loss", "optimizer") if saved[key] != run.recipe[key]]
    if differing or state["update"] > run.settings["updates"]:
        reason = f"another {', '.join(differing)}" if differing else f"{state['update']} updates already"
        raise InputError(
            f"{run.folder} holds a run with {reason}; give a new folder with out=..., or remove it"
        )
    run.plain_step.autoencoder.load_state_dict(state["raw"])
    run.average.module.load_state_dict(load_autoencoder(newest).state_dict())
    run.average.n_averaged.fill_(state["averaged_updates"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.guard.load_state_dict(state["guard"])
    run.update, run.seconds = state["update"], state["seconds"]
