"""audiodiff judge DATA: a small network learns to recognise a label, and is tested on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def judge(
    data: Annotated[Path, typer.Argument(help="Prepared folder with train, dev and test manifests.")],
    label: Annotated[str, typer.Option(help="The label to recognise, for example digit.")],
    out: Annotated[Path, typer.Option(help="Folder for the judge and confusion.png.")],
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    updates: Annotated[int, typer.Option(help="Optimizer updates of 64 clips.")] = 400,
) -> None:
    """Train a judge of a label on real clips, for scoring samples by what is heard in them."""
    from audiodiff.data.manifests import SPLITS, load_cuts
    from audiodiff.errors import InputError
    from audiodiff.evaluation.judge_training import JudgeTraining, examine_judge, train_judge
    from audiodiff.evaluation.pictures import confusion_picture

    if updates < 1 or seed < 0:
        raise InputError(
            f"got --updates {updates} --seed {seed}, expected at least 1 update and a seed from 0 on"
        )
    train, dev, test = (load_cuts(data / f"{split}.jsonl.gz") for split in SPLITS)
    trained = train_judge(train, dev, label, seed, JudgeTraining(updates=updates), show=True)
    matrix = examine_judge(trained, test, show=True)
    trained.save(out)
    confusion_picture(matrix, trained.names, out / "confusion.png")
    facts = trained.facts
    typer.echo(
        f"{label}: {100 * facts['test_accuracy']:.1f} % of {facts['test_clips']} real test clips recognised "
        f"({facts['train_clips']} training clips, {facts['updates']} updates, {facts['train_seconds']:.0f} s)"
        f"; judge in {out}"
    )
