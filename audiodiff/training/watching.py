"""What is to be seen of a run while it trains: progress, curves, validation loss, samples, the best model, status.json.

Updates are summed up on the device (meter.py) and looked at every `log_every`; between two looks nothing here waits for
the device. Validation and synthesis use the averaged weights, fixed clips, fixed times and fixed noise, so that their
curves compare all along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from audiodiff.conditioning.mel import heard
from audiodiff.data.collate import collate
from audiodiff.data.order import fixed_requests
from audiodiff.errors import InputError
from audiodiff.model import instantiate
from audiodiff.training import draws, engine
from audiodiff.training.heartbeat import FAILED, FINISHED, INTERRUPTED, RUNNING, write_status
from audiodiff.training.logging import ProgressBar
from audiodiff.training.meter import Look, Meter, level_figure, level_names
from audiodiff.training.run import Run, segment_length, texts
from audiodiff.training.selection import Selection, check_selection, score
from audiodiff.training.trackers import Tracker, check_tracker, open_trackers, show_samples
from audiodiff.training.updates import Observed, TrainingStep


class Watch:
    """The onlooker of a run, on every rank; what is written and printed, the main process writes and prints.

    A run that goes back to a checkpoint (after a rollback or a restart) is watched by a new one, which hides the
    events after the update at which it begins.
    """

    def __init__(self, run: Run, console: Console) -> None:
        """Opens log, best model and status at the run's present update.

        Raises:
            InputError: training.tracker, select_by or finish_with name what there is not or does not fit.
        """
        settings = run.settings
        check_tracker(settings["tracker"])
        check_selection(settings, run.model, run.recipe["lora"] is not None)
        self._run, self._console = run, console
        self._selection = Selection(run.folder, settings["select_by"])
        self._trackers: list[Tracker] = []
        if run.main:
            self._trackers = open_trackers(settings["tracker"], run.folder, run.update, run.recipe)
        self._bar = ProgressBar(console, settings["updates"], run.update, visible=run.main)
        self._meter = Meter(run.accelerator.device)
        self._history: tuple[list[int], list[np.ndarray]] = ([], [])
        self._clock = _Clock(run.update)
        self._heard = False
        self._known: dict[str, Any] = {}
        self._write_status(RUNNING)

    def __enter__(self) -> Watch:
        self._bar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception):
            self._known["error"] = " ".join(str(error).split()) or type(error).__name__
            self._write_status(FAILED)
        else:
            ended = error is None and self._run.update >= self._run.settings["updates"]
            self._write_status(FINISHED if ended else INTERRUPTED)
        self.close()

    def observe(self, observed: Observed) -> None:
        """Takes notice of one update."""
        if not observed.skipped:
            self._meter.add(
                observed.losses,
                observed.times,
                observed.gradient_norm,
                observed.audio_seconds,
                observed.loader_seconds,
            )
            self._meter.add_parts(observed.parts)
        if self._run.due("log_every"):
            self._look(observed)
        self._bar.advance_to(observed.update)

    def after_update(self) -> None:
        """Validates, synthesizes and stores averages when it is time; called before a checkpoint is written."""
        run = self._run
        if not run.main:
            return
        begun = monotonic()
        if run.due("validate_every"):
            self._validate()
        if run.due("sample_every"):
            self._sample()
        averages = run.posthoc
        if averages is not None and run.update > 0 and averages.due(run.update, run.settings["updates"]):
            self._keep("snapshot of the averages", lambda: averages.snapshot(run.folder))
        self._clock.pause(monotonic() - begun)

    def flush(self) -> None:
        """Writes what was logged; called before a checkpoint, after which it would not be logged again."""
        for tracker in self._trackers:
            tracker.flush()

    def close(self) -> None:
        """Flushes the log and takes the bar away."""
        self._bar.__exit__()
        while self._trackers:
            self._trackers.pop().close()

    def _look(self, observed: Observed) -> None:
        """Logs what the updates since the last look were; ranks meet here."""
        run = self._run
        ranks = run.accelerator.num_processes
        look = self._meter.look(engine.total, ranks)
        seconds = self._clock.since_last_look()
        if not run.main:
            return
        values = {"learning_rate": observed.learning_rate, **scalars(look, seconds)}
        if run.accelerator.device.type == "cuda":
            values["throughput/gpu_gigabytes"] = (
                torch.cuda.max_memory_allocated(run.accelerator.device) / 2**30
            )
            torch.cuda.reset_peak_memory_stats(run.accelerator.device)
        values |= {f"trouble/{name}": float(count) for name, count in troubles(run).items() if count}
        for tracker in self._trackers:
            tracker.scalars(values, run.update)
        if look.loss is not None:
            self._bar.show_loss(look.loss)
            self._history[0].append(run.update)
            self._history[1].append(look.loss_by_level)
        rate = self._clock.updates_per_second(run.update)
        self._known |= {
            "updates_per_second": rate,
            "seconds_left": round((run.settings["updates"] - run.update) / rate, 1),
            "audio_seconds_per_second": values["throughput/audio_seconds_per_second"],
            "learning_rate": observed.learning_rate,
            "loss": look.loss,
            "gradient_norm": look.gradient_norm,
        }
        self._write_status(RUNNING)

    def _validate(self) -> None:
        run = self._run
        value = validation_loss(run)
        run.facts["validation_loss"] = round(value, 6)
        for tracker in self._trackers:
            tracker.scalars({"validation_loss": value}, run.update)
            if self._history[0]:
                tracker.figure("loss_by_level", level_figure(*self._history), run.update)
        if self._selection.metric is None:
            self._consider(value)

    def _sample(self) -> None:
        """Synthesizes for fixed validation clips, shows what comes out and, if so wished, chooses by it."""
        run, metric = self._run, self._selection.metric
        if not self._trackers and metric is None:
            return
        try:
            titles, references, waveforms = synthesize_fixed(run)
        except FloatingPointError as error:  # young or unlucky weights; training them on is the remedy
            self._warn(f"no samples of update {run.update}: {error}")
            return
        rate = run.averaged_model.sample_rate
        told = heard(run.model.conditioner) is not None
        for tracker in self._trackers:
            for title, reference in zip(titles, references, strict=True):
                if told and not self._heard:
                    tracker.audio(f"recordings/{title}", reference.mean(0).cpu(), rate, run.update)
        self._heard = True
        show_samples(self._trackers, waveforms, titles, rate, run.update, references if told else None)
        if metric is not None:
            value = score(metric, references, waveforms, rate)
            if value is not None:
                for tracker in self._trackers:
                    tracker.scalars({f"samples/{metric.key}": value}, run.update)
                self._consider(value)

    def _consider(self, value: float) -> None:
        run = self._run
        if self._selection.better(value):
            self._keep(
                "best model", lambda: self._selection.keep(run.finished_model, value, run.update, texts(run))
            )

    def _keep(self, what: str, write: Callable[[], object]) -> None:
        """Writes something, or says that it could not: a full disk is no reason to stop before the end."""
        try:
            write()
        except InputError as error:
            self._warn(f"no {what} of update {self._run.update}: {error}")

    def _warn(self, message: str) -> None:
        self._console.print(f"warning: {message}", style="yellow", soft_wrap=True, markup=False)

    def _write_status(self, state: str) -> None:
        run = self._run
        if not run.main:
            return
        names = ("validation_loss", "parameters", "experiment")
        facts = {name: run.facts[name] for name in names if name in run.facts}
        values = {
            "update": run.update,
            "updates": run.settings["updates"],
            "seconds": round(run.seconds, 1),
            **troubles(run),
            "best": self._selection.best,
            "processes": run.accelerator.num_processes,
            "hardware": run.facts["hardware"],
        }
        with suppress(InputError):  # a full disk, which costs the status and not the run
            write_status(run.folder, state, facts | values | self._known)


class _Clock:
    """Time between looks, and speed since the start."""

    def __init__(self, update: int) -> None:
        self._first, self._started = update, monotonic()
        self._looked, self._paused = self._started, 0.0

    def pause(self, seconds: float) -> None:
        """Takes out time that went into validation and synthesis."""
        self._paused += seconds

    def since_last_look(self) -> float:
        """Returns the seconds of updates since the look before."""
        now = monotonic()
        seconds = max(now - self._looked - self._paused, 1e-9)
        self._looked, self._paused = now, 0.0
        return seconds

    def updates_per_second(self, update: int) -> float:
        """Returns the speed since the start, validation and all."""
        return max(update - self._first, 1e-9) / max(monotonic() - self._started, 1e-9)


def troubles(run: Run) -> dict[str, int]:
    """Returns how often what was survived, by name."""
    guard = run.guard
    return {
        "skipped": guard.skipped - guard.overflows,
        "overflows": guard.overflows,
        "spikes": guard.spikes,
        "rollbacks": run.rollbacks,
        "corrupt_files": guard.unreadable,
    }


def scalars(look: Look, seconds: float) -> dict[str, float]:
    """Returns the curves that one look gives points of.

    Args:
        look: over all ranks.
        seconds: that its updates took.
    """
    optional = {
        "loss": look.loss,
        "gradient_norm": look.gradient_norm,
        **dict(zip(level_names(), look.loss_by_level.tolist(), strict=True)),
        **{f"loss_parts/{name}": value for name, value in look.parts.items()},
    }
    return {name: value for name, value in optional.items() if value is not None and np.isfinite(value)} | {
        "throughput/audio_seconds_per_second": look.audio_seconds / seconds,
        "throughput/updates_per_second": look.updates / seconds,
        "throughput/loader_share": look.loader_seconds / seconds,
    }


@torch.inference_mode()
def validation_loss(run: Run) -> float:
    """Returns the averaged model's loss on fixed segments with fixed times and noise: comparable all along."""
    trained = run.accelerator.unwrap_model(run.step)
    step = TrainingStep(run.averaged_model, trained.objective).eval()
    requests = fixed_requests(run.dev_set.lengths, segment_length(run.recipe))[
        : run.settings["validation_clips"]
    ]
    seed, device = run.settings["seed"], run.accelerator.device
    source = draws.generator(device, seed, draws.VALIDATION_TIMES)
    times = run.density(len(requests), run.model.denoiser.schedule, source)
    total = 0.0
    for first in range(0, len(requests), run.batching.clips_per_pass):
        positions = range(first, min(first + run.batching.clips_per_pass, len(requests)))
        batch = collate([run.dev_set[requests[position]] for position in positions]).to(device)
        noise = draws.ItemNoise(seed, draws.VALIDATION_NOISE, (), positions, run.longest)
        total += float(step(batch, times[list(positions)], noise).sum())
    return total / len(requests)


def synthesize_fixed(run: Run) -> tuple[Sequence[str], list[Tensor], list[Tensor]]:
    """Returns names, recordings [C, T] and what the averaged model makes of fixed validation clips [C, T].

    Raises:
        FloatingPointError: what it makes is not finite.
    """
    requests = fixed_requests(run.dev_set.lengths, segment_length(run.recipe))
    count = run.settings["sample_clips"]
    chosen = requests[:: max(1, len(requests) // count)][:count]
    batch = collate([run.dev_set[request] for request in chosen]).to(run.accelerator.device)
    model = run.averaged_model
    sampler = instantiate(run.recipe["sampler"])
    waveforms = model.eval().synthesize(batch, sampler, run.settings["seed"], steering=model.steering)
    assert batch.waveform is not None
    recordings = [
        item[:, :length] for item, length in zip(batch.waveform, batch.lengths.tolist(), strict=True)
    ]
    return batch.ids, recordings, waveforms
