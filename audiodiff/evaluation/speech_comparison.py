"""One evaluation of spoken texts from folders to a report: whose sounds, against which real speech, heard by whom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from audiodiff.audio import io
from audiodiff.audio.pictures import spectrogram_grid
from audiodiff.errors import InputError
from audiodiff.evaluation.page.content import content_of
from audiodiff.evaluation.page.page import PAGE, write_page
from audiodiff.evaluation.report import Evaluation, Facts, Section, numbers_of, text, write_report
from audiodiff.evaluation.samples import SamplesFolder, read_system, training_facts
from audiodiff.evaluation.speech_report import speech_numbers, speech_parts
from audiodiff.evaluation.speech_scores import SpeechQuestion, SpeechScores, score_speech
from audiodiff.evaluation.spoken_references import (
    CONCATENATIONS,
    RECORDINGS,
    SPEAKER,
    SpokenReferences,
    find_spoken,
    words_of,
)
from audiodiff.evaluation.word_recognition import WordRecognizer
from audiodiff.evaluation.word_training import PAUSE_SECONDS
from audiodiff.model import find_model

if TYPE_CHECKING:
    from audiodiff.evaluation.comparison import Comparison

_PICTURED = 6


def compare_speech(
    asked: Comparison, samples: SamplesFolder, out: Path, command: str, show: bool = False
) -> str:
    """Writes metrics.json, RESULTS.md and a picture into `out`, and returns the text of RESULTS.md.

    Args:
        asked: what is compared; `judge` is a recogniser of words, `reference` where real speech is found.
        samples: of `asked.samples`, each with its text.
        out: folder for the report.
        command: for the report.
        show: progress bars on the terminal.

    Raises:
        InputError: a folder or file that is missing or does not fit.
    """
    if len(samples.texts) < len(samples.files):
        raise InputError(
            f"{samples.folder}: only {len(samples.texts)} of {len(samples.files)} files have a text"
        )
    model = samples.model if asked.model is None else find_model(asked.model)
    recognizer = None if asked.judge is None else WordRecognizer.load(asked.judge)
    if recognizer is not None and asked.label not in (None, recognizer.judge.label):
        raise InputError(
            f"the recogniser recognises {recognizer.judge.label!r}, asked for is {asked.label!r}"
        )
    name = str(training_facts(model).get("experiment", asked.samples.resolve().name))
    systems = {name: samples} | _others(asked, name)
    references = _references(asked, samples, recognizer, out, show)
    question = SpeechQuestion(
        samples.texts,
        {file: labels.get(SPEAKER, "") for file, labels in samples.labels.items()},
        {other: _files(system, samples) for other, system in systems.items()},
        None if references is None else references.kind,
        {} if references is None else references.files,
        asked.seed,
    )
    scores = score_speech(question, recognizer, show)
    facts = {other: Facts(training_facts(system.model), system.record) for other, system in systems.items()}
    facts[name] = Facts(training_facts(model), samples.record)
    costs = {other: system.cost for other, system in systems.items()}
    measured = {other: cost for other, cost in costs.items() if cost is not None}
    section = Section("speech", speech_parts(scores, measured), speech_numbers(scores), has_costs=True)
    notes = _notes(scores, references, asked.seed)
    evaluation = Evaluation(
        f"Results of {name}", command, facts, notes=notes, sections=(section,), costs=measured
    )
    write_report(evaluation, out)
    if asked.page_files is not None:
        content = content_of(numbers_of(evaluation), question.systems, question.references)
        write_page(content, out / PAGE, asked.page_files, show)
    _picture(question, out / "spectrograms.png")
    return text(evaluation)


def _references(
    asked: Comparison, samples: SamplesFolder, recognizer: WordRecognizer | None, out: Path, show: bool
) -> SpokenReferences | None:
    if asked.reference is None:
        return None
    label = None if recognizer is None else recognizer.judge.label
    return find_spoken(samples, asked.reference, label, out / "real", asked.seed, show)


def _others(asked: Comparison, name: str) -> dict[str, SamplesFolder]:
    for taken in (name, RECORDINGS, CONCATENATIONS):
        if taken in asked.others:
            raise InputError(f"--system {taken}=...: this name is taken in the table; choose another")
    return {other: read_system(folder) for other, folder in asked.others.items()}


def _files(system: SamplesFolder, samples: SamplesFolder) -> dict[str, Path]:
    """Returns a system's sound of each text, by the file's name without its suffix.

    Raises:
        InputError: a sound is missing, or says another text.
    """
    named = {str(Path(name).with_suffix("")): path for name, path in system.files.items()}
    if not named:
        named = {
            str(path.relative_to(system.folder).with_suffix("")): path
            for path in sorted(system.folder.rglob("*"))
            if path.suffix.lower() in io.AUDIO_SUFFIXES
        }
    missing = [name for name in samples.texts if str(Path(name).with_suffix("")) not in named]
    if missing:
        raise InputError(
            f"{system.folder}: {len(missing)} of {len(samples.texts)} files are missing, first {missing[0]}"
        )
    for name, said in samples.texts.items():
        if words_of(system.texts.get(name, said)) != words_of(said):
            raise InputError(
                f"{system.folder / name}: says {system.texts[name]!r}, but {said!r} in {samples.folder}; "
                "speak the same texts"
            )
    return {name: named[str(Path(name).with_suffix(""))] for name in samples.texts}


def _notes(scores: SpeechScores, references: SpokenReferences | None, seed: int) -> list[str]:
    if references is None:
        return [
            "No real speech beside the figures; pass --reference DATA, a prepared corpus that has the texts."
        ]
    found, asked = len(references.files), len(scores.texts)
    notes = (
        []
        if found == asked
        else [f"{found} of {asked} texts have real speech; distances are of these alone."]
    )
    if references.kind == CONCATENATIONS:
        low, high = PAUSE_SECONDS
        notes.append(
            f"{CONCATENATIONS}: test clips of the same words and speaker, one after another, {low} to {high} s apart, "
            f"drawn by seed {seed}; they lie in real/."
        )
    if scores.recognizer is None:
        notes.append("No words were listened for; pass --judge, a folder that `audiodiff recognizer` wrote.")
    return notes


def _picture(question: SpeechQuestion, path: Path) -> None:
    pictured = [name for name in question.texts if name in question.references or not question.references]
    pictured = pictured[:: max(1, len(pictured) // _PICTURED)][:_PICTURED]
    rows: dict[str, Mapping[str, Path]] = dict(question.systems)
    if question.real is not None:
        rows = {question.real: question.references, **rows}
    files = [path for row in rows.values() for path in row.values()]
    rate = min(io.probe(each).sample_rate for each in files)
    waveforms = [
        [io.read(row[name], rate, channels=1)[0][0].numpy() for name in pictured] for row in rows.values()
    ]
    spectrogram_grid(waveforms, list(rows), rate, path)
