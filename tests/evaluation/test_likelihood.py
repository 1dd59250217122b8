"""Likelihoods of recordings: each has its own numbers, alone and in a batch, and they are those of the definitions."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from audiodiff.audio import io
from audiodiff.audio.representation import Waveform
from audiodiff.conditioning.conditioner import Unconditional
from audiodiff.diffusion.denoiser import Denoiser, Time
from audiodiff.diffusion.parameterizations import clean
from audiodiff.diffusion.schedules import BetaTable, linear, zero_terminal_snr
from audiodiff.errors import InputError
from audiodiff.evaluation.likelihood import Precision, Recording, find_recordings, judge_recordings, measure
from audiodiff.model import AudioDiffusion, load
from audiodiff.types import Condition
from tests.tiny import save_random_model
from tests.tiny_models import random_model

QUICK = Precision(steps=2, bound_steps=3, levels=2)


class GaussianNetwork(nn.Module):
    """The exact clean estimate of independent Gaussian numbers of one deviation."""

    def __init__(self, schedule: BetaTable, deviation: float) -> None:
        super().__init__()
        self.schedule, self.variance = schedule, deviation**2
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        t = noise_label.double()
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return gain.to(x.dtype)[:, None, None] * x + self.weight

    def bind(self, condition: Condition):
        return lambda x, noise_label: self(x, noise_label, condition)

    def receptive_field(self) -> int:
        return 1


def gaussian_model(deviation: float, schedule: BetaTable | None = None) -> AudioDiffusion:
    schedule = linear(1e-4, 0.05, 200) if schedule is None else schedule
    network = GaussianNetwork(schedule, deviation)
    return AudioDiffusion(Waveform(8000), Unconditional(), Denoiser(network, schedule, clean, Time()))


def written(folder: Path, lengths: list[int], deviation: float = 0.1) -> list[Recording]:
    recordings = []
    for i, length in enumerate(lengths):
        path = folder / f"clip_{i}.wav"
        noise = torch.randn(1, length, generator=torch.Generator().manual_seed(i))
        io.write(path, noise * deviation, 8000)
        recordings.append(Recording(path.name, path, None, {}))
    return recordings


def exact_bound(model: AudioDiffusion, deviation: float, steps: int) -> float:
    """Bits per number that the bound promises on average, with so many levels from t = 1 to the earliest time."""
    schedule = model.denoiser.schedule
    ends = schedule.log_snr(torch.tensor([1.0, schedule.earliest], dtype=torch.float64))
    snr = torch.linspace(*ends.tolist(), steps, dtype=torch.float64).exp()
    error = deviation**2 / (1 + deviation**2 * snr)
    noise = float(1 / (1 + snr[0]))
    prior = ((1 - noise) * deviation**2 + noise - 1 - math.log(noise)) / 2
    steps_between = float((snr.diff() * error[:-1]).sum()) / 2
    last = float(error[-1] * snr[-1]) / 2 + math.log(2 * math.pi / float(snr[-1])) / 2
    return (prior + steps_between + last) / math.log(2)


def test_bits_of_a_gaussian_are_those_of_its_density_and_the_bound_lies_above(tmp_path: Path) -> None:
    deviation = 0.2
    (recording,) = written(tmp_path, [4000], deviation)
    x = recording.read(8000, 1).double()
    density = -(x**2) / (2 * deviation**2) - 0.5 * math.log(2 * math.pi * deviation**2)
    expected = -float(density.mean()) / math.log(2)
    model = gaussian_model(deviation)
    (found,) = measure(model, [recording], Precision(steps=60, bound_steps=100))
    assert found.numbers == 4000
    assert found.bits == pytest.approx(expected, abs=0.01)
    assert found.bound_bits == pytest.approx(exact_bound(model, deviation, 100), abs=0.03)
    assert found.bound_bits > found.bits


def test_denoising_error_of_a_gaussian_is_its_posterior_variance(tmp_path: Path) -> None:
    deviation, model = 0.2, gaussian_model(0.2)
    (recording,) = written(tmp_path, [20000], deviation)
    (found,) = measure(model, [recording], Precision(steps=0, bound_steps=1, levels=5))
    schedule = model.denoiser.schedule
    ends = schedule.log_snr(torch.tensor([1.0, schedule.earliest], dtype=torch.float64))
    snr = torch.linspace(*ends.tolist(), 5, dtype=torch.float64).exp() * deviation**2
    assert found.errors == pytest.approx((snr / (1 + snr)).tolist(), rel=0.04)
    assert found.bits is None


def test_schedule_without_signal_at_the_end_has_likelihoods_too(tmp_path: Path) -> None:
    (recording,) = written(tmp_path, [2000], 0.5)
    plain, ended = (
        measure(gaussian_model(0.5, schedule), [recording], Precision(steps=60, bound_steps=50))[0]
        for schedule in (linear(1e-4, 0.05, 200), zero_terminal_snr(linear(1e-4, 0.05, 200)))
    )
    assert ended.bits == pytest.approx(plain.bits, abs=0.01)
    assert ended.bits < ended.bound_bits < ended.bits + 1.5


@pytest.mark.parametrize(
    "kind", ["frames and labels", "frames, mel and labels", "samples and labels", "samples and mel"]
)
def test_recording_has_the_same_numbers_alone_and_in_a_batch(tmp_path: Path, kind: str) -> None:
    model = random_model(kind)
    recordings = written(tmp_path, [400, 333, 96])
    if "labels" in kind:
        recordings = [
            replace(r, labels={"digit": d}) for r, d in zip(recordings, ("one", "", "two"), strict=True)
        ]
    together = measure(model, recordings, QUICK)
    for recording, found in zip(recordings, together, strict=True):
        (alone,) = measure(model, [recording], QUICK)
        assert (alone.numbers, alone.seconds) == (found.numbers, found.seconds)
        assert found.bits == pytest.approx(alone.bits, rel=1e-4, abs=1e-4)
        assert found.bound_bits == pytest.approx(alone.bound_bits, rel=1e-4, abs=1e-4)
        assert found.errors == pytest.approx(alone.errors, rel=1e-4)


def test_seed_and_name_draw_the_noise(tmp_path: Path) -> None:
    model, (recording,) = gaussian_model(0.2), written(tmp_path, [200])
    precision = replace(QUICK, steps=0)
    (found,) = measure(model, [recording], precision)
    assert measure(model, [recording], precision)[0] == found
    assert measure(model, [recording], replace(precision, seed=1))[0].bound_bits != found.bound_bits
    assert measure(model, [replace(recording, name="b")], precision)[0].bound_bits != found.bound_bits


def test_labels_of_a_manifest_are_told_and_can_be_replaced(mini_corpus: Path) -> None:
    from audiodiff.data.manifests import labels_of, load_cuts

    cut = load_cuts(mini_corpus / "test.jsonl.gz")[0]
    name = next(name for name in labels_of(cut) if name != "text")
    manifest = [str(mini_corpus / "test.jsonl.gz")]
    told = find_recordings(manifest, {name: ()}, {})[0]
    assert (told.name, told.labels) == (cut.id, {name: labels_of(cut)[name]})
    assert find_recordings(manifest, {name: ()}, {name: "other"})[0].labels == {name: "other"}
    waveform = told.read(8000, 1)
    assert waveform.shape == (1, round(cut.duration * 8000))


def test_folder_holds_numbers_table_and_picture(tmp_path: Path) -> None:
    recordings = written(tmp_path, [300, 200])
    table = judge_recordings(gaussian_model(0.2), tmp_path, recordings, QUICK, tmp_path / "out", "test")
    record = json.loads((tmp_path / "out" / "likelihood.json").read_text())
    assert [found["name"] for found in record["recordings"]] == ["clip_0.wav", "clip_1.wav"]
    bits = [found["bits"] for found in record["recordings"]]
    assert record["bits"]["mean"] == pytest.approx(sum(bits) / 2)
    assert len(record["snr_db"]) == len(record["recordings"][0]["errors"]) == 2
    assert record["snr_db"] == sorted(record["snr_db"])
    assert (tmp_path / "out" / "likelihood.md").read_text() == table
    likeliest = record["recordings"][bits.index(min(bits))]["name"]
    assert likeliest in table.splitlines()[3]
    assert (tmp_path / "out" / "likelihood.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "option"),
    [({"steps": -1}, "--steps"), ({"probes": 0}, "--probes"), ({"bound_steps": 0}, "--bound-steps"),
     ({"levels": 1}, "--levels"), ({"seed": -1}, "--seed"), ({"batch": 0}, "--batch")],
)  # fmt: skip
def test_impossible_precision_is_refused(change: dict[str, int], option: str) -> None:
    with pytest.raises(InputError, match=option):
        Precision(**change)


def test_inputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    stereo, wrong = tmp_path / "a" / "x.wav", tmp_path / "b" / "x.wav"
    for path in (stereo, wrong):
        io.write(path, torch.zeros(2, 100), 8000)
    with pytest.raises(InputError, match="occur twice"):
        find_recordings([str(stereo), str(wrong)], {}, {})
    with pytest.raises(InputError, match="2 channels"):
        Recording("x.wav", stereo, None, {}).read(8000, 3)
    with pytest.raises(InputError):
        find_recordings([str(tmp_path / "absent")], {}, {})


def test_command_judges_a_folder_of_recordings(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from audiodiff.cli.app import app

    model = save_random_model(tmp_path / "model", "experiment=fsdd_digits", "size=tiny")
    assert load(model).labels
    (tmp_path / "clips").mkdir()
    written(tmp_path / "clips", [800, 700])
    arguments = ["likelihood", str(model), str(tmp_path / "clips"), "--label", "seven", "--steps", "2"]
    arguments += ["--bound-steps", "3", "--levels", "2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "mean of 2" in result.output
    record = json.loads((tmp_path / "out" / "likelihood.json").read_text())
    assert record["recordings"][0]["labels"] == {"digit": "seven"}
