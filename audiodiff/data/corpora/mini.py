"""A tiny corpus made on the spot from a seed: plucked strings and sung vowels, 8 kHz mono, half a second.

Strings are Karplus-Strong (Karplus and Strong 1983; tuned as in Jaffe and Smith 1983): a burst of noise runs
round a delay line of one period with an averaging filter in its loop. Vowels are a glottal source (a harmonic
series that falls 12 dB per octave, plus breath) through a cascade of formant resonators (Klatt 1980), formant
frequencies of Peterson and Barney 1952. Pitch, level, duration, pluck position and vocal tract length vary.
"""

from __future__ import annotations

import filecmp
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal import lfilter

from audiodiff.audio import io
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, write_corpus
from audiodiff.errors import InputError

SAMPLE_RATE = 8000
LOWEST_RATE = 4000
CLIPS = {"train": 480, "dev": 48, "test": 80}
SPLIT_RULE = "drawn separately for each split, every sound equally often"

# Lowest and highest fundamental of each string, Hz.
STRINGS = {"pluck_low": (82.0, 147.0), "pluck_mid": (165.0, 294.0), "pluck_high": (330.0, 587.0)}

# First to fourth formant of each vowel, Hz.
VOWELS = {
    "a": (730.0, 1090.0, 2440.0, 3400.0),
    "e": (530.0, 1840.0, 2480.0, 3400.0),
    "i": (270.0, 2290.0, 3010.0, 3500.0),
    "o": (570.0, 840.0, 2410.0, 3300.0),
    "u": (300.0, 870.0, 2240.0, 3300.0),
}
BANDWIDTHS = (70.0, 100.0, 150.0, 200.0)
SOUNDS = (*STRINGS, *VOWELS)


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Synthesizes the clips to out/audio and writes their manifests, label "sound".

    Args:
        source: must be None: there is nothing to read.
        out: prepared folder.
        options: the seed decides every sample; a sample rate other than 8000 Hz is synthesized directly.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: a source was given, or the seed or the sample rate cannot be used.
    """
    if source is not None:
        raise InputError(f"mini: got source {source}, but it is synthesized on the spot; leave --source out")
    sample_rate = SAMPLE_RATE if options.sample_rate is None else options.sample_rate
    if sample_rate < LOWEST_RATE or options.seed < 0:
        raise InputError(
            f"mini: sample rate {sample_rate} Hz, seed {options.seed}; expected at least {LOWEST_RATE} Hz "
            "and a seed that is not negative"
        )
    clips = []
    for split_number, (split, count) in enumerate(CLIPS.items()):
        for number in range(count):
            sound = SOUNDS[number % len(SOUNDS)]
            name = f"{split}_{number:04d}_{sound}"
            path = out.absolute() / "audio" / f"{name}.wav"
            generator = np.random.default_rng([options.seed, split_number, number])
            _write(path, synthesize(sound, sample_rate, generator), sample_rate)
            clips.append(Clip(name, path, split, labels={"sound": sound}))
    return write_corpus(Listing("mini", None, clips, SPLIT_RULE), out, options)


def _write(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Writes a clip; a file that holds the same bytes already stays, so that it is not checked again."""
    fresh = path.with_name(f".fresh_{path.name}")
    try:
        io.write(fresh, torch.from_numpy(waveform)[None], sample_rate)
        if not (path.is_file() and filecmp.cmp(fresh, path, shallow=False)):
            os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def synthesize(sound: str, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """Returns one clip [T] float32 of a sound, 0.4 to 0.6 s long, peak between -12 and -1 dB.

    Args:
        sound: one of SOUNDS.
        sample_rate: Hz.
        generator: decides pitch, level, duration and timbre.
    """
    length = round(generator.uniform(0.4, 0.6) * sample_rate)
    peak = 10 ** (generator.uniform(-12.0, -1.0) / 20)
    if sound in STRINGS:
        waveform = _pluck(STRINGS[sound], length, sample_rate, generator)
    else:
        waveform = _vowel(VOWELS[sound], length, sample_rate, generator)
    return (waveform * (peak / np.abs(waveform).max())).astype(np.float32)


def _pluck(
    fundamentals: tuple[float, float], length: int, sample_rate: int, generator: np.random.Generator
) -> np.ndarray:
    """Returns a plucked string [T], Karplus-Strong."""
    low, high = fundamentals
    period = sample_rate / np.exp(generator.uniform(np.log(low), np.log(high)))
    # The averaging filter delays by half a sample; what is left of the period after whole samples is
    # interpolated between two neighbours.
    whole = int(period - 0.5)
    fraction = period - 0.5 - whole
    seconds_to_minus_60_db = generator.uniform(0.8, 1.6)
    gain = 10 ** (-3 * period / (seconds_to_minus_60_db * sample_rate))
    loop = np.zeros(whole + 3)
    loop[0] = 1.0
    loop[whole:] -= gain * np.convolve([0.5, 0.5], [1 - fraction, fraction])
    burst = np.zeros(length)
    burst[: int(period)] = generator.uniform(-1, 1, int(period))
    softness = generator.uniform(0.1, 0.6)
    burst = lfilter([1 - softness], [1.0, -softness], burst)
    # A string plucked at a share of its length lacks the harmonics with a node there.
    position = max(1, round(generator.uniform(0.1, 0.4) * period))
    burst[position:] -= 0.9 * burst[:-position]
    return lfilter([1.0], loop, burst) * _fade(length, 0.001, 0.03, sample_rate)


def _vowel(
    formants: tuple[float, ...], length: int, sample_rate: int, generator: np.random.Generator
) -> np.ndarray:
    """Returns a sung vowel [T]: glottal source, formant resonators, fades."""
    times = np.arange(length) / sample_rate
    pitch = np.exp(generator.uniform(np.log(95.0), np.log(230.0)))
    glide = 1 + generator.uniform(-0.08, 0.04) * times / times[-1]
    vibrato = 1 + 0.01 * np.sin(2 * np.pi * (generator.uniform(4.0, 6.0) * times + generator.uniform()))
    fundamental = pitch * glide * vibrato
    phase = 2 * np.pi * np.cumsum(fundamental) / sample_rate
    harmonics = np.arange(1, int(0.48 * sample_rate / fundamental.max()) + 1)[:, None]
    waveform = (np.cos(harmonics * phase) / harmonics**2).sum(axis=0)
    waveform += generator.uniform(0.002, 0.01) * generator.standard_normal(length)
    waveform = np.diff(waveform, prepend=0.0)  # the lips radiate the change of the flow
    tract = generator.uniform(0.92, 1.1)
    for formant, bandwidth in zip(formants, BANDWIDTHS, strict=True):
        if formant * tract < 0.48 * sample_rate:
            waveform = _resonate(waveform, formant * tract, bandwidth, sample_rate)
    attack, release = generator.uniform(0.015, 0.05), generator.uniform(0.06, 0.12)
    return waveform * _fade(length, attack, release, sample_rate)


def _resonate(waveform: np.ndarray, formant: float, bandwidth: float, sample_rate: int) -> np.ndarray:
    """Returns a waveform through one resonance of gain 1 at 0 Hz; Klatt 1980, eq. 2."""
    radius = np.exp(-np.pi * bandwidth / sample_rate)
    poles = np.array([1.0, -2 * radius * np.cos(2 * np.pi * formant / sample_rate), radius**2])
    return lfilter([poles.sum()], poles, waveform)


def _fade(length: int, attack_seconds: float, release_seconds: float, sample_rate: int) -> np.ndarray:
    """Returns [T] that rises from 0 to 1 and falls to 0 along raised cosines."""
    envelope = np.ones(length)
    for seconds, side in ((attack_seconds, slice(None)), (release_seconds, slice(None, None, -1))):
        samples = max(1, round(seconds * sample_rate))
        envelope[side][:samples] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(samples) / samples)
    return envelope
