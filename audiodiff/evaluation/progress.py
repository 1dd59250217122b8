"""Progress bars on the terminal, silent elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], text: str, total: int, show: bool) -> Iterator[Item]:
    """Yields the items, with a bar on stderr when `show` is true and stderr is a terminal."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    yield from rich_track(
        items, text, total=total, console=console, disable=not (show and console.is_terminal)
    )
