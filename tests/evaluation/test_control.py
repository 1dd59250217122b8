"""Asked and measured: exact where the sound is known, counted with a reason where it is not measurable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.evaluation.control import asked_numbers, score_loudness, score_pitch
from audiodiff.evaluation.processes import in_processes
from audiodiff.evaluation.samples import SamplesFolder

RATE = 16000


def folder_of(path: Path, sounds: dict[str, tuple[torch.Tensor, dict[str, str]]]) -> SamplesFolder:
    files, labels = {}, {}
    for name, (waveform, asked) in sounds.items():
        files[name], labels[name] = path / name, asked
        io.write(files[name], waveform, RATE, "FLOAT")
    return SamplesFolder(path, files, labels, {}, {})


def sine(key: float, level_db: float = -20.0) -> torch.Tensor:
    t = torch.arange(RATE) / RATE
    return 10 ** (level_db / 20) * 2**0.5 * torch.sin(2 * torch.pi * 440 * 2 ** ((key - 69) / 12) * t)


def test_loudness_that_is_followed_has_rank_correlation_one_whatever_its_scale(tmp_path: Path) -> None:
    sounds = {
        f"{n}.wav": (sine(69, level - 3), {"loudness": str(level)})
        for n, level in enumerate((-40, -30, -20.5, -10))
    }
    found = score_loudness(folder_of(tmp_path, sounds))
    assert found is not None
    assert found.correlation == pytest.approx(1)
    assert found.error == pytest.approx(3, abs=0.01)
    backwards = {f"b{n}": (wave, {"loudness": f"{-n}"}) for n, (wave, _) in enumerate(sounds.values())}
    opposite = score_loudness(folder_of(tmp_path, {f"{k}.wav": v for k, v in backwards.items()}))
    assert opposite is not None
    assert opposite.correlation == pytest.approx(-1)


def test_equal_requests_have_no_correlation(tmp_path: Path) -> None:
    found = score_loudness(
        folder_of(tmp_path, {f"{n}.wav": (sine(69, -n), {"loudness": "-9"}) for n in range(4)})
    )
    assert found is not None
    assert found.correlation is None
    assert found.error is not None


def test_pitch_counts_what_is_right_octaves_and_what_has_no_pitch(tmp_path: Path) -> None:
    samples = folder_of(
        tmp_path,
        {
            "right.wav": (sine(60.3), {"pitch": "60"}),
            "off.wav": (sine(60.7), {"pitch": "60"}),
            "octave.wav": (sine(72.1), {"pitch": "60"}),
            "silent.wav": (torch.zeros(RATE), {"pitch": "60"}),
            "any.wav": (sine(50), {"pitch": ""}),
        },
    )
    soundfile.write(samples.files["off.wav"], np.full(RATE, np.nan, np.float32), RATE, "FLOAT")
    found = score_pitch(samples, seed=0)
    assert found is not None
    assert found.right.mean == 0.25
    assert found.octaves == 1
    assert set(found.values.reasons) == {"silent.wav", "off.wav"}
    assert "NaN" in found.values.reasons["off.wav"]
    assert found.values.reasons["silent.wav"] == "silent"
    assert found.error_cents == pytest.approx((30 + 1210) / 2, abs=0.5)
    assert "any.wav" not in found.values.asked


def test_sounds_for_which_no_number_was_asked_are_not_measured(tmp_path: Path) -> None:
    samples = folder_of(tmp_path, {"a.wav": (sine(60), {"digit": "3"})})
    assert score_loudness(samples) is None
    assert score_pitch(samples, 0) is None
    wrong = folder_of(tmp_path, {"a.wav": (sine(60), {"pitch": "C4"})})
    with pytest.raises(InputError, match="pitch is 'C4'; expected a number"):
        asked_numbers(wrong, "pitch")


def _double(number: int) -> int:
    if number == 13:
        raise InputError("thirteen")
    return 2 * number


def test_processes_keep_the_order_and_pass_errors_on() -> None:
    done = in_processes(_double, [*range(12), 13], parallel_from=2)
    assert [next(done) for _ in range(12)] == list(range(0, 24, 2))
    with pytest.raises(InputError, match="thirteen"):
        next(done)
