"""Augmentation: training segments made different from epoch to epoch, all of it off unless a recipe asks for it.

Each is a frozen dataclass called with a waveform [C, T], T at least 1, and a numpy generator, the only source of
chance; it returns a new waveform [C, T'] and leaves the given one alone. It acts before features are taken, so that a
mel always belongs to the waveform. Labels stay: take none that would make them wrong. Those that move labels along are
in `audiodiff.data.relabelling`. Nothing is clipped: a result that goes beyond [-1, 1] is scaled back to a peak of 1, so
that a gain or a level asked for may not be reached, while the ratio of signal to noise always is. Silence stays
silence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.data.augmenting import (
    Augmentation,
    Relabelling,
    augmented,
    check_range,
    fitted,
    played,
    power,
    recordings_in,
)
from audiodiff.data.entries import Entry
from audiodiff.data.reading import read_entry

# Amplitude falls to a thousandth, by 60 dB, in the reverberation time.
_DECAY = math.log(1000.0)


@dataclass(frozen=True)
class Chain(Relabelling):
    """One after the other, in the order given.

    Attributes:
        augmentations: each is given what the one before returned.
    """

    augmentations: Sequence[Augmentation]

    def with_labels(
        self, waveform: Tensor, labels: Mapping[str, str], generator: np.random.Generator
    ) -> tuple[Tensor, Mapping[str, str]]:
        """Returns [C, T'] and the labels that the last one leaves."""
        for augmentation in self.augmentations:
            waveform, labels = augmented(augmentation, waveform, labels, generator)
        return waveform, labels


@dataclass(frozen=True)
class Sometimes(Relabelling):
    """An augmentation for a share of the segments; the others stay as they are.

    Attributes:
        augmentation: what is done to them.
        probability: 0..1.

    Raises:
        InputError: a probability outside 0..1.
    """

    augmentation: Augmentation
    probability: float

    def __post_init__(self) -> None:
        check_range("Sometimes: probability", self.probability, self.probability, 0, 1)

    def with_labels(
        self, waveform: Tensor, labels: Mapping[str, str], generator: np.random.Generator
    ) -> tuple[Tensor, Mapping[str, str]]:
        """Returns [C, T'] and its labels, or what was given."""
        if generator.random() < self.probability:
            return augmented(self.augmentation, waveform, labels, generator)
        return waveform, labels


@dataclass(frozen=True)
class Gain:
    """Louder or softer, by decibels drawn uniformly.

    Attributes:
        lowest_db: -6 halves the amplitude.
        highest_db: scaled back where the peak would exceed 1.

    Raises:
        InputError: lowest_db above highest_db, or either beyond -100..100 dB.
    """

    lowest_db: float = -6.0
    highest_db: float = 6.0

    def __post_init__(self) -> None:
        check_range("Gain: decibels", self.lowest_db, self.highest_db, -100, 100)

    def __call__(self, waveform: Tensor, generator: np.random.Generator) -> Tensor:
        """Returns [C, T]."""
        return fitted(waveform * 10 ** (generator.uniform(self.lowest_db, self.highest_db) / 20))


@dataclass(frozen=True)
class Polarity:
    """The sign turned round, which nobody hears; within `Sometimes`, for half of the segments."""

    def __call__(self, waveform: Tensor, generator: np.random.Generator) -> Tensor:
        """Returns [C, T]."""
        return -waveform


@dataclass(frozen=True)
class Speed:
    """Played faster or slower, which changes length and pitch alike, as a tape does.

    Attributes:
        slowest: factor of speed and pitch, 0.5 or more; 0.9 gives T / 0.9 samples, 1.8 semitones lower.
        fastest: 2 or less. Factors are drawn uniformly, to a thousandth.

    Raises:
        InputError: slowest above fastest, or either beyond 0.5..2.
    """

    slowest: float = 0.9
    fastest: float = 1.1

    def __post_init__(self) -> None:
        check_range("Speed: factors", self.slowest, self.fastest, 0.5, 2)

    def __call__(self, waveform: Tensor, generator: np.random.Generator) -> Tensor:
        """Returns [C, round(T / factor)], halves rounded up."""
        return played(waveform, generator.uniform(self.slowest, self.fastest))[0]


@dataclass(frozen=True)
class Resample:
    """Through a lower sample rate and back: what lies above half that rate is gone, as in old or cheap recordings.

    Attributes:
        sample_rate: Hz, of the waveforms.
        lowest_rate: Hz. Rates are drawn uniformly over their logarithm.
        highest_rate: Hz, sample_rate or less.

    Raises:
        InputError: rates that are not positive, in this order.
    """

    sample_rate: int
    lowest_rate: int = 4000
    highest_rate: int = 16000

    def __post_init__(self) -> None:
        check_range("Resample: rates", self.lowest_rate, self.highest_rate, 1, self.sample_rate)

    def __call__(self, waveform: Tensor, generator: np.random.Generator) -> Tensor:
        """Returns [C, T]; the waveform itself where it is too short to have one sample at the lower rate."""
        logarithm = generator.uniform(math.log(self.lowest_rate), math.log(self.highest_rate))
        rate, length = round(math.exp(logarithm)), waveform.shape[-1]
        if rate >= self.sample_rate or 2 * length * rate < self.sample_rate:
            return waveform
        narrow = io.resample(waveform, self.sample_rate, rate)
        back = _cut_or_padded(io.resample(narrow, rate, self.sample_rate), length)
        return fitted(back)


@dataclass(frozen=True)
class Noise:
    """Recordings of noise, each channel given the same, at a signal-to-noise ratio drawn uniformly in decibels.

    The ratio is that of the mean squares over the segment. A segment or a noise that is silent has none, and the
    segment stays as it is. A recording shorter than the segment is repeated, from a place drawn.

    Attributes:
        source: folder of audio files, with all folders below it, or a manifest (.jsonl.gz).
        sample_rate: Hz, of the waveforms; recordings are resampled, and mixed down to one channel.
        lowest_snr_db: 0 makes noise and signal equally strong.
        highest_snr_db: in decibels.

    Raises:
        InputError: there are no recordings, or one cannot be read; lowest_snr_db above highest_snr_db.
    """

    source: str
    sample_rate: int
    lowest_snr_db: float = 5.0
    highest_snr_db: float = 30.0
    recordings: tuple[Entry, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_range("Noise: signal-to-noise ratios", self.lowest_snr_db, self.highest_snr_db, -100, 100)
        object.__setattr__(self, "recordings", recordings_in(Path(self.source)))

    def __call__(self, waveform: Tensor, generator: np.random.Generator) -> Tensor:
        """Returns [C, T]."""
        snr_db = generator.uniform(self.lowest_snr_db, self.highest_snr_db)
        noise = self._piece(waveform.shape[-1], generator)
        signal_power, noise_power = power(waveform), power(noise)
        if signal_power == 0 or noise_power == 0:
            return waveform
        scale = math.sqrt(signal_power / noise_power / 10 ** (snr_db / 10))
        return fitted(waveform + scale * noise)

    def _piece(self, length: int, generator: np.random.Generator) -> Tensor:
        """Returns [1, length] of one recording."""
        entry = self.recordings[int(generator.integers(len(self.recordings)))]
        needed = min(math.ceil(length * entry.sample_rate / self.sample_rate) + 1, entry.length)
        start = int(generator.integers(entry.length - needed + 1))
        piece = read_entry(entry, start, needed).mean(0, keepdim=True)
        if 2 * needed * self.sample_rate >= entry.sample_rate:  # or not one sample would be left
            piece = io.resample(piece, entry.sample_rate, self.sample_rate)
        if piece.shape[-1] >= length:
            return piece[:, :length]
        repeated = piece.repeat(1, -(-length // piece.shape[-1]))[:, :length]
        return repeated.roll(int(generator.integers(length)), dims=1)


@dataclass(frozen=True)
class Reverb:
    """The sound of rooms, by impulse responses that were measured in them.

    Dry and reverberant sound are mixed, (1 - wet) x + wet (h * x), the latter as strong as the former. The largest
    sample of h counts as its start, so that nothing is delayed; what follows the segment's end is cut off.

    Attributes:
        source: folder of impulse responses, with all folders below it, or a manifest; the first channel counts.
        sample_rate: Hz, of the waveforms.
        lowest_wet: 0..1; 0 is the dry sound alone.
        highest_wet: 0..1. Shares are drawn uniformly.

    Raises:
        InputError: there are no responses, or one cannot be read; shares that are not 0..1 in order.
    """

    source: str
    sample_rate: int
    lowest_wet: float = 0.1
    highest_wet: float = 0.5
    responses: tuple[Entry, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_range("Reverb: wet shares", self.lowest_wet, self.highest_wet, 0, 1)
        object.__setattr__(self, "responses", recordings_in(Path(self.source)))

    def __call__(self, waveform: Tensor, generator: np.random.Generator) -> Tensor:
        """Returns [C, T]."""
        entry = self.responses[int(generator.integers(len(self.responses)))]
        response = io.resample(read_entry(entry, 0, entry.length)[:1], entry.sample_rate, self.sample_rate)[0]
        direct = int(response.abs().argmax())
        return _reverberated(
            waveform, response[direct:], generator.uniform(self.lowest_wet, self.highest_wet)
        )


@dataclass(frozen=True)
class SyntheticReverb:
    """The sound of rooms that do not exist: a direct sound and noise that decays exponentially, mixed as by `Reverb`.

    Attributes:
        sample_rate: Hz, of the waveforms.
        lowest_seconds: reverberation time, in which the noise falls by 60 dB.
        highest_seconds: 10 or less. Times are drawn uniformly.
        lowest_wet: 0..1; 0 is the dry sound alone.
        highest_wet: 0..1. Shares are drawn uniformly.

    Raises:
        InputError: times that are not positive, or shares that are not 0..1, in order.
    """

    sample_rate: int
    lowest_seconds: float = 0.1
    highest_seconds: float = 0.8
    lowest_wet: float = 0.1
    highest_wet: float = 0.5

    def __post_init__(self) -> None:
        check_range("SyntheticReverb: seconds", self.lowest_seconds, self.highest_seconds, 1e-3, 10)
        check_range("SyntheticReverb: wet shares", self.lowest_wet, self.highest_wet, 0, 1)

    def __call__(self, waveform: Tensor, generator: np.random.Generator) -> Tensor:
        """Returns [C, T]."""
        seconds = generator.uniform(self.lowest_seconds, self.highest_seconds)
        response = decaying_noise(seconds, self.sample_rate, generator)
        return _reverberated(waveform, response, generator.uniform(self.lowest_wet, self.highest_wet))


def decaying_noise(seconds: float, sample_rate: int, generator: np.random.Generator) -> Tensor:
    """Returns an impulse response [T]: 1, then Gaussian noise of equal energy that falls by 60 dB in `seconds`."""
    times = np.arange(1, max(2, round(seconds * sample_rate))) / (seconds * sample_rate)
    tail = generator.standard_normal(len(times)) * np.exp(-_DECAY * times)
    energy = np.square(tail).sum()
    return torch.from_numpy(np.concatenate([[1.0], tail / math.sqrt(energy)]))


def _reverberated(waveform: Tensor, response: Tensor, wet: float) -> Tensor:
    """Returns [C, T]: the waveform mixed with its convolution [T'] of equal power, which starts at once."""
    length = waveform.shape[-1]
    size = length + min(response.shape[-1], length) - 1
    spectrum = torch.fft.rfft(waveform.double(), size) * torch.fft.rfft(response.double()[:length], size)
    reverberant = torch.fft.irfft(spectrum, size)[:, :length]
    dry_power, wet_power = power(waveform), power(reverberant)
    if dry_power == 0 or wet_power == 0:
        return waveform
    mixed = (1 - wet) * waveform + wet * math.sqrt(dry_power / wet_power) * reverberant
    return fitted(mixed.to(waveform.dtype))


def _cut_or_padded(waveform: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(waveform, (0, length - waveform.shape[-1]))
