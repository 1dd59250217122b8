"""What is wrong with a recording: drop-outs, the level at which it was clipped, its bandwidth, its noise.

Everything is found in one pass over blocks, so that memory does not grow with the length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor

from audiodiff.audio.io import SILENCE_PEAK
from audiodiff.editing.gaps import Gap
from audiodiff.editing.intervals import Interval, runs
from audiodiff.editing.recording import Recording, blocks
from audiodiff.errors import InputError

_BLOCK_SECONDS = 10.0
_DROPOUT_SECONDS = (0.001, 0.5)  # shorter stays of zeros happen in sound, longer ones are pauses
_BESIDE_SECONDS = 0.005
_CLIPPED_RUN = 2  # equal samples at the peak that tell clipping from a peak
_MOST_CLIPPED = 0.95
_FLOOR_DB = 55.0  # below the loudest band, at which a spectrum counts as ended
_N_FFT = 512
_NOISE_BINS = 25  # over which the colour of noise is even; what is narrower is a tone
_SMOOTHED_FRAMES = 8  # periodograms that are averaged before their minimum is taken


def dropouts(recording: Recording) -> list[Gap]:
    """Returns stretches of digital zeros in the midst of sound, each with the channels that it concerns."""
    shortest, longest = (round(s * recording.sample_rate) for s in _DROPOUT_SECONDS)
    shortest = max(shortest, 8)
    found: dict[Interval, Tensor] = {}
    for start, block in _overlapping(recording, 2 * longest):
        for channel, samples in enumerate(block):
            for run in runs(samples == 0, start):
                if shortest <= run.length <= longest and _between_sounds(recording, run, channel):
                    concerned = found.setdefault(run, torch.zeros(recording.channels, dtype=torch.bool))
                    concerned[channel] = True
    return _separate([Gap(run, concerned) for run, concerned in found.items()])


def _between_sounds(recording: Recording, run: Interval, channel: int) -> bool:
    beside = max(4, round(_BESIDE_SECONDS * recording.sample_rate))
    sides = (run.start - beside, run.start), (run.stop, run.stop + beside)
    if sides[0][1] <= 0 or sides[1][0] >= recording.length:
        return False
    return all(float(recording.read(*side)[channel].abs().max()) > 30 * SILENCE_PEAK for side in sides)


def _separate(gaps: list[Gap]) -> list[Gap]:
    """Returns rising gaps; those that overlap, being of different channels, joined."""
    joined: list[Gap] = []
    for gap in sorted(gaps, key=lambda one: one.interval):
        if joined and gap.interval.start < joined[-1].interval.stop:
            last = joined.pop()
            whole = Interval(last.interval.start, max(last.interval.stop, gap.interval.stop))
            gap = Gap(whole, last.channels | gap.channels)
        joined.append(gap)
    return joined


def _overlapping(recording: Recording, overlap: int) -> Iterator[tuple[int, Tensor]]:
    """Yields (position, block [C, n]) of blocks that overlap their neighbours, so that no run is cut by all."""
    size = max(round(_BLOCK_SECONDS * recording.sample_rate), 2 * overlap)
    for start in range(0, recording.length, size - overlap):
        yield start, recording.read(start, min(start + size, recording.length))


@dataclass(frozen=True)
class Clipping:
    """How a recording was clipped.

    Attributes:
        level: largest absolute value that is below every clipped sample.
        share: of the samples that are clipped.
    """

    level: float
    share: float

    def clipped(self, waveform: Tensor) -> Tensor:
        """Returns which samples of waveform [C, T] are clipped."""
        return waveform.abs() >= self.level


def clipping(recording: Recording, level_db: float | None = None) -> Clipping:
    """Returns the clipping of a recording: its peak, when it stays there for two samples or more, or a level told.

    Args:
        recording: what is edited.
        level_db: of full scale; None finds it.

    Raises:
        InputError: nothing is clipped, or nearly everything.
    """
    peak = max(float(block.abs().max()) for block in blocks(recording))
    level = peak * (1 - 1e-4) if level_db is None else 10 ** (level_db / 20) * (1 - 1e-4)
    count, longest = 0, 0
    for block in blocks(recording):
        flags = block.abs() >= level
        count += int(flags.sum())
        longest = max([longest, *(run.length for channel in flags for run in runs(channel))])
    share = count / (recording.length * recording.channels)
    # A level that was told is believed, even where single samples reach it.
    if longest < (_CLIPPED_RUN if level_db is None else 1) or peak < SILENCE_PEAK:
        shown = f"{20 * math.log10(max(peak, 1e-10)):.1f} dB"
        raise InputError(
            f"declip: no clipped samples found (the peak of {shown} is reached by single samples only); "
            "give the level at which it was clipped with --level-db"
            if level_db is None
            else f"declip: no sample reaches {level_db:g} dB, the peak is {shown}; give a lower level"
        )
    if share > _MOST_CLIPPED:
        raise InputError(f"declip: {share:.0%} of the samples are clipped, so that nothing is left to go by")
    return Clipping(level, share)


def bandwidth(recording: Recording) -> float:
    """Returns the frequency in hertz above which a recording's mean spectrum has ended.

    Raises:
        InputError: the spectrum reaches to the end, or there is none.
    """
    power = _mean_power(recording)
    if not power.max() > 0:
        raise InputError("bandwidth: the recording is silent or too short to tell; give --cutoff, in hertz")
    reached = np.flatnonzero(power > power.max() * 10 ** (-_FLOOR_DB / 10))
    highest = (float(reached[-1]) + 1) / (_N_FFT // 2) * recording.sample_rate / 2
    if highest > 0.95 * recording.sample_rate / 2:
        raise InputError(
            f"bandwidth: the spectrum reaches up to {highest:.0f} Hz; say with --cutoff from where to make it anew"
        )
    return highest


def noise_deviations(recording: Recording) -> Tensor:
    """Returns the noise's spectral deviation [bins], of samples, by minimum statistics (Martin 2001).

    White noise of root mean square r has the deviation r in every bin. The minimum over time of a smoothed periodogram
    lies below its mean by a factor that is measured on white noise. Its median over neighbouring bins leaves out the
    tones that music holds.
    """
    lowest = np.median(np.stack(list(_minima(recording))), axis=0)
    lowest = median_filter(lowest, _NOISE_BINS, mode="nearest")
    return torch.from_numpy(np.sqrt(lowest / _minimum_of_white_noise(_minimum_span(recording)))).float()


def _mean_power(recording: Recording) -> np.ndarray:
    total, count = np.zeros(_N_FFT // 2 + 1), 0
    for block in blocks(recording):
        power = _periodograms(block)
        total, count = total + power.sum((0, 1)), count + power.shape[0] * power.shape[1]
    return total / max(count, 1)


def _minima(recording: Recording) -> Iterator[np.ndarray]:
    """Yields the least smoothed periodogram [bins] of each 3 seconds."""
    size = _minimum_span(recording)
    for start in range(0, max(recording.length - size // 2, 1), size):
        yield _least(recording.read(start, min(start + size, recording.length)))


def _least(waveform: Tensor) -> np.ndarray:
    power = _periodograms(waveform).mean(0)  # [frames, bins]
    frames = min(_SMOOTHED_FRAMES, power.shape[0])
    sums = np.cumsum(np.concatenate([np.zeros((1, power.shape[1])), power]), axis=0)
    return np.asarray(((sums[frames:] - sums[:-frames]) / frames).min(0))


def _periodograms(waveform: Tensor) -> np.ndarray:
    """Returns [C, frames, bins]; the mean over time of white noise of variance v is v."""
    centred = waveform.double() - waveform.double().mean(1, keepdim=True)
    samples = np.pad(centred.numpy(), ((0, 0), (0, max(0, _N_FFT - waveform.shape[-1]))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _N_FFT, axis=-1)[:, :: _N_FFT // 2]
    window = np.hanning(_N_FFT)
    return np.asarray(np.abs(np.fft.rfft(frames * window)) ** 2 / (window**2).sum())


def _minimum_span(recording: Recording) -> int:
    return min(max(3 * recording.sample_rate, 2 * _SMOOTHED_FRAMES * _N_FFT), max(recording.length, _N_FFT))


def _minimum_of_white_noise(count: int) -> float:
    """Returns what `_least` gives on average for so many samples of white noise of variance 1."""
    noise = torch.randn(1, count, generator=torch.Generator().manual_seed(0))
    return float(_least(noise).mean())
