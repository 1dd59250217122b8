"""How good zero-shot edits are, beside classical methods: gaps, clipping, bandwidth, noise, on held-out recordings.

    python benchmarks/editing.py exp/ljspeech/prior/model --clips wavs/LJ001-007[6-9].wav wavs/LJ001-0080.wav \
        --out docs/editing_scores --seed 0

Gaps stand at seeded places where the recording is not silent. Signal-to-error is that of the gap alone; log-spectral
distance that of the gap and 25 ms on either side; the click measure is the largest second difference at the seams in
deviations of those within 50 ms (the recording's own, at the same places, is the reference). Linear prediction is
Janssen's (order 512, context 2048 on either side; also order 256 with 1024). Clipping is at a share of each excerpt's
peak; A-SPADE is a consistent sparse method (Kitic et al. 2015). Noise is white, beside the Wiener filter with the
decision-directed estimate (Ephraim and Malah 1984), which is told its level. All contestants see the same excerpts in
one run. Finished cells are kept in the JSON file, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from audiodiff.audio import io
from audiodiff.editing.edit import edit_waveform
from audiodiff.editing.linear_prediction import interpolated
from audiodiff.editing.restore import Recovery
from audiodiff.editing.sparse_declipping import beyond, sparsest
from audiodiff.editing.tasks import ExtendBandwidth, Inpaint, RemoveNoise, RestoreClipped
from audiodiff.files import write_whole
from audiodiff.model import AudioDiffusion, load
from audiodiff.progress import track

GAPS_MS, CLIPS_DB, CUTOFF, NOISES_DB = (20, 50, 100, 200), (3, 6, 12), 4000, (20, 10, 0)
GUIDED = {
    "moments": Recovery("moments"),
    "projection": Recovery("projection", eta=1.0),
    "moments from noise": Recovery("moments", start=30.0),
    "replacement": Recovery("replacement", effort=3),
    "gradient": Recovery("gradient", eta=1.0),
}
Filler = Callable[[np.ndarray, int, int], np.ndarray]  # (recording [T], start, stop) -> the gap


def main() -> None:
    """Runs what has not been run, and writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--clips", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True, help="OUT.json and OUT.md")
    parser.add_argument("--gaps", type=int, default=2, help="of each length in each clip")
    parser.add_argument(
        "--excerpt", type=float, default=2.0, help="seconds of each clip that are declipped and extended"
    )
    parser.add_argument("--methods", nargs="+", default=list(GUIDED), choices=list(GUIDED))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = load(options.model)
    clips = [io.read(path, model.sample_rate, 1)[0][0].numpy() for path in options.clips]
    clips = [clip - clip.mean() for clip in clips]  # an offset would count as signal, and as clipping
    contestants = {name: replace(GUIDED[name], seed=options.seed) for name in options.methods}
    cells = Cells(options.out.with_suffix(".json"))
    run_gaps(cells, model, clips, contestants, options.gaps, options.seed)
    excerpts = [
        excerpt(clip, model.sample_rate, options.excerpt, options.seed + i) for i, clip in enumerate(clips)
    ]
    run_declip(cells, model, excerpts, contestants)
    run_bandwidth(cells, model, excerpts, contestants)
    run_denoise(cells, model, excerpts, options.seed)
    write_whole({options.out.with_suffix(".md"): cells.tables().encode()})
    print(cells.tables())


class Cells:
    """Scores by table, row and column, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scores: dict[str, dict[str, dict[str, list[float]]]] = {}
        if path.is_file():
            self.scores = json.loads(path.read_text())["scores"]

    def add(self, table: str, column: str, row: str, score: Callable[[], list[list[float]]]) -> None:
        """Scores a cell unless it is there; `score` returns one list of numbers per sound."""
        cell = self.scores.setdefault(table, {}).setdefault(column, {})
        if row in cell:
            return
        start = time.perf_counter()
        values = np.array(score(), dtype=np.float64)
        seconds = (time.perf_counter() - start) / len(values)
        cell[row] = [
            *np.median(values, axis=0).tolist(),
            *np.mean(values, axis=0).tolist(),
            seconds,
            len(values),
        ]
        cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} thread(s)"
        machine = f"{platform.processor() or platform.machine()}, {cores}"
        record = {"machine": machine, "scores": self.scores}
        write_whole({self.path: json.dumps(record, indent=1).encode()})
        shown = ", ".join(f"{name} {value:.2f}" for name, value in zip(NAMES[table], cell[row], strict=False))
        print(f"{table} {column} {row}: {shown} (medians of {len(values)}; {seconds:.1f} s each)", flush=True)

    def tables(self) -> str:
        """Returns markdown."""
        lines = []
        for table, columns in self.scores.items():
            names = NAMES[table]
            heads = [f"{name}, {column}" for column in columns for name in names]
            lines += [
                "",
                f"### {table}",
                "",
                f"| method | {' | '.join(heads)} | s each |",
                "|---" * (len(heads) + 2) + "|",
            ]
            for row in dict.fromkeys(row for cells in columns.values() for row in cells):
                values = [columns[column].get(row) for column in columns]
                shown = [f"{v[i]:.1f}" if v else "" for v in values for i in range(len(names))]
                seconds = np.mean([v[-2] for v in values if v])
                lines.append(f"| {row} | {' | '.join(shown)} | {seconds:.1f} |")
        return "\n".join(lines) + "\n"


NAMES = {
    "gaps": ("SER dB", "LSD dB", "click"),
    "declip": ("SDR dB", "LSD dB"),
    "bandwidth": ("LSD above dB", "LSD below dB"),
    "denoise": ("SDR dB", "LSD dB"),
}


def run_gaps(
    cells: Cells,
    model: AudioDiffusion,
    clips: list[np.ndarray],
    contestants: dict[str, Recovery],
    count: int,
    seed: int,
) -> None:
    """Fills gaps of every length with every method."""
    rate = model.sample_rate
    fillers: dict[str, Filler] = {
        "recording": lambda clip, start, stop: clip[start:stop],
        "silence": lambda clip, start, stop: np.zeros(stop - start),
        "linear prediction 512": lambda clip, start, stop: predicted(clip, start, stop, 512, 2048),
        "linear prediction 256": lambda clip, start, stop: predicted(clip, start, stop, 256, 1024),
        **{
            name: lambda clip, start, stop, r=recovery: painted(model, clip, start, stop, r)
            for name, recovery in contestants.items()
        },  # type: ignore[misc]
    }
    for milliseconds in GAPS_MS:
        places = [
            (clip, start)
            for i, clip in enumerate(clips)
            for start in sounding(clip, milliseconds * rate // 1000, count, seed + i)
        ]
        for name, filler in fillers.items():
            cells.add(
                "gaps", f"{milliseconds} ms", name, partial(score_gaps, filler, places, milliseconds, rate)
            )


def score_gaps(
    filler: Filler, places: list[tuple[np.ndarray, int]], milliseconds: int, rate: int
) -> list[list[float]]:
    """Returns the scores of one method at places (recording, start)."""
    found = []
    for clip, start in track(places, f"{milliseconds} ms", len(places)):
        stop = start + milliseconds * rate // 1000
        made = clip.copy()
        made[start:stop] = filler(clip, start, stop)
        found.append(gap_scores(clip, made, start, stop, rate))
    return found


def sounding(clip: np.ndarray, length: int, count: int, seed: int) -> list[int]:
    """Returns starts of stretches that are louder than half the clip's root mean square."""
    generator, rms = np.random.default_rng([seed, length]), np.sqrt(np.mean(clip**2))
    found: list[int] = []
    while len(found) < count:
        start = int(generator.integers(8192, clip.size - length - 8192))
        if np.sqrt(np.mean(clip[start : start + length] ** 2)) > rms / 2:
            found.append(start)
    return found


def predicted(clip: np.ndarray, start: int, stop: int, order: int, context: int) -> np.ndarray:
    """Returns the gap by Janssen's linear prediction."""
    return interpolated(clip[start - context : start], clip[stop : stop + context], stop - start, order)


def painted(model: AudioDiffusion, clip: np.ndarray, start: int, stop: int, recovery: Recovery) -> np.ndarray:
    """Returns the gap as the model fills it; the samples within are not shown to it."""
    rate = model.sample_rate
    holed = torch.from_numpy(clip).float()[None].clone()
    holed[:, start:stop] = 0
    task = Inpaint(((start / rate, stop / rate),))
    return edit_waveform(model, holed, rate, task, recovery)[0, start:stop].numpy()


def gap_scores(clip: np.ndarray, made: np.ndarray, start: int, stop: int, rate: int) -> list[float]:
    """Returns signal-to-error in the gap, log-spectral distance around it, and the click measure."""
    error = np.sum((made[start:stop] - clip[start:stop]) ** 2)
    ratio = 10 * np.log10(np.sum(clip[start:stop] ** 2) / max(error, 1e-12))
    beside = rate // 40
    around = slice(start - beside, stop + beside)
    return [min(ratio, 99.0), distance(clip[around], made[around], 512), click(made, start, stop, rate)]


def click(made: np.ndarray, start: int, stop: int, rate: int) -> float:
    """Returns the largest second difference at the seams, in deviations of those within 50 ms."""
    jumps = np.abs(np.diff(made, 2))
    seams = [range(edge - 3, edge + 1) for edge in (start, stop)]
    found = []
    for seam in seams:
        near = jumps[max(0, seam[0] - rate // 20) : seam[-1] + rate // 20]
        found.append((jumps[seam[0] : seam[-1] + 1].max() - near.mean()) / max(near.std(), 1e-9))
    return float(max(found))


def distance(one: np.ndarray, other: np.ndarray, n_fft: int, low: float = 0.0, high: float = 1.0) -> float:
    """Returns the log-spectral distance in dB between shares low and high of the spectrum, down to -80 dB."""
    window = np.hanning(n_fft)

    def powers(signal: np.ndarray) -> np.ndarray:
        padded = np.pad(signal, n_fft // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: n_fft // 4]
        return np.asarray(np.abs(np.fft.rfft(frames * window)) ** 2)

    ours, theirs = powers(one), powers(other)
    floor = ours.max() * 1e-8 + 1e-12
    bins = slice(int(low * (n_fft // 2)), int(high * (n_fft // 2)) + 1)
    levels = 10 * np.log10((ours[:, bins] + floor) / (theirs[:, bins] + floor))
    return float(np.sqrt((levels**2).mean(1)).mean())


def excerpt(clip: np.ndarray, rate: int, seconds: float, seed: int) -> np.ndarray:
    """Returns a seeded stretch of a clip that is louder than half the clip's root mean square."""
    length, generator = min(round(seconds * rate), clip.size), np.random.default_rng(seed)
    while True:
        start = int(generator.integers(0, clip.size - length + 1))
        part = clip[start : start + length]
        if np.sqrt(np.mean(part**2)) >= np.sqrt(np.mean(clip**2)) / 2:
            return part


def run_declip(
    cells: Cells, model: AudioDiffusion, excerpts: list[np.ndarray], contestants: dict[str, Recovery]
) -> None:
    """Clips every excerpt and restores it with every method."""
    methods: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
        "clipped": lambda clipped, level: clipped,
        "cubic spline": cubic,
        "A-SPADE": sparse,
    }
    for name, recovery in contestants.items():
        methods[name] = lambda clipped, level, r=recovery: edited(
            model, clipped, RestoreClipped(20 * np.log10(level)), r
        )  # type: ignore[misc]
    for decibels in CLIPS_DB:
        for name, method in methods.items():
            cells.add("declip", f"{decibels} dB", name, partial(score_declip, method, excerpts, decibels))


def score_declip(
    method: Callable[[np.ndarray, float], np.ndarray], excerpts: list[np.ndarray], decibels: int
) -> list[list[float]]:
    """Returns the scores of one method."""
    found = []
    for clip in track(excerpts, f"{decibels} dB", len(excerpts)):
        level = float(np.abs(clip).max()) * 10 ** (-decibels / 20)
        made = method(clip.clip(-level, level), level)
        ratio = 10 * np.log10(np.sum(clip**2) / max(np.sum((made - clip) ** 2), 1e-12))
        found.append([ratio, distance(clip, made, 1024)])
    return found


def cubic(clipped: np.ndarray, level: float) -> np.ndarray:
    """Returns the cubic spline through the reliable samples, at the level or beyond it where it was clipped."""
    flags = np.abs(clipped) >= level * (1 - 1e-4)
    places = np.arange(clipped.size)
    spline = CubicSpline(places[~flags], clipped[~flags])(places)
    spline = np.clip(spline, -4 * level, 4 * level)
    return beyond(spline, clipped, flags)


def sparse(clipped: np.ndarray, level: float) -> np.ndarray:
    """Returns A-SPADE's restoration, which is also what the model begins with."""
    return sparsest(clipped, np.abs(clipped) >= level * (1 - 1e-4), 1024)


def run_bandwidth(
    cells: Cells, model: AudioDiffusion, excerpts: list[np.ndarray], contestants: dict[str, Recovery]
) -> None:
    """Extends excerpts without what lies above 4 kHz."""
    rate = model.sample_rate
    methods: dict[str, Callable[[np.ndarray], np.ndarray]] = {"resampled": lambda low: low}
    for name, recovery in contestants.items():
        methods[name] = lambda low, r=recovery: edited(model, low, ExtendBandwidth(0.97 * CUTOFF), r)  # type: ignore[misc]
    for name, method in methods.items():
        cells.add("bandwidth", f"from {CUTOFF} Hz", name, partial(score_bandwidth, method, excerpts, rate))


def score_bandwidth(
    method: Callable[[np.ndarray], np.ndarray], excerpts: list[np.ndarray], rate: int
) -> list[list[float]]:
    """Returns the scores of one method."""
    share, found = CUTOFF / (rate / 2), []
    for clip in track(excerpts, "bandwidth", len(excerpts)):
        narrow = io.resample(torch.from_numpy(clip)[None].float(), rate, 2 * CUTOFF)
        low = io.resample(narrow, 2 * CUTOFF, rate)[0].numpy()
        length = min(clip.size, low.size)
        made = method(low[:length])
        above, below = ((share, 1.0), (0.0, 0.9 * share))
        found.append([distance(clip[:length], made, 1024, *part) for part in (above, below)])
    return found


def run_denoise(cells: Cells, model: AudioDiffusion, excerpts: list[np.ndarray], seed: int) -> None:
    """Takes white noise away."""
    recovery = Recovery(steps=10, seed=seed)
    methods: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
        "noisy": lambda noisy, rms: noisy,
        "Wiener": wiener,
        "model, level told": lambda noisy, rms: edited(
            model, noisy, RemoveNoise(20 * np.log10(rms)), recovery
        ),
        "model, level estimated": lambda noisy, rms: edited(model, noisy, RemoveNoise(), recovery),
    }
    for decibels in NOISES_DB:
        for name, method in methods.items():
            cells.add(
                "denoise", f"{decibels} dB", name, partial(score_denoise, method, excerpts, decibels, seed)
            )


def score_denoise(
    method: Callable[[np.ndarray, float], np.ndarray], excerpts: list[np.ndarray], decibels: int, seed: int
) -> list[list[float]]:
    """Returns the scores of one method at one signal-to-noise ratio."""
    found = []
    for number, clip in enumerate(track(excerpts, f"{decibels} dB", len(excerpts))):
        rms = float(np.sqrt(np.mean(clip**2))) * 10 ** (-decibels / 20)
        noise = rms * np.random.default_rng([seed, number]).standard_normal(clip.size)
        made = method(clip + noise, rms)
        ratio = 10 * np.log10(np.sum(clip**2) / np.sum((made - clip) ** 2))
        found.append([ratio, distance(clip, made, 1024)])
    return found


def wiener(noisy: np.ndarray, rms: float, size: int = 512, memory: float = 0.95) -> np.ndarray:
    """Returns the Wiener filter's estimate, its a priori ratio decision-directed (Ephraim and Malah 1984, eq. 51)."""
    window = np.sqrt(np.hanning(size + 1)[:-1])
    padded = np.pad(noisy, (size, 2 * size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2] * window
    spectrum = np.fft.rfft(frames)
    power = rms**2 * np.sum(window**2)
    before, made = np.zeros(spectrum.shape[1]), np.zeros(padded.size)
    for number, bins in enumerate(spectrum):
        posterior = np.abs(bins) ** 2 / power
        prior = memory * before + (1 - memory) * np.maximum(posterior - 1, 0)
        gain = np.maximum(prior / (1 + prior), 10 ** (-25 / 20))
        before = gain**2 * posterior
        part = slice(number * (size // 2), number * (size // 2) + size)
        made[part] += np.fft.irfft(gain * bins) * window
    return made[size : size + noisy.size]


def edited(
    model: AudioDiffusion,
    waveform: np.ndarray,
    task: RestoreClipped | ExtendBandwidth | RemoveNoise,
    recovery: Recovery,
) -> np.ndarray:
    """Returns the model's edit [T]."""
    tensor: Tensor = torch.from_numpy(np.ascontiguousarray(waveform)).float()[None]
    return edit_waveform(model, tensor, model.sample_rate, task, recovery)[0].numpy()


if __name__ == "__main__":
    main()
