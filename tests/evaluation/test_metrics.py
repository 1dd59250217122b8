"""Metrics: exact answers, laws on real recordings, and odd input. Other code computes them in test_measure_table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.evaluation.metrics import Metric, NotMeasurable, load_metrics
from audiodiff.evaluation.signals import resampled

METRICS = {metric.key: metric for metric in load_metrics()}
CLIPS = {
    8000: "fsdd/recordings/0_george_45.flac",
    16000: "speech_commands_excerpt/SpeechCommands/speech_commands_v0.01/seven/*.wav",
    22050: "ljspeech_excerpt/LJSpeech-1.1/wavs/LJ001-0008.wav",
}
MELODY = ["f0_correlation", "f0_rmse"]  # noise leaves less frames with a pitch, not worse ones
LEVEL_COUNTS = ["loudness_difference", "lsd", "mel_l1", "mrstft", "silence_level"]
ALIGNED_IN_TIME = ["mcd_dtw"]
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
every_rate = pytest.mark.parametrize("rate", CLIPS)


def clip(data_dir: Path, rate: int) -> np.ndarray:
    waveform, found = io.read(sorted(data_dir.glob(CLIPS[rate]))[0])
    assert found == rate
    return waveform[0].double().numpy()


def noise(length: int, level: float, seed: int = 0) -> np.ndarray:
    return level * np.random.default_rng(seed).normal(size=length)


def harmonic(f0: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    partials = range(1, int(0.45 * rate / f0))
    return 0.2 * np.asarray(sum(np.sin(2 * np.pi * n * f0 * time) / n for n in partials))


def voice(f0: np.ndarray, rate: int) -> np.ndarray:
    """Partials of a melody [T] in Hz, faded, since DIO's frames at a sudden end are wrong by a semitone."""
    phase = 2 * np.pi * np.cumsum(f0) / rate
    return np.hanning(f0.size) * np.asarray(sum(np.sin(n * phase) / n for n in range(1, 8)))


def measure(metric: Metric, reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    try:
        return metric.function(reference, estimate, rate)
    except NotMeasurable as reason:
        pytest.skip(str(reason))


@every_metric
def test_every_module_of_the_package_declares_what_the_report_prints(metric: Metric) -> None:
    assert metric.better in ("higher", "lower")
    assert metric.name
    assert metric.definition.endswith((".", ")"))


@every_metric
@every_rate
def test_equal_signals_score_best(metric: Metric, rate: int, data_dir: Path) -> None:
    recording = clip(data_dir, rate)
    best = measure(metric, recording, recording, rate)
    if metric.key != "silence_level":  # its best is the noise floor of the recording
        perfect = {
            "pesq_nb": 4.549,
            "pesq_wb": 4.644,
            "stoi": 1.0,
            "estoi": 1.0,
            "f0_correlation": 1.0,
            "si_sdr": 100.0,
        }
        extreme = perfect.get(metric.key, 0.0)
        assert best == pytest.approx(extreme, abs=1e-3)


@pytest.mark.parametrize("key", [key for key in METRICS if key not in MELODY])
@every_rate
def test_more_noise_scores_worse(key: str, rate: int, data_dir: Path) -> None:
    metric, recording = METRICS[key], clip(data_dir, rate)
    loudness = float(np.sqrt(np.mean(recording**2)))
    levels = [loudness * 10 ** (db / 20) for db in (-50, -30, -10)]
    scores = [measure(metric, recording, recording + noise(recording.size, x), rate) for x in levels]
    worse = np.diff(scores) if metric.better == "lower" else -np.diff(scores)
    assert (worse > 0).all(), scores


@pytest.mark.parametrize("key", MELODY)
@every_rate
def test_a_voice_that_wavers_more_scores_worse(key: str, rate: int) -> None:
    time = np.arange(2 * rate) / rate
    melody = 150 + 20 * np.sin(2 * np.pi * 1.5 * time)
    wavering = np.interp(time, np.arange(0, 2.1, 0.05), np.random.default_rng(0).normal(size=42))
    sung = [voice(melody * 2 ** (cents * wavering / 1200), rate) for cents in (0, 20, 80, 200)]
    scores = [METRICS[key].function(sung[0], each, rate) for each in sung]
    worse = np.diff(scores) if METRICS[key].better == "lower" else -np.diff(scores)
    assert (worse > 0).all(), scores


@pytest.mark.parametrize("key", [key for key in METRICS if key not in LEVEL_COUNTS])
@every_rate
def test_a_gain_of_the_estimate_is_not_heard_where_level_does_not_count(
    key: str, rate: int, data_dir: Path
) -> None:
    recording = clip(data_dir, rate)
    estimate = recording + noise(recording.size, 0.1 * float(recording.std()))
    expected = measure(METRICS[key], recording, estimate, rate)
    for gain in (0.5, 2.0):
        assert measure(METRICS[key], recording, gain * estimate, rate) == pytest.approx(expected, rel=1e-3)


@every_metric
@every_rate
def test_a_gain_of_both_signals_is_not_heard(metric: Metric, rate: int, data_dir: Path) -> None:
    recording = clip(data_dir, rate)
    estimate = recording + noise(recording.size, 0.1 * float(recording.std()))
    expected = measure(metric, recording, estimate, rate)
    # The floors of levels stay where they are, which moves distances of log spectra by up to 3 %.
    assert measure(metric, 0.5 * recording, 0.5 * estimate, rate) == pytest.approx(expected, rel=0.03)


def test_lsd_of_a_gain_of_two_is_its_decibels() -> None:
    signal = noise(16000, 0.1)
    assert METRICS["lsd"].function(signal, 2 * signal, 16000) == pytest.approx(20 * np.log10(2), abs=1e-6)


@every_rate
def test_mcd_does_not_hear_a_gain(rate: int) -> None:
    signal = noise(rate, 0.1)
    assert METRICS["mcd"].function(signal, 2 * signal, rate) == pytest.approx(0, abs=1e-6)


@every_rate
def test_mcd_of_a_cosine_on_the_mel_axis_is_its_rms(rate: int) -> None:
    """A gain of A cos(pi mel / mel_max) dB changes the first cepstral coefficient alone."""
    signal, amplitude = noise(4 * rate, 0.05), 6.0
    frequency = np.fft.rfftfreq(signal.size, 1 / rate)
    mel = np.log10(1 + frequency / 700)
    gain_db = amplitude * np.cos(np.pi * mel / mel[-1])
    filtered = np.fft.irfft(np.fft.rfft(signal) * 10 ** (gain_db / 20), n=signal.size)
    assert METRICS["mcd"].function(signal, filtered, rate) == pytest.approx(amplitude / np.sqrt(2), rel=0.05)


@every_rate
@pytest.mark.parametrize("cents", [-80.0, 25.0, 140.0])
def test_f0_error_of_a_shifted_tone_is_the_shift(rate: int, cents: float) -> None:
    fade = np.hanning(rate)  # DIO's frames at a sudden end are wrong by a semitone
    low, high = fade * harmonic(150, rate), fade * harmonic(150 * 2 ** (cents / 1200), rate)
    assert METRICS["f0_rmse"].function(low, high, rate) == pytest.approx(abs(cents), abs=2)


@every_rate
def test_voicing_error_counts_frames(rate: int) -> None:
    tone = harmonic(200, rate)
    half = np.where(np.arange(tone.size) < tone.size // 2, tone, 0)
    assert METRICS["voicing_error"].function(tone, half, rate) == pytest.approx(50, abs=4)


@every_rate
def test_silence_level_is_the_level_of_hiss_under_the_sound(rate: int) -> None:
    sound, silent = noise(rate, 0.1), np.zeros(rate // 2)
    sound *= 0.1 / np.sqrt(np.mean(sound**2))
    hiss = noise(rate // 2, 1.0, seed=1)
    hiss *= 0.001 / np.sqrt(np.mean(hiss**2))
    reference, estimate = np.concatenate([sound, silent]), np.concatenate([sound, hiss])
    assert METRICS["silence_level"].function(reference, estimate, rate) == pytest.approx(-40, abs=0.1)
    assert METRICS["silence_level"].function(reference, reference, rate) == pytest.approx(
        -80, abs=0.1
    )  # floor


@pytest.mark.parametrize("gain_db", [-12.0, 6.0])
def test_loudness_difference_of_a_gain_is_the_gain(gain_db: float) -> None:
    signal = noise(32000, 0.05)
    louder = signal * 10 ** (gain_db / 20)
    assert METRICS["loudness_difference"].function(signal, louder, 16000) == pytest.approx(
        abs(gain_db), abs=1e-6
    )
    assert METRICS["mel_l1"].function(signal, louder, 16000) == pytest.approx(abs(gain_db), abs=1e-6)


def test_si_sdr_of_uncorrelated_noise_is_its_level() -> None:
    signal, other = np.sin(np.arange(16000) * 0.1), np.cos(np.arange(16000) * 0.1)
    estimate = signal + 0.1 * other
    assert METRICS["si_sdr"].function(signal, estimate, 16000) == pytest.approx(20, abs=0.05)


@every_rate
def test_a_melody_that_is_transposed_correlates_and_one_upside_down_does_not(rate: int) -> None:
    time = np.arange(2 * rate) / rate
    bend = 20 * np.sin(2 * np.pi * 1.5 * time)
    melody = voice(150 + bend, rate)
    measure_it = METRICS["f0_correlation"].function
    assert measure_it(melody, voice(200 + bend * 4 / 3, rate), rate) > 0.98
    assert measure_it(melody, voice(150 - bend, rate), rate) < -0.95
    with pytest.raises(NotMeasurable, match="does not move"):
        measure_it(voice(150 + 0 * bend, rate), melody, rate)


@every_rate
def test_periodicity_tells_tones_from_noise(rate: int) -> None:
    from audiodiff.evaluation.metrics.periodicity_error import periodicity

    assert periodicity(harmonic(120, rate), rate).mean() > 0.97
    assert periodicity(noise(rate, 0.1), rate).mean() < 0.5
    assert periodicity(np.zeros(rate), rate).max() == 0


@every_metric
def test_lengths_within_two_percent_are_cut_to_the_shorter(metric: Metric, data_dir: Path) -> None:
    if metric.key in ALIGNED_IN_TIME:
        pytest.skip("takes signals of any two lengths")
    recording = clip(data_dir, 22050)
    other = recording + noise(recording.size, 0.001)
    shorter = recording.size - recording.size // 100
    expected = measure(metric, recording[:shorter], other[:shorter], 22050)
    assert metric.function(recording, other[:shorter], 22050) == expected
    assert metric.function(recording[:shorter], other, 22050) == expected


@every_metric
@pytest.mark.parametrize(
    ("reference", "estimate", "message"),
    [
        (np.ones(1000), np.ones(979), "within 2 %"),
        (np.ones(1000), np.zeros(0), "at least one sample"),
        (np.ones((2, 500)), np.ones(500), r"expected \[T\]"),
        (np.ones(1000), np.full(1000, np.nan), "NaN"),
        (None, np.ones(1000), "no reference"),
    ],
)
def test_signals_that_cannot_be_compared_are_refused(
    metric: Metric, reference: np.ndarray | None, estimate: np.ndarray, message: str
) -> None:
    if metric.key in ALIGNED_IN_TIME and "2 %" in message:
        pytest.skip("takes signals of any two lengths")
    with pytest.raises(InputError, match=message):
        metric.function(reference, estimate, 22050)


@every_metric
@every_rate
@pytest.mark.parametrize("length", [1, 10, 300, 1000, 2100, None])
@pytest.mark.parametrize("silent", ["reference", "estimate", "both", "none"])
def test_silent_and_short_signals_give_a_number_or_a_reason(
    metric: Metric, rate: int, length: int | None, silent: str, data_dir: Path
) -> None:
    recording = clip(data_dir, rate)[:length]
    reference = recording * (silent not in ("reference", "both"))
    estimate = recording * (silent not in ("estimate", "both"))
    try:
        value = metric.function(reference, estimate, rate)
    except NotMeasurable as reason:
        value = float(len(str(reason)) > 0)
    assert np.isfinite(value)


@pytest.mark.parametrize("key", ["pesq_nb", "pesq_wb"])
def test_pesq_survives_more_utterances_than_its_tables_hold(key: str, data_dir: Path) -> None:
    speech = resampled(clip(data_dir, 22050), 22050, 16000)
    length = 40 * 16000
    gate = (np.arange(length) // 5000) % 2  # 64 bursts of 0.3 s
    reference = np.resize(speech, length) * gate
    score = METRICS[key].function(reference, reference + noise(length, 1e-3), 16000)
    assert 1 < score < 4.7


def test_wideband_pesq_is_not_measured_below_16_khz() -> None:
    with pytest.raises(NotMeasurable, match="16 kHz"):
        METRICS["pesq_wb"].function(noise(8000, 0.1), noise(8000, 0.1), 8000)


@pytest.mark.parametrize(
    ("key", "package"),
    [
        ("pesq_nb", "pesq"),
        ("stoi", "pystoi"),
        ("mcd", "mel_cepstral_distance.computation"),
        ("mrstft", "auraloss.freq"),
        ("f0_rmse", "pyworld"),
        ("loudness_difference", "pyloudnorm"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    key: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # makes its import fail
    signal = noise(16000, 0.1)
    with pytest.raises(InputError, match=r"pip install 'audiodiff\[metrics\]'"):
        METRICS[key].function(signal, signal, 16000)
