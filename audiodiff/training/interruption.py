"""Signals as a request to stop after the update that is running.

Ctrl-C (SIGINT) and SIGTERM stop a training, and it exits with code 2. SIGUSR1 and SIGUSR2 say that the machine is
needed for something else (SLURM: `--signal=USR1@120`); the training exits with code 75, "try again later", by which a
batch script knows to requeue itself. Where a launcher has a handler of its own for that signal (submitit requeues the
job in it), that one is called once the checkpoint is written.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from audiodiff.errors import InputError

STOP, PREEMPT = (signal.SIGINT, signal.SIGTERM), (signal.SIGUSR1, signal.SIGUSR2)
TRY_AGAIN = 75  # exit code, EX_TEMPFAIL of sysexits.h


class PreemptedError(InputError):
    """A training that was stopped because its machine is needed, and that should be started again."""


class StopRequest:
    """Context in which the first signal only sets `requested`; a second one acts at once.

    An update that is cut in the middle could be neither saved nor resumed exactly.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[int, Any] = {}
        self._launcher: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (*STOP, *PREEMPT):
            self._before[number] = signal.signal(number, self._request)
        self._launcher = {
            number: self._before[number] for number in PREEMPT if callable(self._before[number])
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @property
    def stopping(self) -> bool:
        """Whether this process was asked to stop."""
        return self.requested is not None

    @property
    def preempted(self) -> bool:
        """Whether it was asked because its machine is needed."""
        return self.requested in PREEMPT

    def tell_launcher(self) -> None:
        """Hands the signal on to the handler that was there before, if that was a launcher's; it may exit."""
        if self.requested in self._launcher:
            self._launcher[self.requested](self.requested, None)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
