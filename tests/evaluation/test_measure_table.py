"""The table of measures: each beside an independent implementation, or a number that others published.

The right-hand sides are written from the papers, or call another library; they share no code with what they check. What
wraps the reference code itself (PESQ) is checked against published scores. Griffin-Lim's published score stands with
Griffin-Lim (tests/audio), the alignment of MCD-DTW also against every alignment tried (test_mcd_dtw), the protocols of
SC09 in test_sc09, paired tests in test_paired.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy
import torch
from scipy.signal import lfilter, resample_poly, spectrogram
from scipy.spatial.distance import pdist
from scipy.stats import chi2_contingency, entropy
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from audiodiff.audio import io
from audiodiff.evaluation import distributions
from audiodiff.evaluation.distributions.bins import bin_test, proportions_differ
from audiodiff.evaluation.distributions.frechet import (
    class_frechet_distance,
    frechet_distance,
    gaussian_distance,
)
from audiodiff.evaluation.distributions.inception import am_score, inception_score, modified_inception_score
from audiodiff.evaluation.distributions.kernel import kernel_distance
from audiodiff.evaluation.distributions.manifold import manifolds, radii
from audiodiff.evaluation.distributions.neighbours import diversity, memorization, nearest_distances
from audiodiff.evaluation.evaluate import summarize
from audiodiff.evaluation.metrics import load_metrics
from audiodiff.evaluation.signals import resampled

METRICS = {metric.key: metric.function for metric in load_metrics()}
Independent = Callable[[np.ndarray, np.ndarray, int], float]


# Of pairs of signals


def pesq_narrow(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """The reference code of P.862 itself, on signals brought to 8 kHz by another resampler."""
    from pesq import pesq

    pair = [resample_poly(signal, 8000, rate) for signal in (reference, estimate)]
    return float(pesq(8000, *pair, "nb"))


def pesq_wide(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """The reference code of P.862.2 itself, on signals brought to 16 kHz by another resampler."""
    from pesq import pesq

    pair = [resample_poly(signal, 16000, rate) for signal in (reference, estimate)]
    return float(pesq(16000, *pair, "wb"))


def third_octaves(reference: np.ndarray, estimate: np.ndarray) -> list[np.ndarray]:
    """Envelopes [15, F] of both signals where the reference is within 40 dB of its loudest (Taal et al. 2011, II)."""
    window = np.hanning(258)[1:-1]
    starts = range(0, len(reference) - 256, 128)
    frames = [np.stack([x[s : s + 256] * window for s in starts]) for x in (reference, estimate)]
    level = 20 * np.log10(np.linalg.norm(frames[0], axis=1))
    bands = []
    edges = 150 * 2 ** ((2 * np.arange(16) - 1) / 6)
    bins = [int(np.abs(np.arange(257) * 10000 / 512 - edge).argmin()) for edge in edges]
    for kept in (each[level > level.max() - 40] for each in frames):
        joined = np.zeros(128 * len(kept) + 128)
        for i, frame in enumerate(kept):
            joined[128 * i : 128 * i + 256] += frame
        again = np.stack([joined[s : s + 256] * window for s in range(0, len(joined) - 256, 128)])
        power = np.abs(np.fft.rfft(again, 512)) ** 2
        bands.append(np.sqrt([power[:, a:b].sum(1) for a, b in pairwise(bins)]))
    return bands


def stoi(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Taal et al. 2011, equations 3 to 6."""
    assert rate == 10000
    clean, made = third_octaves(reference, estimate)
    found = []
    for end in range(30, clean.shape[1] + 1):
        for x, y in zip(clean[:, end - 30 : end], made[:, end - 30 : end], strict=True):
            held = np.minimum(y * np.linalg.norm(x) / np.linalg.norm(y), x * (1 + 10 ** (15 / 20)))
            found.append(np.corrcoef(x, held)[0, 1])
    return float(np.mean(found))


def estoi(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Jensen and Taal 2016, equations 3 to 6: rows, then columns of a segment without mean and of unit norm."""
    assert rate == 10000

    def normal(x: np.ndarray, axis: int) -> np.ndarray:
        centred = x - x.mean(axis, keepdims=True)
        return np.asarray(centred / np.linalg.norm(centred, axis=axis, keepdims=True))

    clean, made = third_octaves(reference, estimate)
    found = []
    for end in range(30, clean.shape[1] + 1):
        x, y = (normal(normal(each[:, end - 30 : end], 1), 0) for each in (clean, made))
        found.append((x * y).sum() / 30)
    return float(np.mean(found))


def si_sdr(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """As torchmetrics writes it, and as auraloss computes it."""
    from auraloss.time import SISDRLoss

    target, predicted = (torch.from_numpy(x - x.mean()) for x in (reference, estimate))
    alpha = (predicted * target).sum() / (target**2).sum()
    value = float(10 * torch.log10(((alpha * target) ** 2).sum() / ((alpha * target - predicted) ** 2).sum()))
    theirs = -SISDRLoss()(*(torch.from_numpy(x)[None, None] for x in (estimate, reference)))
    assert value == pytest.approx(float(theirs), abs=1e-4)
    return value


def cepstra(signal: np.ndarray, rate: int) -> np.ndarray:
    """Coefficients 1 to 15 [15, F] of 20 HTK mel bands with corners on whole bins, by librosa and scipy."""
    size, hop = int(0.032 * rate), int(0.008 * rate)
    window = np.hanning(size)
    spectrum = librosa.stft(
        signal, n_fft=size, hop_length=hop, window=window, center=False, dtype=np.complex128
    )
    spectrum = spectrum[:, : -(-(len(signal) - size) // hop)]  # the last frame must end before the signal
    power = np.maximum(np.abs(spectrum) ** 2, 1e-10 * (window**2).sum())
    corners = np.floor((size + 1) * librosa.mel_frequencies(22, fmin=0, fmax=rate / 2, htk=True) / rate)
    bins = np.arange(size // 2 + 1)
    bands = np.stack([np.interp(bins, corners[n : n + 3], [0, 1, 0]) for n in range(20)]) @ power
    return np.asarray(scipy.fft.dct(np.log(bands), axis=0)[1:16] / 40)


def mcd(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Kubichek 1993, equation 1."""
    apart = np.square(cepstra(reference, rate) - cepstra(estimate, rate)).sum(0)
    return float(10 / np.log(10) * np.sqrt(2 * apart).mean())


def mcd_dtw(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """The same by the recursion of Sakoe and Chiba 1978, table I (symmetric, P = 0), of a shorter estimate."""
    first, second = cepstra(reference, rate).T, cepstra(estimate, rate).T
    distance = np.linalg.norm(first[:, None] - second[None], axis=-1)
    best = np.full((len(first) + 1, len(second) + 1), np.inf)
    best[0, 0] = 0
    for i, row in enumerate(distance, start=1):
        for j, d in enumerate(row, start=1):
            best[i, j] = min(best[i - 1, j - 1] + 2 * d, best[i - 1, j] + d, best[i, j - 1] + d)
    return float(10 / np.log(10) * np.sqrt(2) * best[-1, -1] / sum(distance.shape))


def lsd(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Gray and Markel 1976, from scipy's spectrogram."""
    size = 2 ** round(np.log2(0.064 * rate))
    levels = []
    for signal in (reference, estimate):
        power = spectrogram(signal, rate, "hann", size, size * 3 // 4, detrend=False, return_onesided=False)[
            2
        ]
        levels.append(10 * np.log10(np.maximum(power[: size // 2 + 1] * rate, 1e-10)))
    return float(np.sqrt(np.square(levels[0] - levels[1]).mean(0)).mean())


def mrstft(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Yamamoto et al. 2020, equations 4 to 6, from librosa's transform."""
    total = 0.0
    for size, hop, window in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        clean, made = (
            np.abs(librosa.stft(x, n_fft=size, hop_length=hop, win_length=window, pad_mode="reflect"))
            for x in (reference, estimate)
        )
        clean, made = np.maximum(clean, 1e-4), np.maximum(made, 1e-4)
        total += np.linalg.norm(clean - made) / np.linalg.norm(clean)
        total += np.abs(np.log(clean) - np.log(made)).mean()
    return total / 3


def mel_l1(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """From scipy's spectrogram and triangles drawn over the Slaney scale."""
    size = 2 ** round(np.log2(0.046 * rate))
    corners = librosa.mel_frequencies(82, fmin=0, fmax=rate / 2)
    bands = np.stack(
        [np.interp(np.arange(size // 2 + 1) * rate / size, corners[n : n + 3], [0, 1, 0]) for n in range(80)]
    )
    bands = bands[bands.sum(1) > 0]
    levels = []
    for signal in (reference, estimate):
        power = spectrogram(signal, rate, "hann", size, size * 3 // 4, detrend=False, return_onesided=False)[
            2
        ]
        floored = np.maximum(power[: size // 2 + 1] * rate, 1e-10)
        levels.append(10 * np.log10(bands @ floored / bands.sum(1, keepdims=True)))
    return float(np.abs(levels[0] - levels[1]).mean())


def world(signal: np.ndarray, rate: int) -> np.ndarray:
    """Cents [F] every 5 ms by WORLD, -inf where unvoiced."""
    import pyworld

    f0 = pyworld.stonemask(signal, *pyworld.dio(signal, rate, frame_period=5.0), rate)
    with np.errstate(divide="ignore"):
        return np.asarray(1200 * np.log2(f0))


def f0_rmse(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Of pyworld's own pitch."""
    clean, made = world(reference, rate), world(estimate, rate)
    voiced = np.isfinite(clean) & np.isfinite(made)
    return float(np.sqrt(np.square(clean[voiced] - made[voiced]).mean()))


def f0_correlation(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Of pyworld's own pitch, by scipy."""
    pair = np.stack([world(reference, rate), world(estimate, rate)])
    return float(scipy.stats.pearsonr(*pair[:, np.isfinite(pair).all(0)]).statistic)


def voicing_error(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Of pyworld's own pitch."""
    voiced = [np.isfinite(world(signal, rate)) for signal in (reference, estimate)]
    return 100 * sum(a != b for a, b in zip(*voiced, strict=True)) / len(voiced[0])


def periodicity_error(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Talkin 1995, equation 2, lag by lag."""
    size, hop = round(4 * rate / 71), round(0.005 * rate)
    tracks = []
    for signal in (reference, estimate):
        track = []
        for start in range(0, len(signal) - size + 1, hop):
            frame = signal[start : start + size] - signal[start : start + size].mean()
            best = 0.0
            for lag in range(round(rate / 800), round(rate / 71) + 1):
                head, tail = frame[:-lag], frame[lag:]
                floor = 1e-10 * len(head)
                best = max(best, head @ tail / np.sqrt((head @ head + floor) * (tail @ tail + floor)))
            track.append(min(best, 1.0))
        tracks.append(np.array(track))
    return float(np.sqrt(np.square(tracks[0] - tracks[1]).mean()))


def silence_level(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Frame by frame."""
    size = round(0.02 * rate)
    starts = range(0, len(reference) - size + 1, size)
    power = [np.var(reference[s : s + size]) + reference[s : s + size].mean() ** 2 for s in starts]
    silent = [s for s, p in zip(starts, power, strict=True) if 10 * np.log10(p / max(power)) < -40]
    loud = [p for p in power if 10 * np.log10(p / max(power)) >= -40]
    hiss = np.mean([np.square(estimate[s : s + size]).mean() for s in silent])
    return float(10 * np.log10(hiss / np.mean(loud)))


def loudness_difference(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """ITU-R BS.1770-4, annex 1, with the filters that it prints for 48 kHz."""
    assert rate == 48000
    levels = []
    for signal in (reference, estimate):
        shelf = lfilter(
            [1.53512485958697, -2.69169618940638, 1.19839281085285],
            [1, -1.69065929318241, 0.73248077421585],
            signal,
        )
        heard = lfilter([1, -2, 1], [1, -1.99004745483398, 0.99007225036621], shelf)
        blocks = np.array(
            [np.square(heard[s : s + 19200]).mean() for s in range(0, len(heard) - 19200 + 1, 4800)]
        )
        loudness = -0.691 + 10 * np.log10(blocks)
        above = blocks[loudness > -70]
        relative = -0.691 + 10 * np.log10(above.mean()) - 10
        levels.append(-0.691 + 10 * np.log10(blocks[(loudness > -70) & (loudness > relative)].mean()))
    return abs(float(levels[1] - levels[0]))


# Metric -> (independent value, sample rate, absolute tolerance)
TABLE: dict[str, tuple[Independent, int, float]] = {
    "estoi": (estoi, 10000, 1e-6),
    "f0_correlation": (f0_correlation, 22050, 1e-9),
    "f0_rmse": (f0_rmse, 22050, 1e-9),
    "loudness_difference": (loudness_difference, 48000, 1e-3),  # its package designs the filters anew
    "lsd": (lsd, 22050, 1e-9),
    "mcd": (mcd, 22050, 1e-9),
    "mcd_dtw": (mcd_dtw, 8000, 1e-9),
    "mel_l1": (mel_l1, 22050, 1e-6),
    "mrstft": (mrstft, 22050, 1e-4),
    "periodicity_error": (periodicity_error, 8000, 1e-6),
    "pesq_nb": (pesq_narrow, 16000, 0.02),
    "pesq_wb": (pesq_wide, 48000, 0.02),
    "si_sdr": (si_sdr, 22050, 1e-9),
    "silence_level": (silence_level, 22050, 1e-9),
    "stoi": (stoi, 10000, 1e-6),
    "voicing_error": (voicing_error, 22050, 1e-9),
}


def speech(data_dir: Path, rate: int) -> np.ndarray:
    waveform, own = io.read(data_dir / "ljspeech_excerpt/LJSpeech-1.1/wavs/LJ001-0008.wav")
    return resampled(waveform[0].double().numpy(), own, rate)


@pytest.mark.parametrize("key", METRICS)
def test_measure_is_that_of_an_independent_implementation(key: str, data_dir: Path) -> None:
    independent, rate, tolerance = TABLE[key]
    # Whole steps of 0.1 s: what is done with an incomplete block at the end is not standardised.
    reference = speech(data_dir, rate)
    reference = reference[: reference.size // (rate // 10) * (rate // 10)].copy()
    reference[rate // 2 : rate * 7 // 10] *= 1e-3  # a pause
    hiss = np.random.default_rng(0).normal(size=reference.size)
    # Louder at its end, duller, with hiss, and where lengths may differ shorter: every measure has something to say.
    swell = np.linspace(0.6, 1.2, reference.size)
    estimate = lfilter([0.8, 0.2], [1], swell * reference) + 0.05 * reference.std() * hiss
    if key == "mcd_dtw":
        estimate = estimate[: round(0.9 * estimate.size)]
    expected = independent(reference, estimate, rate)
    assert METRICS[key](reference, estimate, rate) == pytest.approx(expected, abs=tolerance)
    assert abs(expected - METRICS[key](reference, reference, rate)) > 20 * tolerance


def test_published_vocoder_outputs_score_as_their_yardstick(data_dir: Path, fixtures_dir: Path) -> None:
    folder = fixtures_dir / "philsyn_vocoder"
    yardstick = json.loads((folder / "yardstick.json").read_text())
    scores: dict[str, list[list[float]]] = {}
    for path in sorted((folder / "published").glob("*.wav")):
        match = re.fullmatch(r"(\d+)_(\d+)_\d+k_(.*)", path.stem)
        assert match is not None
        recording, rate = io.read(data_dir / "ljspeech_excerpt/LJSpeech-1.1/wavs" / f"{match[3]}.wav")
        made, _ = io.read(path)
        length = min(made.shape[-1], recording.shape[-1])
        pair = [signal[0, :length].numpy() for signal in (recording, made)]
        row = [METRICS[key](*pair, rate) for key in ("pesq_wb", "stoi")]
        scores.setdefault(f"ch{match[1]}_T{match[2]}", []).append(row)
    assert scores
    for system, rows in scores.items():
        pesq, intelligibility = np.mean(rows, axis=0)
        # The yardstick is a mean over more clips than are at hand.
        assert pesq == pytest.approx(yardstick[system]["pesq_wb"], abs=0.25)
        assert intelligibility == pytest.approx(yardstick[system]["stoi"], abs=0.01)


def test_white_noise_scores_as_its_yardstick(data_dir: Path, fixtures_dir: Path) -> None:
    yardstick = json.loads((fixtures_dir / "philsyn_vocoder/yardstick.json").read_text())
    expected, recording = yardstick["white_noise_same_rms"], speech(data_dir, 22050)
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(recording.size, generator=generator).numpy() * np.sqrt(np.mean(recording**2))
    assert METRICS["pesq_wb"](recording, made, 22050) == pytest.approx(expected["pesq_wb"], abs=0.1)
    assert METRICS["stoi"](recording, made, 22050) == pytest.approx(expected["stoi"], abs=0.1)


# Of sets


def correlated(seed: int, rows: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Correlated features [rows, 6] of very different scales."""
    mixing = np.random.default_rng(99).normal(size=(6, 6)) * np.logspace(-1, 1, 6)
    return np.asarray(shift + scale * np.random.default_rng(seed).normal(size=(rows, 6)) @ mixing)


def probabilities(seed: int, rows: int, sharpness: float) -> np.ndarray:
    scores = np.exp(sharpness * np.random.default_rng(seed).normal(size=(rows, 10)))
    return np.asarray(scores / scores.sum(1, keepdims=True))


REAL, MADE = correlated(0, 70), correlated(1, 50, shift=0.5, scale=1.1)
REAL_CLASSES, MADE_CLASSES = np.arange(70) % 3, np.arange(50) % 3
REAL_P, MADE_P = probabilities(1, 80, 1.0), probabilities(0, 60, 3.0)


def of_matrix_root(real: np.ndarray, made: np.ndarray) -> float:
    """Heusel et al. 2017 by scipy's matrix square root."""
    first, second = np.cov(real, rowvar=False), np.cov(made, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(first @ second))
    return float(np.square(real.mean(0) - made.mean(0)).sum() + np.trace(first + second - 2 * root))


def of_kernel_sums(real: np.ndarray, made: np.ndarray) -> float:
    """Binkowski et al. 2018, equation 4, by scikit-learn's kernel; its gamma is 1/D."""
    within = []
    for features in (real, made):
        kernel, count = polynomial_kernel(features, degree=3, coef0=1), len(features)
        within.append((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
    return float(sum(within) - 2 * polynomial_kernel(real, made, degree=3, coef0=1).mean())


def ball(features: np.ndarray, k: int) -> np.ndarray:
    return np.asarray(NearestNeighbors(n_neighbors=k + 1).fit(features).kneighbors(features)[0][:, k])


def of_every_pair(real: np.ndarray, made: np.ndarray) -> list[float]:
    """Precision, recall (Kynkaanniemi et al. 2019), density, coverage (Naeem et al. 2020), sums over pairs."""
    apart = np.linalg.norm(real[:, None] - made[None], axis=-1)  # [real, made]
    near, wide = apart <= ball(real, 3)[:, None], apart <= ball(real, 5)[:, None]
    recall = (apart <= ball(made, 3)[None]).any(1).mean()
    return [near.any(0).mean(), recall, wide.sum() / (5 * len(made)), wide.any(1).mean()]


def of_cells(real: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Richardson and Weiss 2018, section 3: the cells of the nearest centre, a chi-squared test for each."""
    centres, _ = scipy.cluster.vq.kmeans2(real, 8, iter=100, minit="++", seed=np.random.default_rng(0))
    nearest = KNeighborsClassifier(1).fit(centres, np.arange(8))
    cells = [np.bincount(nearest.predict(features), minlength=8) for features in (real, made)]
    different = []
    for a, b in zip(*cells, strict=True):
        table = [[a, len(real) - a], [b, len(made) - b]]
        different.append(chi2_contingency(table, correction=False).pvalue < 0.05)
    return np.concatenate([cells[0] / len(real), cells[1] / len(made), different])


def of_neighbours() -> list[float]:
    """Nearest training clip, by scikit-learn; REAL is trained on."""
    test = correlated(2, 40)
    search = NearestNeighbors(n_neighbors=1).fit(REAL)
    made, tested = (np.sort(search.kneighbors(each)[0][:, 0]) for each in (MADE, test))
    near = np.searchsorted(made, np.percentile(tested, 5))
    p_value = scipy.stats.mannwhitneyu(made, tested, alternative="less").pvalue
    return [np.median(made) / np.median(tested), near / len(made), p_value]


def memorized() -> list[float]:
    found = memorization(REAL, correlated(2, 40), MADE)
    return [found.ratio, found.near_share, found.p_value]


def cells() -> np.ndarray:
    found = bin_test(REAL, MADE, 8, 0)
    return np.concatenate([found.real, found.made, found.different])


def proportions() -> list[list[bool]]:
    """Whether shares differ, here and by a chi-squared test of the two-by-two table, for many pairs of counts."""
    ours, theirs = [], []
    for a, b in np.random.default_rng(0).integers(1, 40, size=(100, 2)):
        p_value = chi2_contingency([[a, 60 - a], [b, 80 - b]], correction=False).pvalue
        theirs.append(bool(p_value < 0.05))
        ours.append(bool(proportions_differ(np.array([a / 60]), np.array([b / 80]), 60, 80)[0]))
    return [ours, theirs]


def within(features: np.ndarray, classes: np.ndarray) -> float:
    return float(np.mean([pdist(features[classes == each]).mean() for each in np.unique(classes)]))


def gaussians() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return REAL.mean(0), np.cov(REAL, rowvar=False), MADE.mean(0), np.cov(MADE, rowvar=False)


def by_class() -> np.ndarray:
    each = [of_matrix_root(REAL[c == REAL_CLASSES], MADE[c == MADE_CLASSES]) for c in range(3)]
    return np.array([np.mean(each), np.std(each)])


def sure_and_varied(p: np.ndarray) -> float:
    """Gurumurthy et al. 2017: exp of the mean divergence over all pairs of sounds."""
    return float(np.exp(np.mean([entropy(one, other) for one in p for other in p])))


def proportioned(real: np.ndarray, made: np.ndarray) -> float:
    """Zhou et al. 2018, equation 21: classes as often as in the real ones, and each sound sure."""
    return float(entropy(real.mean(0), made.mean(0)) + np.mean([entropy(row) for row in made]))


def nearest() -> list[np.ndarray]:
    distance, number = NearestNeighbors(n_neighbors=1).fit(REAL).kneighbors(MADE)
    return [distance[:, 0], number[:, 0]]


# Measure -> (its value, independent value); both called without arguments
SETS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "am_score": (lambda: am_score(REAL_P, MADE_P), lambda: proportioned(REAL_P, MADE_P)),
    "bin_test": (cells, lambda: of_cells(REAL, MADE)),
    "class_frechet_distance": (
        lambda: class_frechet_distance(REAL, REAL_CLASSES, MADE, MADE_CLASSES),
        by_class,
    ),
    "diversity": (lambda: diversity(MADE, MADE_CLASSES), lambda: within(MADE, MADE_CLASSES)),
    "frechet_distance": (lambda: frechet_distance(REAL, MADE), lambda: of_matrix_root(REAL, MADE)),
    "gaussian_distance": (lambda: gaussian_distance(*gaussians()), lambda: of_matrix_root(REAL, MADE)),
    "inception_score": (
        lambda: inception_score(MADE_P),
        lambda: np.exp(np.mean([entropy(row, MADE_P.mean(0)) for row in MADE_P])),
    ),
    "kernel_distance": (lambda: kernel_distance(REAL, MADE), lambda: of_kernel_sums(REAL, MADE)),
    "manifolds": (lambda: list(vars(manifolds(REAL, MADE)).values()), lambda: of_every_pair(REAL, MADE)),
    "memorization": (memorized, of_neighbours),
    "modified_inception_score": (lambda: modified_inception_score(MADE_P), lambda: sure_and_varied(MADE_P)),
    "nearest_distances": (lambda: list(nearest_distances(MADE, REAL)), nearest),
    "proportions_differ": (lambda: proportions()[0], lambda: proportions()[1]),
    "radii": (lambda: radii(REAL, 5), lambda: ball(REAL, 5)),
}


@pytest.mark.parametrize("name", SETS)
def test_measure_of_sets_is_that_of_an_independent_implementation(name: str) -> None:
    ours, theirs = (np.asarray(each(), dtype=np.float64) for each in SETS[name])
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-12)


def test_interval_of_a_mean_is_scipys_bootstrap() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=60)
    score = summarize({f"{i}": float(value) for i, value in enumerate(values)}, {}, 0)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert score.mean == pytest.approx(values.mean())
    width = theirs.high - theirs.low
    assert score.interval == pytest.approx((theirs.low, theirs.high), abs=0.06 * width)


def test_order_of_the_files_does_not_matter() -> None:
    values = {f"{i}": float(value) for i, value in enumerate(np.random.default_rng(0).normal(size=30))}
    backwards = dict(reversed(values.items()))
    assert summarize(backwards, {}, 0) == summarize(values, {}, 0)


# Nothing is missing


def test_no_metric_is_missing_from_the_table() -> None:
    assert set(TABLE) == set(METRICS)


def test_no_measure_of_sets_is_missing_from_the_table() -> None:
    public = set()
    for found in pkgutil.iter_modules(distributions.__path__):
        if found.name == "matrices":  # distances in pieces, which the measures share
            continue
        module = importlib.import_module(f"{distributions.__name__}.{found.name}")
        public |= {
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
        }
    assert set(SETS) == public
