"""How well a model of spoken digits tells other sounds from digits, beside a Gaussian mixture on log-mel frames.

    python benchmarks/anomalies.py exp/fsdd_digits/model --data data/fsdd --drums drums_osdk --music music \
        --out docs/anomalies_scores --work anomalies --seed 0

Normals are training clips (half of them fit the density, the others the tails and the threshold); held-out digits are
of the test split. Drums and music are cut to the held-out digits' lengths and brought to the training clips' level;
the others are the held-out digits reversed, 1.3 times too fast, with three clicks of half the peak, with 30 ms of
silence in a loud place. AUROC is that of a set's scores against the held-out digits' (the untouched ones of the same
recordings, where there are such). The baseline's mixture is fitted to the same normals, its score a recording's mean
frame. What was measured is kept in the work folder, set by set, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soxr
import torch

from audiodiff.anomaly.detector import Normals, fit
from audiodiff.anomaly.gather import vectors_of
from audiodiff.anomaly.measure import Bits, Probe, measure_pieces
from audiodiff.anomaly.pieces import Piece, tiling_of
from audiodiff.audio import io
from audiodiff.data.manifests import load_cuts
from audiodiff.files import write_whole
from audiodiff.model import AudioDiffusion, load
from audiodiff.progress import track

FASTER, CLICKS, DROPOUT_SECONDS = 1.3, 3, 0.03
BATCH, FALSE_ALARMS, COMPONENTS = 16, 0.05, 8


def main() -> None:
    """Measures what has not been measured, and writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="prepared digits")
    parser.add_argument("--drums", type=Path, required=True, help="folder of drum sounds")
    parser.add_argument("--music", type=Path, required=True, help="folder of music")
    parser.add_argument("--out", type=Path, required=True, help="OUT.json and OUT.md")
    parser.add_argument("--work", type=Path, required=True, help="folder for what was measured")
    parser.add_argument("--normals", type=int, default=240)
    parser.add_argument("--clips", type=int, default=60, help="of each other set")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = load(arguments.model)
    sets = clips_of(arguments, model.sample_rate)
    probe = Probe(draws=1, seed=arguments.seed)
    measured = {
        name: features_of(model, clips, probe, arguments.work / f"{name}.npz") for name, clips in sets.items()
    }
    columns = {
        "detector": detector_scores(measured, arguments.seed),
        "mel mixture, mean": mel_scores(sets, model.sample_rate, np.mean, arguments.seed),
        "mel mixture, largest": mel_scores(sets, model.sample_rate, np.max, arguments.seed),
    }
    table = [f"| set | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    found = {}
    for name in sets:
        if name in ("held-out", "normals"):
            continue
        found[name] = {column: area(scores["held-out"], scores[name]) for column, scores in columns.items()}
        table.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in found[name].values()) + " |")
    record = {
        "auroc": found,
        "normals": arguments.normals,
        "clips": arguments.clips,
        "seed": arguments.seed,
        "probe": asdict(probe),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
    }
    text = "\n".join(table) + "\n"
    write_whole(
        {
            arguments.out.with_suffix(".json"): (json.dumps(record, indent=1) + "\n").encode(),
            arguments.out.with_suffix(".md"): text.encode(),
        }
    )
    print(text, end="")


def detector_scores(measured: dict[str, list[np.ndarray]], seed: int) -> dict[str, np.ndarray]:
    """Returns the scores [N] of each set by a detector that was fitted to the normals."""
    normal = Normals(measured["normals"], np.stack([each.mean(0) for each in measured["normals"]]))
    detector = fit(normal, Probe(), "", FALSE_ALARMS, COMPONENTS, seed)
    return {
        name: np.array([detector.judge(detector.surprise(each), each.mean(0)).score for each in clips])
        for name, clips in measured.items()
    }


def mel_scores(
    sets: dict[str, list[np.ndarray]], rate: int, pool: Callable[[np.ndarray], float], seed: int
) -> dict[str, np.ndarray]:
    """Returns the scores [N] of each set by a mixture of 16 Gaussians of 40-band log-mel frames."""
    from librosa.feature import melspectrogram
    from sklearn.mixture import GaussianMixture

    def frames(clip: np.ndarray) -> np.ndarray:
        mel = melspectrogram(y=clip, sr=rate, n_fft=256, hop_length=64, n_mels=40)
        return np.log(mel + 1e-6).T

    mixture = GaussianMixture(16, reg_covar=1e-3, random_state=seed)
    mixture.fit(np.concatenate([frames(clip) for clip in sets["normals"]]))
    return {
        name: np.array([pool(-mixture.score_samples(frames(clip))) for clip in clips])
        for name, clips in sets.items()
    }


def area(normal: np.ndarray, other: np.ndarray) -> float:
    """Returns how often one of the others scores higher than a normal one, ties counting half."""
    difference = other - normal[:, None]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def clips_of(arguments: argparse.Namespace, rate: int) -> dict[str, list[np.ndarray]]:
    """Returns the sets of clips [T]."""
    generator = np.random.default_rng(arguments.seed)

    def digits(split: str, count: int) -> list[np.ndarray]:
        cuts = list(load_cuts(arguments.data / f"{split}.jsonl.gz"))
        return [cuts[i].load_audio()[0].astype(np.float32) for i in generator.permutation(len(cuts))[:count]]

    normals, held_out = digits("train", arguments.normals), digits("test", arguments.clips)
    level = float(np.median([_rms(clip) for clip in normals]))
    lengths = [len(clip) for clip in held_out]

    def matched(folder: Path) -> list[np.ndarray]:
        files = io.find([str(folder)])
        clips = []
        for i, length in enumerate(lengths):
            clip = io.read(files[i * len(files) // len(lengths)], rate, 1)[0][0].numpy()
            begin = (
                int(generator.integers(max(1, len(clip) - length + 1))) if folder != arguments.drums else 0
            )
            clip = clip[begin : begin + length]
            clips.append((clip * level / max(_rms(clip), 1e-5)).astype(np.float32))
        return clips

    return {
        "held-out": held_out,
        "normals": normals,
        "clicks": [_clicked(clip, generator) for clip in held_out],
        "drop-outs": [_dropped(clip, round(DROPOUT_SECONDS * rate), generator) for clip in held_out],
        "reversed": [clip[::-1].copy() for clip in held_out],
        "faster": [soxr.resample(clip, rate * FASTER, rate).astype(np.float32) for clip in held_out],
        "drums": matched(arguments.drums),
        "music": matched(arguments.music),
    }


def _rms(clip: np.ndarray) -> float:
    return float(np.sqrt(np.mean(clip.astype(np.float64) ** 2)))


def _clicked(clip: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    places = generator.integers(len(clip), size=CLICKS)
    changed = clip.copy()
    changed[places] += generator.choice([-1, 1], size=CLICKS) * np.abs(clip).max() / 2
    return changed


def _dropped(clip: np.ndarray, length: int, generator: np.random.Generator) -> np.ndarray:
    power = np.convolve(clip.astype(np.float64) ** 2, np.ones(length), "valid")
    place = int(generator.choice(np.argsort(power)[-len(power) // 3 :]))
    changed = clip.copy()
    changed[place : place + length] = 0
    return changed


def features_of(model: AudioDiffusion, clips: list[np.ndarray], probe: Probe, kept: Path) -> list[np.ndarray]:
    """Returns features [frames, D] of clips, each whole, from the work folder where they are there."""
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as found:
            return [found[f"{i}"] for i in range(len(clips))]
    tiling = tiling_of(model, probe.frame_seconds)
    order = sorted(range(len(clips)), key=lambda i: len(clips[i]))
    found = {}
    for first in track(range(0, len(clips), BATCH), kept.stem, -(-len(clips) // BATCH)):
        chosen = order[first : first + BATCH]
        batch = [Piece(torch.from_numpy(clips[i])[None], 0, slice(0, None), i, {}) for i in chosen]
        for i, one in zip(chosen, measure_pieces(model, batch, probe, Bits(0, 0), tiling.pool), strict=True):
            found[f"{i}"] = vectors_of(one.errors.double().numpy(), one.power.double().numpy())
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.savez(kept, **found)
    return [found[f"{i}"] for i in range(len(clips))]


if __name__ == "__main__":
    main()
