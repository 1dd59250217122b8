"""A bounded queue of requests and the one thread that makes their audio, several at a time.

Requests that arrive while the model is busy wait, and those that the engine can make together are taken together. A
request beyond the queue's length is refused at once, one that nobody waits for any more is dropped before it costs
anything.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from audiodiff.errors import InputError

_LOG = logging.getLogger(__name__)


class Busy(Exception):
    """The queue is full."""


@dataclass(frozen=True)
class Limits:
    """What one server takes on.

    Attributes:
        queue: requests that may wait.
        batch: requests that are made together, at most.
        batch_seconds: audio of one batch, padding included, at most; a longer request goes alone.
        wait_seconds: how long the first of a batch waits for others.
        request_seconds: audio of one request, at most.
        body_bytes: body of one request, at most.
        timeout_seconds: from the first byte of a request to its audio, or to the first piece of a stream.
        streams: streams at the same time.
        characters: of the text of one request, at most.
    """

    queue: int = 32
    batch: int = 8
    batch_seconds: float = 120.0
    wait_seconds: float = 0.005
    request_seconds: float = 600.0
    body_bytes: int = 50_000_000
    timeout_seconds: float = 60.0
    streams: int = 4
    characters: int = 4096


@dataclass(frozen=True, kw_only=True)
class Job:
    """One request.

    Attributes:
        deadline: on the monotonic clock; later nobody waits for it.
        waveform: [T], in time.
    """

    deadline: float
    waveform: Future[Tensor] = field(default_factory=Future)

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return not self.waveform.cancelled() and monotonic() < self.deadline


Request = TypeVar("Request", bound=Job)
Made = TypeVar("Made", bound=Job, contravariant=True)


class Engine(Protocol[Made]):
    """What makes audio of requests of one kind."""

    @property
    def sample_rate(self) -> int:
        """Of the audio, hertz."""
        ...

    def together(self, jobs: Sequence[Made], limits: Limits) -> bool:
        """Returns whether these requests can be made at once."""
        ...

    def run(self, jobs: Sequence[Made]) -> list[Tensor]:
        """Returns the waveform [T] of each request, on the CPU.

        Raises:
            InputError: a request that cannot be made.
        """
        ...

    def stream(self, job: Made) -> Iterator[Tensor]:
        """Yields the waveform [T] of one request piece by piece.

        Raises:
            InputError: a request that cannot be made, or not piece by piece.
        """
        ...


@dataclass
class Counts:
    """What a worker did, for the metrics."""

    batches: int = 0
    items: int = 0
    dropped: int = 0
    failed: int = 0
    audio_seconds: float = 0.0
    busy_seconds: float = 0.0


class Worker(Generic[Request]):
    """The thread that owns the model."""

    def __init__(self, engine: Engine[Request], limits: Limits) -> None:
        self.engine = engine
        self.limits = limits
        self.counts = Counts()
        self.model_lock = threading.Lock()  # streams use the model too
        self._queue: queue.Queue[Request | None] = queue.Queue(limits.queue)
        self._held: Request | None = None  # taken from the queue, but it fits no batch with what came before
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._queue.qsize()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the running batch; what waits is refused."""
        while True:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is not None and job.waveform.set_running_or_notify_cancel():
                job.waveform.set_exception(Busy("the server is stopping"))
        self._queue.put(None)
        # To its end: a thread that computes while the interpreter goes takes the process down with it.
        self._thread.join()

    def submit(self, job: Request) -> None:
        """Adds a request.

        Raises:
            Busy: as many as may wait do so.
        """
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            raise Busy(f"{self.limits.queue} requests wait already; try again later") from None

    def _run(self) -> None:
        while True:
            jobs = self._next_batch()
            if not jobs:
                return
            wanted = [job for job in jobs if job.wanted and job.waveform.set_running_or_notify_cancel()]
            self.counts.dropped += len(jobs) - len(wanted)
            if wanted:
                self._make(wanted)

    def _next_batch(self) -> list[Request]:
        """Returns what is vocoded next, none when the thread shall end."""
        first = self._held or self._queue.get()
        self._held = None
        if first is None:
            return []
        jobs, until = [first], monotonic() + self.limits.wait_seconds
        while len(jobs) < self.limits.batch:
            try:
                job = self._queue.get(timeout=max(0.0, until - monotonic()))
            except queue.Empty:
                break
            if job is None:
                self._queue.put(None)  # after this batch
                break
            if not self.engine.together([*jobs, job], self.limits):
                self._held = job
                break
            jobs.append(job)
        return jobs

    def _make(self, jobs: Sequence[Request]) -> None:
        started = monotonic()
        try:
            with self.model_lock:
                waveforms = self.engine.run(jobs)
        except Exception as error:  # whatever it is, the server lives and the client is told
            if len(jobs) > 1:
                # One item must not fail the others.
                for job in jobs:
                    self._make([job])
                return
            self.counts.failed += 1
            if not isinstance(error, InputError):
                _LOG.exception("a request failed")
            jobs[0].waveform.set_exception(error)
            return
        self.counts.batches += 1
        self.counts.items += len(jobs)
        self.counts.busy_seconds += monotonic() - started
        for job, waveform in zip(jobs, waveforms, strict=True):
            self.counts.audio_seconds += waveform.shape[0] / self.engine.sample_rate
            job.waveform.set_result(waveform)
