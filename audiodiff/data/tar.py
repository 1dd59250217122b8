"""Where the files of a tar archive lie, without reading them: one header in 512 bytes each (POSIX.1-1988, ustar)."""

from __future__ import annotations

import os
from typing import NamedTuple

from audiodiff.errors import InputError

_BLOCK = 512


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: for messages.
        bytes: its size.
        start: position of its first byte in the archive.
        stem: its name without suffix; None where it is too long for a header of this kind.
    """

    name: str
    bytes: int
    start: int
    stem: str | None


def data_members(file: int) -> tuple[list[Member], bool]:
    """Returns the first file of each pair (audio, manifest) of a Shar archive, and whether the archive is whole.

    Args:
        file: descriptor of the archive, not compressed.

    Raises:
        InputError: it is no such archive.
    """
    size = os.fstat(file).st_size
    members: list[Member] = []
    position, long_name = 0, False
    while True:
        header = os.pread(file, _BLOCK, position)
        if len(header) < _BLOCK:
            return members[::2], False
        if not header.strip(b"\0"):
            return members[::2], True
        if header[257:262] != b"ustar":
            raise InputError(
                f"not a tar archive, or damaged, at byte {position}; write or copy the shard again"
            )
        content = _number(header[124:136])
        kind, start = header[156:157], position + _BLOCK
        if kind in (b"0", b"\0"):
            name = _name(header)
            stem = None if long_name else name.rsplit(".", 1)[0]
            members.append(Member(name, content, start, stem))
        long_name = kind in (b"x", b"L")  # tells the name of the file that follows
        position = start + -(-content // _BLOCK) * _BLOCK
        if start + content > size and kind not in (b"0", b"\0"):
            return members[::2], False


def _number(digits: bytes) -> int:
    """Returns a size: octal, or base 256 from 8 GiB on."""
    if digits[0] & 0x80:
        return int.from_bytes(bytes([digits[0] & 0x7F]) + digits[1:], "big")
    try:
        return int(digits.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise InputError("not a tar archive, or damaged; write or copy the shard again") from error


def _name(header: bytes) -> str:
    name, prefix = (part.split(b"\0", 1)[0] for part in (header[:100], header[345:500]))
    whole = prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name
    return whole.decode("utf-8", "replace")
