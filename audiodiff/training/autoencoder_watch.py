"""What is to be seen of an autoencoder's training: progress, curves, fixed clips as they come back, status.json."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from audiodiff.data.collate import collate
from audiodiff.data.order import fixed_requests
from audiodiff.errors import InputError
from audiodiff.training.heartbeat import FAILED, FINISHED, INTERRUPTED, RUNNING, write_status
from audiodiff.training.logging import ProgressBar
from audiodiff.training.run import segment_length
from audiodiff.training.trackers import Tracker, open_trackers, show_samples

if TYPE_CHECKING:
    from audiodiff.training.autoencoder import AutoencoderRun


class AutoencoderWatch:
    """The onlooker of a run; what is written and printed, the main process writes and prints."""

    def __init__(self, run: AutoencoderRun, console: Console) -> None:
        """Opens log and status at the run's present update.

        Raises:
            InputError: training.tracker names what there is not.
        """
        self._run, self._main = run, run.accelerator.is_main_process
        kind = run.settings["tracker"] if self._main else "none"
        self._trackers: list[Tracker] = open_trackers(kind, run.folder, run.update, run.recipe)
        self._bar = ProgressBar(console, run.settings["updates"], run.update, visible=self._main)
        self._sums: dict[str, float] = {}
        self._count, self._looked = 0, monotonic()
        self._known: dict[str, float] = {}
        self._write_status(RUNNING)

    def __enter__(self) -> AutoencoderWatch:
        self._bar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        asked = kind is None or isinstance(error, KeyboardInterrupt) or self._run.stop.stopping
        self._write_status(FINISHED if self._run.done and kind is None else INTERRUPTED if asked else FAILED)
        self._bar.__exit__()
        for tracker in self._trackers:
            tracker.close()

    def observe(self, parts: Mapping[str, float]) -> None:
        """Takes notice of one update."""
        run = self._run
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if run.due("log_every"):
            seconds = max(monotonic() - self._looked, 1e-9)
            means = {name: value / self._count for name, value in self._sums.items()}
            loss = sum(value for name, value in means.items() if name != "gradient_norm")
            self._bar.show_loss(loss)
            values = {f"loss_parts/{name}": value for name, value in means.items() if name != "gradient_norm"}
            values |= {"loss": loss, "gradient_norm": means["gradient_norm"]}
            values |= {"learning_rate": run.learning_rate(run.update - 1)}
            values |= {"throughput/updates_per_second": self._count / seconds}
            self._tell(values)
            self._known |= {"loss": loss, "updates_per_second": self._count / seconds}
            self._sums, self._count, self._looked = {}, 0, monotonic()
            self._write_status(RUNNING)
        self._bar.advance_to(run.update)

    def validate(self) -> None:
        """Measures the averaged autoencoder on the dev split and shows some clips as they come back."""
        from audiodiff.training.autoencoder import validation_parts

        run, begun = self._run, monotonic()
        parts = validation_parts(run)
        reconstruction = sum(value for name, value in parts.items() if name != "divergence")
        run.facts["validation_loss"] = round(reconstruction, 6)
        self._tell({f"validation/{name}": value for name, value in parts.items()})
        self._tell({"validation_loss": reconstruction})
        self._known |= {"validation_loss": reconstruction}
        self._show()
        for tracker in self._trackers:
            tracker.flush()
        self._looked += monotonic() - begun

    @torch.inference_mode()
    def _show(self) -> None:
        run = self._run
        requests = fixed_requests(run.dev_set.lengths, segment_length(run.recipe))
        count = run.settings["sample_clips"]
        chosen = requests[:: max(1, len(requests) // count)][:count]
        autoencoder = run.averaged_autoencoder
        recordings, decoded, names = [], [], []
        for request in chosen:
            batch = collate([run.dev_set[request]]).to(run.accelerator.device)
            assert batch.waveform is not None
            recordings.append(batch.waveform[0])
            decoded.append(
                autoencoder.decode(autoencoder.encode(batch.waveform))[0, :, : batch.waveform.shape[-1]]
            )
            names.append(batch.ids[0])
        if self._trackers:
            rate = autoencoder.sample_rate
            show_samples(self._trackers, decoded, names, rate, run.update, recordings)

    def _tell(self, values: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.scalars(values, self._run.update)

    def _write_status(self, state: str) -> None:
        run = self._run
        if not self._main:
            return
        values = {
            "experiment": run.recipe["experiment"],
            "update": run.update,
            "updates": run.settings["updates"],
            "seconds": round(run.seconds, 1),
            "processes": run.accelerator.num_processes,
            "hardware": run.facts["hardware"],
            "parameters": run.facts["parameters"],
        }
        with suppress(InputError):  # a full disk, which costs the status and not the run
            write_status(run.folder, state, values | self._known)
