"""Archives from the web: resumed where they stopped, checked, unpacked without leaving their folder.

An archive is fetched to NAME.part and renamed when it is whole; an interrupted download goes on with an HTTP
range request (RFC 9110, section 14) where the server offers it and the file is known to be the same. It is
unpacked beside its folder, which is then renamed, so the folder exists only whole. Only plain files and
folders inside the archive's own folder are unpacked; an archive with anything else is refused.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from audiodiff.errors import InputError
from audiodiff.files import write_whole, writing
from audiodiff.progress import progress_bar, track

ATTEMPTS = 4
TIMEOUT_SECONDS = 30.0
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A public archive.

    Attributes:
        name: what `--archive` calls it, for example a version.
        url: http or https; a .zip, or a .tar with any compression.
        sha256: of the file, hexadecimal; None where the publisher's file is not fixed.
    """

    name: str
    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class Downloaded:
    """An archive that was fetched and unpacked.

    Attributes:
        folder: of its content.
        sha256: of the archive file.
        checked: whether that was compared with a known one.
    """

    folder: Path
    sha256: str
    checked: bool


class _Interrupted(Exception):
    """The transfer stopped before its end; it may go on."""


def download(archive: Archive, target: Path, sha256: str | None = None) -> Downloaded:
    """Fetches an archive to target and unpacks it to target/NAME; what is done already is not done again.

    Args:
        archive: what to fetch.
        target: folder for the archive file and its content.
        sha256: expected checksum, in place of the archive's own.

    Raises:
        InputError: no such file, no connection, a wrong checksum, or an archive that is damaged or unsafe.
    """
    expected = archive.sha256 if sha256 is None else sha256
    if expected is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", expected):
        raise InputError(f"checksum {expected!r}; expected the 64 hexadecimal digits of a SHA256")
    expected = None if expected is None else expected.lower()
    path = target / archive.url.rsplit("/", 1)[-1]
    folder = target / archive.name
    noted = _noted(path)
    if folder.is_dir() and not path.is_file() and noted and expected in (None, noted):
        return Downloaded(folder, noted, checked=expected is not None)  # unpacked, and deleted to save space
    found = fetch(archive.url, path, expected)
    extract(path, folder)
    return Downloaded(folder, found, checked=expected is not None)


def fetch(url: str, path: Path, sha256: str | None) -> str:
    """Downloads a file, going on where an earlier call stopped, and returns its SHA256.

    The checksum is noted beside the file, with its size and time of change, so that it is not read again.

    Args:
        url: http or https.
        path: where the file goes; appears only whole and checked.
        sha256: expected checksum, or None where none is known.

    Raises:
        InputError: the server refuses, the connection fails repeatedly, or the checksum is another.
    """
    if path.is_file():
        found = _noted(path) or sha256_of(path)
        if sha256 is not None and found != sha256.lower():
            raise InputError(_wrong_checksum(path, found, sha256, "delete the file to fetch it again"))
        _note(path, found)
        return found
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    _fetch_whole(url, partial, resumable=sha256 is not None)
    found = sha256_of(partial)
    if sha256 is not None and found != sha256.lower():
        partial.unlink()
        _validator(partial).unlink(missing_ok=True)
        raise InputError(_wrong_checksum(url, found, sha256, "the download was deleted, run again"))
    with writing(path):
        os.replace(partial, path)
    _validator(partial).unlink(missing_ok=True)
    _note(path, found)
    return found


def sha256_of(path: Path) -> str:
    """Returns the SHA256 of a file, hexadecimal, with a progress bar on a terminal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        blocks = -(-path.stat().st_size // _BLOCK)
        for block in track(iter(lambda: stream.read(_BLOCK), b""), "checksum", blocks):
            digest.update(block)
    return digest.hexdigest()


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256.json")


def _note(path: Path, sha256: str) -> None:
    """Keeps a checksum with what tells that the file is still the same."""
    status = path.stat()
    content = {"size": status.st_size, "changed_ns": status.st_mtime_ns, "sha256": sha256}
    write_whole({_note_path(path): (json.dumps(content) + "\n").encode("utf-8")})


def _noted(path: Path) -> str | None:
    """Returns the checksum that was noted of a file, or None where it has changed since; of a deleted file too."""
    try:
        content = json.loads(_note_path(path).read_text(encoding="utf-8"))
        noted, size, changed_ns = str(content["sha256"]), content["size"], content["changed_ns"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if path.is_file():
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) != (size, changed_ns):
            return None
    return noted


def _wrong_checksum(what: object, found: str, expected: str, mend: str) -> str:
    return f"{what}: SHA256 is {found}, expected {expected.lower()}; {mend}, or pass the right --sha256"


def _fetch_whole(url: str, partial: Path, resumable: bool) -> None:
    """Transfers until the file is whole, trying again from where it stopped."""
    for attempt in range(ATTEMPTS):
        try:
            return _transfer(url, partial, resumable)
        except _Interrupted as error:
            reason = error
        if attempt < ATTEMPTS - 1:
            time.sleep(0.5 * 2**attempt)
    size = partial.stat().st_size if partial.is_file() else 0
    raise InputError(
        f"{url}: download stopped after {size} bytes ({reason}); run the same command again to go on, "
        "or fetch the corpus yourself and pass --source"
    )


def _transfer(url: str, partial: Path, resumable: bool) -> None:
    """Makes one request and writes what comes.

    Raises:
        InputError: the server refuses.
        _Interrupted: the connection fails or ends too early.
    """
    have = partial.stat().st_size if partial.is_file() else 0
    mark = _validator(partial).read_text() if _validator(partial).is_file() else None
    request = urllib.request.Request(url)
    if have and (mark or resumable):
        request.add_header("Range", f"bytes={have}-")
        if mark:
            request.add_header("If-Range", mark)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            _receive(response, partial, have)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
            return  # nothing is left to send: the file was whole
        if error.code == 416:
            partial.unlink()
        elif error.code < 500 and error.code != 429:
            raise InputError(
                f"{url}: the server answers {error.code} {error.reason}; "
                "fetch the corpus yourself and pass --source"
            ) from error
        raise _Interrupted(f"HTTP {error.code}") from error
    except (http.client.HTTPException, OSError) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error


def _receive(response: http.client.HTTPResponse, partial: Path, have: int) -> None:
    """Appends the body of an answer with status 206 to the partial file, or begins anew with status 200."""
    start, total = 0, None
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if response.status == 206 and span is not None and int(span[1]) == have:
        start, total = have, int(span[2])
    elif response.status == 206:
        raise _Interrupted("the server sent another part than asked for")
    elif "Content-Length" in response.headers:
        total = int(response.headers["Content-Length"])
    if start == 0:
        _note_validator(response, partial)
    with writing(partial):
        stream = partial.open("ab" if start else "wb")
    with stream:
        for block in _blocks(response, start, total):
            with writing(partial):
                stream.write(block)
    size = partial.stat().st_size
    if total is not None and size != total:
        raise _Interrupted(f"{size} of {total} bytes came")


def _blocks(response: http.client.HTTPResponse, start: int, total: int | None) -> Iterator[bytes]:
    """Yields the body in blocks, with a progress bar on a terminal."""
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with progress_bar(*columns) as progress:
        task = progress.add_task("download", total=total, completed=start)
        while block := response.read(_BLOCK):
            progress.advance(task, len(block))
            yield block


def _validator(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.validator")


def _note_validator(response: http.client.HTTPResponse, partial: Path) -> None:
    """Keeps what tells whether the server's file is still the same: a strong ETag, or its date."""
    tag = response.headers.get("ETag", "")
    mark = tag if tag.startswith('"') else response.headers.get("Last-Modified")
    if mark:
        _validator(partial).write_text(mark)
    else:
        _validator(partial).unlink(missing_ok=True)


def extract(path: Path, folder: Path) -> None:
    """Unpacks a .zip or .tar archive to a folder, which appears only whole; an existing one stays.

    Raises:
        InputError: not an archive, damaged, or with a member that is no plain file or outside the folder.
    """
    if folder.is_dir():
        return
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for name, stream in _members(path):
            place = beside / _inside(path, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as target:
                shutil.copyfileobj(stream, target, _BLOCK)
        beside.mkdir(parents=True, exist_ok=True)
        os.replace(beside, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            # The disk, not the archive: damaged bz2 and gzip streams carry no error number.
            raise InputError(
                f"{folder}: cannot be written ({error.strerror}); nothing is left behind"
            ) from error
        raise InputError(f"{path}: damaged archive ({error}); delete it to fetch it again") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields name and content of every file of an archive, with a progress bar on a terminal."""
    with path.open("rb") as raw, progress_bar() as bar:
        task = bar.add_task(f"unpacking {path.name}", total=path.stat().st_size)
        # By its name: a .tar whose last member is a .zip looks like one from behind.
        for member in _zip_members(raw) if path.suffix.lower() == ".zip" else _tar_members(raw, path):
            yield member
            bar.update(task, completed=raw.tell())


def _zip_members(raw: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(raw) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                with archive.open(info) as content:
                    yield info.filename, content


def _tar_members(raw: IO[bytes], path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    # "r|*" reads front to back; seeking in a .tar.bz2 would unpack it again for every file.
    with tarfile.open(fileobj=raw, mode="r|*") as archive:
        for member in archive:
            if member.isdir():
                continue
            file = archive.extractfile(member) if member.isfile() else None
            if file is None:
                raise InputError(f"{path}: its member {member.name} is no plain file; not unpacked")
            yield member.name, file


def _inside(path: Path, name: str) -> PurePosixPath:
    """Returns a member's name as a path below the folder.

    Raises:
        InputError: it leads out of the folder.
    """
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or "\\" in name or ":" in name or not place.parts:
        raise InputError(f"{path}: its member {name!r} would be written outside its folder; not unpacked")
    return place
