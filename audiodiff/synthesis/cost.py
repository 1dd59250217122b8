"""What sounds cost: time, network evaluations, arithmetic, parameters, memory, and on what.

Time is measured where the sound is made, the model loaded before and the files written after; the first batch warms up
within it. Evaluations are counted by walking the sampler's own grid with a network that only counts, so that they
hold for every step, guidance and interval. Arithmetic is counted on one sound: multiply-adds of matrix products,
convolutions and attention, the same on every machine; what is done once for a sound (conditioner, decoder) counts once,
the network as often as it is evaluated. Fourier transforms, noise and elementwise work are not in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from audiodiff.audio.mel_representation import MelRepresentation
from audiodiff.diffusion.guidance import guided
from audiodiff.diffusion.samplers import Sampler
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.hardware import device_name, peak_memory_bytes
from audiodiff.model import UNSTEERED, AudioDiffusion, Steering
from audiodiff.types import Batch

Item = TypeVar("Item")


@dataclass(frozen=True)
class Cost:
    """What a folder of sounds took.

    Attributes:
        work_seconds: of making the sounds, without loading, reading and writing.
        audio_seconds: made in that time.
        evaluations: of networks that each moment of a sound passed through.
        parameters: of all that ran.
        multiply_adds: per second of audio.
        peak_memory_bytes: the most that the process held, Python and weights included; on an accelerator what it held
            there. None where the system does not tell.
        hardware: that it ran on.
    """

    work_seconds: float
    audio_seconds: float
    evaluations: int
    parameters: int
    multiply_adds: float
    peak_memory_bytes: int | None
    hardware: str

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio: below 1 is faster than real time."""
        return self.work_seconds / self.audio_seconds

    def record(self) -> dict[str, Any]:
        """Returns it for samples.json and metrics.json."""
        return asdict(self) | {
            "work_seconds": round(self.work_seconds, 4),
            "audio_seconds": round(self.audio_seconds, 4),
            "real_time_factor": float(f"{self.real_time_factor:.4g}"),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Cost:
        """Returns what `record` wrote.

        Raises:
            KeyError, TypeError, ValueError: something else.
        """
        peak = record["peak_memory_bytes"]
        cost = cls(
            float(record["work_seconds"]),
            float(record["audio_seconds"]),
            int(record["evaluations"]),
            int(record["parameters"]),
            float(record["multiply_adds"]),
            None if peak is None else int(peak),
            str(record["hardware"]),
        )
        if not (cost.audio_seconds > 0 and math.isfinite(cost.real_time_factor)):
            raise ValueError(f"{cost.work_seconds} s of work for {cost.audio_seconds} s of audio")
        return cost

    def __add__(self, other: Cost) -> Cost:
        """Returns what both took, one after the other by the same means.

        Raises:
            ValueError: they differ in what ran or on what.
        """
        means = self.evaluations, self.parameters, self.hardware
        if means != (other.evaluations, other.parameters, other.hardware):
            raise ValueError("sounds made by different means have no cost in common")
        audio = self.audio_seconds + other.audio_seconds
        arithmetic = sum(each.multiply_adds * each.audio_seconds for each in (self, other))
        peaks = [each.peak_memory_bytes for each in (self, other) if each.peak_memory_bytes is not None]
        return replace(
            self,
            work_seconds=self.work_seconds + other.work_seconds,
            audio_seconds=audio,
            multiply_adds=arithmetic / audio,
            peak_memory_bytes=max(peaks, default=None),
        )


@dataclass
class Meter:
    """Measures the time of making sounds: a context around each piece of work, entered as often as needed.

    Attributes:
        device: that the work runs on.
        seconds: of work so far.
    """

    device: torch.device = torch.device("cpu")  # noqa: RUF009 a frozen value
    seconds: float = 0.0
    _begun: float = field(default=0.0, repr=False)

    def __enter__(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - self._begun

    def over(self, made: Iterable[Item]) -> Iterator[Item]:
        """Yields what is made one by one, and counts the time that each takes."""
        waiting = iter(made)
        while True:
            with self:
                item = next(waiting, self)
            if item is self:
                return
            yield item  # type: ignore[misc]

    def cost(self, audio_seconds: float, works: Iterable[Work]) -> Cost:
        """Returns what was measured.

        Args:
            audio_seconds: made.
            works: that ran.
        """
        ran = list(works)
        held = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        return Cost(
            self.seconds,
            audio_seconds,
            sum(work.evaluations for work in ran),
            sum(work.parameters for work in ran),
            sum(work.multiply_adds for work in ran),
            peak_memory_bytes() if held is None else held,
            device_name(self.device),
        )


@dataclass(frozen=True)
class Work:
    """What one of the models does that a sound passes through.

    Attributes:
        evaluations: of its network for a sound.
        parameters: of all of it.
        multiply_adds: per second of audio, in all evaluations.
    """

    evaluations: int
    parameters: int
    multiply_adds: float

    @classmethod
    def of(cls, model: AudioDiffusion, sampler: Sampler, batch: Batch, steering: Steering) -> Work:
        """Returns what a model does for the sounds of a batch; it is evaluated twice to count."""
        own, other = evaluations(sampler, model.denoiser.schedule, steering)
        weaker = steering.against
        parameters = _parameters(model) + (0 if weaker is None else _parameters(weaker))
        once, each = arithmetic(model, batch)
        of_other = each if weaker is None else arithmetic(weaker, batch)[1]
        return cls(own + other, parameters, once + own * each + other * of_other)


def evaluations(sampler: Sampler, schedule: NoiseSchedule, steering: Steering = UNSTEERED) -> tuple[int, int]:
    """Returns how often a sampler evaluates the model itself, and what guidance moves away from.

    Args:
        sampler: step and grid.
        schedule: of the model.
        steering: guidance.
    """
    model, other = _Counter(), _Counter()
    x = torch.tensor([[[1.0, -1.0]]])
    alone = replace(sampler, constraint=None, projection=None)  # they see the signal, which is none here
    start = alone.start(schedule, x)
    alone(guided(model, other, steering.guidance), schedule, start, lambda step, draw: torch.zeros_like(x))
    return model.calls, other.calls


@dataclass
class _Counter:
    """A VarianceDenoise of a signal that is 0: it only counts."""

    calls: int = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.with_variance(x, t)[0]

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return torch.zeros_like(x), torch.zeros_like(x)


def arithmetic(model: AudioDiffusion, batch: Batch) -> tuple[float, float]:
    """Returns multiply-adds per second of audio: what is done once for a sound, and one network evaluation.

    Args:
        model: what makes the sounds.
        batch: what they are asked with; all of it is evaluated.
    """
    made: list[Any] = []

    def prepare() -> None:
        condition = model.condition(batch)
        lengths = model.lengths(batch, condition)
        x = torch.zeros(batch.size, *model.representation.shape(max(lengths)), device=model.device)
        network = model.denoiser.network.bind(condition)
        made[:] = [lengths, x, network, torch.full((batch.size,), 0.5, device=model.device)]
        network(x, made[3])

    with torch.inference_mode():
        first = multiply_adds(prepare)  # with what the network keeps for the evaluations after it
        lengths, x, network, label = made
        each = multiply_adds(lambda: network(x, label))
        # Griffin-Lim is Fourier transforms; and a vocoder in its place has a Work of its own.
        mel = isinstance(model.representation, MelRepresentation)
        last = 0 if mel else multiply_adds(lambda: model.representation.decode(x, max(lengths)))
    seconds = sum(lengths) / model.sample_rate
    return (first - each + last) / seconds, each / seconds


def multiply_adds(call: Callable[[], object]) -> int:
    """Returns the multiply-adds of the matrix products, convolutions and attention in a call."""
    from torch.utils.flop_counter import FlopCounterMode

    # torch's counter knows no products that are added in place.
    in_place = {torch.ops.aten.addmm_: _added_product, torch.ops.aten.baddbmm_: _added_product}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        call()
    return int(counter.get_total_flops()) // 2


def _added_product(_: Sequence[int], left: Sequence[int], right: Sequence[int], **__: object) -> int:
    """Returns the operations of x += left @ right, by their shapes; 2 a multiply-add."""
    return 2 * math.prod(left) * right[-1]


def _parameters(model: AudioDiffusion) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
