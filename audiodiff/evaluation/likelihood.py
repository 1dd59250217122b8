"""How likely recordings are under a model: bits per number by the flow and by the bound, denoising error by level.

Lower bits are likelier. They count every number of x, the Representation's, so models are comparable where they
diffuse the same x; quiet sounds have fewer bits, so compare recordings of one level. The noise of a recording is
keyed by the seed and its name and its padding is left out of every sum, so it has the same numbers alone and in a
batch, and under two labels it is judged with the same noise.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.data.collate import Item, collate
from audiodiff.diffusion.likelihood import (
    ProbabilityFlow,
    bits_per_position,
    denoising_error,
    variational_bound,
)
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.priors import log_volume, whiten
from audiodiff.diffusion.samplers import NoiseSource
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.times import LogSnrGrid
from audiodiff.errors import InputError
from audiodiff.evaluation.pictures import likelihood_picture
from audiodiff.files import write_whole
from audiodiff.model import AudioDiffusion
from audiodiff.progress import progress_bar
from audiodiff.types import Batch, Condition

if TYPE_CHECKING:
    from lhotse.cut import Cut

RECORD, TABLE, PICTURE = "likelihood.json", "likelihood.md", "likelihood.png"
# Where no signal is left at t = 1, everything ends at this sigma / alpha: -60 dB.
_LARGEST_RATIO = 1e3
_BOUND_DRAW, _ERROR_DRAW = 0, 1


@dataclass(frozen=True)
class Precision:
    """How exactly likelihoods are measured.

    Attributes:
        steps: of the probability flow; 0 leaves it out, which is most of the work.
        probes: of its divergence.
        bound_steps: of the variational bound, evenly spaced in log-SNR.
        levels: noise levels of the denoising error, evenly spaced in log-SNR.
        seed: of noise and probes.
        batch: recordings at a time; changes speed and memory, not the numbers.
    """

    steps: int = 50
    probes: int = 1
    bound_steps: int = 100
    levels: int = 20
    seed: int = 0
    batch: int = 8

    def __post_init__(self) -> None:
        least = {"steps": 0, "probes": 1, "bound_steps": 1, "levels": 2, "seed": 0, "batch": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                option = name.replace("_", "-")
                raise InputError(f"--{option}: got {getattr(self, name)}, expected at least {value}")


@dataclass(frozen=True)
class Recording:
    """What is to be judged.

    Attributes:
        name: file name or id of the cut; its noise depends on it.
        file: the audio file; None for a cut.
        cut: the cut; None for a file.
        labels: told to the model; an absent name means any.
    """

    name: str
    file: Path | None
    cut: Cut | None
    labels: Mapping[str, str]

    def read(self, sample_rate: int, channels: int) -> Tensor:
        """Returns [C, T] at a sample rate; a model of mono audio hears the mean of the channels.

        Raises:
            InputError: the audio cannot be read, is empty, or has other channels.
        """
        if self.cut is not None:
            from audiodiff.data.segments import read_cut

            waveform = read_cut(self.cut, 0, self.cut.num_samples)
            waveform = io.resample(waveform, self.cut.sampling_rate, sample_rate)
        else:
            assert self.file is not None
            waveform, _ = io.read(self.file, sample_rate)
        if channels == 1:
            waveform = waveform.mean(0, keepdim=True)
        if waveform.shape[0] != channels or waveform.shape[-1] == 0:
            raise InputError(
                f"{self.name}: {waveform.shape[0]} channels of {waveform.shape[-1]} samples, the model has {channels}"
            )
        return waveform


@dataclass(frozen=True)
class Likelihood:
    """What was measured of one recording.

    Attributes:
        name: the recording's.
        labels: what the model was told.
        seconds: length.
        numbers: how many numbers of x it has.
        bits: minus log2 of its density by the probability flow, per number of x; None if left out.
        bound_bits: an upper bound on it, in expectation over the noise.
        errors: mean squared error of the noise estimate at each level.
    """

    name: str
    labels: Mapping[str, str]
    seconds: float
    numbers: int
    bits: float | None
    bound_bits: float
    errors: list[float]


def find_recordings(
    inputs: Sequence[str], known: Mapping[str, Sequence[str]], labels: Mapping[str, str]
) -> list[Recording]:
    """Returns the recordings of audio files, folders, globs and manifests, in that order.

    Args:
        inputs: what a user named.
        known: label names of the model; those of a manifest's cuts are taken from it.
        labels: told to the model of all recordings, before those of a manifest.

    Raises:
        InputError: nothing found, or two recordings of one name.
    """
    manifests = [given for given in inputs if str(given).endswith((".jsonl.gz", ".jsonl"))]
    rest = [given for given in inputs if given not in manifests]
    files = io.find(rest) if rest or not manifests else []
    found = [Recording(file.name, file, None, dict(labels)) for file in files]
    if manifests:
        from audiodiff.data.manifests import labels_of, load_cuts

        for cut in (cut for manifest in manifests for cut in load_cuts(manifest)):
            told = {name: value for name, value in labels_of(cut).items() if name in known}
            found.append(Recording(cut.id, None, cut, told | dict(labels)))
    names = [recording.name for recording in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"{len(twice)} names occur twice among the inputs, first {twice[0]}; judge them apart"
        )
    return found


def measure(
    model: AudioDiffusion,
    recordings: Sequence[Recording],
    precision: Precision,
    on_step: Callable[[float], None] | None = None,
) -> list[Likelihood]:
    """Returns what was measured of each recording.

    Args:
        model: the model.
        recordings: to judge.
        precision: how exactly.
        on_step: told by how many recordings the work went on.

    Raises:
        InputError: a recording or label that does not fit the model.
    """
    measured = []
    for first in range(0, len(recordings), precision.batch):
        chosen = recordings[first : first + precision.batch]
        measured += _measure_batch(model, chosen, precision, on_step or (lambda done: None))
    return measured


def _measure_batch(
    model: AudioDiffusion, chosen: Sequence[Recording], precision: Precision, on_step: Callable[[float], None]
) -> list[Likelihood]:
    schedule = model.denoiser.schedule
    share = len(chosen) / (precision.steps + 2)
    keyed = KeyedNoise(precision.seed, [zlib.crc32(recording.name.encode()) for recording in chosen])
    with torch.no_grad():
        waveforms = [each.read(model.sample_rate, model.representation.channels) for each in chosen]
        batch, condition, x = encoded_alone(model, waveforms, [each.labels for each in chosen])
        mask, volume, numbers = condition.mask(x), log_volume(x, condition), _numbers(x, condition)
        denoise = model.denoiser.bind(condition)
        grid = LogSnrGrid(precision.bound_steps, ratio_max=_ratio_max(schedule))
        bound = variational_bound(denoise, schedule, x, grid, _source(keyed, x, _BOUND_DRAW), mask)
        on_step(share)
        times = level_times(schedule, precision.levels)
        errors = denoising_error(denoise, schedule, x, times, _source(keyed, x, _ERROR_DRAW), mask)
        on_step(share)
        bits: list[float | None] = [None] * len(chosen)
        if precision.steps > 0:
            flow = ProbabilityFlow(precision.steps, precision.probes, latest=_latest(schedule))
            probes = torch.stack([keyed(0, x.shape, x.device, i) for i in range(precision.probes)]).sign()
            found = flow.along(denoise, schedule, x, probes, mask, lambda done, total: on_step(share))
            bits = bits_per_position(found + volume, numbers).tolist()
    bounds = bits_per_position(volume - bound, numbers).tolist()
    seconds = (batch.lengths / model.sample_rate).tolist()
    return [
        Likelihood(item.name, dict(item.labels), *facts)
        for item, *facts in zip(chosen, seconds, numbers.tolist(), bits, bounds, errors.tolist(), strict=True)
    ]


def _source(keyed: KeyedNoise, x: Tensor, own: int) -> NoiseSource:
    """Returns the noise of x's shape at draw `own`, so that bound and error do not share theirs."""
    return lambda step, draw: keyed(step, x.shape, x.device, own)


def _numbers(x: Tensor, condition: Condition) -> Tensor:
    """Returns how many numbers of x belong to each item [B]."""
    frames = torch.full((x.shape[0],), x.shape[-1]) if condition.frames is None else condition.frames
    return frames.to(x.device) * x.shape[1]


def encoded_alone(
    model: AudioDiffusion, waveforms: Sequence[Tensor], labels: Sequence[Mapping[str, str]]
) -> tuple[Batch, Condition, Tensor]:
    """Returns batch, condition and whitened x [B, D, F] of waveforms, each as it is alone, zero in its padding.

    Args:
        model: of any representation.
        waveforms: [C, T] each, at the model's rate.
        labels: of each waveform; one that is missing means any.

    Raises:
        InputError: a label that the model does not know.
    """
    items = [
        Item(waveform, waveform.shape[-1], {name: known.get(name, "") for name in model.labels}, str(i))
        for i, (waveform, known) in enumerate(zip(waveforms, labels, strict=True))
    ]
    batch = collate(items).to(model.device)
    assert batch.waveform is not None
    condition = model.condition(batch)
    x = torch.zeros(batch.size, *model.representation.shape(int(batch.lengths.max())), device=model.device)
    for row, waveform, length in zip(x, batch.waveform, batch.lengths.tolist(), strict=True):
        encoded = model.representation.encode(waveform[None, :, :length])[0]
        row[:, : encoded.shape[-1]] = encoded
    x, mask = whiten(x, condition), condition.mask(x)
    if mask is None:
        return batch, condition, x
    if condition.prior_std is not None:  # padding has no volume
        condition = replace(condition, prior_std=torch.where(mask.bool(), condition.prior_std, 1.0))
    return batch, condition, x * mask


def level_times(schedule: NoiseSchedule, levels: int) -> list[float]:
    """Returns times from the noisiest to the cleanest level, evenly spaced in log-SNR."""
    return LogSnrGrid(levels, ratio_max=_ratio_max(schedule))(schedule)[:-1].tolist()


def _ratio_max(schedule: NoiseSchedule) -> float | None:
    end = schedule.log_snr(torch.ones((), dtype=torch.float64))
    return None if bool(end.isfinite()) else _LARGEST_RATIO


def _latest(schedule: NoiseSchedule) -> float:
    ratio = _ratio_max(schedule)
    if ratio is None:
        return 1.0
    return float(schedule.time(torch.tensor(-2 * math.log(ratio), dtype=torch.float64)))


def judge_recordings(
    model: AudioDiffusion, source: Path, recordings: Sequence[Recording], precision: Precision, out: Path,
    command: str,
) -> str:  # fmt: skip
    """Measures recordings, writes likelihood.json, likelihood.md and likelihood.png and returns the table.

    Args:
        model: the model.
        source: where it came from, for the record.
        recordings: to judge.
        precision: how exactly.
        out: folder.
        command: for the record.

    Raises:
        InputError: a recording or label that does not fit the model; a place that cannot be written.
    """
    with progress_bar() as progress:
        task = progress.add_task("likelihood", total=len(recordings))
        measured = measure(model, recordings, precision, lambda done: progress.advance(task, done))
    schedule = model.denoiser.schedule
    times = torch.tensor(level_times(schedule, precision.levels), dtype=torch.float64)
    snr_db = (10 / math.log(10) * schedule.log_snr(times)).tolist()
    record = {
        "model": str(source),
        "command": command,
        "precision": asdict(precision),
        "unit": "bits per number of x; lower is likelier",
        "bits": _summary([found.bits for found in measured if found.bits is not None]),
        "bound_bits": _summary([found.bound_bits for found in measured]),
        "snr_db": snr_db,
        "recordings": [asdict(found) for found in measured],
    }
    table = table_of(measured)
    content = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_whole({out / RECORD: content.encode("utf-8"), out / TABLE: table.encode("utf-8")})
    best = [found.bound_bits if found.bits is None else found.bits for found in measured]
    method = "variational bound" if measured[0].bits is None else "probability flow"
    errors = {found.name: found.errors for found in measured}
    likelihood_picture(snr_db, errors, best, f"bits per number of x, by the {method}", out / PICTURE)
    return table


def table_of(measured: Sequence[Likelihood]) -> str:
    """Returns a Markdown table, the likeliest recording first, its first row the mean with its standard error."""
    flow = [found.bits for found in measured if found.bits is not None]
    bounds = [found.bound_bits for found in measured]
    seconds = sum(found.seconds for found in measured)
    lines = [
        "| recording | labels | seconds | bits (flow) | bits (bound) |",
        "|---|---|---|---|---|",
        f"| mean of {len(measured)} | | {seconds:.2f} | {_mean_text(flow)} | {_mean_text(bounds)} |",
    ]
    for found in sorted(measured, key=lambda found: found.bound_bits if found.bits is None else found.bits):
        told = " ".join(value for value in found.labels.values() if value)
        bits = "" if found.bits is None else f"{found.bits:.4f}"
        lines.append(f"| {found.name} | {told} | {found.seconds:.2f} | {bits} | {found.bound_bits:.4f} |")
    return "\n".join(lines) + "\n"


def _summary(values: Sequence[float]) -> dict[str, float | None] | None:
    """Returns mean and standard error, the latter None for a single value."""
    if not values:
        return None
    numbers = torch.tensor(values, dtype=torch.float64)
    error = None if len(values) < 2 else float(numbers.std() / math.sqrt(len(values)))
    return {"mean": float(numbers.mean()), "standard_error": error}


def _mean_text(values: Sequence[float]) -> str:
    summary = _summary(values)
    if summary is None:
        return ""
    error = summary["standard_error"]
    return f"{summary['mean']:.4f}" + ("" if error is None else f" ± {error:.4f}")
