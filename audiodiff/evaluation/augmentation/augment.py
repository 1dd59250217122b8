"""The whole of `audiodiff augment`: sounds are made, judged and replaced until each class has as many as asked.

OUT/audio/*.wav, samples.json    the sounds that were kept, as `synthesize` leaves them, with their verdicts
OUT/train, dev, test.jsonl.gz, report.json    as `prepare` writes them
OUT/augment.json, attempts.jsonl    what was asked, and every sound that was made: an interrupted run goes on
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from audiodiff.conditioning.mel import Mel
from audiodiff.errors import InputError
from audiodiff.evaluation.augmentation.attempts import Attempts, Progress
from audiodiff.evaluation.augmentation.cells import Cell, Draw, cells_of, implied_labels, spread_names
from audiodiff.evaluation.augmentation.corpus import Corpus, Made, read_corpus, write_corpus
from audiodiff.evaluation.augmentation.filters import FilterChoice, Filters
from audiodiff.evaluation.augmentation.making import Maker, Manner
from audiodiff.evaluation.judge import Judge
from audiodiff.files import write_whole
from audiodiff.model import AudioDiffusion, find_model
from audiodiff.synthesis.generation import Request, record_of
from audiodiff.synthesis.samples import RECORD, Sample
from audiodiff.synthesis.text_route import takes_text
from audiodiff.weights import weights_digest

ASKED, ATTEMPTS, AUDIO = "augment.json", "attempts.jsonl", "audio"


@dataclass(frozen=True)
class Augmentation:
    """What is asked for.

    Attributes:
        data: prepared folder.
        per_class: sounds to keep for each value of the first label of `each`.
        label: "value" or "name=value", the same for all sounds.
        each: label names that are spread evenly, the class first; empty: see `cells.spread_names`.
        filters: which sounds are kept.
        attempts: sounds made at most for each one that is wanted.
        only_generated: leave the real clips out of the training split.
        making: sampler, steering, seed, batch and length; its labels are not read, and without a length each sound
            has that of a training clip.
    """

    data: Path
    per_class: int
    label: Sequence[str] = ()
    each: Sequence[str] = ()
    filters: FilterChoice = field(default_factory=FilterChoice)
    attempts: int = 4
    only_generated: bool = False
    making: Request = field(default_factory=lambda: Request([]))


@dataclass(frozen=True)
class Augmented:
    """What was made.

    Attributes:
        report: as written.
        kept: number of generated clips.
        made: number of sounds that were made for them.
        rejected: number by reason.
        short: labels of the cells that ran out of attempts, with the number kept and wanted.
    """

    report: Mapping[str, Any]
    kept: int
    made: int
    rejected: Mapping[str, int]
    short: Sequence[tuple[Mapping[str, str], int, int]]


def augment(model: AudioDiffusion, source: Path, asked: Augmentation, out: Path, command: str) -> Augmented:
    """Makes the sounds and writes the folder; what an interrupted run left there is taken up.

    Args:
        model: a model that is told labels.
        source: where it came from, for the record.
        asked: what to make.
        out: folder; new, empty, or of an earlier run that was asked for the same.
        command: for the record.

    Raises:
        InputError: a model, corpus, judge or folder that does not serve; not one sound passed the filters.
    """
    manner = _manner(model, source, asked.making)
    corpus, cells, filters, label = _check(model, asked)
    draw = Draw(corpus.real, model.labels, cells, manner.seed)
    record = record_of(source, asked.making, manner.steering, manner.sampler, command)
    provenance = _provenance(source, record)
    _claim(out, asked.data, _identity(provenance, cells, corpus, manner, filters))
    attempts = Attempts(out / ATTEMPTS, out / AUDIO)
    maker = Maker(model, manner, draw, filters, label, out / AUDIO)
    progress = maker.work(attempts, cells, asked.attempts)
    if not progress.done:
        raise InputError(
            f"none of {sum(map(len, progress.tried))} sounds passed the filters ({in_words(progress.rejected)}); "
            "listen to `audiodiff synthesize`, lower --confidence or widen --nearest"
        )
    made = _made(progress, implied_labels(corpus.real, model.labels), provenance, out)
    facts = {
        "seed": manner.seed,
        "kept": progress.done,
        "wanted": sum(cell.wanted for cell in cells),
        "made": sum(map(len, progress.tried)),
        "rejected": progress.rejected,
        "filters": filters.describe(),
        "command": command,
    }
    _write_samples(out / AUDIO, made, record | facts, model.sample_rate)
    report = write_corpus(corpus, out, made, asked.only_generated, provenance | facts)
    short = [
        (cell.labels, len(kept), cell.wanted)
        for cell, kept in zip(cells, progress.kept, strict=True)
        if len(kept) < cell.wanted
    ]
    return Augmented(report, progress.done, sum(map(len, progress.tried)), progress.rejected, short)


def _check(model: AudioDiffusion, asked: Augmentation) -> tuple[Corpus, list[Cell], Filters, str | None]:
    """Returns the corpus, the cells, the filters and the label name of the class, after checking that they fit."""
    if takes_text(model) or any(isinstance(part, Mel) for part in model.modules()):
        raise InputError(
            "this model is told a text or a mel; `audiodiff augment` takes one that is told labels alone"
        )
    if not model.labels:
        raise InputError(
            "this model was trained without labels; `audiodiff augment` takes one that is told some"
        )
    if asked.attempts < 1:
        raise InputError(f"--attempts: got {asked.attempts}, expected at least 1")
    folder = asked.filters.judge
    judged = None if folder is None else Judge.load(folder).label
    each = spread_names(model.labels, asked.label, asked.each, judged)
    cells = cells_of(model.labels, asked.label, each, asked.per_class)
    fixed = [name for name in cells[0].labels if name not in each]
    label = each[0] if each else judged if judged in fixed else next(iter(fixed), None)
    corpus = read_corpus(asked.data, model)
    real = [entry.id for entry in corpus.real]
    filters = Filters(asked.filters, asked.data, real, model.sample_rate, label)
    if label is not None:
        filters.check_classes(cell.labels[label] for cell in cells)
    return corpus, cells, filters, label


def _manner(model: AudioDiffusion, source: Path, making: Request) -> Manner:
    steering = model.steering if making.steering is None else making.steering
    samples = None if making.seconds is None else making.samples_of(model, source)
    return Manner(making.sampler_of(model), steering, making.seed, making.batch, samples)


def _provenance(source: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how every sound is made: what it says beside item, labels and verdict."""
    digest = weights_digest(find_model(source))
    shared = {name: value for name, value in record.items() if name != "command"}
    return shared | {"model": str(source.absolute()), "model_sha256": digest}


def _made(
    progress: Progress,
    implied: Mapping[str, tuple[str, Mapping[str, str]]],
    provenance: Mapping[str, Any],
    out: Path,
) -> list[Made]:
    """Returns the sounds that are kept, in the order of their items."""
    kept = sorted((each for part in progress.kept for each in part), key=lambda each: each.item)
    made = []
    for attempt in kept:
        labels = dict(attempt.labels)
        for name, (by, table) in implied.items():
            if labels[by] in table:
                labels[name] = table[labels[by]]
        verdict = attempt.verdict
        own = {
            "item": attempt.item,
            "labels": dict(attempt.labels),
            "confidence": verdict.confidence,
            "distance": verdict.distance,
            "nearest": verdict.nearest,
        }
        identifier = f"generated-{provenance['model_sha256'][:8]}-{provenance['seed']}-{attempt.item:06d}"
        path = (out / AUDIO / attempt.file).absolute()
        made.append(Made(identifier, path, labels, attempt, {**provenance, **own}))
    return made


def _write_samples(audio: Path, made: Sequence[Made], record: Mapping[str, Any], sample_rate: int) -> None:
    """Writes samples.json: the record, and of each file what `synthesize` says and how the filters found it."""
    files = []
    for each in made:
        attempt = each.attempt
        seconds = round(attempt.samples / sample_rate, 4)
        text = each.labels.get("text")
        sample = Sample(attempt.file, attempt.labels, seconds, None, attempt.clipped, text)
        files.append(
            asdict(sample) | {"id": each.id, "item": attempt.item, "verdict": asdict(attempt.verdict)}
        )
    content = dict(record) | {"files": files}
    write_whole({audio / RECORD: (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8")})


def _identity(
    provenance: Mapping[str, Any], cells: Sequence[Cell], corpus: Corpus, manner: Manner, filters: Filters
) -> dict[str, Any]:
    """Returns what two runs must share for one to go on where the other ended."""
    same = {name: value for name, value in provenance.items() if name != "model"}
    return same | {
        "cells": [dict(cell.labels) for cell in cells],
        "samples": manner.samples,
        "train": corpus.digest,
        "filters": {name: value for name, value in filters.describe().items() if name != "judge"},
    }


def _claim(out: Path, data: Path, identity: Mapping[str, Any]) -> None:
    """Marks a folder as that of this run.

    Raises:
        InputError: it is the corpus itself, holds something else, or a run that was asked for something else.
    """
    if out.resolve() == data.resolve():
        raise InputError(f"--out {out}: is the corpus itself; name a new folder")
    path = out / ASKED
    content = json.dumps(identity, indent=1, ensure_ascii=False) + "\n"
    if path.is_file():
        if path.read_text(encoding="utf-8", errors="replace") == content:
            return
        raise InputError(
            f"--out {out}: holds sounds that were asked for otherwise (see {ASKED}); name a new folder"
        )
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"--out {out}: exists and holds something else; name a new folder")
    write_whole({path: content.encode("utf-8")})


def in_words(rejected: Mapping[str, int]) -> str:
    """Returns the rejected sounds by reason: "3 unsure, 2 too far"."""
    return ", ".join(f"{count} {reason}" for reason, count in rejected.items()) or "none rejected"
