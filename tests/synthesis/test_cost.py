"""What sounds cost: evaluations, arithmetic and parameters exactly, time and memory where they are measured."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.audio.representation import Waveform
from audiodiff.conditioning.conditioner import Unconditional
from audiodiff.diffusion.denoiser import Denoiser, LogSnr
from audiodiff.diffusion.guidance import Guidance, guided
from audiodiff.diffusion.parameterizations import epsilon
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.schedules import NoiseSchedule, linear
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.evaluation.samples import read_samples
from audiodiff.model import AudioDiffusion, Steering, instantiate, load
from audiodiff.networks.wavenet import NoiseEmbedding, WaveNet
from audiodiff.synthesis.cost import Cost, Meter, Work, arithmetic, evaluations, multiply_adds
from audiodiff.synthesis.generation import Request, generate, label_sets
from audiodiff.synthesis.resynthesis import vocode_files
from audiodiff.synthesis.sampling import SamplerChoice, sampler_names, sampler_node
from audiodiff.synthesis.vocoder import Vocoder
from audiodiff.types import Batch
from tests.tiny import save_random_model

SCHEDULE = linear(1e-4, 0.02, 1000)
GUIDED = Steering(Guidance(0.6))
COST = Cost(2.0, 8.0, 12, 1000, 5e6, 10**8, "a machine")


class Counting:
    """The exact denoiser of Gaussian data, counted."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule, self.calls = schedule, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.with_variance(x, t)[0]

    def with_variance(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        alpha, sigma = self.schedule.alpha(t).float(), self.schedule.sigma(t).float()
        return x * (alpha / 4 / (alpha**2 / 4 + sigma**2)).reshape(-1, 1, 1), torch.full_like(x, 0.5)


@pytest.mark.parametrize("name", sampler_names())
def test_evaluations_are_those_that_sampling_makes(name: str) -> None:
    published = name in ("diffwave_fast",)  # a grid of its own length
    sampler: Sampler = instantiate(sampler_node({}, SamplerChoice(name, None if published else 7)))
    own, other = Counting(SCHEDULE), Counting(SCHEDULE)
    noise = torch.Generator().manual_seed(0)
    sampler(
        guided(own, other, GUIDED.guidance),
        SCHEDULE,
        sampler.start(SCHEDULE, torch.randn(2, 3, 16, generator=noise)),
        lambda step, draw: torch.randn(2, 3, 16, generator=noise),
    )
    assert evaluations(sampler, SCHEDULE, GUIDED) == (own.calls, other.calls)


def test_guidance_within_an_interval_costs_only_there() -> None:
    sampler = Sampler(DDIM(), UniformGrid(10))
    assert evaluations(sampler, SCHEDULE) == (10, 0)
    assert evaluations(sampler, SCHEDULE, Steering(Guidance(2.0))) == (10, 10)
    assert evaluations(sampler, SCHEDULE, Steering(Guidance(2.0, 0.5, (0.35, 0.75)))) == (10, 4)


def test_multiply_adds_of_a_product_and_a_convolution_are_the_textbook_number() -> None:
    weight, signal = torch.ones(5, 3, 7), torch.ones(2, 3, 20)
    assert multiply_adds(lambda: torch.ones(4, 6) @ torch.ones(6, 9)) == 4 * 6 * 9
    assert multiply_adds(lambda: torch.conv1d(signal, weight)) == 2 * 14 * 5 * 3 * 7
    assert multiply_adds(lambda: torch.ones(4, 9).addmm_(torch.ones(4, 6), torch.ones(6, 9))) == 4 * 6 * 9
    assert multiply_adds(lambda: signal + 1) == 0


def wavenet(channels: int = 16, layers: int = 4) -> AudioDiffusion:
    """DiffWave's network without a condition."""
    network = WaveNet(layers, channels, channels, 2, embedding=NoiseEmbedding(16, 32, 32))
    denoiser = Denoiser(network, SCHEDULE, epsilon, LogSnr())
    return AudioDiffusion(Waveform(8000), Unconditional(), denoiser).eval()


def test_arithmetic_of_a_wavenet_is_that_of_its_layers() -> None:
    channels, layers, seconds = 16, 4, 2
    length = 8000 * seconds
    once, each = arithmetic(wavenet(channels, layers), Batch(None, torch.tensor([length])))
    of_a_layer = 3 * channels * 2 * channels + channels * 2 * channels
    of_a_sample = channels + layers * of_a_layer + channels * channels + channels
    of_a_sample -= channels * channels  # what the last layer would pass on
    # The noise embedding is told once an evaluation; the first taps have nothing before them.
    assert each == pytest.approx(8000 * of_a_sample, rel=2e-3)
    assert once < 1e-3 * each


def test_work_counts_both_models_of_autoguidance() -> None:
    model, weaker = wavenet(), wavenet(8, 2)
    batch = Batch(None, torch.tensor([8000]))
    sampler = Sampler(DDIM(), UniformGrid(5))
    (once, each), (_, of_weaker) = arithmetic(model, batch), arithmetic(weaker, batch)
    work = Work.of(model, sampler, batch, Steering(Guidance(2.0), weaker))
    assert work.evaluations == 10
    assert work.multiply_adds == pytest.approx(once + 5 * each + 5 * of_weaker)
    assert work.parameters == sum(p.numel() for m in (model, weaker) for p in m.parameters())


def test_only_what_is_made_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def made() -> object:
        for number in range(3):
            clock[0] += 2
            yield number

    meter = Meter()
    for _ in meter.over(made()):  # type: ignore[arg-type]
        clock[0] += 100
    with meter:
        clock[0] += 0.5
    assert meter.seconds == 6.5
    cost = meter.cost(13, [Work(3, 100, 1e6), Work(4, 10, 2e6)])
    assert cost.real_time_factor == 0.5
    assert (cost.evaluations, cost.parameters, cost.multiply_adds) == (7, 110, 3e6)
    assert "thread" in cost.hardware


def test_peak_memory_remembers_what_was_freed_and_is_this_process_own() -> None:
    code = (
        "from audiodiff.hardware import peak_memory_bytes as peak\n"
        "before = peak()\nheld = bytearray(b'1') * 50_000_000\ndel held\nprint(before, peak())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after = map(int, told.split())
    assert 45e6 < after - before < 60e6
    assert before < 200e6  # not that of the tests, which started it


def test_cost_comes_back_from_its_record() -> None:
    assert Cost.from_record(json.loads(json.dumps(COST.record()))) == COST
    with pytest.raises(KeyError):
        Cost.from_record({})
    with pytest.raises(ValueError, match="0"):
        Cost.from_record(COST.record() | {"audio_seconds": 0})


def test_costs_of_one_means_add_up_and_others_do_not() -> None:
    both = COST + Cost(1.0, 2.0, 12, 1000, 10e6, 2 * 10**8, "a machine")
    assert both == Cost(3.0, 10.0, 12, 1000, 6e6, 2 * 10**8, "a machine")
    with pytest.raises(ValueError, match="different"):
        _ = COST + Cost(1.0, 2.0, 6, 1000, 10e6, 2 * 10**8, "a machine")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("digits"), "experiment=fsdd_digits", "size=tiny")


def test_synthesized_sounds_say_what_they_cost(digits: Path, tmp_path: Path) -> None:
    model = load(digits)
    request = Request(
        label_sets(model.labels, ["seven"], [], 3), 0.25, SamplerChoice("ddim", 4), GUIDED, batch=2
    )
    for part in ("one", "two"):
        generate(model, digits, request, tmp_path / "sounds" / part, "")
    cost = read_samples(tmp_path / "sounds" / "one").cost
    assert cost is not None
    assert (cost.evaluations, cost.audio_seconds) == (8, 0.75)
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert cost.work_seconds > 0
    assert cost.multiply_adds > 0
    together = read_samples(tmp_path / "sounds").cost
    assert together is not None
    assert together.audio_seconds == 1.5
    assert together.multiply_adds == pytest.approx(cost.multiply_adds)


def test_vocoded_sounds_say_what_they_cost(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "vocoder", "experiment=fsdd_vocoder", "size=tiny")
    io.write(tmp_path / "a.wav", torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)) / 9, 8000)
    vocode_files(Vocoder.load(folder), folder, [str(tmp_path / "a.wav")], tmp_path / "out", {}, 0, "")
    cost = read_samples(tmp_path / "out").cost
    assert cost is not None
    assert cost.audio_seconds == 1.0  # two channels of half a second
    steps = len(Vocoder.load(folder).sampler.times(load(folder).denoiser.schedule)) - 1
    assert cost.evaluations == steps


def test_damaged_cost_is_refused(digits: Path, tmp_path: Path) -> None:
    model = load(digits)
    request = Request(label_sets(model.labels, [], [], 1), 0.1, SamplerChoice("ddim", 1))
    generate(model, digits, request, tmp_path, "")
    path = tmp_path / "samples.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cost": {"seconds": 1}}))
    with pytest.raises(InputError, match="cost is damaged"):
        _ = read_samples(tmp_path).cost
