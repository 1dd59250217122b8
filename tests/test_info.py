"""`audiodiff info` says how noisy t = 1 is, and warns where synthesis starts from something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from audiodiff.cli.app import app
from tests.tiny import save_random_model


@pytest.mark.parametrize(
    ("schedule", "decibels", "warned"),
    [
        ("diffwave_base", "-4.1 dB", True),  # its table of 50 ends at alpha-bar 0.28
        ("diffwave_large", "-8.2 dB", True),
        ("linear_1000", "-43.9 dB", False),
    ],
)
def test_info_tells_the_terminal_ratio_and_warns_off_distribution(
    tmp_path: Path, schedule: str, decibels: str, warned: bool
) -> None:
    save_random_model(tmp_path, "experiment=mini", "size=tiny", f"schedule={schedule}")
    shown = CliRunner().invoke(app, ["info", str(tmp_path)], env={"COLUMNS": "200"}).output
    assert decibels in shown
    assert ("warning:" in shown) is warned
    assert ("pure noise, which it never saw" in " ".join(shown.split())) is warned
