"""audiodiff recognizer DATA: a judge of single words learns to hear several, and is tested on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def recognizer(
    data: Annotated[Path, typer.Argument(help="Prepared folder with train and test manifests.")],
    judge: Annotated[Path, typer.Option(help="Folder that `judge` wrote: of single words.")],
    out: Annotated[Path, typer.Option(help="Folder for the recogniser.")],
    by: Annotated[str, typer.Option(help="Label that the clips of one sequence of words share.")] = "speaker",
    updates: Annotated[int, typer.Option(help="Optimizer updates of 64 segments.")] = 120,
    sequences: Annotated[int, typer.Option(help="Real sequences that it is tested on.")] = 360,
) -> None:
    """Train a recogniser of word sequences from a judge of words, for scoring spoken texts."""
    from audiodiff.data.manifests import load_cuts
    from audiodiff.errors import InputError
    from audiodiff.evaluation.judge import Judge
    from audiodiff.evaluation.word_training import WordTraining, examine_recognizer, train_recognizer

    if updates < 1 or sequences < 1:
        raise InputError(f"got --updates {updates} --sequences {sequences}, expected at least 1 of both")
    train, test = (load_cuts(data / f"{split}.jsonl.gz") for split in ("train", "test"))
    trained = train_recognizer(Judge.load(judge), train, by, WordTraining(updates=updates), show=True)
    errors = examine_recognizer(trained, test, by, sequences, show=True)
    trained.judge.save(out)
    low, high = trained.judge.facts["test_word_error_rate_interval_95"]
    typer.echo(
        f"{trained.judge.label}: word error rate {100 * errors.rate:.2f} % [{100 * low:.2f}, {100 * high:.2f}] on "
        f"{errors.words} real test words in {sequences} held-out orders ({errors.substitutions} substituted, "
        f"{errors.deletions} deleted, {errors.insertions} inserted); recogniser in {out}"
    )
