"""Traces: the recorded sound is the sound itself, and the record says what the sampler did."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from torch import Tensor

from audiodiff.audio import io
from audiodiff.diffusion.guidance import Guidance
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.process import diffuse
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.schedules import linear
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, Steering, load
from audiodiff.recipes_folder import recipes_folder
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler, sampler_names
from audiodiff.synthesis.trace import Recorder, TraceRequest, chosen_times, trace
from audiodiff.synthesis.vocoder import Vocoder
from audiodiff.types import Batch
from tests.tiny import save_random_model

SEVEN = {"digit": "seven", "speaker": "theo"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("digits"), "experiment=fsdd_digits", "size=tiny")


@pytest.fixture(scope="module")
def model(digits: Path) -> AudioDiffusion:
    return load(digits)


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("vocoder"), "experiment=fsdd_vocoder", "size=tiny")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    io.write(path, 0.2 * torch.randn(1, 1800, generator=torch.Generator().manual_seed(0)), 8000)
    return path


def asked(length: int) -> Batch:
    return Batch(None, torch.tensor([length]), {name: (value,) for name, value in SEVEN.items()})


def sampler_grid(name: str) -> dict:
    return yaml.safe_load((recipes_folder() / "sampler" / f"{name}.yaml").read_text())["grid"]


@pytest.mark.parametrize("name", sorted({*sampler_names()} - {"ancestral_learned", "cfgpp"}))
def test_recording_changes_no_bit_of_the_sound(model: AudioDiffusion, name: str) -> None:
    published = "steps" not in sampler_grid(name) and "name" in sampler_grid(name)
    choice = SamplerChoice(name) if published else SamplerChoice(name, 5, "uniform")
    sampler = choose_sampler(model.recipe, choice)
    recorder = Recorder(sampler.step, [0])
    recorded = model.synthesize(asked(400), replace(sampler, step=recorder), 3)[0]
    assert torch.equal(recorded, model.synthesize(asked(400), sampler, 3)[0])
    assert len(recorder.updates) == len(sampler.times(model.denoiser.schedule)) - 1


@pytest.mark.parametrize(("name", "scale"), [("heun", 1.0), ("unipc", 1.5), ("cfgpp", 0.6)])
def test_result_is_the_sound_that_synthesize_makes(
    model: AudioDiffusion, digits: Path, tmp_path: Path, name: str, scale: float
) -> None:
    choice, steering = SamplerChoice(name, 6), Steering(Guidance(scale))
    request = TraceRequest(SEVEN, seconds=0.1, sampler=choice, steering=steering, seed=3, columns=2)
    traced = trace(model, digits, request, tmp_path, "test")
    sampler = choose_sampler(model.recipe, choice)
    assert torch.equal(traced, model.synthesize(asked(800), sampler, 3, [0], steering)[0])


def test_vocoder_is_traced_bit_for_bit(vocoder: Path, clip: Path, tmp_path: Path) -> None:
    model, choice = load(vocoder), SamplerChoice("heun", 6)
    traced = trace(model, vocoder, TraceRequest(recording=clip, sampler=choice, seed=3), tmp_path, "test")
    plain = Vocoder(model, choose_sampler(model.recipe, choice))
    waveform, _ = io.read(clip)
    assert torch.equal(traced, plain(plain.log_mel(waveform), [1800], seed=3))


def test_record_tells_times_levels_updates_and_files(
    model: AudioDiffusion, digits: Path, clip: Path, tmp_path: Path
) -> None:
    choice = SamplerChoice("ddim", 5)
    request = TraceRequest(SEVEN, clip, sampler=choice, steering=Steering(), seed=1, columns=4)
    traced = trace(model, digits, request, tmp_path, "audiodiff trace")
    record = json.loads((tmp_path / "trace.json").read_text())
    times = torch.tensor(record["times"], dtype=torch.float64)
    assert record["times"] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    assert record["alpha"] == model.denoiser.schedule.alpha(times).tolist()
    assert record["sigma"] == model.denoiser.schedule.sigma(times).tolist()
    assert record["snr_db"][-1] is None  # no noise is left
    assert len(record["update_rms"]) == len(record["estimate_change_rms"]) == 5
    assert record["estimate_change_rms"][0] is None
    assert (record["seed"], record["labels"]) == (1, SEVEN)
    assert len(record["files"]) == 4
    assert record["files"][-1]["file"] == "result.wav"
    for entry in record["files"]:
        info = soundfile.info(tmp_path / entry["file"])
        assert (info.samplerate, info.frames) == (8000, 1800)  # as long as the recording
    assert traced.shape == (1, 1800)
    assert (tmp_path / "trace.png").read_bytes().startswith(b"\x89PNG")


def test_sizes_are_those_of_the_known_trajectory() -> None:
    """A denoiser that always answers 1 is followed exactly: x_t = alpha + sigma eps with one eps."""
    schedule, grid = linear(1e-4, 0.05, 50), UniformGrid(4)
    shape = (1, 2, 500)
    source = KeyedNoise(0, [0])
    noise = source(0, shape, torch.device("cpu"))
    times = grid(schedule)
    start = diffuse(schedule, torch.ones(shape), noise, times[0])
    recorder = Recorder(DDIM(), [0, 3])
    sampler = Sampler(recorder, grid)
    result = sampler(lambda x, t: torch.ones_like(x), schedule, start, lambda step, draw: noise)
    assert torch.allclose(result, torch.ones(shape), atol=1e-5)
    path = [diffuse(schedule, torch.ones(shape), noise, t) for t in times]
    expected = [float((s - t).square().mean().sqrt()) for t, s in itertools.pairwise(path)]
    assert recorder.updates == pytest.approx(expected, rel=1e-4)
    assert math.isnan(recorder.estimate_changes[0])
    assert recorder.estimate_changes[1:] == [0, 0, 0]
    assert sorted(recorder.kept) == [0, 3]
    assert torch.allclose(recorder.kept[3][0], path[3], atol=1e-5)


def test_network_is_asked_no_more_often_than_without_recording() -> None:
    calls = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t))
        return x / 2

    sampler = Sampler(Recorder(DDIM(), []), UniformGrid(5))
    sampler(denoise, linear(1e-4, 0.05, 50), torch.ones(1, 1, 8), lambda step, draw: torch.zeros(1, 1, 8))
    assert calls == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize("columns", [2, 3, 6, 20])
@pytest.mark.parametrize("steps", [1, 4, 12, 100])
def test_chosen_times_rise_from_the_noise_to_the_result(steps: int, columns: int) -> None:
    schedule = linear(1e-4, 0.02, 1000)
    levels = [float(schedule.log_snr(t)) * 4.34 for t in UniformGrid(steps)(schedule)]
    chosen = chosen_times(levels, columns)
    assert (chosen[0], chosen[-1]) == (0, steps)
    assert len(chosen) == min(columns, steps + 1)
    assert all(a < b for a, b in itertools.pairwise(chosen))


def test_impossible_requests_are_refused(digits: Path, vocoder: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cases = [
        (digits, TraceRequest(seconds=-1.0), "--seconds"),
        (digits, TraceRequest(seed=-1), "--seed"),
        (digits, TraceRequest(columns=1), "--columns"),
        (digits, TraceRequest(recording=tmp_path / "absent.wav"), "absent.wav"),
        (vocoder, TraceRequest(), "--from"),
        (vocoder, TraceRequest(recording=clip, seconds=0.2), "--seconds"),
    ]
    for folder, request, message in cases:
        with pytest.raises(InputError, match=message):
            trace(load(folder), folder, request, out, "test")
    assert not out.exists()


def test_command_draws_a_trace(digits: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from audiodiff.cli.app import app

    arguments = ["trace", str(digits), "--label", "seven", "--steps", "3", "--seconds", "0.1"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads((tmp_path / "out" / "trace.json").read_text())["labels"] == {"digit": "seven"}
