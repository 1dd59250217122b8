"""What generated clips add to few real ones: a classifier trained with and without them, tested on real clips.

    audiodiff augment exp/fsdd/digits --data data/fsdd --per-class 30 --judge data/fsdd/judge_digit --out data/fsdd_aug
    python benchmarks/augmentation.py data/fsdd_aug --data data/fsdd --label digit --out exp/augmentation

The classifier is the judge with the judge's training, which pads and adds noise in every arm. Real clips are drawn by
seed, even over speakers, smaller sets within larger ones. "classic" has as many changed copies of those real clips
(speed, reverberation, gain) as "generated" has generated clips. No clip is repeated: batches are sorted by length, and
copies would stand beside one another and spoil the batch norm. All arms make the same number of updates, and no clip
beyond those is seen before the test.
Finished cells are kept in the JSON file, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from audiodiff.audio import io
from audiodiff.audio.pictures import new_figure, write_png
from audiodiff.data.augmentation import Chain, Gain, Sometimes, Speed, SyntheticReverb
from audiodiff.data.listing import Clip, Listing, PrepareOptions
from audiodiff.data.manifests import label_of, labels_of, load_cuts
from audiodiff.data.preparation import write_corpus
from audiodiff.data.segments import read_cut
from audiodiff.evaluation.augmentation.corpus import GENERATED
from audiodiff.evaluation.judge_training import JudgeTraining, class_numbers, hear, train_judge
from audiodiff.files import write_whole

if TYPE_CHECKING:
    from lhotse.cut import Cut

ARMS = ("real", "classic", "generated")
CHECKED = 2  # real clips of each class that the weights are chosen by; they are trained on, too


def main() -> None:
    """Trains what has not been trained, and writes table and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("generated", type=Path, help="folder that `audiodiff augment` wrote")
    parser.add_argument("--data", type=Path, required=True, help="the prepared folder of the real clips")
    parser.add_argument("--label", required=True)
    parser.add_argument("--out", type=Path, required=True, help="OUT.json, OUT.md and OUT.png")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 10, 20, 50], help="real clips per class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    real, test = list(load_cuts(options.data / "train.jsonl.gz")), load_cuts(options.data / "test.jsonl.gz")
    made = [cut for cut in load_cuts(options.generated / "train.jsonl.gz") if GENERATED in (cut.custom or {})]
    training = JudgeTraining(updates=options.updates, batch_size=options.batch)
    scores = Scores(options.out.with_suffix(".json"), training, options.label, len(made), len(test))
    for seed in options.seeds:
        ordered = drawn(real, options.label, seed)
        for size in options.sizes:
            for arm in ARMS:
                if scores.has(size, arm, seed):
                    continue
                few = [cut for cuts in ordered.values() for cut in cuts[:size]]
                dev = [cut for cuts in ordered.values() for cut in cuts[:CHECKED]]
                with tempfile.TemporaryDirectory() as folder:
                    extra = {"real": [], "generated": made}.get(arm)
                    if extra is None:
                        extra = changed(few, options.label, len(made), seed, Path(folder))
                    scores.add(
                        size, arm, seed, accuracy(few, extra, dev, test, seed, training, options.label)
                    )
    scores.write(options.out)


def drawn(cuts: Sequence[Cut], label: str, seed: int) -> dict[str, list[Cut]]:
    """Returns the clips of each class in an order drawn by seed, speakers taking turns."""
    generator = np.random.default_rng(seed)
    groups: dict[str, dict[str, list[Cut]]] = defaultdict(lambda: defaultdict(list))
    for cut in cuts:
        groups[label_of(cut, label)][labels_of(cut).get("speaker", "")].append(cut)
    ordered = {}
    for name, speakers in sorted(groups.items()):
        places = []
        for group in speakers.values():
            turns = generator.permutation(len(group)) + generator.random()  # who begins differs, too
            places += list(zip(turns, group, strict=True))
        ordered[name] = [cut for _, cut in sorted(places, key=lambda place: place[0])]
    return ordered


def changed(cuts: Sequence[Cut], label: str, count: int, seed: int, folder: Path) -> list[Cut]:
    """Returns `count` changed copies of the clips, as many of each class, written to a folder."""
    generator = np.random.default_rng(seed)
    reverb = SyntheticReverb(int(cuts[0].sampling_rate), highest_seconds=0.3)
    change = Chain([Speed(0.85, 1.15), Sometimes(reverb, 0.5), Gain(-6.0, 6.0)])
    by_class = defaultdict(list)
    for cut in cuts:
        by_class[label_of(cut, label)].append(cut)
    names = sorted(by_class)
    clips = []
    for number in range(count):
        name = names[number % len(names)]
        cut = by_class[name][int(generator.integers(len(by_class[name])))]
        waveform = change(read_cut(cut, 0, cut.num_samples), generator)
        path = folder / f"{number}.wav"
        io.write(path, waveform, int(cut.sampling_rate))
        clips.append(Clip(str(number), path, "train", labels={label: name}))
    write_corpus(Listing("changed", folder, clips, "train"), folder / "prepared", PrepareOptions())
    return list(load_cuts(folder / "prepared" / "train.jsonl.gz"))


def accuracy(
    few: Sequence[Cut],
    extra: Sequence[Cut],
    dev: Sequence[Cut],
    test: Sequence[Cut],
    seed: int,
    training: JudgeTraining,
    label: str,
) -> float:
    """Returns the share of test clips that a classifier recognises which was trained on real and extra clips."""
    judge = train_judge([*few, *extra], dev, label, seed, training)
    truth = class_numbers(test, label, judge.names)
    return float((hear(judge, test).argmax(-1) == truth).double().mean())


class Scores:
    """Accuracies by size, arm and seed, kept in a file."""

    def __init__(self, path: Path, training: JudgeTraining, label: str, generated: int, test: int) -> None:
        self.path = path
        self.facts = {
            "label": label,
            "updates": training.updates,
            "batch": training.batch_size,
            "generated_clips": generated,
            "test_clips": test,
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "threads": torch.get_num_threads(),
        }
        self.cells: dict[str, dict[str, dict[str, float]]] = {}
        if path.is_file():
            content = json.loads(path.read_text())
            assert content["facts"] == self.facts, f"{path}: of another run; name another --out"
            self.cells = content["cells"]
        self._began = time.monotonic()

    def has(self, size: int, arm: str, seed: int) -> bool:
        """Whether a cell is done."""
        return str(seed) in self.cells.get(str(size), {}).get(arm, {})

    def add(self, size: int, arm: str, seed: int, score: float) -> None:
        """Keeps a cell, on disk at once."""
        self.cells.setdefault(str(size), {}).setdefault(arm, {})[str(seed)] = score
        content = {"facts": self.facts, "cells": self.cells}
        write_whole({self.path: json.dumps(content, indent=1).encode()})
        print(
            f"{time.monotonic() - self._began:.0f} s: {size} {arm} seed {seed}: {100 * score:.1f} %",
            flush=True,
        )

    def write(self, out: Path) -> None:
        """Writes the table and draws the picture."""
        write_whole({out.with_suffix(".md"): self.table().encode()})
        print(self.table())
        draw(self.cells, out.with_suffix(".png"))

    def table(self) -> str:
        """Returns markdown: mean, lowest and highest over the seeds, in per cent."""
        lines = [f"| real clips per class | {' | '.join(ARMS)} |", f"|---|{'---|' * len(ARMS)}"]
        for size, arms in sorted(self.cells.items(), key=lambda each: int(each[0])):
            texts = []
            for arm in ARMS:
                values = 100 * np.array(list(arms.get(arm, {}).values()))
                texts.append(
                    f"{values.mean():.1f} ({values.min():.1f} to {values.max():.1f})" if len(values) else ""
                )
            lines.append(f"| {size} | {' | '.join(texts)} |")
        return "\n".join(lines) + "\n"


def draw(cells: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path) -> None:
    """Draws accuracy over the number of real clips, a line for each arm, its range shaded."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    cells = dict(sorted(cells.items(), key=lambda each: int(each[0])))
    sizes = [int(size) for size in cells]
    for arm in ARMS:
        values = [100 * np.array(list(arms.get(arm, {}).values()) or [np.nan]) for arms in cells.values()]
        axes.plot(sizes, [each.mean() for each in values], marker="o", label=arm)
        axes.fill_between(sizes, [each.min() for each in values], [each.max() for each in values], alpha=0.2)
    axes.set(xscale="log", xlabel="real clips per class", ylabel="test clips recognised, %", xticks=sizes)
    axes.minorticks_off()  # between the sizes nothing was measured
    axes.set_xticklabels([str(size) for size in sizes])
    axes.legend()
    write_png(figure, path)


if __name__ == "__main__":
    main()
