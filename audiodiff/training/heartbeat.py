"""status.json of a run folder: where the run stands, written whole by the run itself every few seconds.

Nothing here needs torch, so that `audiodiff status` answers at once. The file also says whether the run lives: by the
process on the host that wrote it, elsewhere by how long ago that was.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Any

from audiodiff.files import write_whole

STATUS = "status.json"
RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"


def write_status(run: Path, state: str, values: Mapping[str, Any]) -> None:
    """Writes the file.

    Args:
        run: the run folder.
        state: RUNNING, FINISHED, INTERRUPTED or FAILED.
        values: what is to be known of the run, plain.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    process = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "process_start": process_start(os.getpid()),
    }
    content = {"state": state, **values, **process, "written": round(time(), 1)}
    write_whole({run / STATUS: (json.dumps(content, indent=1) + "\n").encode()})


def read_status(run: Path) -> dict[str, Any] | None:
    """Returns the content of the file, None where there is none that can be read."""
    return read_json(run / STATUS)


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the object in a JSON file, None where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def fail_before_start(run: Path, experiment: str, message: str) -> None:
    """Records a run that failed before its first update, unless the folder holds a run already."""
    if not (run / STATUS).exists() and not any((run / "checkpoints").glob("*")) and run.is_dir():
        write_status(run, FAILED, {"experiment": experiment, "update": 0, "error": message})


def alive(status: Mapping[str, Any], silence_seconds: float) -> bool:
    """Returns whether the process that wrote a status still runs.

    On the same host its process is looked up, and a later process of the same number is not taken for it. Another
    host's is believed to run until it has been silent for long.

    Args:
        status: content of the file.
        silence_seconds: after which another host's run counts as stopped.
    """
    if status.get("host") == socket.gethostname():
        start = process_start(status["process"])
        return start is not None and start == status.get("process_start")
    return time() - status["written"] < silence_seconds


def process_start(number: int) -> str | None:
    """Returns when a process of this host started, in the system's own count; None if there is none.

    Where the system does not tell (no /proc), any living process gives "unknown".
    """
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] == "Z" else fields[19]
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
