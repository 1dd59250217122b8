"""Files and folders that appear whole or not at all: written beside their final name, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from audiodiff.errors import InputError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full disk or a folder without permission into one clear line.

    Raises:
        InputError: the body raised an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path}: cannot be written ({reason})") from error


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Writes files that belong together: all are complete before the first gets its name.

    Args:
        files: content by path; missing folders are made.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    temporary: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary[path] = path.with_name(f".{path.name}.{os.getpid()}.part")
                temporary[path].write_bytes(content)
        for path, beside in temporary.items():
            with writing(path):
                os.replace(beside, path)
    finally:
        for beside in temporary.values():
            beside.unlink(missing_ok=True)


@contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """Gives a draft folder that takes the place of `folder` when the block ends well.

    Args:
        folder: the final place; a folder that is there is replaced whole.

    Raises:
        InputError: the disk is full or the place cannot be written; what was there stays.
    """
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    with writing(folder):
        try:
            draft.mkdir(parents=True)
            yield draft
            if folder.exists():
                os.rename(folder, old)
            os.rename(draft, folder)
        finally:
            if old.exists() and not folder.exists():  # failed between the two renames
                os.rename(old, folder)
            shutil.rmtree(draft, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
