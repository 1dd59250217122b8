"""How well a model of spoken digits tells other sounds from digits, beside a Gaussian mixture on log-mel frames.

    python benchmarks/anomalies.py exp/fsdd/digits --data data/fsdd --drums data/drums --music data/music \
        --split test --out docs/anomalies_scores --work anomalies --seed 0

Normals are training clips (half of them fit the density, the others the tails and the threshold); held-out digits are
of the split, which is dev for choosing settings and test for measuring them. Drums and music are prepared folders: with
dev their dev clips, with test all others, cut to the held-out digits' lengths and brought to the training clips' level.
The other sets are the held-out digits reversed, 1.3 times too fast, with three clicks of half the peak, with 30 ms of
silence in a loud place. AUROC is that of a set's scores against the held-out digits' (the untouched ones of the same
recordings, where there are such), and "found" the share of a set that the detector flags at 5 % false alarms. The
baseline's mixture is fitted to the same normals. What was measured is kept in the work folder, set by set, so that an
interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soxr
import torch

from audiodiff.anomaly.detector import Detector, Normals, Verdict, fit
from audiodiff.anomaly.gather import gather
from audiodiff.anomaly.measure import Bits, Probe
from audiodiff.anomaly.pieces import find_sources
from audiodiff.audio import io
from audiodiff.data.manifests import load_cuts
from audiodiff.files import write_whole
from audiodiff.model import AudioDiffusion, load
from audiodiff.progress import progress_bar

FASTER, CLICKS, DROPOUT_SECONDS = 1.3, 3, 0.03
BATCH, FALSE_ALARMS, COMPONENTS = 16, 0.05, 8
SILENT = 1e-4
SPLITS = ("train", "dev", "test")


def main() -> None:
    """Measures what has not been measured, and writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="prepared digits")
    parser.add_argument("--drums", type=Path, required=True, help="prepared drum sounds")
    parser.add_argument("--music", type=Path, required=True, help="prepared music")
    parser.add_argument("--split", choices=["dev", "test"], required=True, help="of the held-out digits")
    parser.add_argument("--out", type=Path, required=True, help="OUT.json and OUT.md")
    parser.add_argument("--work", type=Path, required=True, help="folder for what was measured")
    parser.add_argument("--normals", type=int, default=600)
    parser.add_argument("--clips", type=int, default=200, help="of each other set, at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = load(arguments.model)
    sets = clips_of(arguments, model.sample_rate)
    probe = Probe(seed=arguments.seed)
    measured = {name: measured_of(model, clips, probe, arguments.work / name) for name, clips in sets.items()}
    detector = fit(measured["normals"], probe, "", FALSE_ALARMS, COMPONENTS, arguments.seed)
    verdicts = {name: judged(detector, each) for name, each in measured.items()}
    columns = {
        "detector": {name: np.array([one.score for one in each]) for name, each in verdicts.items()},
        "mel mixture, mean": mel_scores(sets, model.sample_rate, np.mean, arguments.seed),
        "mel mixture, largest": mel_scores(sets, model.sample_rate, np.max, arguments.seed),
    }
    flagged = {name: float(np.mean([one.flagged for one in each])) for name, each in verdicts.items()}
    table = [f"| set | {' | '.join(columns)} | found |", "|---" * (len(columns) + 2) + "|"]
    found = {}
    for name in sets:
        if name in ("held-out", "normals"):
            continue
        found[name] = {column: area(scores["held-out"], scores[name]) for column, scores in columns.items()}
        areas = " | ".join(f"{value:.3f}" for value in found[name].values())
        table.append(f"| {name} | {areas} | {100 * flagged[name]:.0f} % |")
    record = {
        "auroc": found,
        "flagged": flagged,
        "normals": arguments.normals,
        "clips": len(sets["held-out"]),
        "split": arguments.split,
        "seed": arguments.seed,
        "probe": asdict(probe),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
    }
    text = "\n".join(table) + f"\n\nOf the held-out digits {100 * flagged['held-out']:.0f} % are flagged.\n"
    write_whole(
        {
            arguments.out.with_suffix(".json"): (json.dumps(record, indent=1) + "\n").encode(),
            arguments.out.with_suffix(".md"): text.encode(),
        }
    )
    print(text, end="")


def judged(detector: Detector, recordings: Normals) -> list[Verdict]:
    """Returns what a detector says of measured recordings."""
    pairs = zip(recordings.frames, recordings.profiles, strict=True)
    return [detector.judge(detector.surprise(frames), profile) for frames, profile in pairs]


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

    def audio_of(folder: Path, splits: Sequence[str]) -> list[np.ndarray]:
        cuts = [cut for split in splits for cut in load_cuts(folder / f"{split}.jsonl.gz")]
        return [
            soxr.resample(cut.load_audio()[0], cut.sampling_rate, rate).astype(np.float32) for cut in cuts
        ]

    def drawn(split: str, count: int) -> list[np.ndarray]:
        clips = audio_of(arguments.data, [split])
        return [clips[i] for i in generator.permutation(len(clips))[:count]]

    normals, held_out = drawn("train", arguments.normals), drawn(arguments.split, arguments.clips)
    level = float(np.median([_rms(clip) for clip in normals]))
    others = [split for split in SPLITS if (split == "dev") == (arguments.split == "dev")]

    def matched(folder: Path, anywhere: bool) -> list[np.ndarray]:
        sounds = audio_of(folder, others)
        clips = []
        for i, length in enumerate(len(clip) for clip in held_out):
            sound = sounds[i * len(sounds) // len(held_out)]
            last = max(1, len(sound) - length + 1)
            begins = generator.integers(last, size=100).tolist() if anywhere else [0]
            # Music pauses: the first cut that sounds, and of what is silent throughout the first.
            sounding = (begin for begin in begins if _rms(sound[begin : begin + length]) >= SILENT)
            begin = next(sounding, begins[0])
            sound = sound[begin : begin + length]
            clips.append((sound * level / max(_rms(sound), 1e-5)).astype(np.float32))
        return clips

    return {
        "held-out": held_out,
        "normals": normals,
        "clicks": [_clicked(clip, generator) for clip in held_out],
        "drop-outs": [_dropped(clip, round(DROPOUT_SECONDS * rate), generator) for clip in held_out],
        "reversed": [clip[::-1].copy() for clip in held_out],
        "faster": [soxr.resample(clip, rate * FASTER, rate).astype(np.float32) for clip in held_out],
        "drums": matched(arguments.drums, anywhere=False),
        "music": matched(arguments.music, anywhere=True),
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


def measured_of(model: AudioDiffusion, clips: list[np.ndarray], probe: Probe, folder: Path) -> Normals:
    """Returns what a detector looks at in clips, from the work folder where it is there."""
    kept = folder.with_suffix(".npz")
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as found:
            return Normals([found[f"{i}"] for i in range(len(clips))], found["profiles"])
    for i, clip in enumerate(sorted(clips, key=len)):  # a batch of like lengths is quicker
        io.write(folder / f"{i:04}.wav", torch.from_numpy(clip)[None], model.sample_rate, "FLOAT")
    recordings = find_sources([str(folder)], {}, {})
    with progress_bar() as progress:
        task = progress.add_task(folder.name, total=len(recordings))
        summaries = list(
            gather(
                model,
                recordings,
                probe,
                Bits(0, 0),
                BATCH,
                lambda frames: frames,
                lambda done: progress.advance(task, done),
            )
        )
    problems = [summary.problem for summary in summaries if summary.problem is not None]
    assert not problems, problems[0]
    profiles = np.stack([summary.profile for summary in summaries])
    np.savez(kept, profiles=profiles, **{f"{i}": summary.kept for i, summary in enumerate(summaries)})
    return Normals([summary.kept for summary in summaries], profiles)


if __name__ == "__main__":
    main()
