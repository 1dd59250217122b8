"""Sounds from noise into a samples folder: which labels, how long, how many, in batches."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from rich.progress import Progress, TaskID

from audiodiff.diffusion.constraints import Projection, chain
from audiodiff.diffusion.samplers import Sampler
from audiodiff.errors import InputError
from audiodiff.interval import Interval, choices, listed
from audiodiff.model import FACTS, AudioDiffusion, Steering, find_model
from audiodiff.progress import progress_bar
from audiodiff.synthesis.cost import Meter, Work
from audiodiff.synthesis.samples import Sample, draw_samples, write_record, write_sample
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler, describe
from audiodiff.types import Batch


@dataclass(frozen=True)
class Request:
    """What is to be made.

    Attributes:
        labels: one mapping label name -> value per sound; an absent name means any.
        seconds: length of each sound; None: the median of the training clips.
        sampler: changes to the model's own sampler.
        steering: guidance; None: the model's own.
        seed: of the noise.
        batch: sounds at a time.
        temperature: divides the noise that sampling starts from; None: the sampler's own.
        guide: what every clean estimate is moved towards, see `guide`; None for none.
    """

    labels: Sequence[Mapping[str, str]]
    seconds: float | None = None
    sampler: SamplerChoice = field(default_factory=SamplerChoice)
    steering: Steering | None = None
    seed: int = 0
    batch: int = 16
    temperature: float | None = None
    guide: Projection | None = None

    def sampler_of(self, model: AudioDiffusion) -> Sampler:
        """Returns the sampler that is asked for.

        Raises:
            InputError: a sampler that does not exist, a negative seed, a batch of no sounds.
        """
        if self.seed < 0:
            raise InputError(f"--seed: got {self.seed}, expected 0 or more")
        if self.batch < 1:
            raise InputError(f"--batch: got {self.batch}, expected at least 1")
        sampler = choose_sampler(model.recipe, self.sampler)
        if self.temperature is not None:
            sampler = replace(sampler, temperature=self.temperature)
        if self.guide is None:
            return sampler
        return replace(sampler, projection=chain(*filter(None, (sampler.projection, self.guide))))

    def samples_of(self, model: AudioDiffusion, source: Path) -> int:
        """Returns the length of each sound.

        Raises:
            InputError: below one sample.
        """
        seconds = default_seconds(model, source) if self.seconds is None else self.seconds
        samples = round(seconds * model.sample_rate) if seconds > 0 else 0
        if samples < 1:
            raise InputError(f"--seconds: got {seconds}, expected more than 0")
        return samples


def label_sets(
    known: Mapping[str, Sequence[str]], wanted: Sequence[str], each: Sequence[str], count: int
) -> list[dict[str, str]]:
    """Returns one mapping of labels per sound.

    Args:
        known: the model's label names and values.
        wanted: "value" or "name=value", the same for all sounds.
        each: label names of which every value is made; of an interval every whole step, or those of
            name=low:high or name=low:high:step.
        count: sounds per combination.

    Raises:
        InputError: unknown or ambiguous value, unknown name, a count below 1, one name both fixed and each.
    """
    if count < 1:
        raise InputError(f"--count: got {count}, expected at least 1")
    fixed = dict(_named_label(known, text) for text in wanted)
    varied = dict(_each_value(known, text) for text in each)
    for name in varied:
        if name in fixed:
            raise InputError(f"--each {name}: is already fixed to {fixed[name]!r}; leave one of the two out")
    combinations = itertools.product(
        *([(name, value) for value in values] for name, values in varied.items())
    )
    return [fixed | dict(combination) for combination in combinations for _ in range(count)]


def _each_value(known: Mapping[str, Sequence[str]], text: str) -> tuple[str, Sequence[str]]:
    name, separator, part = text.partition("=")
    if name not in known:
        raise InputError(f"--each {name}: unknown label name; this model has {_listed(known)}")
    values = known[name]
    if not separator:
        return name, values
    if not isinstance(values, Interval):
        raise InputError(f"--each {text}: {name} is no number; --each {name} makes {listed(values)}")
    return name, values.part(name, part)


def _named_label(known: Mapping[str, Sequence[str]], text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if separator:
        if name not in known:
            raise InputError(f"label name {name!r} is unknown; this model has {_listed(known)}")
        if value not in known[name]:
            raise InputError(f"{name} {value!r} is unknown to this model; choose {choices(known[name])}")
        return name, value
    # A bare number says too little: it may be a class, a pitch or a level.
    names = [name for name, values in known.items() if not isinstance(values, Interval) and text in values]
    if not names:
        raise InputError(f"label {text!r} is unknown to this model; it has {_values(known)}")
    if len(names) > 1:
        raise InputError(f"label {text!r} may be {' or '.join(names)}; write {names[0]}={text}")
    return names[0], text


def generate(model: AudioDiffusion, source: Path, request: Request, out: Path, command: str) -> list[Sample]:
    """Makes the sounds, writes the folder and returns what is in it.

    Args:
        model: a model that is not conditioned on a mel.
        source: where the model came from, for the record.
        request: what to make; sound number i draws the noise of item i.
        out: the samples folder; files of the same name are replaced.
        command: for the record.

    Raises:
        InputError: labels, length or sampler that this model does not have; a place that cannot be written.
    """
    sampler, length = request.sampler_of(model), request.samples_of(model, source)
    steering = model.steering if request.steering is None else request.steering
    samples: list[Sample] = []
    pictured: dict[str, list[torch.Tensor]] = {}
    meter = Meter(model.device)
    with progress_bar() as progress:
        task = progress.add_task("synthesize", total=len(request.labels))
        for first in range(0, len(request.labels), request.batch):
            labels = request.labels[first : first + request.batch]
            items = range(first, first + len(labels))
            with meter:
                waveforms = model.synthesize(
                    _batch(labels, length, model), sampler, request.seed, items, steering,
                    on_step=partial(_advance, progress, task, len(labels)),
                )  # fmt: skip
            for item, label, waveform in zip(items, labels, waveforms, strict=True):
                title = " ".join(label.values()) or "any"
                sample = Sample(file_name(label, item), dict(label))
                samples.append(write_sample(out, sample, waveform, model.sample_rate))
                pictured.setdefault(title, []).append(waveform)
    work = Work.of(model, sampler, _batch(request.labels[:1], length, model), steering)
    cost = meter.cost(len(samples) * length / model.sample_rate, [work])
    write_record(out, record_of(source, request, steering, sampler, command), samples, cost)
    draw_samples(out, pictured, model.sample_rate)
    return samples


def record_of(
    source: Path, request: Request, steering: Steering, sampler: Sampler, command: str
) -> dict[str, object]:
    """Returns how sounds were made, for samples.json."""
    record: dict[str, object] = {"model": str(source), "seed": request.seed, "command": command}
    record |= {"guidance": asdict(steering.guidance), "sampler": describe(sampler)}
    return record | ({"negative": dict(steering.negative)} if steering.negative else {})


def _advance(progress: Progress, task: TaskID, sounds: int, done: int, total: int) -> None:
    progress.advance(task, sounds / total)


def _batch(labels: Sequence[Mapping[str, str]], length: int, model: AudioDiffusion) -> Batch:
    columns = {name: tuple(label.get(name, "") for label in labels) for name in model.labels}
    return Batch(waveform=None, lengths=torch.full((len(labels),), length), labels=columns)


def file_name(label: Mapping[str, str], item: int) -> str:
    """Returns the name of the wav file of a sound with these labels."""
    words = "_".join(label.values()) or "sound"
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in words) + f"_{item:04d}.wav"


def default_seconds(model: AudioDiffusion, source: Path) -> float:
    """Returns the length of a sound when none is asked: the median of the training clips, where it is known."""
    try:
        facts = json.loads((find_model(source) / FACTS).read_text())
    except (OSError, ValueError):
        facts = {}
    return float(facts.get("median_seconds", model.recipe["data"]["segment_seconds"]))


def _listed(known: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(known) if known else "no labels"


def _values(known: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name}: {listed(values)}" for name, values in known.items()) or "no labels"
