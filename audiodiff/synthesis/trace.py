"""What a model does, written down: the forward process and the reverse trajectory of one sound.

The forward process noises a clean signal, x_t = alpha x_0 + sigma eps, with the very noise that synthesis starts
from; the reverse trajectory is every x_t of the sampler and the clean estimate at it. A `Recorder` is a step that
makes the moves of another one and keeps what passes, so that the sound is bit for bit the one that `synthesize`
or `vocode` makes. Sizes are root mean squares in the schedule's coordinates, where data has unit variance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.conditioning.mel import heard
from audiodiff.diffusion.denoiser import Denoise, VarianceDenoise
from audiodiff.diffusion.guidance import GuidedDenoise
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.priors import color
from audiodiff.diffusion.process import diffuse, starting_std
from audiodiff.diffusion.samplers import Sampler, Step
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.errors import InputError
from audiodiff.files import write_whole
from audiodiff.model import UNSTEERED, AudioDiffusion, Steering
from audiodiff.progress import progress_bar
from audiodiff.synthesis.generation import default_seconds
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler, describe
from audiodiff.synthesis.trace_picture import Column, Curves, draw_trace
from audiodiff.synthesis.vocoder import Vocoder
from audiodiff.types import Batch, Condition

RECORD, PICTURE, RESULT = "trace.json", "trace.png", "result.wav"
_HEARD_DB = (-20.0, 30.0)


@dataclass(frozen=True)
class TraceRequest:
    """What is to be traced.

    Attributes:
        labels: label name -> value; an absent name means any.
        recording: audio whose noising the forward row shows, and whose mel a vocoder hears; None takes the model's
            own result.
        seconds: length of the sound; None: that of the recording, or the median of the training clips.
        sampler: changes to the model's own sampler.
        steering: guidance; None: the model's own.
        seed: of the noise.
        columns: times to draw, the first and the last one among them.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    recording: Path | None = None
    seconds: float | None = None
    sampler: SamplerChoice = field(default_factory=SamplerChoice)
    steering: Steering | None = None
    seed: int = 0
    columns: int = 6


class Recorder:
    """A step that makes the moves of another one and keeps what passes.

    It evaluates the denoiser at every (x_t, t) and hands a plain Denoise that answer when it asks for it again; a
    guided one or one with variances is evaluated once more.

    Attributes:
        kept: (x_t [B, C, F], t, clean estimate [B, C, F]) before step i, counted from 0, of the steps asked for.
        updates: RMS of x_s - x_t of each step, before any constraint.
        estimate_changes: RMS of what the clean estimate moved since the step before; NaN at first.
    """

    def __init__(self, step: Step, numbers: Collection[int]) -> None:
        """Starts empty.

        Args:
            step: the step that moves.
            numbers: of the steps whose tensors are kept.
        """
        self.step = step
        self.least_steps: int = getattr(step, "least_steps", 1)
        self.kept: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.updates: list[float] = []
        self.estimate_changes: list[float] = []
        self._numbers = frozenset(numbers)
        self._last: Tensor | None = None

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns what the step returns."""
        clean = denoise(x, t)
        number = len(self.updates)
        if number in self._numbers:
            self.kept[number] = x, t, clean
        several = isinstance(denoise, VarianceDenoise | GuidedDenoise)
        after, memory = self.step(
            denoise if several else _Answered(denoise, x, t, clean), schedule, x, t, s, memory, noise
        )
        self.updates.append(_rms(after - x))
        self.estimate_changes.append(math.nan if self._last is None else _rms(clean - self._last))
        self._last = clean
        return after, memory


@dataclass(frozen=True)
class _Answered:
    """A Denoise that knows the answer at one place."""

    denoise: Denoise
    x: Tensor
    t: Tensor
    clean: Tensor

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.clean if x is self.x and t is self.t else self.denoise(x, t)


def trace(model: AudioDiffusion, source: Path, request: TraceRequest, out: Path, command: str) -> Tensor:
    """Makes one sound, writes what happened into the folder and returns the waveform [C, T].

    Args:
        model: the model.
        source: where it came from, for the record.
        request: what to trace.
        out: folder for trace.png, trace.json, result.wav and the clean estimates as wav files.
        command: for the record.

    Raises:
        InputError: a mel-conditional model without a recording, or with guidance or a length; less than two columns;
            a recording, label or sampler that does not fit the model; a place that cannot be written.
    """
    if request.seed < 0:
        raise InputError(f"--seed: got {request.seed}, expected 0 or more")
    schedule = model.denoiser.schedule
    sampler = choose_sampler(model.recipe, request.sampler)
    times = sampler.times(schedule)
    snr_db = [_decibels(schedule, t) for t in times]
    chosen = chosen_times(snr_db, request.columns)
    recorder = Recorder(sampler.step, chosen)
    recording = None if request.recording is None else _read(model, request.recording)
    batch = _batch(model, source, request, recording)
    result = _synthesize(model, replace(sampler, step=recorder), batch, request)
    clean = result if recording is None else recording
    forward = _forward(model, batch, clean, times[chosen], request.seed)
    columns = [
        Column(
            number,
            float(times[number]),
            snr_db[number],
            noised,
            *_reverse(model, batch, result, recorder, number),
        )
        for number, noised in zip(chosen, forward, strict=True)
    ]
    files = _write_sounds(model, columns, result, out)
    curves = Curves(
        updates=recorder.updates,
        estimate_changes=recorder.estimate_changes,
        alpha=schedule.alpha(times).tolist(),
        sigma=schedule.sigma(times).tolist(),
        snr_db=snr_db,
        chosen=chosen,
    )
    record: dict[str, Any] = {"model": str(source), "command": command}
    record |= _record(request, sampler, _steering(model, request), times, curves) | {"files": files}
    write_whole({out / RECORD: (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode("utf-8")})
    heard = "the model's own result" if request.recording is None else request.recording.name
    title = _title(request, sampler, source, len(times) - 1)
    draw_trace(columns, curves, title, heard, model.sample_rate, out / PICTURE)
    return result


def chosen_times(snr_db: Sequence[float], columns: int) -> list[int]:
    """Returns numbers of grid times from 0 (noise) to the last (the result), so many or all that there are.

    They are about evenly spaced in decibels between the levels where next to nothing and next to everything is
    heard of the signal, since a picture of one noise looks like that of another.

    Args:
        snr_db: signal-to-noise ratio at the times of the grid, rising.
        columns: how many to choose.

    Raises:
        InputError: fewer than two columns.
    """
    if columns < 2:
        raise InputError(f"--columns: got {columns}, expected at least 2, the noise and the result")
    last, columns = len(snr_db) - 1, min(columns, len(snr_db))
    heard = np.clip(snr_db, *_HEARD_DB)
    chosen = [0]
    for number, level in enumerate(np.linspace(heard[0], heard[-1], columns)[1:-1], start=1):
        nearest = int(np.abs(heard - level).argmin())
        chosen.append(min(max(nearest, chosen[-1] + 1), last - (columns - 1 - number)))
    return [*chosen, last]


def _read(model: AudioDiffusion, file: Path) -> Tensor:
    """Returns [C, T] at the model's rate and with its channels; a model of mono audio hears the mean."""
    waveform, _ = io.read(file, model.sample_rate)
    wanted = model.representation.channels
    if wanted == 1:
        return waveform.mean(0, keepdim=True)
    if waveform.shape[0] != wanted:
        raise InputError(f"{file}: {waveform.shape[0]} channels, the model has {wanted}")
    return waveform


def _batch(model: AudioDiffusion, source: Path, request: TraceRequest, recording: Tensor | None) -> Batch:
    labels = {name: (request.labels.get(name, ""),) for name in model.labels}
    if _hears_mel(model):
        if recording is None:
            raise InputError(
                "this model is conditioned on a mel: name a recording to take it from with --from"
            )
        if request.seconds is not None or request.steering is not None:
            raise InputError(
                "--seconds, --guidance: a vocoder's sound is as long as its mel and is not guided"
            )
        mel = Vocoder(model).log_mel(recording)
        if mel.shape[-1] == 0:
            raise InputError(f"{request.recording}: {recording.shape[-1]} samples are shorter than one frame")
        return Batch(None, torch.tensor([recording.shape[-1]]), labels, mel)
    if request.seconds is not None:
        length = round(request.seconds * model.sample_rate)
    elif recording is not None:
        length = recording.shape[-1]
    else:
        length = round(default_seconds(model, source) * model.sample_rate)
    if length < 1:
        raise InputError(f"--seconds: got {request.seconds}, expected more than 0")
    return Batch(None, torch.tensor([length]), labels)


def _hears_mel(model: AudioDiffusion) -> bool:
    return heard(model.conditioner) is not None


def _synthesize(model: AudioDiffusion, sampler: Sampler, batch: Batch, request: TraceRequest) -> Tensor:
    """Returns the waveform [C, T] as `vocode` or `synthesize` would make it."""
    with progress_bar() as progress:
        task = progress.add_task("trace", total=None)

        def on_step(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if batch.mel is not None:
            vocoder = Vocoder(model, sampler, layout="bands_first")
            return vocoder(batch.mel, batch.lengths.tolist(), batch.labels, request.seed, on_step).cpu()
        steering = _steering(model, request)
        return model.synthesize(batch, sampler, request.seed, [0], steering, on_step=on_step)[0].cpu()


def _forward(model: AudioDiffusion, batch: Batch, clean: Tensor, times: Tensor, seed: int) -> list[Tensor]:
    """Returns clean [C, T] noised to each of the times, with the noise that synthesis starts from."""
    schedule, length = model.denoiser.schedule, clean.shape[-1]
    heard = replace(batch, waveform=clean[None].to(model.device), lengths=torch.tensor([length]))
    with torch.inference_mode():
        x, condition = model.encode(heard)
        noise = KeyedNoise(seed, [0])(0, x.shape, model.device)
        noised = [_unit_scale(schedule, diffuse(schedule, x, noise, t), t) for t in times[:-1]]
        return [*(_decode(model, x_t, condition, length) for x_t in noised), clean]


def _reverse(
    model: AudioDiffusion, batch: Batch, result: Tensor, recorder: Recorder, number: int
) -> tuple[Tensor, Tensor | None]:
    """Returns x_t and the clean estimate before step `number`, as waveforms [C, T]; the result after the last."""
    if number == len(recorder.updates):
        return result, None
    length = result.shape[-1]
    x_t, t, clean = recorder.kept[number]
    with torch.inference_mode():
        condition = model.condition(batch)
        x_t = _unit_scale(model.denoiser.schedule, x_t, t)
        return _decode(model, x_t, condition, length), _decode(model, clean, condition, length)


def _unit_scale(schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> Tensor:
    """Returns x_t over its deviation for data of unit variance, so that an exploding process can be seen too."""
    return x_t / float(starting_std(schedule, t))


def _decode(model: AudioDiffusion, x: Tensor, condition: Condition, length: int) -> Tensor:
    return model.representation.decode(color(x, condition), length)[0].cpu()


def _decibels(schedule: NoiseSchedule, t: Tensor) -> float:
    return 10 / math.log(10) * float(schedule.log_snr(t))


def _write_sounds(
    model: AudioDiffusion, columns: list[Column], result: Tensor, out: Path
) -> list[dict[str, Any]]:
    """Writes the clean estimates and the result and returns their entries of the record."""
    files = []
    for column in columns:
        name = RESULT if column.estimate is None else f"clean_{column.step:04d}.wav"
        clipped = io.write(
            out / name, result if column.estimate is None else column.estimate, model.sample_rate
        )
        files.append({"file": name, "step": column.step, "t": column.t, "clipped": clipped})
    return files


def _record(
    request: TraceRequest, sampler: Sampler, steering: Steering, times: Tensor, curves: Curves
) -> dict[str, Any]:
    """Returns the settings and the numbers along the steps."""
    return {
        "seed": request.seed,
        "labels": dict(request.labels),
        "recording": None if request.recording is None else str(request.recording.resolve()),
        "guidance": asdict(steering.guidance),
        "sampler": describe(sampler),
        "times": times.tolist(),
        "alpha": curves.alpha,
        "sigma": curves.sigma,
        "snr_db": [_finite(value) for value in curves.snr_db],
        "update_rms": curves.updates,
        "estimate_change_rms": [_finite(value) for value in curves.estimate_changes],
    }


def _steering(model: AudioDiffusion, request: TraceRequest) -> Steering:
    """Returns the guidance: a vocoder has none."""
    if _hears_mel(model):
        return UNSTEERED
    return model.steering if request.steering is None else request.steering


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _title(request: TraceRequest, sampler: Sampler, source: Path, steps: int) -> str:
    asked = ", ".join(f"{name} {value}" for name, value in request.labels.items())
    step = describe(sampler)["step"]
    return " · ".join(filter(None, [str(source), asked, f"{step}, {steps} steps", f"seed {request.seed}"]))


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())
