"""Slow work on many files, shared out among processes; few files are not worth starting any."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

PARALLEL_FROM = 64  # tasks; fewer are done before other processes have started
MOST_WORKERS = 16

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], parallel_from: int = PARALLEL_FROM
) -> Iterator[Result]:
    """Yields the function's result for each task, in order.

    Args:
        function: of a module, not a closure; what it raises is raised here.
        tasks: that can be pickled.
        parallel_from: so many tasks are shared out.
    """
    if len(tasks) < parallel_from or _cores() < 2:
        yield from map(function, tasks)
        return
    # Not forked: torch's threads do not survive that.
    pool = ProcessPoolExecutor(
        min(_cores(), MOST_WORKERS), mp_context=get_context("spawn"), initializer=_alone
    )
    with pool:
        try:
            yield from pool.map(function, tasks, chunksize=4)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _alone() -> None:
    """One thread in each process: they are as many as cores."""
    import torch

    torch.set_num_threads(1)
