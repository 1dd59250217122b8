"""Score against steps for every sampler, on one trained model: a table, a picture and the numbers.

    python benchmarks/samplers.py exp/fsdd/digits/model --data data/fsdd --judge data/fsdd/judge_digit \
        --out docs/samplers/digits
    python benchmarks/samplers.py exp/fsdd/vocoder/model --data data/fsdd --out docs/samplers/vocoder

A model that is told labels makes one sound of each combination of its labels, and the judge says how many carry
the label that was asked. A vocoder resynthesizes held-out clips from their mels, without the projection to the mel
afterwards, and is scored by mel-cepstral distortion and narrow-band PESQ. All cells start from the same noise.
Finished cells are kept in scores.json, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio.pictures import new_figure, write_png
from audiodiff.data.collate import collate
from audiodiff.data.manifests import load_cuts
from audiodiff.data.segments import SegmentDataset, SegmentRequest
from audiodiff.diffusion.samplers import Sampler
from audiodiff.errors import InputError
from audiodiff.evaluation.judge import Judge
from audiodiff.evaluation.metrics import NotMeasurable
from audiodiff.evaluation.metrics.mcd import mcd
from audiodiff.evaluation.metrics.pesq_nb import pesq_nb
from audiodiff.files import write_whole
from audiodiff.model import AudioDiffusion, load
from audiodiff.progress import track
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler
from audiodiff.synthesis.vocoder import Vocoder
from audiodiff.types import Batch

SAMPLERS = (
    "ancestral", "ancestral_large", "ddim", "euler", "euler_ancestral", "heun", "dpm_2", "lms", "dpmpp_2m", "dpmpp_3m",
    "dpmpp_2s", "sde_dpmpp_2m", "unipc", "plms", "pndm", "deis", "gradtts", "gradtts_sde",
)  # fmt: skip
UNIFORM = ("ancestral", "ancestral_large")  # whose recipes walk the whole table
AXES = {
    "accuracy": "asked label recognised (higher is better)",
    "mcd": "mel-cepstral distortion, dB (lower is better)",
    "pesq_nb": "PESQ, narrow band (higher is better)",
}
STEPS = (1, 2, 4, 6, 8, 12, 25, 50)


@dataclass
class Counted:
    """A projection that changes nothing and counts the network's evaluations."""

    calls: int = 0

    def __call__(self, clean: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return clean


@dataclass
class Labelled:
    """Sounds by label, scored by a judge."""

    model: AudioDiffusion
    judge: Judge
    seconds: float
    metrics: tuple[str, ...] = ("accuracy",)

    def score(self, sampler: Sampler, seed: int) -> dict[str, float]:
        """Returns the share of sounds in which the judge hears the label that was asked."""
        names = list(self.model.labels)
        rows = list(itertools.product(*self.model.labels.values()))
        heard = names.index(self.judge.label)
        right = []
        for first in range(0, len(rows), 30):
            part = rows[first : first + 30]
            lengths = torch.full((len(part),), round(self.seconds * self.model.sample_rate))
            labels = {name: tuple(row[i] for row in part) for i, name in enumerate(names)}
            waveforms = self.model.synthesize(
                Batch(None, lengths, labels),
                sampler,
                seed,
                range(first, first + len(part)),
                self.model.steering,
            )
            found = self.judge.predict([waveform.clamp(-1, 1) for waveform in waveforms]).argmax(1).tolist()
            right += [self.judge.names[i] == row[heard] for i, row in zip(found, part, strict=True)]
        return {"accuracy": float(np.mean(right))}


@dataclass
class Resynthesized:
    """Held-out clips from their mels, scored against the recordings."""

    model: AudioDiffusion
    clips: list[Tensor] = field(default_factory=list)
    metrics: tuple[str, ...] = ("mcd", "pesq_nb")

    def score(self, sampler: Sampler, seed: int) -> dict[str, float]:
        """Returns mean MCD in dB and mean narrow-band PESQ."""
        vocoder = Vocoder(self.model, sampler, mel_iterations=0)
        values = []
        for clip in self.clips:
            made = vocoder(vocoder.log_mel(clip), [clip.shape[-1]], seed=seed)[0].clamp(-1, 1).numpy()
            original, rate = clip[0].numpy(), vocoder.sample_rate
            values.append([measured(metric, original, made, rate) for metric in (mcd, pesq_nb)])
        means = np.nanmean(values, axis=0)
        counts = np.isfinite(values).sum(axis=0)
        return {"mcd": float(means[0]), "pesq_nb": float(means[1]), "pesq_clips": int(counts[1])}


def measured(metric: Callable[..., float], original: np.ndarray, made: np.ndarray, rate: int) -> float:
    """Returns a metric of one clip, NaN where it cannot be measured (PESQ of a clip without speech)."""
    try:
        return metric(original, made, rate)
    except NotMeasurable:
        return float("nan")


def sampler_of(model: AudioDiffusion, name: str, steps: int) -> Sampler:
    """Returns the named sampler with so many steps, on its recipe's kind of grid."""
    grid = "uniform" if name in UNIFORM else None
    return choose_sampler(model.recipe, SamplerChoice(name, steps, grid))


def held_out(model: AudioDiffusion, data: Path, count: int) -> list[Tensor]:
    """Returns clips [1, T] spread over the test split."""
    settings = model.recipe["data"]
    cuts = list(load_cuts(data / "test.jsonl.gz"))
    clips = SegmentDataset(
        cuts, settings["sample_rate"], settings["channels"], tuple(settings["labels"]), 100
    )
    chosen = range(0, len(cuts), max(1, len(cuts) // count))[:count]
    batches = [collate([clips[SegmentRequest(i, 0, clips.lengths[i])]]) for i in chosen]
    return [batch.waveform[0] for batch in batches if batch.waveform is not None]


def table(scores: dict[str, Any], metric: str, steps: list[int]) -> str:
    """Returns a Markdown table, samplers down and steps across."""
    lines = [f"| {metric} | evaluations a step | " + " | ".join(f"{step}" for step in steps) + " |"]
    lines.append("|---" * (len(steps) + 2) + "|")
    for name, row in scores.items():
        cells = []
        for step in steps:
            cell = row.get(str(step))
            text = "-" if cell is None or metric not in cell else f"{cell[metric]:.2f}"
            cells.append(f"{100 * cell[metric]:.0f} %" if metric == "accuracy" and text != "-" else text)
        last = max((int(step) for step, cell in row.items() if cell.get("evaluations")), default=1)
        each = row[str(last)]["evaluations"] / last
        lines.append(f"| {name} | {each:.2g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(scores: dict[str, Any], metric: str, path: Path) -> None:
    """Draws score against network evaluations, one line a sampler."""
    figure = new_figure(9, 5.5)
    axes = figure.add_subplot()
    for number, (name, row) in enumerate(scores.items()):
        points = sorted((c["evaluations"], c[metric]) for c in row.values() if metric in c)
        style = ("-", "--", ":")[number // 8 % 3]
        axes.plot(
            *zip(*points, strict=True), style, marker="o", markersize=3, label=name, color=f"C{number % 8}"
        )
    axes.set_xscale("log", base=2)
    ticks = (1, 2, 4, 8, 16, 32, 64, 128)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("network evaluations")
    axes.set_ylabel(AXES[metric])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncol=2)
    write_png(figure, path)


def main() -> None:
    """Measures what is missing, then writes table and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="prepared corpus")
    parser.add_argument("--judge", type=Path, help="for models that are told labels")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    parser.add_argument("--clips", type=int, default=24, help="of a vocoder")
    parser.add_argument(
        "--name", default="", help="a prefix for the rows, to put several models into one table"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="scores are means over these")
    arguments = parser.parse_args()
    model = load(arguments.model)
    system: Labelled | Resynthesized
    if model.labels and arguments.judge:
        facts = json.loads((arguments.model / "training.json").read_text())
        system = Labelled(model, Judge.load(arguments.judge), facts["median_seconds"])
    else:
        system = Resynthesized(model, held_out(model, arguments.data, arguments.clips))
    path = arguments.out / "scores.json"
    arguments.out.mkdir(parents=True, exist_ok=True)
    scores: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    cells = [(name, steps) for steps in sorted(arguments.steps) for name in arguments.samplers]
    for name, steps in track(cells, "cells", len(cells)):
        row = scores.setdefault(arguments.name + name, {})
        if str(steps) in row:
            continue
        counted = Counted()
        try:
            sampler = replace(sampler_of(model, name, steps), projection=counted)
            sampler.times(model.denoiser.schedule)
            parts = (
                len(system.clips) if isinstance(system, Resynthesized) else -(-len(combinations(model)) // 30)
            )
            each = [system.score(sampler, seed) for seed in arguments.seeds]
            found = {key: float(np.mean([score[key] for score in each])) for key in each[0]}
            evaluations = counted.calls / parts / len(each)
            row[str(steps)] = found | {"evaluations": evaluations, "seeds": arguments.seeds}
        except (InputError, FloatingPointError) as error:
            row[str(steps)] = {"refused": str(error)}
        write_whole({path: (json.dumps(scores, indent=1) + "\n").encode()})
    shown = {name: {k: c for k, c in row.items() if "evaluations" in c} for name, row in scores.items()}
    for metric in system.metrics:
        steps = sorted({int(step) for row in shown.values() for step in row})
        text = table(shown, metric, steps)
        write_whole({arguments.out / f"{metric}.md": text.encode()})
        draw(shown, metric, arguments.out / f"{metric}.png")
        print(text)


def combinations(model: AudioDiffusion) -> list[tuple[str, ...]]:
    """Returns every combination of the model's label values."""
    return list(itertools.product(*model.labels.values()))


if __name__ == "__main__":
    main()
