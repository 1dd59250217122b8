"""Training over two nodes of a real SLURM, started through Hydra's submitit launcher.

Needs the cluster of cluster.sh (or any other with two nodes that share this file system) and takes minutes:
SLURM_CONF=DIR/slurm.conf python -m pytest -m long tests/cluster
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

NODES = (
    "hydra/launcher=submitit_slurm", "hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=1",
    "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=null", "hydra.launcher.timeout_min=20",
)  # fmt: skip
SMALL = (
    "experiment=mini", "size=tiny", "training.updates=6", "training.global_batch_seconds=4.8",
    "training.checkpoint_every=3", "training.validate_every=6", "training.sample_every=100",
    "training.statistics_clips=16", "training.log_every=2", "training.warmup_updates=2",
)  # fmt: skip


@pytest.fixture
def nodes() -> None:
    """Skips where no SLURM with two free nodes answers."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    if shutil.which("sinfo") is None:
        pytest.skip("no SLURM here; see tests/cluster/cluster.sh")
    found = subprocess.run(["sinfo", "--noheader", "--format=%D %T"], capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip(f"SLURM does not answer: {found.stderr.strip()}; see tests/cluster/cluster.sh")
    if sum(int(line.split()[0]) for line in found.stdout.splitlines()) < 2:
        pytest.skip("this SLURM has fewer than two nodes; see tests/cluster/cluster.sh")


def train(data: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).parent / "audiodiff"), "train", *arguments, *SMALL, f"data_dir={data}", f"out={out}",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, env=environment)


@pytest.mark.usefixtures("nodes")
def test_two_nodes_train_one_model_and_hold_the_same_weights(mini_corpus: Path, tmp_path: Path) -> None:
    finished = train(mini_corpus, tmp_path / "two", "-m", *NODES)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (facts_file,) = (tmp_path / "two").rglob("model/training.json")
    facts = json.loads(facts_file.read_text())
    assert facts["updates"] == 6
    # Written at the end, after the processes have compared their weights; they stop where these differ.
    assert facts["processes"] == 2
    assert train(mini_corpus, tmp_path / "one").returncode == 0
    alone = json.loads((tmp_path / "one" / "model" / "training.json").read_text())
    assert facts["validation_loss"] == pytest.approx(alone["validation_loss"], rel=1e-3)
