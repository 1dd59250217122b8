"""What several corpora share: text and tables as people wrote them, folders where people unpacked them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from audiodiff.errors import InputError


def read_text(path: Path) -> str:
    """Returns the text of a small file, in one line where it has one, without a byte order mark.

    Raises:
        InputError: it is no UTF-8 text or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def read_table(path: Path, needed: Iterable[str], delimiter: str) -> Iterator[dict[str, str]]:
    """Yields the rows of a table with a header line; columns that a row lacks are empty.

    Args:
        path: of a table in UTF-8.
        needed: columns without which it cannot be used.
        delimiter: "," for CSV with quotes; with a tab, quotes are letters like any other.

    Raises:
        InputError: no such file, no UTF-8 text, or a needed column is absent.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
            rows = csv.DictReader(lines, delimiter=delimiter, quoting=quoting, restval="")
            absent = [name for name in needed if name not in (rows.fieldnames or ())]
            if absent:
                columns = ", ".join(rows.fieldnames or ()) or "none"
                raise InputError(f"{path}: no column {', '.join(absent)}; it has: {columns}")
            for row in rows:
                yield {name: (value or "").strip() for name, value in row.items() if name is not None}
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except csv.Error as error:
        raise InputError(f"{path}: cannot be read as a table ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def search(source: Path, name: str, depth: int) -> list[Path]:
    """Returns what has a name in a folder or up to `depth` folders below, absolute; a folder itself counts too."""
    source = source.absolute()
    patterns = ["*/" * level + name for level in range(depth + 1)]
    here = [source] if source.name == name else []
    return [*here, *sorted(path for pattern in patterns for path in source.glob(pattern))]
