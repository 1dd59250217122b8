"""Long sounds, loops, variations and morphs into a samples folder, or a long sound into a stream."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.progress import Progress, TaskID
from torch import Tensor

from audiodiff.diffusion.guidance import Guidance
from audiodiff.diffusion.samplers import Sampler
from audiodiff.diffusion.times import LogSnrGrid
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, Steering
from audiodiff.progress import progress_bar
from audiodiff.synthesis.generation import Request, file_name, record_of
from audiodiff.synthesis.long_form import LongForm, LongRequest
from audiodiff.synthesis.loops import loop_noise, loop_samples, make_loops
from audiodiff.synthesis.morph import End, MorphRequest, morph
from audiodiff.synthesis.recordings import Recording, stream_file, write_pcm, writing_blocks
from audiodiff.synthesis.samples import Sample, draw_samples, write_record, write_sample
from audiodiff.synthesis.variation import VariationRequest, vary

LONG_SECONDS = 30.0  # from which on a sound is written block by block
_PICTURED_SECONDS = 20.0
_INVERSION_STEPS = 50


@dataclass(frozen=True)
class Place:
    """Where sounds come from and go to.

    Attributes:
        source: where the model came from, for the record.
        out: the samples folder.
        command: for the record.
        window_seconds: what is denoised at once, see `LongRequest`.
    """

    source: Path
    out: Path
    command: str
    window_seconds: float | None = None


def generate_long(model: AudioDiffusion, request: Request, place: Place) -> list[Sample]:
    """Makes sounds of any length, each written block by block, and returns them.

    Raises:
        InputError: what `Request` and `LongForm` refuse; a place that cannot be written.
    """
    sounds = ((dict(label), _long(model, request, place, item)) for item, label in enumerate(request.labels))
    sampler, samples = request.sampler_of(model), []
    pictured: dict[str, list[Tensor]] = {}
    length, channels = request.samples_of(model, place.source), model.representation.channels
    for item, (label, blocks) in enumerate(sounds):
        sample = Sample(file_name(label, item), label)
        writing = _Writing(place.out / sample.file, model.sample_rate, channels, length)
        samples.append(writing.write(sample, blocks))
        pictured.setdefault(_title(label), []).append(writing.beginning)
    return _finish(model, request, sampler, place, samples, pictured)


def stream(model: AudioDiffusion, request: Request, place: Place, target: str) -> Sample:
    """Makes one sound block by block into a wav file, or as 16-bit samples without header to stdout for "-".

    Raises:
        InputError: more than one sound, and what `generate_long` refuses.
    """
    if len(request.labels) != 1:
        raise InputError(
            f"--stream: {len(request.labels)} sounds, a stream is of one; leave --count and --each out"
        )
    (label,) = request.labels
    blocks, channels = _long(model, request, place, 0), model.representation.channels
    if target != "-":
        path, length = stream_file(target), request.samples_of(model, place.source)
        return _Writing(path, model.sample_rate, channels, length).write(
            Sample(path.name, dict(label)), blocks
        )
    samples = write_pcm(blocks, sys.stdout.buffer)
    return Sample("-", dict(label), round(samples / model.sample_rate, 4))


def generate_loops(model: AudioDiffusion, request: Request, place: Place) -> list[Sample]:
    """Makes loops and returns them.

    Raises:
        InputError: what `Request`, `loop_samples` and `make_loops` refuse; a place that cannot be written.
    """
    sampler, steering = request.sampler_of(model), _steering(model, request)
    if request.guide is not None:
        raise InputError("--loop: takes no --guide, which has a beginning and an end")
    length = loop_samples(model, request.samples_of(model, place.source) / model.sample_rate)
    samples: list[Sample] = []
    pictured: dict[str, list[Tensor]] = {}
    with progress_bar() as progress:
        task = progress.add_task("loops", total=len(request.labels))
        for first in range(0, len(request.labels), request.batch):
            labels = request.labels[first : first + request.batch]
            items = range(first, first + len(labels))
            waveforms = make_loops(
                model, sampler, labels, length, loop_noise(model, request.seed, items), steering,
                partial(_advance, progress, task, len(labels)),
            )  # fmt: skip
            for item, label, waveform in zip(items, labels, waveforms, strict=True):
                sample = Sample(file_name(label, item), dict(label))
                samples.append(write_sample(place.out, sample, waveform, model.sample_rate))
                pictured.setdefault(_title(label), []).append(waveform.repeat(1, 2))
    return _finish(model, request, sampler, place, samples, pictured)


def generate_variations(
    model: AudioDiffusion, request: Request, place: Place, recording: Path, strength: float
) -> tuple[list[Sample], tuple[str, ...]]:
    """Makes variations of a recording and returns them, and what is done to the recording on its way, in words.

    Raises:
        InputError: what `Request`, `Recording` and `vary` refuse; a place that cannot be written.
    """
    opened = Recording(recording, model.sample_rate, model.representation.channels)
    sampler, samples = request.sampler_of(model), []
    pictured: dict[str, list[Tensor]] = {}
    for item, label in enumerate(request.labels):
        varied = VariationRequest(
            strength, label, _steering(model, request), request.seed, item, place.window_seconds
        )
        blocks = opened.restore(vary(model, sampler, opened, varied), model.sample_rate)
        name = f"{recording.stem}_{file_name(label, item).removeprefix('sound_')}"
        sample = Sample(name, dict(label), reference=str(recording))
        info = opened.info
        writing = _Writing(place.out / name, info.sample_rate, info.channels, info.length)
        samples.append(writing.write(sample, blocks))
        pictured.setdefault(_title(label), []).append(writing.beginning)
    rate = opened.info.sample_rate
    return _finish(model, request, sampler, place, samples, pictured, rate), opened.changes


def generate_morph(
    model: AudioDiffusion, request: Request, place: Place, ends: tuple[End, End], count: int
) -> list[Sample]:
    """Makes sounds from one end to the other and returns them.

    Raises:
        InputError: what `Request` and `morph` refuse; a place that cannot be written.
    """
    label = dict(request.labels[0])
    steering, sampler = _steering(model, request), request.sampler_of(model)
    if any(isinstance(end, Path) for end in ends):
        # The model's own guidance cannot be inverted; guidance that was asked for is refused.
        asked = request.steering is not None and request.steering != model.steering
        steering = steering if asked else Steering(Guidance())
        sampler = _for_inversion(sampler, request)
    wanted = MorphRequest(ends, count, request.samples_of(model, place.source), label, steering)
    with progress_bar() as progress:
        task = progress.add_task("morph", total=1.0)
        waveforms = morph(
            model, sampler, wanted, lambda done, total: progress.update(task, completed=done / total)
        )
    names = [f"morph_{number:04d}.wav" for number in range(count)]
    samples = [
        write_sample(place.out, Sample(name, label), waveform, model.sample_rate)
        for name, waveform in zip(names, waveforms, strict=True)
    ]
    pictured = {
        name.removesuffix(".wav"): [waveform] for name, waveform in zip(names, waveforms, strict=True)
    }
    return _finish(model, replace(request, steering=steering), sampler, place, samples, pictured)


def _for_inversion(sampler: Sampler, request: Request) -> Sampler:
    """Returns the sampler with a grid on which DDIM can be inverted, where none was asked for."""
    if request.sampler.grid is not None:
        return sampler
    return replace(sampler, grid=LogSnrGrid(request.sampler.steps or _INVERSION_STEPS))


def _long(model: AudioDiffusion, request: Request, place: Place, item: int) -> Iterator[Tensor]:
    steering = _steering(model, request)
    length = request.samples_of(model, place.source)
    wanted = LongRequest(length, request.labels[item], steering, request.seed, item, place.window_seconds)
    return iter(LongForm(model, request.sampler_of(model), wanted))


@dataclass
class _Writing:
    """One wav file, written block by block with a progress bar; keeps its beginning for the picture."""

    path: Path
    sample_rate: int
    channels: int
    length: int
    beginning: Tensor = torch.zeros(0)  # noqa: RUF009 replaced, never changed

    def write(self, sample: Sample, blocks: Iterable[Tensor]) -> Sample:
        """Writes the file and returns the sample with its length and clipped count."""
        kept, most = [], round(_PICTURED_SECONDS * self.sample_rate)
        with writing_blocks(self.path, self.sample_rate, self.channels) as file, progress_bar() as progress:
            task = progress.add_task(self.path.name, total=self.length)
            for block in blocks:
                if file.samples < most:
                    kept.append(block.cpu())
                file.write(block)
                progress.advance(task, block.shape[-1])
        self.beginning = torch.cat(kept, dim=-1)[:, :most]
        return replace(sample, seconds=round(file.samples / self.sample_rate, 4), clipped=file.clipped)


def _finish(
    model: AudioDiffusion, request: Request, sampler: Sampler, place: Place, samples: list[Sample],
    pictured: dict[str, list[Tensor]], sample_rate: int | None = None,
) -> list[Sample]:  # fmt: skip
    """Writes the record and the picture of a samples folder."""
    record = record_of(place.source, request, _steering(model, request), sampler, place.command)
    write_record(place.out, record, samples)
    draw_samples(place.out, pictured, model.sample_rate if sample_rate is None else sample_rate)
    return samples


def _steering(model: AudioDiffusion, request: Request) -> Steering:
    return model.steering if request.steering is None else request.steering


def _advance(progress: Progress, task: TaskID, sounds: int, done: int, total: int) -> None:
    progress.advance(task, sounds / total)


def _title(label: dict[str, str] | object) -> str:
    assert isinstance(label, dict)
    return " ".join(label.values()) or "any"
