"""Where the tests find real audio and the reference numbers of other projects."""

from __future__ import annotations

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many processes as cores test at the same time: one thread each, before torch counts them.
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

# The same commit gives the same verdict; `--hypothesis-profile search` looks for examples that nobody tried.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("search", derandomize=False)
settings.load_profile("fixed")

ROOT = Path(__file__).resolve().parent.parent


def _folder(variable: str, default: Path) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set {variable} to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the real corpora (AUDIODIFF_DATA)."""
    return _folder("AUDIODIFF_DATA", ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Folder with the numbers that other projects' own code produced (AUDIODIFF_FIXTURES)."""
    return _folder("AUDIODIFF_FIXTURES", ROOT.parent / "shared" / "fixtures")


@pytest.fixture(scope="session")
def mini_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini corpus, prepared."""
    from typer.testing import CliRunner

    from audiodiff.cli.app import app

    folder = tmp_path_factory.mktemp("data") / "mini"
    result = CliRunner().invoke(app, ["prepare", "mini", "--out", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    return folder


@pytest.fixture
def speechbrain_alone() -> None:
    """Skips where other tests share the process: speechbrain changes torch's DataLoader for all of it."""
    if os.environ.get("AUDIODIFF_CLIENT") != "speechbrain":
        pytest.skip(
            "speechbrain needs a process of its own: AUDIODIFF_CLIENT=speechbrain pytest -k speechbrain"
        )
