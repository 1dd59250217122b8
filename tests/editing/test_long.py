"""Memory does not grow with the length of a recording."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.editing.tiny_edits import save_tiny, sound, write_sound

PROGRAM = """
import resource, sys
from pathlib import Path
from dataclasses import replace
from audiodiff.editing.edit import edit_file
from audiodiff.editing.restore import Recovery
from audiodiff.editing.tasks import Inpaint, RemoveNoise
from audiodiff.model import load
model, path, seconds = load(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
model.recipe["data"]["segment_seconds"] = 2.0
quick = Recovery(steps=1, effort=1)
edit_file(model, path, path.with_name("a.wav"), Inpaint(((1.0, 1.2), (seconds - 2, seconds - 1.9))), quick)
edit_file(model, path, path.with_name("b.wav"), RemoveNoise(-40.0), quick)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kilobytes(model: Path, folder: Path, seconds: float) -> int:
    path = write_sound(folder / f"{seconds:.0f}.wav", sound(seconds))
    words = [sys.executable, "-c", PROGRAM, str(model), str(path), str(seconds)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


@pytest.mark.long
def test_ten_minutes_take_no_more_memory_than_one(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    short, long = (peak_kilobytes(model, tmp_path, seconds) for seconds in (60.0, 600.0))
    assert long < short + 20_000
