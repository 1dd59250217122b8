"""What cannot be edited is refused in one line that says why, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from audiodiff.cli.app import app
from audiodiff.editing.edit import edit_file, edit_waveform
from audiodiff.editing.intervals import Interval, intervals_within, merge, parse_interval, runs
from audiodiff.editing.restore import Recovery, Restorer
from audiodiff.editing.tasks import (
    Continue,
    ExtendBandwidth,
    Inpaint,
    RemoveNoise,
    RepairDropouts,
    RestoreClipped,
    Task,
)
from audiodiff.errors import InputError
from tests.editing.tiny_edits import QUICK, RATE, raw, sound, tiny_model, write_sound
from tests.tiny_models import random_model


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (((2.0, 2.5),), "outside the recording, which lasts 0.500 s"),
        (((-0.1, 0.2),), "outside the recording"),
        (((0.0, 0.5),), "covers the whole recording"),
        (((0.0, 0.3), (0.2, 0.6)), "covers the whole recording"),
        (((0.1, 0.10001),), "holds no sample"),
        ((), "none given"),
    ],
)
def test_masks_that_cannot_be_filled_are_refused(
    masks: tuple[tuple[float, float], ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        edit_waveform(tiny_model(), sound(0.5), RATE, Inpaint(masks), QUICK)


def test_masks_that_overlap_are_merged_and_one_beyond_the_end_is_cut_with_a_word() -> None:
    found, remarks = intervals_within([(0.3, 0.9), (0.1, 0.2), (0.15, 0.25)], 1000, 500)
    assert found == [Interval(100, 250), Interval(300, 500)]
    assert "ends with the recording" in remarks[0]
    assert "1 overlapping" in remarks[1]
    assert merge([Interval(0, 5), Interval(5, 9)])[0] == [Interval(0, 9)]
    assert runs(torch.tensor([True, False, True, True]), 10) == [Interval(10, 11), Interval(12, 14)]


@pytest.mark.parametrize("text", ["1.2", "1:2:3", "a:b", "2:1", "1:1", "nan:2", "0:inf"])
def test_masks_that_are_no_interval_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="mask"):
        parse_interval(text)


@pytest.mark.parametrize(
    "task", [Inpaint(((0.1, 0.2),)), Continue(0, 0.1), RestoreClipped(), RemoveNoise(-40.0)]
)
def test_silence_is_refused(task: Task) -> None:
    with pytest.raises(InputError, match=r"silence|no clipped samples"):
        edit_waveform(tiny_model(), torch.zeros(1, 4000), RATE, task, QUICK)


def test_a_constant_is_refused_and_so_are_numbers_that_are_not_finite() -> None:
    with pytest.raises(InputError, match="the recording is a constant"):
        edit_waveform(tiny_model(), torch.full((1, 8000), 0.5), RATE, Inpaint(((0.1, 0.2),)), QUICK)
    model = tiny_model()
    with torch.no_grad():
        next(model.denoiser.network.parameters()).fill_(torch.nan)
    for task in (RemoveNoise(-40.0), Inpaint(((0.1, 0.2),))):
        with pytest.raises(FloatingPointError, match="not finite"):
            edit_waveform(model, sound(0.3), RATE, task, QUICK)


def test_a_gap_in_the_midst_of_silence_stays_silent() -> None:
    waveform = torch.cat([sound(0.2), torch.zeros(1, 8000)], 1)
    made = edit_waveform(tiny_model(), waveform, RATE, Inpaint(((0.8, 0.9),)), QUICK)
    assert torch.equal(made, waveform)


def test_clipping_everywhere_or_nowhere_is_refused() -> None:
    square = torch.where(torch.arange(4000) % 40 < 20, 0.5, -0.5)[None]
    with pytest.raises(InputError, match="100% of the samples are clipped"):
        edit_waveform(tiny_model(), square, RATE, RestoreClipped(), QUICK)
    with pytest.raises(InputError, match="no clipped samples"):
        edit_waveform(tiny_model(), sound(0.5), RATE, RestoreClipped(), QUICK)
    with pytest.raises(InputError, match=r"no sample reaches 3 dB, the peak is -4\.1 dB"):
        edit_waveform(tiny_model(), sound(0.5), RATE, RestoreClipped(3.0), QUICK)


def test_a_level_that_is_told_is_believed_for_single_samples() -> None:
    waveform = sound(0.3)
    waveform[0, 1000] = 0.9
    made = edit_waveform(tiny_model(), waveform, RATE, RestoreClipped(20 * np.log10(0.9)), QUICK)
    assert float(made[0, 1000]) >= 0.9
    untouched = torch.arange(waveform.shape[1]) != 1000
    assert torch.equal(made[:, untouched], waveform[:, untouched])


def test_recordings_without_dropouts_or_with_a_full_spectrum_are_refused() -> None:
    with pytest.raises(InputError, match="none found"):
        edit_waveform(tiny_model(), sound(0.5), RATE, RepairDropouts(), QUICK)
    noise = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)) / 8
    with pytest.raises(InputError, match="--cutoff"):
        edit_waveform(tiny_model(), noise, RATE, ExtendBandwidth(), QUICK)
    with pytest.raises(InputError, match="cutoff: got 4000"):
        edit_waveform(tiny_model(), noise, RATE, ExtendBandwidth(4000.0), QUICK)
    for nothing in (torch.zeros(1, 4000), torch.full((1, 1), 0.5)):
        with pytest.raises(InputError, match="silent or too short"):
            edit_waveform(tiny_model(), nothing, RATE, ExtendBandwidth(), QUICK)


def test_recordings_of_no_and_of_one_sample(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(InputError, match="with samples"):
        edit_waveform(model, torch.zeros(1, 0), RATE, Continue(0, 0.1), QUICK)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, dtype=np.int16), RATE)
    with pytest.raises(InputError, match="no samples"):
        edit_file(model, tmp_path / "empty.wav", tmp_path / "out.wav", Continue(0, 0.1), QUICK)
    one = torch.full((1, 1), 0.25)
    with pytest.raises(InputError, match="covers the whole"):
        edit_waveform(model, one, RATE, Inpaint(((0.0, 0.1),)), QUICK)
    made = edit_waveform(model, one, RATE, Continue(0.01, 0.02), QUICK)
    assert made.shape == (1, 80 + 1 + 160)
    assert float(made[0, 80]) == 0.25
    assert edit_waveform(model, one, RATE, RemoveNoise(-40.0), QUICK).shape == (1, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    waveform = sound(0.3)
    waveform[0, 7] = bad
    with pytest.raises(InputError, match="not finite"):
        edit_waveform(tiny_model(), waveform, RATE, Inpaint(((0.1, 0.2),)), QUICK)


@pytest.mark.parametrize("kind", ["frames, mel and labels", "samples and mel"])
def test_models_that_need_a_mel_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match="from a mel"):
        Restorer(random_model(kind), QUICK)


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong, message in (
        ({"method": "magic"}, "choose one of moments"),
        ({"steps": 0}, "steps"),
        ({"effort": 0}, "effort"),
        ({"seed": -1}, "seed"),
        ({"start": 0.0}, "start"),
    ):
        with pytest.raises(InputError, match=message):
            Recovery(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="label digit=nine"):
        Restorer(tiny_model("labels"), Recovery(labels={"digit": "nine"}))


def test_outputs_that_could_not_be_exact_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    model, path = tiny_model(), write_sound(tmp_path / "in.wav", sound(0.3), subtype="FLOAT")
    for name, message in (
        ("out.ogg", "expected one of"),
        ("out.flac", "cannot hold FLOAT"),
        ("in.wav", "is the input"),
    ):
        with pytest.raises(InputError, match=message):
            edit_file(model, path, tmp_path / name, Inpaint(((0.1, 0.2),)), QUICK)
    assert [file.name for file in tmp_path.iterdir()] == ["in.wav"]


def test_an_interrupted_edit_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sound(tmp_path / "in.wav", sound(0.3))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Restorer, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        edit_file(tiny_model(), path, tmp_path / "out.wav", Inpaint(((0.1, 0.2),)), QUICK)
    assert [file.name for file in tmp_path.iterdir()] == ["in.wav"]


def test_a_lossy_recording_is_written_as_the_floats_it_decodes_to(tmp_path: Path) -> None:
    path = tmp_path / "in.ogg"
    soundfile.write(path, sound(0.5).T.numpy(), RATE, format="OGG", subtype="VORBIS")
    edit_file(tiny_model(), path, tmp_path / "out.wav", Inpaint(((0.1, 0.12),)), QUICK)
    before, after = raw(path, "float32"), raw(tmp_path / "out.wav", "float32")
    assert np.array_equal(before[:800], after[:800])
    assert np.array_equal(before[960:], after[960:])


def test_the_command_says_a_mistake_in_one_line(tmp_path: Path) -> None:
    words = ["edit", "inpaint", str(tmp_path), "in.wav", "--out", "out.wav", "--mask", "2:1"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, InputError)
