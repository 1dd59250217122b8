"""Iterating with a progress bar where the caller wants one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from audiodiff.progress import progress_bar

Item = TypeVar("Item")


def track(items: Iterable[Item], text: str, total: int, show: bool) -> Iterator[Item]:
    """Yields the items, with a progress bar when `show` is true."""
    if not show:
        yield from items
        return
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=text)
