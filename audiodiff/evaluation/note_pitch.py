"""Pitch of one struck or plucked note, 26 to 4700 Hz: the series of partials that explains the spectrum best.

    f_n = f_1 n sqrt((1 + B n^2) / (1 + B))                       (stiff string: Fletcher and Rossing 1998, eq. 12.6)
    score(f_1, B) = [share of the peaks' weight that lies on partials] * [share of the partials that have a peak]

Every fundamental f_1 on a grid of 10 cents is tried with the inharmonicities B that strings of its pitch have. The
first factor falls for an octave too high, the second for an octave too low. A peak weighs by its level and by how far
it rises above the noise around it, so the thump of a hammer, loud but no tone, does not count. Frequency and
inharmonicity are then fitted to the peaks found. Pitch trackers for speech look at frames of 50 ms; a piano's lowest
string swings once in them, and its highest is gone after a few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

from audiodiff.evaluation.metrics import NotMeasurable

LOWEST_HZ, HIGHEST_HZ = 26.0, 4700.0  # of f_1: a piano's keys, and a little for tuning
WINDOW_SECONDS = 1.0  # from the loudest moment on
SHORTEST_SECONDS = 0.15  # four periods of the lowest key
PARTIALS = 40
STEPS_PER_OCTAVE = 120
NOISE_WIDTH_HZ = 100.0  # of the running median that is taken for the noise
RISE_DB = 16.0  # above it, that makes a peak; of noise alone, one in 10^4 frequencies rises that high
TONE_DB = 20.0  # that the strongest partial must rise
RANGE_DB = 75.0  # below the strongest peak, all is noise
INHARMONICITIES = np.concatenate([[0.0], 1e-4 * 2.0 ** np.arange(9)])
MOST_INHARMONIC = 1.2e-3  # of a string up to C4; it rises to 0.03 at C8
A4_HZ, A4_KEY, C4_HZ = 440.0, 69.0, 262.0


@dataclass(frozen=True)
class _Peaks:
    """Peaks of a spectrum, from low to high.

    Attributes:
        hz: [P], frequencies, interpolated.
        rise: [P], dB above the noise around them.
        weight: [P], how much a peak counts.
        resolution: Hz, one over the window's length.
    """

    hz: np.ndarray
    rise: np.ndarray
    weight: np.ndarray
    resolution: float


@dataclass(frozen=True)
class _Match:
    """Which peaks a series of partials meets.

    Attributes:
        peak: [..., n] number of the peak nearest to each partial.
        closeness: [..., n], 1 on the partial, 0 beyond the tolerance.
    """

    peak: np.ndarray
    closeness: np.ndarray


def note_pitch(waveform: np.ndarray, sample_rate: int) -> float:
    """Returns the pitch of a sound of one note as a MIDI number: 69 is 440 Hz, 0.01 a cent.

    Args:
        waveform: [T], the note; what comes before its loudest moment and 1 s after it is not looked at.
        sample_rate: Hz.

    Raises:
        NotMeasurable: silent, not finite, too short, or without a clear tone.
    """
    peaks = _peaks(_loudest_part(np.asarray(waveform, dtype=np.float64), sample_rate), sample_rate)
    fundamentals, inharmonicities = _candidates()
    partials = _partials(fundamentals, inharmonicities)
    match = _match(peaks, partials, fundamentals[:, None])
    scores = _scores(peaks, match, partials < 0.48 * sample_rate)
    best = int(np.argmax(scores))
    met = match.closeness[best] > 0.5
    if not scores[best] > 0 or not met.any() or peaks.rise[match.peak[best][met]].max() < TONE_DB:
        raise NotMeasurable("no clear tone")
    hz = _fitted(peaks, fundamentals[best], inharmonicities[best])
    return float(A4_KEY + 12 * np.log2(hz / A4_HZ))


def _loudest_part(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    if not np.isfinite(waveform).all():
        raise NotMeasurable("NaN or infinite samples")
    if waveform.size == 0 or np.abs(waveform).max() < 1e-5:
        raise NotMeasurable("silent")
    width = max(1, round(0.01 * sample_rate))
    power = np.convolve(waveform**2, np.ones(width), "same")
    # A note that swells to its end is looked at as a whole.
    latest = max(0, waveform.size - round(2 * SHORTEST_SECONDS * sample_rate))
    start = min(int(np.argmax(power)), latest)
    part = waveform[start : start + round(WINDOW_SECONDS * sample_rate)]
    if part.size < SHORTEST_SECONDS * sample_rate:
        raise NotMeasurable("too short to measure a pitch")
    return part


def _peaks(part: np.ndarray, sample_rate: int) -> _Peaks:
    """Returns what rises above the noise in a Hann-windowed spectrum."""
    length = 4 * 2 ** int(np.ceil(np.log2(part.size)))
    magnitude = np.abs(np.fft.rfft(part * np.hanning(part.size), length))
    level = 20 * np.log10(np.maximum(magnitude, 1e-8 * magnitude.max()))
    spacing, resolution = sample_rate / length, sample_rate / part.size
    noise = np.maximum(_noise(level, spacing, resolution), level.max() - RANGE_DB)
    at = np.flatnonzero((level[1:-1] > level[:-2]) & (level[1:-1] >= level[2:])) + 1
    at = at[(level[at] - noise[at] > RISE_DB) & (at * spacing > 0.75 * LOWEST_HZ)]
    if at.size == 0:
        raise NotMeasurable("no clear tone")
    before, here, after = level[at - 1], level[at], level[at + 1]
    hz = (at + 0.5 * (before - after) / (before - 2 * here + after)) * spacing
    # The side lobes and beats of a stronger peak are no peaks of their own.
    overshadowed = (np.abs(hz[:, None] - hz) < 2.5 * resolution) & (here[:, None] < here)
    kept = ~overshadowed.any(axis=1)
    hz, rise, relative = hz[kept], (here - noise[at])[kept], 1 + (here[kept] - here.max()) / RANGE_DB
    weight = np.minimum(rise - RISE_DB + 6, 40) * relative
    return _Peaks(hz, rise, weight, resolution)


def _noise(level: np.ndarray, spacing: float, resolution: float) -> np.ndarray:
    """Returns the running median of a level, taken at every second point that the window resolves."""
    step = max(1, int(resolution / spacing / 2))
    width = int(max(NOISE_WIDTH_HZ, 12 * resolution) / spacing / step) | 1
    coarse = median_filter(level[::step], width, mode="nearest")
    return np.interp(np.arange(level.size), np.arange(coarse.size) * step, coarse)


def _candidates() -> tuple[np.ndarray, np.ndarray]:
    """Returns fundamentals [S] in Hz and inharmonicities [S] of all series that are tried."""
    steps = int(STEPS_PER_OCTAVE * np.log2(HIGHEST_HZ / LOWEST_HZ))
    hz, stiffness = np.meshgrid(
        LOWEST_HZ * 2 ** (np.arange(steps + 1) / STEPS_PER_OCTAVE), INHARMONICITIES, indexing="ij"
    )
    allowed = stiffness <= MOST_INHARMONIC * np.maximum(1, hz / C4_HZ) ** 1.2
    return hz[allowed], stiffness[allowed]


def _partials(fundamental: np.ndarray, inharmonicity: np.ndarray) -> np.ndarray:
    """Returns the frequencies [..., PARTIALS] of fundamentals [...] with inharmonicities [...]."""
    n = np.arange(1, PARTIALS + 1)
    stretched = np.sqrt((1 + inharmonicity[..., None] * n**2) / (1 + inharmonicity[..., None]))
    return fundamental[..., None] * n * stretched


def _match(peaks: _Peaks, partials: np.ndarray, fundamental: np.ndarray) -> _Match:
    after = np.clip(np.searchsorted(peaks.hz, partials), 0, peaks.hz.size - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.abs(peaks.hz[before] - partials) < np.abs(peaks.hz[after] - partials)
    peak = np.where(nearer, before, after)
    # 20 cents, or what the window resolves, but never so much that any peak would do.
    tolerance = np.minimum(np.maximum(0.75 * peaks.resolution, 0.012 * partials), 0.22 * fundamental)
    return _Match(peak, np.clip(1.3 - np.abs(peaks.hz[peak] - partials) / tolerance, 0, 1))


def _scores(peaks: _Peaks, match: _Match, audible: np.ndarray) -> np.ndarray:
    """Returns the score of every series; `audible` [..., PARTIALS] tells which partials the rate can hold."""
    weight = peaks.weight[match.peak]
    closeness = match.closeness * audible
    explained = (weight * closeness).sum(-1) / peaks.weight.sum()
    present = np.minimum(weight / 15, 1) * closeness
    importance = audible / np.sqrt(np.arange(1, PARTIALS + 1))
    # Partials above the last one heard have died away; that is no reason against the series.
    last = PARTIALS - 1 - np.argmax(present[..., ::-1] > 0.3, axis=-1)[..., None]
    met = np.take_along_axis(np.cumsum(importance * present, -1), last, -1)[..., 0]
    expected = np.take_along_axis(np.cumsum(importance, -1), last, -1)[..., 0]
    return explained * met / np.maximum(expected, 1e-9)


def _fitted(peaks: _Peaks, fundamental: float, inharmonicity: float) -> float:
    """Returns f_1 by least squares of (f_n / n)^2 = a + b n^2 over the peaks met, with a + b = f_1^2.

    The lowest partials come first: where the higher ones lie is known only when the inharmonicity is.
    """
    fitted, stiffness = fundamental, inharmonicity
    for highest in (4, 8, 16, PARTIALS):
        partials = _partials(np.array([fitted]), np.array([stiffness]))
        match = _match(peaks, partials, np.array([[fitted]]))
        met = (match.closeness[0] > 0.5) & (np.arange(PARTIALS) < highest)
        n = np.flatnonzero(met) + 1.0
        hz, weight = peaks.hz[match.peak[0][met]], peaks.weight[match.peak[0][met]]
        if n.size == 0:
            continue
        design, scale = np.stack([np.ones(n.size), n**2], axis=1), np.sqrt(weight * n)
        if n.size < 3:  # too few for both; the lowest says where the first is
            stretched = _partials(np.ones(1), np.array([stiffness]))[0, int(n[0]) - 1]
            fitted = float(hz[0] / stretched)
            continue
        a, b = np.linalg.lstsq(design * scale[:, None], (hz / n) ** 2 * scale, rcond=None)[0]
        # A fit through wrong peaks may run away; the grid knows the pitch to 10 cents.
        if a > 0 and a + b > 0 and abs(np.log2((a + b) / fundamental**2)) < 0.06:
            fitted, stiffness = float(np.sqrt(a + b)), max(0.0, float(b / a))
    return fitted
