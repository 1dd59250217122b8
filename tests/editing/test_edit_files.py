"""Files: what no edit touches comes out bit for bit, and the result is made of nothing but the asked-for parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from audiodiff.cli.app import app
from audiodiff.editing.edit import edit_file, edit_waveform
from audiodiff.editing.tasks import (
    Continue,
    ExtendBandwidth,
    Inpaint,
    RemoveNoise,
    RepairDropouts,
    RestoreClipped,
    Task,
)
from tests.editing.tiny_edits import QUICK, RATE, raw, save_tiny, sound, tiny_model, write_sound

MASKS = ((0.1, 0.12), (0.3, 0.34))


def outside(length: int, rate: int, masks: tuple[tuple[float, float], ...] = MASKS) -> np.ndarray:
    flags = np.ones(length, dtype=bool)
    for start, stop in masks:
        flags[round(start * rate) : round(stop * rate)] = False
    return flags


@pytest.mark.parametrize(
    ("suffix", "subtype", "rate", "channels"),
    [
        ("wav", "PCM_U8", 8000, 1),
        ("wav", "PCM_16", 11025, 2),
        ("wav", "PCM_24", 8000, 2),
        ("wav", "PCM_32", 16000, 1),
        ("wav", "FLOAT", 8000, 1),
        ("wav", "DOUBLE", 22050, 1),
        ("flac", "PCM_16", 8000, 1),
        ("flac", "PCM_24", 44100, 2),
        ("aiff", "PCM_16", 8000, 1),
    ],
)
def test_what_is_outside_the_masks_comes_out_bit_for_bit(
    tmp_path: Path, suffix: str, subtype: str, rate: int, channels: int
) -> None:
    path = write_sound(tmp_path / f"in.{suffix}", sound(0.5, rate, channels), rate, subtype)
    out = tmp_path / f"out.{suffix}"
    edit_file(tiny_model(), path, out, Inpaint(MASKS), QUICK)
    kind = {"FLOAT": "float32", "DOUBLE": "float64"}.get(subtype, "int32")
    before, after = raw(path, kind), raw(out, kind)
    assert before.shape == after.shape
    assert (soundfile.info(out).subtype, soundfile.info(out).samplerate) == (subtype, rate)
    untouched = outside(len(before), rate)
    assert np.array_equal(before[untouched], after[untouched])
    assert (before[~untouched] != after[~untouched]).mean() > 0.5


def test_in_memory_and_from_file_to_file_are_the_same_edit(tmp_path: Path) -> None:
    model, waveform = tiny_model(), sound(0.5)
    path = write_sound(tmp_path / "in.wav", waveform, subtype="FLOAT")
    edit_file(model, path, tmp_path / "out.wav", Inpaint(MASKS), QUICK)
    made = edit_waveform(model, waveform, RATE, Inpaint(MASKS), QUICK)
    assert np.array_equal(raw(tmp_path / "out.wav", "float32").T, made.numpy())


def test_the_same_seed_gives_the_same_edit_and_another_one_another() -> None:
    from dataclasses import replace

    model, waveform = tiny_model(), sound(0.5)
    once, again = (edit_waveform(model, waveform, RATE, Inpaint(MASKS), QUICK) for _ in range(2))
    other = edit_waveform(model, waveform, RATE, Inpaint(MASKS), replace(QUICK, seed=1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_gap_does_not_depend_on_other_gaps_far_from_it() -> None:
    model, waveform = tiny_model(), sound(1.0)
    both = edit_waveform(model, waveform, RATE, Inpaint(((0.2, 0.22), (0.8, 0.82))), QUICK)
    alone = edit_waveform(model, waveform, RATE, Inpaint(((0.8, 0.82),)), QUICK)
    assert torch.equal(both[:, 6000:], alone[:, 6000:])


@pytest.mark.parametrize("method", ["moments", "projection", "replacement", "gradient"])
@pytest.mark.parametrize("kind", ["frames", "samples", "labels"])
def test_every_method_fills_with_every_kind_of_model(method: str, kind: str) -> None:
    from dataclasses import replace

    recovery = replace(QUICK, method=method, labels={"digit": "one"} if kind == "labels" else {})
    made = edit_waveform(tiny_model(kind), sound(0.3), RATE, Inpaint(((0.1, 0.12),)), recovery)
    assert bool(made.isfinite().all())
    assert float(made[:, 800:960].abs().max()) > 0


def test_mono_goes_through_a_stereo_model_and_stereo_through_a_mono_one() -> None:
    for ours, theirs in ((1, 2), (2, 1), (3, 2), (2, 2)):
        waveform = sound(0.3, channels=ours)
        made = edit_waveform(tiny_model(channels=theirs), waveform, RATE, Inpaint(((0.1, 0.12),)), QUICK)
        assert made.shape == waveform.shape
        assert torch.equal(made[:, :800], waveform[:, :800])
        assert bool((made[:, 800:960] != waveform[:, 800:960]).any(1).all())


def test_a_long_gap_is_made_piece_by_piece_and_a_start_backwards() -> None:
    waveform = sound(1.0)
    for mask in ((0.2, 0.7), (0.0, 0.6), (0.5, 1.0)):
        made = edit_waveform(tiny_model(), waveform, RATE, Inpaint((mask,)), QUICK)
        start, stop = (round(edge * RATE) for edge in mask)
        assert torch.equal(made[:, :start], waveform[:, :start])
        assert torch.equal(made[:, stop:], waveform[:, stop:])
        assert float((made[:, start:stop] - waveform[:, start:stop]).abs().mean()) > 1e-3


def test_continuing_keeps_the_recording_between_what_is_added(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "in.wav", sound(0.3))
    edit_file(tiny_model(), path, tmp_path / "out.wav", Continue(0.12, 0.25), QUICK)
    before, after = raw(path), raw(tmp_path / "out.wav")
    assert len(after) == len(before) + 960 + 2000
    assert np.array_equal(after[960 : 960 + len(before)], before)
    assert after[:960].any()
    assert after[-2000:].any()


def test_dropouts_are_found_and_only_they_are_made(tmp_path: Path) -> None:
    waveform = sound(1.0, channels=2)
    waveform[:, 1000:1100] = 0
    waveform[1, 5000:5200] = 0
    path = write_sound(tmp_path / "in.wav", waveform)
    done = edit_file(tiny_model(), path, tmp_path / "out.wav", RepairDropouts(), QUICK)
    before, after = raw(path), raw(tmp_path / "out.wav")
    concerned = np.zeros(before.shape, dtype=bool)
    concerned[1000:1100] = True
    concerned[5000:5200, 1] = True
    assert np.array_equal(before[~concerned], after[~concerned])
    assert (after[concerned] != 0).mean() > 0.9
    assert "2 drop-out(s)" in done.remarks[0]


def test_declipping_moves_clipped_samples_outwards_and_no_other(tmp_path: Path) -> None:
    waveform = (2 * sound(0.6)).clamp(-0.6, 0.6)
    path = write_sound(tmp_path / "in.wav", waveform)
    edit_file(tiny_model(), path, tmp_path / "out.wav", RestoreClipped(), QUICK)
    before, after = raw(path, "float32"), raw(tmp_path / "out.wav", "float32")
    clipped = np.abs(before) >= np.abs(before).max() * (1 - 1e-4)
    assert soundfile.info(tmp_path / "out.wav").subtype == "FLOAT"
    assert np.array_equal(before[~clipped], after[~clipped])
    assert (np.abs(after[clipped]) >= np.abs(before[clipped])).all()
    assert np.abs(after).max() > np.abs(before).max()


@pytest.mark.parametrize("rate", [RATE, 11025])
def test_declipping_begins_with_the_sparsest_sound_and_stays_near_it(rate: int) -> None:
    truth = sound(0.6, rate)
    level = 0.6 * float(truth.abs().max())
    clipped = truth.clamp(-level, level)
    made = edit_waveform(tiny_model(), clipped, rate, RestoreClipped(), QUICK)
    before, after = (float((each - truth).square().sum()) for each in (clipped, made))
    assert after < before / 10


@pytest.mark.parametrize(
    "task",
    [
        Inpaint(((0.2, 0.25), (0.5, 0.51))),
        Continue(before=0.05, after=0.1),
        ExtendBandwidth(2000.0),
        RemoveNoise(),
        RemoveNoise(-30.0),
    ],
)
def test_an_offset_changes_nothing_but_the_offset(task: Task) -> None:
    waveform = sound(0.8, channels=2)
    waveform -= waveform.mean(1, keepdim=True)
    offsets = torch.tensor([[0.2], [-0.3]])
    model = tiny_model(channels=2)
    plain = edit_waveform(model, waveform, RATE, task, QUICK)
    shifted = edit_waveform(model, waveform + offsets, RATE, task, QUICK)
    torch.testing.assert_close(shifted - offsets, plain, rtol=0, atol=2e-4)


def test_a_recording_shorter_than_any_offset_keeps_its_mean() -> None:
    start = 0.5 + 0.1 * sound(0.02)
    made = edit_waveform(tiny_model(), start, RATE, Continue(after=0.05), QUICK)
    assert torch.equal(made[:, : start.shape[-1]], start)


def test_bandwidth_extension_keeps_the_band_that_was_right() -> None:
    waveform = sound(1.0)
    made = edit_waveform(tiny_model(), waveform, RATE, ExtendBandwidth(2000.0), QUICK)
    low, high = (torch.fft.rfft(w * torch.hann_window(8000))[0] for w in (waveform, made))
    change = (high - low).abs().square()
    assert float(change[:1700].sum()) < 1e-3 * float(change[2100:].sum())


def test_a_recording_below_the_models_rate_is_extended_to_it(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "in.wav", sound(0.5, 4000), 4000)
    edit_file(tiny_model(), path, tmp_path / "out.wav", ExtendBandwidth(), QUICK)
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.samplerate, info.frames) == (8000, 4000)


def test_denoising_and_windows_of_any_length() -> None:
    for seconds in (1 / RATE, 0.05, 0.2, 0.9):
        waveform = sound(max(seconds, 1 / RATE)) + 0.05
        for noise_db in (None, -30.0):
            made = edit_waveform(tiny_model(), waveform, RATE, RemoveNoise(noise_db), QUICK)
            assert made.shape == waveform.shape
            assert bool(made.isfinite().all())


def test_the_commands_edit_and_draw(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    waveform = (2 * sound(0.5)).clamp(-0.6, 0.6)
    waveform[:, 2000:2100] = 0
    path = write_sound(tmp_path / "in.wav", waveform)
    tasks = {
        "inpaint": ["--mask", "0.1:0.12", "--mask", "0.11:0.13"],
        "continue": ["--after", "0.1"],
        "dropouts": [],
        "declip": ["--level-db", "-4.5"],
        "bandwidth": ["--cutoff", "2000"],
        "denoise": ["--noise-db", "-40"],
    }
    for task, words in tasks.items():
        out = tmp_path / f"{task}.wav"
        words = ["edit", task, str(model), str(path), "--out", str(out), "--steps", "1", *words]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0
        assert soundfile.info(out).samplerate == RATE
        assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
