"""Progress bars of long work: on stderr, gone when done, and silent where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Returns a bar to be used as a context; without columns: what, bar, share done and time left."""
    console = Console(stderr=True)
    shown = columns or (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(compact=True),
    )
    return Progress(*shown, console=console, transient=True, disable=not console.is_terminal)


def track(items: Iterable[Item], text: str, total: int, show: bool = True) -> Iterator[Item]:
    """Yields the items, with a progress bar when `show` is true."""
    if not show:
        yield from items
        return
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=text)
