"""Two processes train one model: the same weights on both, each clip to one of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from audiodiff.model import load
from tests.tiny import TINY_MINI

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PROGRAM = "from audiodiff.cli.app import main; main()"


def test_two_processes_train_save_and_resume(mini_corpus: Path, tmp_path: Path) -> None:
    script = tmp_path / "audiodiff_main.py"
    script.write_text(PROGRAM)
    command = [
        *LAUNCH,
        str(script),
        "train",
        *TINY_MINI,
        f"data_dir={mini_corpus}",
        f"out={tmp_path / 'run'}",
    ]
    first = subprocess.run([*command, "training.updates=4"], capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    facts = json.loads((tmp_path / "run" / "model" / "training.json").read_text())
    assert facts["updates"] == 6
    assert facts["hardware"].endswith("x 2")
    model = load(tmp_path / "run")
    assert all(bool(weight.isfinite().all()) for weight in model.state_dict().values())
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["update-00000004", "update-00000006"]
    state = torch.load(tmp_path / "run/checkpoints/update-00000006/training/state.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in state["raw"])
