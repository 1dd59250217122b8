"""What was found out about each file while an evaluation runs, so that an interrupted one goes on where it was.

A line of JSON per finding, with a key made of all that the finding depends on: settings, and the content of the files.
A line that was cut off is not there. When the report is written the journal has done its work and is removed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiodiff import __version__
from audiodiff.errors import InputError
from audiodiff.files import writing


class Journal:
    """Findings by key, in memory and on disk."""

    def __init__(self, path: Path) -> None:
        """Takes up the journal at a path, if there is one."""
        self._path = path
        self._found: dict[str, Any] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    key, finding = json.loads(line)
                except ValueError:
                    continue
                self._found[key] = finding

    def get(self, key: str) -> Any | None:
        """Returns what was found under a key; None for nothing."""
        return self._found.get(key)

    def add(self, key: str, finding: Any) -> None:
        """Notes a finding, on disk at once.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        self._found[key] = finding
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" if self._cut_off() else "")
                file.write(json.dumps([key, finding]) + "\n")

    def remove(self) -> None:
        """Removes the file."""
        self._path.unlink(missing_ok=True)

    def _cut_off(self) -> bool:
        """Whether the last line has no end."""
        if not self._path.stat().st_size:
            return False
        with self._path.open("rb") as file:
            file.seek(-1, 2)
            return file.read() != b"\n"


def key_of(settings: Any, files: Sequence[Path]) -> str:
    """Returns a digest of settings and the content of files, hexadecimal.

    Raises:
        InputError: a file cannot be read.
    """
    digest = hashlib.sha256(json.dumps([__version__, settings], sort_keys=True).encode())
    for path in files:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise InputError(f"{path}: no such file, or it cannot be read ({error.strerror})") from error
    return digest.hexdigest()
