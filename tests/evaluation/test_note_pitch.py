"""Pitch of single notes from the lowest to the highest key, without being told where to look."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soxr

from audiodiff.audio import io
from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.note_pitch import note_pitch

RATE = 22050
KEYS = range(21, 109)


def hertz(key: float) -> float:
    return 440 * 2 ** ((key - 69) / 12)


def tone(
    key: float, amplitudes: dict[int, float], rate: int = RATE, inharmonicity: float = 0.0
) -> np.ndarray:
    """One second of partials below 0.45 of the rate; `key` is the pitch of the first."""
    t, made = np.arange(rate) / rate, np.zeros(rate)
    for n, amplitude in amplitudes.items():
        stretched = n * np.sqrt((1 + inharmonicity * n**2) / (1 + inharmonicity)) * hertz(key)
        if stretched < 0.45 * rate:
            made += amplitude * np.sin(2 * np.pi * stretched * t + n**2)
    return 0.1 * made


TIMBRES = {
    "sine": {1: 1.0},
    "falling": {n: 1 / n for n in range(1, 41)},
    "odd": {n: 1 / n for n in range(1, 41, 2)},
    "equal": dict.fromkeys(range(1, 10), 1.0),
}


@pytest.mark.parametrize("name", TIMBRES)
def test_pitch_of_partials_is_theirs_to_a_tenth_of_a_cent(name: str) -> None:
    for key in (21, 33.3, 48, 60.5, 69, 84, 96.2, 108):
        assert note_pitch(tone(key, TIMBRES[name]), RATE) == pytest.approx(key, abs=0.01)


def test_partials_of_a_stiff_string_are_followed() -> None:
    for key, inharmonicity in ((21, 3e-4), (45, 1e-4), (72, 1e-3), (96, 8e-3)):
        assert note_pitch(tone(key, TIMBRES["falling"], inharmonicity=inharmonicity), RATE) == pytest.approx(
            key, abs=0.03
        )


def test_a_sound_without_its_first_partial_keeps_its_pitch() -> None:
    amplitudes = {n: 1 / n for n in range(2, 20)}
    for key in (36, 48, 60, 72):
        assert note_pitch(tone(key, amplitudes), RATE) == pytest.approx(key, abs=0.05)


def test_level_and_sample_rate_do_not_matter() -> None:
    note = tone(50, TIMBRES["falling"])
    assert note_pitch(0.001 * note, RATE) == pytest.approx(note_pitch(note, RATE), abs=1e-6)
    for rate in (8000, 16000, 44100):
        assert note_pitch(tone(50, TIMBRES["falling"], rate), rate) == pytest.approx(50, abs=0.01)


def piano(data_dir: Path, semitones: int) -> list[tuple[int, np.ndarray]]:
    """Every recorded note by its key, resampled by so many semitones where that is still a key."""
    folder, notes = data_dir / "piano_salamander", []
    with (folder / "metadata.csv").open() as file:
        for row in csv.DictReader(file):
            key = int(row["midi"]) + semitones
            if key in KEYS:
                waveform, rate = io.read(folder / row["file"])
                faster = rate * 2 ** (semitones / 12)
                notes.append((key, soxr.resample(waveform[0].numpy(), faster, rate)))
    return notes


def test_88_piano_keys_are_named_but_for_one_recording_that_is_out_of_tune(data_dir: Path) -> None:
    """30 real notes and the keys between by resampling. C8 (and what is made of it) sounds a semitone sharp."""
    errors = {key: note_pitch(note, RATE) - key for step in (-1, 0, 1) for key, note in piano(data_dir, step)}
    assert sorted(errors) == list(KEYS)
    wrong = {key: error for key, error in errors.items() if abs(error) > 0.5}
    assert set(wrong) <= {107, 108}
    assert all(error == pytest.approx(1, abs=0.05) for error in wrong.values())
    assert np.median(np.abs(list(errors.values()))) < 0.1


def test_piano_keys_are_named_in_noise(data_dir: Path) -> None:
    generator = np.random.default_rng(0)
    for key, note in piano(data_dir, 0)[:-1]:
        noise = generator.normal(size=note.size) * np.sqrt(np.mean(note**2)) * 10 ** (-30 / 20)
        assert note_pitch(note + noise, RATE) == pytest.approx(key, abs=0.5)


def test_what_has_no_pitch_is_said_so() -> None:
    generator = np.random.default_rng(0)
    for waveform, reason in (
        (np.zeros(RATE), "silent"),
        (np.zeros(0), "silent"),
        (np.full(RATE, np.nan), "NaN"),
        (tone(60, {1: 1.0})[:500], "too short"),
    ):
        with pytest.raises(NotMeasurable, match=reason):
            note_pitch(waveform, RATE)
    for decay in (np.inf, 3000.0):
        noise = generator.normal(size=RATE) * np.exp(-np.arange(RATE) / decay)
        with pytest.raises(NotMeasurable, match="no clear tone"):
            note_pitch(noise, RATE)
