"""Index of cuts: built once beside a manifest, memory-mapped ever after, so that a cut is parsed only when it is read.

It lies in `.index/` beside the manifest (in a cache folder where that cannot be written) and has three files: the cuts
as uncompressed JSON lines, a table [2, N + 1] of where each line begins and how many samples each cut has, and a
summary. Their names hold the manifest's checksum, the summary is written last and in one step: processes that index the
same manifest at once write the same files, and an index is there whole or not at all. A manifest of another size, time
of change or content is indexed anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiodiff.data.entries import Entry, Summary
from audiodiff.errors import InputError
from audiodiff.files import writing

_VERSION = 1
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Fingerprint:
    """What tells that an index still belongs to its manifest."""

    size: int
    changed_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        """Returns the fingerprint of a file, which is read whole."""
        state = path.stat()
        with path.open("rb") as stream:
            digest = (
                hashlib.file_digest(stream, "sha256") if hasattr(hashlib, "file_digest") else _digest(stream)
            )
        return cls(state.st_size, state.st_mtime_ns, digest.hexdigest())


def _digest(stream: Any) -> Any:
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest


class CutTable:
    """An opened index: lengths memory-mapped, cuts read from the disk one at a time; shared by forked processes.

    Args:
        lines: file of the cuts, one JSON object a line.
        table: file of the table.
        summary: of all cuts.
    """

    def __init__(self, lines: Path, table: Path, summary: Summary) -> None:
        self._paths = (lines, table)
        self.summary = summary
        self._open()

    def _open(self) -> None:
        lines, table = self._paths
        numbers = np.load(table, mmap_mode="r", allow_pickle=False)
        self._offsets, self.lengths = numbers[0], numbers[1, :-1]
        # Read with pread, not through a memory map: what was read is not counted as this process' memory.
        self._file = os.open(lines, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": self._paths, "summary": self.summary}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return self.summary.cuts

    def line(self, number: int) -> bytes:
        """Returns the JSON of one cut."""
        start, stop = int(self._offsets[number]), int(self._offsets[number + 1])
        return os.pread(self._file, stop - start, start)


class TableWriter:
    """Takes cuts one after another into the files of a new index.

    Args:
        lines: a file that is open for writing.
    """

    def __init__(self, lines: Any) -> None:
        self._lines = lines
        self._offsets, self._lengths, self._names = array("q", [0]), array("q"), array("Q")
        self.summary = Summary()

    def add(self, line: bytes, entry: Entry) -> None:
        """Adds a cut.

        Args:
            line: its JSON, with a line's end.
            entry: the same, read.
        """
        self._lines.write(line)
        self._offsets.append(self._offsets[-1] + len(line))
        self._lengths.append(entry.length)
        digest = hashlib.blake2b(entry.id.encode("utf-8"), digest_size=8).digest()
        self._names.append(int.from_bytes(digest, "little"))
        self.summary.add(entry)

    def numbers(self) -> np.ndarray:
        """Returns the table."""
        lengths = np.append(np.frombuffer(self._lengths, dtype=np.int64), 0)
        return np.stack([np.frombuffer(self._offsets, dtype=np.int64), lengths])

    def same_names(self) -> Iterator[np.ndarray]:
        """Yields groups of cuts whose ids have the same hash: hardly ever others than those of the same id."""
        names = np.frombuffer(self._names, dtype=np.uint64)
        ordered = np.sort(names)
        for name in np.unique(ordered[1:][ordered[1:] == ordered[:-1]]):
            yield np.flatnonzero(names == name)


def open_or_build(manifest: Path, fill: Callable[[TableWriter], None]) -> CutTable:
    """Returns the index of a manifest, after building it where there is none that still fits.

    Args:
        manifest: a file.
        fill: adds every cut of the manifest to a new index.

    Raises:
        InputError: what `fill` raises; two cuts of one id; no place where an index can be written.
    """
    places = [manifest.parent / ".index", _cache_folder(manifest)]
    for folder in places:
        table = _open(manifest, folder)
        if table is not None:
            return table
    fingerprint = Fingerprint.of(manifest)
    for folder in places:
        if _writable(folder):
            _build(manifest, folder, fingerprint, fill)
            table = _open(manifest, folder)
            if table is not None:
                return table
    raise InputError(
        f"{manifest}: its index can be written neither to {places[0]} nor to {places[1]}; "
        "make one of them writable, or set XDG_CACHE_HOME to a folder that is"
    )


def _cache_folder(manifest: Path) -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(manifest.resolve().parent).encode("utf-8")).hexdigest()[:16]
    return home / "audiodiff" / "index" / name


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _open(manifest: Path, folder: Path) -> CutTable | None:
    """Returns the index that a folder holds, or None where there is none that fits."""
    try:
        content = json.loads((folder / f"{manifest.name}.json").read_text(encoding="utf-8"))
        if content["version"] != _VERSION or not _fits(manifest, content):
            return None
        lines, table = _files(manifest, folder, content["sha256"])
        return CutTable(lines, table, Summary.from_json(content["summary"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fits(manifest: Path, content: dict[str, Any]) -> bool:
    state = manifest.stat()
    if (state.st_size, state.st_mtime_ns) == (content["size"], content["changed_ns"]):
        return True
    return state.st_size == content["size"] and Fingerprint.of(manifest).sha256 == content["sha256"]


def _files(manifest: Path, folder: Path, sha256: str) -> tuple[Path, Path]:
    stem = f"{manifest.name}.{sha256[:16]}"
    return folder / f"{stem}.jsonl", folder / f"{stem}.npy"


def _build(
    manifest: Path, folder: Path, fingerprint: Fingerprint, fill: Callable[[TableWriter], None]
) -> None:
    """Writes an index whole, and removes those of what the manifest held before."""
    lines, table = _files(manifest, folder, fingerprint.sha256)
    with replacing(lines) as stream:
        writer = TableWriter(stream)
        fill(writer)
        stream.flush()
        _check_unique(manifest, writer, Path(stream.name))
    with replacing(table) as stream:
        np.save(stream, writer.numbers(), allow_pickle=False)
    content = {
        "version": _VERSION,
        "size": fingerprint.size,
        "changed_ns": fingerprint.changed_ns,
        "sha256": fingerprint.sha256,
        "summary": writer.summary.to_json(),
    }
    with replacing(folder / f"{manifest.name}.json") as stream:
        stream.write(json.dumps(content).encode("utf-8"))
    for old in folder.glob(f"{manifest.name}.*"):
        if old not in (lines, table, folder / f"{manifest.name}.json"):
            old.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """Gives a file under a name of its own that takes the place of `path` when the block ends well.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = tempfile.NamedTemporaryFile(  # noqa: SIM115
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        )
    try:
        with writing(path):
            with stream:
                yield stream
            os.chmod(stream.name, 0o644)
            os.replace(stream.name, path)
    finally:
        Path(stream.name).unlink(missing_ok=True)


def _check_unique(manifest: Path, writer: TableWriter, lines: Path) -> None:
    numbers = writer.numbers()[0]
    for group in writer.same_names():
        with lines.open("rb") as stream:
            seen: set[str] = set()
            for number in group:
                stream.seek(int(numbers[number]))
                name = json.loads(stream.readline())["id"]
                if name in seen:
                    raise InputError(f"{manifest}: two cuts have the id {name}; expected each id once")
                seen.add(name)
