"""A prepared mini corpus and a small judge of it, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiodiff.data import corpora
from audiodiff.data.manifests import load_cuts
from audiodiff.data.preparation import PrepareOptions
from audiodiff.evaluation.judge import Judge
from audiodiff.evaluation.judge_training import JudgeTraining, examine_judge, train_judge


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    corpora.load("mini").prepare(None, folder, PrepareOptions())
    return folder


@pytest.fixture(scope="session")
def judge(mini: Path) -> Judge:
    train, dev, test = (load_cuts(mini / f"{split}.jsonl.gz") for split in ("train", "dev", "test"))
    trained = train_judge(train, dev, "sound", 0, JudgeTraining(updates=40, batch_size=16))
    examine_judge(trained, test)
    return trained
