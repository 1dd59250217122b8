"""One evaluation from folders to a report: whose sounds, against which recordings, by which judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from audiodiff.audio import io
from audiodiff.audio.pictures import spectrogram_grid
from audiodiff.errors import InputError
from audiodiff.evaluation.evaluate import (
    RECORDING,
    LabelScores,
    VocoderScores,
    make_griffin_lim,
    score_labels,
    score_vocoder,
)
from audiodiff.evaluation.journal import Journal
from audiodiff.evaluation.judge import Judge
from audiodiff.evaluation.metrics import load_metrics
from audiodiff.evaluation.page.content import content_of
from audiodiff.evaluation.page.page import PAGE, write_page
from audiodiff.evaluation.pictures import confusion_picture
from audiodiff.evaluation.report import Evaluation, Facts, numbers_of, text, write_report
from audiodiff.evaluation.samples import (
    SamplesFolder,
    find_by_name,
    find_references,
    model_mel,
    read_sounds,
    read_system,
    training_facts,
)
from audiodiff.evaluation.set_comparison import SetComparison, control_sections, has_controls, set_sections
from audiodiff.evaluation.set_comparison import check as check_sets
from audiodiff.evaluation.speech_comparison import compare_speech
from audiodiff.model import find_model

GRIFFIN_LIM = "griffin-lim"
JOURNAL = "unfinished.jsonl"  # in the folder of the report, while it is not written
PICTURED_FILES = 6  # per row of a picture


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        samples: folder of the sounds.
        model: their model folder; None takes the one that samples.json names.
        reference: folder or manifest of recordings; None takes those that samples.json names.
        judge: folder of a judge; None judges nothing.
        label: that the judge must recognise; None takes the judge's.
        others: folders of other systems by name.
        seed: of Griffin-Lim and the bootstrap.
        sets: what the sounds are compared with as a set.
        page_files: files to listen to on a page, report.html; None writes no page.
    """

    samples: Path
    model: Path | None = None
    reference: Path | None = None
    judge: Path | None = None
    label: str | None = None
    others: Mapping[str, Path] = field(default_factory=dict)
    seed: int = 0
    sets: SetComparison = field(default_factory=SetComparison)
    page_files: int | None = None


def compare(asked: Comparison, out: Path, command: str, show: bool = False) -> str:
    """Writes metrics.json, RESULTS.md and pictures into `out`, and returns the text of RESULTS.md.

    Args:
        asked: what is compared.
        out: folder for the report.
        command: for the report.
        show: progress bars on the terminal.

    Raises:
        InputError: a folder or file that is missing or does not fit; neither recordings nor a judge.
    """
    check_sets(asked.sets, asked.judge is not None)
    samples = read_sounds(asked.samples, recorded=not (asked.reference or asked.sets.data))
    if samples.texts:
        return compare_speech(asked, samples, out, command, show)
    model = samples.model if asked.model is None else find_model(asked.model)
    references = find_references(samples, asked.reference)
    judge = None if asked.judge is None else Judge.load(asked.judge)
    if not (references or judge or asked.sets.data or asked.sets.features or has_controls(samples)):
        raise InputError(
            f"{asked.samples}: nothing to score with; pass --reference DIR with recordings, --judge DIR, or "
            "--data DIR with real sounds"
        )
    name = str(training_facts(model).get("experiment", asked.samples.resolve().name))
    systems = {name: samples} | _others(asked, name)
    facts = {other: Facts(training_facts(system.model), system.record) for other, system in systems.items()}
    facts[name] = Facts(training_facts(model), samples.record)
    notes = (
        [] if model is not None else ["No model folder was found for the facts of training; pass --model."]
    )
    judged = judge if judge is not None and _labelled(asked, judge, samples) else None
    labels = {} if judged is None else _judged(asked, judged, systems, out, show)
    known = None if judge is None or asked.judge is None else (judge, asked.judge)
    sections = control_sections(systems, asked.seed, show)
    costs = {other: system.cost for other, system in systems.items()}
    measured = {other: cost for other, cost in costs.items() if cost is not None}
    elsewhere = bool(references) or judged is not None
    sections += set_sections(asked.sets, systems, known, asked.seed, {} if elsewhere else measured, show)
    notes += _label_notes(judge, labels)
    scores, journal = None, Journal(out / JOURNAL)
    files = {other: dict(system.files) for other, system in systems.items()}
    if references:
        files = {other: find_by_name(system.folder, samples.files) for other, system in systems.items()}
        files |= {} if model is None else _griffin_lim(references, model, asked.seed, out, show, journal)
        scores = score_vocoder(references, files, load_metrics(), asked.seed, show, journal)
        notes += _vocoder_notes(scores, files, asked.seed)
        _picture_recordings(references, files, scores.sample_rate, out)
    metrics = () if scores is None else load_metrics()
    evaluation = Evaluation(
        f"Results of {name}", command, facts, metrics, scores, judged, labels, notes, sections, measured
    )
    write_report(evaluation, out)
    if asked.page_files is not None:
        write_page(content_of(numbers_of(evaluation), files, references), out / PAGE, asked.page_files, show)
    journal.remove()
    return text(evaluation)


def _labelled(asked: Comparison, judge: Judge, samples: SamplesFolder) -> bool:
    """Returns whether samples are judged one by one; those made without a label are compared only as a set."""
    unasked = not any(judge.label in labels for labels in samples.labels.values())
    return not (unasked and asked.label is None and asked.sets.data is not None)


def _judged(
    asked: Comparison, judge: Judge, systems: Mapping[str, SamplesFolder], out: Path, show: bool
) -> dict[str, LabelScores]:
    """Returns what the judge says of each system, and draws confusions and spectrograms."""
    label = judge.label if asked.label is None else asked.label
    scores = {name: score_labels(judge, system, label, asked.seed, show) for name, system in systems.items()}
    for name, system in systems.items():
        part = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
        confusion_picture(scores[name].confusion, judge.names, out / f"confusion_{part}.png")
        _picture_classes(judge, system, scores[name], out / f"spectrograms_{part}.png")
    return scores


def _others(asked: Comparison, name: str) -> dict[str, SamplesFolder]:
    for taken in (name, RECORDING, GRIFFIN_LIM):
        if taken in asked.others:
            raise InputError(f"--system {taken}=...: this name is taken in the table; choose another")
    return {other: read_system(folder) for other, folder in asked.others.items()}


def _griffin_lim(
    references: Mapping[str, Path], model: Path, seed: int, out: Path, show: bool, journal: Journal
) -> dict[str, dict[str, Path]]:
    log_mel = model_mel(model)
    if log_mel is None:
        return {}
    return {GRIFFIN_LIM: make_griffin_lim(references, log_mel, out / GRIFFIN_LIM, seed, show, journal)}


def _vocoder_notes(scores: VocoderScores, systems: Mapping[str, Mapping[str, Path]], seed: int) -> list[str]:
    if GRIFFIN_LIM in systems:
        baseline = (
            "griffin-lim: the recordings' mel by the model's own definition, non-negative least squares, "
            f"60 iterations, momentum 0.99, seed {seed}."
        )
    else:
        baseline = "No Griffin-Lim row: no model folder with a mel definition (`features`); pass --model."
    notes = [f"{RECORDING}: the recordings against themselves, the best that a metric can give.", baseline]
    if scores.resampled:
        notes.append(
            f"{scores.resampled} recordings were resampled to {scores.sample_rate} Hz to be compared."
        )
    return notes + [
        f"{name}: {len(files)} files are silent, the first {files[0]}; they are scored where a metric can."
        for name, files in scores.silent.items()
        if files
    ]


def _label_notes(judge: Judge | None, labels: Mapping[str, LabelScores]) -> list[str]:
    unheard = [
        f"{name}: {len(scores.reasons)} of {len(scores.asked)} files cannot be read and count as not recognised; "
        f"the first, {next(iter(scores.reasons))}: {next(iter(scores.reasons.values()))}."
        for name, scores in labels.items()
        if scores.reasons
    ]
    unheard += [
        f"{name}: {len(scores.silent)} files are silent, the first {scores.silent[0]}."
        for name, scores in labels.items()
        if scores.silent
    ]
    return unheard + [
        f"{name}: {scores.resampled} samples were resampled to the judge's {judge.sample_rate} Hz."
        for name, scores in labels.items()
        if judge is not None and scores.resampled
    ]


def _picture_recordings(
    references: Mapping[str, Path], systems: Mapping[str, Mapping[str, Path]], sample_rate: int, out: Path
) -> None:
    columns = []
    for file in list(references)[:PICTURED_FILES]:
        try:
            paths = [references[file], *(files[file] for files in systems.values())]
            columns.append([io.read(path, sample_rate)[0][0].numpy() for path in paths])
        except InputError:  # counted in the table, with its reason
            continue
    if columns:
        rows = [list(row) for row in zip(*columns, strict=True)]
        spectrogram_grid(rows, [RECORDING, *systems], sample_rate, out / "spectrograms.png")


def _picture_classes(judge: Judge, samples: SamplesFolder, scores: LabelScores, path: Path) -> None:
    rows, titles = [], []
    for name in judge.names:
        files = [f for f, asked in scores.asked.items() if asked == name and f not in scores.reasons]
        if files:
            read = (
                io.read(samples.files[file], judge.sample_rate, channels=1)[0]
                for file in files[:PICTURED_FILES]
            )
            rows.append([waveform[0].numpy() for waveform in read])
            titles.append(name)
    spectrogram_grid(rows, titles, judge.sample_rate, path)
