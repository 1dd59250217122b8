"""A prepared mini corpus and a small judge of it, made once; a real browser."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@functools.cache
def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")  # while it is open, its event loop runs in this thread and no other can
def browser() -> Iterator[Any]:
    place = chromium()
    if place is None:
        pytest.skip("no Chromium (Debian, Ubuntu: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=place, args=arguments)
        yield opened
        opened.close()
