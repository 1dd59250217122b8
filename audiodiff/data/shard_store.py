"""Shards from a web server or an object store, kept in a local folder of bounded size.

A shard comes whole: to NAME.part, going on where an earlier attempt stopped (RFC 9110, section 14), checked against the
size and the checksum that the list gives, then renamed. A failed transfer is tried again, with longer and longer
pauses. One process of a machine fetches a shard, the others wait for it. Shards used longest ago make room; who
still has one open goes on reading it.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import importlib
import importlib.util
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiodiff.errors import InputError
from audiodiff.files import writing

ATTEMPTS = 6
TIMEOUT_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.5
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Wanted:
    """A file to be fetched.

    Attributes:
        url: http or https, or what smart_open or fsspec open: s3://..., gs://...
        bytes: its size; None where unknown.
        sha256: its checksum, hexadecimal; None where unknown.
    """

    url: str
    bytes: int | None = None
    sha256: str | None = None


class _Failed(Exception):
    """A transfer that may do better next time."""


class ShardStore:
    """A folder of fetched files.

    Args:
        folder: where they lie.
        most_bytes: of all of them together; one file is kept whatever its size.
    """

    def __init__(self, folder: Path, most_bytes: float) -> None:
        self.folder = folder
        self.most_bytes = most_bytes

    def path(self, wanted: Wanted) -> Path:
        """Returns where a file is kept."""
        name = hashlib.sha256(f"{wanted.url} {wanted.sha256}".encode()).hexdigest()[:16]
        return self.folder / f"{name}-{wanted.url.rsplit('/', 1)[-1]}"

    @contextmanager
    def opened(self, wanted: Wanted) -> Iterator[Any]:
        """Gives the file opened for reading, after fetching it where it is not there.

        Raises:
            InputError: it cannot be fetched whole, as it should be; the folder cannot be written.
        """
        path = self.path(wanted)
        while True:
            try:
                stream = path.open("rb")
                break
            except FileNotFoundError:
                self.fetch(wanted)
        with stream:
            os.utime(stream.fileno())
            yield stream

    def fetch(self, wanted: Wanted) -> None:
        """Brings a file here, if it is not.

        Raises:
            InputError: as for `opened`.
        """
        path = self.path(wanted)
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = path.with_name(f".{path.name}.lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released with the process, however it ends
            if not path.exists():
                partial = path.with_name(f".{path.name}.part")
                _fetch(wanted, partial)
                with writing(path):
                    os.replace(partial, path)
        self._make_room(keep=path)

    def _make_room(self, keep: Path) -> None:
        found = []
        for path in self.folder.glob("[!.]*-*"):  # fetched files: not what a lock or a list lies in
            try:
                state = path.stat()
                found.append((state.st_mtime_ns, state.st_size, path))
            except FileNotFoundError:  # another process made room
                continue
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.most_bytes:
                break
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size


def _fetch(wanted: Wanted, partial: Path) -> None:
    """Transfers until the file is whole and right, or until nothing more can be hoped."""
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        try:
            _transfer(wanted, partial)
            _check(wanted, partial)
            return
        except _Failed as error:
            reason = str(error)
    raise InputError(f"{wanted.url}: cannot be fetched, {ATTEMPTS} attempts failed, the last one: {reason}")


def _transfer(wanted: Wanted, partial: Path) -> None:
    """Makes one request and appends what comes.

    Raises:
        InputError: the server says that there is no such file; the disk is full.
        _Failed: anything else.
    """
    have = partial.stat().st_size if partial.is_file() and wanted.sha256 is not None else 0
    if wanted.bytes is not None and have > wanted.bytes:
        have = 0
    try:
        with open_url(wanted.url, have) as (stream, start, total):
            with writing(partial):
                file = partial.open("r+b" if start else "wb")
            with file:
                file.seek(start)
                while block := stream.read(_BLOCK):
                    with writing(partial):
                        file.write(block)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return  # nothing is left to send; the check tells whether it is right
        if error.code in (404, 410):
            raise InputError(f"{wanted.url}: the server answers {error.code} {error.reason}") from error
        raise _Failed(f"HTTP {error.code} {error.reason}") from error
    except (http.client.HTTPException, OSError) as error:
        raise _Failed(str(error) or type(error).__name__) from error
    size = partial.stat().st_size
    if total is not None and size < total:
        raise _Failed(f"{size} of {total} bytes came")


@contextmanager
def open_url(url: str, start: int = 0) -> Iterator[tuple[Any, int, int | None]]:
    """Gives a stream, the position in the file at which it begins, and the file's size where it is known.

    Raises:
        InputError: nothing here opens this kind of address.
    """
    scheme = url.split("://", 1)[0]
    if scheme in ("http", "https"):
        request = urllib.request.Request(url)
        if start:
            request.add_header("Range", f"bytes={start}-")
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            partial = response.status == 206 and response.headers.get("Content-Range", "").startswith(
                f"bytes {start}-"
            )
            begin = start if partial else 0
            length = response.headers.get("Content-Length")
            yield response, begin, None if length is None else begin + int(length)
        return
    with _object_stream(url) as stream:
        if start:
            stream.seek(start)
        yield stream, start, None


def _object_stream(url: str) -> Any:
    for name in ("smart_open", "fsspec"):
        if importlib.util.find_spec(name) is None:
            continue
        try:
            return importlib.import_module(name).open(url, "rb")
        except (ImportError, ValueError) as error:  # no client of that store is installed
            raise InputError(f"{url}: {error}") from error
    raise InputError(f"{url}: nothing here opens this kind of address; install smart_open or fsspec")


def _check(wanted: Wanted, partial: Path) -> None:
    """Refuses, and removes, what is not the file that was listed."""
    size = partial.stat().st_size if partial.is_file() else 0
    if wanted.bytes is not None and size < wanted.bytes:
        raise _Failed(f"{size} of the {wanted.bytes} bytes that the list promises came")
    if wanted.bytes is not None and size > wanted.bytes:
        partial.unlink()
        raise _Failed(f"{size} bytes came, the list promises {wanted.bytes}")
    if wanted.sha256 is not None:
        with partial.open("rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() != wanted.sha256:
            partial.unlink()
            raise _Failed(f"SHA256 is {digest.hexdigest()}, the list promises {wanted.sha256}")
