"""One optimizer update: batches -> encode -> t and noise -> objective -> backward -> clip -> optimizer -> average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from audiodiff.data.order import SegmentBatchSampler
from audiodiff.data.segments import training_loader
from audiodiff.diffusion.objectives import Objective
from audiodiff.model import AudioDiffusion
from audiodiff.training import draws, engine
from audiodiff.training.optimization import set_learning_rate
from audiodiff.training.windows import condition_stride, window
from audiodiff.types import Batch

if TYPE_CHECKING:
    from audiodiff.training.run import Run


class TrainingStep(nn.Module):
    """Model and objective in one forward, where distributed training synchronises."""

    def __init__(self, model: AudioDiffusion, objective: Objective, window: int | None = None) -> None:
        """Joins what is trained and what it is trained for.

        Args:
            model: all of it.
            objective: of the denoiser.
            window: frames of every clip that the denoiser is trained on, see `windows`; None for whole clips.
        """
        super().__init__()
        self.model = model
        self.objective = objective
        self.window = window
        self.parts: Mapping[str, Tensor] = {}  # losses of the conditioner in the last forward, detached

    def forward(
        self,
        batch: Batch,
        t: Tensor,
        noise_like: Callable[[Tensor], Tensor],
        places: Tensor | None = None,
    ) -> Tensor:
        """Returns the loss [B] of a batch at times t [B].

        The losses of the conditioner, means over the batch, are added to every item's.

        Args:
            batch: with waveforms.
            t: [B].
            noise_like: clean [B, C, F] -> noise of its shape, see `draws.ItemNoise`.
            places: [B], where the window of each item begins, uniform in [0, 1); None for whole clips.
        """
        clean, condition, losses = self.model.encode_with_losses(batch)
        if self.window is not None and places is not None:
            clean, condition = window(clean, condition, self.window, places, condition_stride(self.model))
        loss = self.objective(self.model.denoiser, clean, condition, noise_like(clean), t)
        self.parts = {name: value.detach() for name, value in losses.items()}
        return sum(losses.values(), loss)


@dataclass(frozen=True)
class Observed:
    """What one update was, for those who watch.

    Attributes:
        update: updates done, this one included.
        loss: mean over the items of all ranks and passes.
        losses: [n] of this rank's items, in the order of its passes, detached, on the run's device.
        times: [n] t of those items, float64.
        gradient_norm: of all parameters together, before clipping; a scalar tensor.
        audio_seconds: valid audio of this rank's items.
        loader_seconds: how long this rank waited for its batches.
        learning_rate: of this update.
        skipped: whether the weights stayed as they were, for the loss or the gradient was not finite.
        ids: names of this rank's clips, in the order of `losses`.
        overflow: whether it was skipped for the sake of the loss scale of fp16 alone.
        problems: one line for each clip of any rank that could not be read.
        stopping: whether a process was asked to stop; the same on all ranks.
        preempted: whether one was asked because its machine is needed.
        parts: losses of the conditioner by name, scalars, means over this rank's items.
    """

    update: int
    loss: float
    losses: Tensor
    times: Tensor
    gradient_norm: Tensor
    audio_seconds: float
    loader_seconds: float
    learning_rate: float
    skipped: bool
    ids: tuple[str, ...]
    overflow: bool = False
    problems: tuple[str, ...] = ()
    stopping: bool = False
    preempted: bool = False
    parts: Mapping[str, Tensor] = field(default_factory=dict)


def training_batches(run: Run) -> Iterator[Batch]:
    """Yields the batches of this process without end, pass by pass, from the update at which the run stands."""
    sampler = SegmentBatchSampler(
        run.train_set.lengths,
        run.segment_length,
        run.batching.clips,
        run.settings["seed"],
        run.share,
        run.update,
        run.train_set.shards,
    )
    yield from training_loader(run.train_set, sampler, run.settings["num_workers"])


@dataclass(frozen=True)
class Drawn:
    """What is drawn for the clips of one update, of all processes and passes.

    Attributes:
        times: [clips] t, float64.
        chances: [clips, 1 + labels], uniform, on the CPU; see `drop_labels`.
        places: [clips], uniform, on the CPU; see `windows`.
    """

    times: Tensor
    chances: Tensor
    places: Tensor


def draw(run: Run) -> Drawn:
    """Draws for the update that comes next."""
    seed, clips, numbers = run.settings["seed"], run.batching.clips, (run.update, run.rollbacks)
    source = draws.generator(run.accelerator.device, seed, draws.TIMES, *numbers)
    times = run.density(clips, run.model.denoiser.schedule, source)
    labels = draws.generator("cpu", seed, draws.LABELS, *numbers)
    windows = draws.generator("cpu", seed, draws.WINDOWS, *numbers)
    return Drawn(
        times,
        torch.rand(clips, 1 + len(run.recipe["data"]["labels"]), generator=labels),
        torch.rand(clips, generator=windows),
    )


def one_update(run: Run, batches: Iterator[Batch]) -> Observed:
    """Runs forward and backward over the passes of one update and the optimizer; `run.update` goes up by one.

    If loss or gradient is not finite on any rank, no rank changes its weights.
    """
    run.step.train()
    drawn = draw(run)
    passes = [one_pass(run, batches, drawn, part) for part in range(run.batching.passes)]
    losses = torch.cat([one.losses for one in passes])
    problems = [problem for one in passes for problem in one.batch.problems]
    parameters = [parameter for parameter in run.step.parameters() if parameter.grad is not None]
    norm = engine.gradient_norm(parameters)
    if run.scale is not None:
        norm = norm / run.scale.value
    told = tell(run, losses, norm, problems)
    rate = set_learning_rate(run.optimizer, run.learning_rate(run.update))
    overflow = not told.finite and run.scale is not None and math.isfinite(told.loss) and not run.scale.spent
    if told.finite:
        scale_gradients(run, parameters, norm)
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    if run.scale is not None:
        run.scale.learn(not told.finite)
    engine.gather(run.step)
    run.average.update_parameters(run.model)
    if run.posthoc is not None:
        run.posthoc.update(run.model)
    run.update += 1
    return Observed(
        update=run.update,
        loss=told.loss,
        losses=losses,
        times=torch.cat([one.times for one in passes]),
        gradient_norm=norm,
        audio_seconds=sum(float(one.batch.lengths.sum()) for one in passes) / run.model.sample_rate,
        loader_seconds=sum(one.waited for one in passes),
        learning_rate=rate,
        skipped=not told.finite,
        ids=tuple(name for one in passes for name in one.batch.ids),
        overflow=overflow,
        problems=told.problems,
        stopping=told.stopping,
        preempted=told.preempted,
        parts={name: torch.stack([one.parts[name] for one in passes]).mean() for name in passes[0].parts},
    )


@dataclass(frozen=True)
class Pass:
    """One backward pass of this process.

    Attributes:
        batch: of the pass.
        times: [n] t of its items.
        losses: [n] of its items.
        waited: seconds for the batch.
        parts: losses of the conditioner by name.
    """

    batch: Batch
    times: Tensor
    losses: Tensor
    waited: float
    parts: Mapping[str, Tensor]


def one_pass(run: Run, batches: Iterator[Batch], drawn: Drawn, part: int) -> Pass:
    """Adds the gradient of one pass of an update."""
    asked = monotonic()
    batch = next(batches)
    waited = monotonic() - asked
    seed, device, numbers = run.settings["seed"], run.accelerator.device, (run.update, run.rollbacks)
    positions = run.share.positions(run.batching.clips, part)
    chosen = list(positions)
    batch = draws.drop_labels(batch, run.settings["label_drop"], drawn.chances[chosen]).to(device)
    t = drawn.times[chosen]
    noise = draws.ItemNoise(seed, draws.NOISE, numbers, positions, run.longest)
    torch.manual_seed(draws.key(seed, draws.DROPOUT, *numbers, run.share.rank, part))
    share = run.batching.ranks / run.batching.clips * (1.0 if run.scale is None else run.scale.value)
    with engine.accumulating(run.step, part == run.batching.passes - 1):
        with engine.autocast(device, run.settings["precision"]):
            loss = run.step(batch, t, noise, drawn.places[chosen])
        (loss.sum() * share).backward()
    parts = run.accelerator.unwrap_model(run.step).parts
    return Pass(batch, t, loss.detach(), waited, parts)


@dataclass(frozen=True)
class Told:
    """What all ranks know of an update once they have told one another.

    Attributes:
        finite: whether every loss and the gradient are.
        loss: mean over all items.
        problems: of all ranks.
        stopping, preempted: see Observed.
    """

    finite: bool
    loss: float
    problems: tuple[str, ...]
    stopping: bool
    preempted: bool


def tell(run: Run, losses: Tensor, norm: Tensor, problems: list[str]) -> Told:
    """Sums over the ranks what each one knows; the one place of an update where the device is waited for."""
    summed = losses.float().sum()
    bad = ~(summed.isfinite() & norm.isfinite())
    plain = [float(len(losses)), float(len(problems)), float(run.stop.stopping), float(run.stop.preempted)]
    values = torch.cat([torch.stack([bad.float(), summed]), torch.tensor(plain, device=losses.device)])
    unfinite, loss, items, unread, stopping, preempted = engine.total(values).tolist()
    if unread and run.batching.ranks > 1:
        problems = [problem for of_rank in gather_object([problems]) for problem in of_rank]
    return Told(unfinite == 0, loss / items, tuple(problems), stopping > 0, preempted > 0)


def scale_gradients(run: Run, parameters: list[nn.Parameter], norm: Tensor) -> None:
    """Takes the loss scale out of the gradients and limits their norm to the recipe's `clip_norm`."""
    limit = run.settings["clip_norm"]
    factor = None if limit is None else (limit / (norm + 1e-6)).clamp(max=1.0)
    if run.scale is not None:
        factor = (torch.ones_like(norm) if factor is None else factor) / run.scale.value
    if factor is not None:
        engine.scale_gradients(parameters, factor)
