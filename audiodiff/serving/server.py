"""What the routes of a server share: bodies within limits, the queue, finished and streamed audio, errors as JSON.

Mistakes are answered with a 4xx status and {"error": {"type", "message"}}, a full queue with 429 and Retry-After.
"""

from __future__ import annotations

import asyncio
import io
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from typing import Any

import numpy as np
import soundfile
import torch
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from audiodiff.errors import InputError
from audiodiff.serving.worker import Busy, Engine, Job, Limits, Worker

FORMATS = {"wav": "audio/wav", "flac": "audio/flac", "pcm": "audio/L16"}
_POLL_SECONDS = 0.05  # between looks at whether the client is still there


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


def content_type(request: Request, accepted: Collection[str]) -> str:
    """Returns what a request says that its body is.

    Raises:
        Refused: something else than the accepted.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in accepted:
        one_of = "one of " if len(accepted) > 1 else ""
        raise Refused(415, "content-type", f"got {kind or 'none'}; expected {one_of}{', '.join(accepted)}")
    return kind


class Server:
    """What the routes share."""

    def __init__(self, engine: Engine[Any], limits: Limits) -> None:
        self.engine = engine
        self.limits = limits
        self.worker = Worker(engine, limits)
        self.answers: Counter[int] = Counter()
        self.requests = self.running = self.streams = 0

    async def body(self, request: Request) -> bytes:
        """Returns the body, which is read no further than the limit.

        Raises:
            Refused: too large, too slow, or empty.
        """
        limit = self.limits.body_bytes
        told = request.headers.get("content-length", "")
        if told.isdigit() and int(told) > limit:
            raise Refused(413, "body", f"body of {told} bytes, at most {limit} are accepted")
        try:
            content = await asyncio.wait_for(_read(request, limit), self.limits.timeout_seconds)
        except asyncio.TimeoutError:  # another class than TimeoutError before Python 3.11
            raise Refused(408, "body", f"body not complete after {self.limits.timeout_seconds:g} s") from None
        except ClientDisconnect:
            raise Refused(499, "client", "the client hung up") from None
        if not content:
            raise Refused(400, "body", "empty body")
        return content

    async def audio(self, request: Request, job: Job, kind: str, stream: bool) -> Response:
        """Returns the audio of a job whose request's body is read, finished or piece by piece.

        Raises:
            Refused, InputError: as `whole` and `stream`.
        """
        if stream:
            return await self.stream(request, lambda: self.engine.stream(job), kind)
        return await self.whole(request, job, kind)

    async def whole(self, request: Request, job: Job, kind: str) -> Response:
        """Returns the finished audio.

        Raises:
            Refused: the queue is full, or the time is over.
        """
        try:
            self.worker.submit(job)
        except Busy as error:
            raise Refused(429, "queue", str(error)) from None
        waiting = asyncio.wrap_future(job.waveform)
        try:
            while not waiting.done():
                if await request.is_disconnected():
                    raise Refused(499, "client", "the client hung up")
                if not job.wanted:
                    raise Refused(504, "timeout", f"not finished after {self.limits.timeout_seconds:g} s")
                await asyncio.wait([waiting], timeout=_POLL_SECONDS)
            waveform = waiting.result()
        finally:
            job.waveform.cancel()  # nobody waits any more
        content = await run_in_threadpool(_encode, waveform, self.engine.sample_rate, kind)
        return Response(content, media_type=FORMATS[kind])

    async def stream(self, request: Request, start: Callable[[], Iterator[Tensor]], kind: str) -> Response:
        """Returns the audio piece by piece; the first piece is made before the answer begins.

        Args:
            request: whose body is read.
            start: gives the pieces [T]; called, as they are taken, while nobody else has the model.
            kind: wav or pcm.

        Raises:
            Refused: as many streams as may run do so, or nobody waits for this one any more.
            InputError: a model that cannot stream, or what it cannot make audio of.
        """
        if await request.is_disconnected():
            raise Refused(499, "client", "the client hung up")
        if self.streams >= self.limits.streams:
            raise Refused(429, "queue", f"{self.limits.streams} streams run already; try again later")
        self.streams += 1
        pieces = _Pieces(self.worker, start)
        try:
            first = await run_in_threadpool(pieces.next)
        except BaseException:
            self.streams -= 1
            raise
        head = _endless_wav(self.engine.sample_rate) if kind == "wav" else b""

        def end() -> None:
            self.streams -= 1
            pieces.close()

        return _Streamed(_bytes_of(pieces, head, first), FORMATS[kind], end)


class Counting:
    """Middleware that counts requests, those that run, and answers by status.

    It hands receive and send on as they are. What `app.middleware("http")` makes (Starlette's BaseHTTPMiddleware) runs
    the application in a task of its own behind a queue of messages, through which every hang-up would have to find its
    way.
    """

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app, self._server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._server.answers[message["status"]] += 1
            await send(message)

        self._server.requests += 1
        self._server.running += 1
        try:
            await self._app(scope, receive, counted)
        finally:
            self._server.running -= 1


class _Streamed(StreamingResponse):
    """A stream that ends once, also where the client hung up before it began."""

    def __init__(self, content: AsyncIterator[bytes], media_type: str, end: Callable[[], None]) -> None:
        super().__init__(content, media_type=media_type)
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


async def _bytes_of(pieces: _Pieces, head: bytes, piece: Tensor | None) -> AsyncIterator[bytes]:
    yield head
    while piece is not None:
        yield _pcm(piece)
        piece = await run_in_threadpool(pieces.next)


class _Pieces:
    """The pieces of one stream; the model is taken for one piece at a time, so that others get their turns."""

    def __init__(self, worker: Worker[Any], start: Callable[[], Iterator[Tensor]]) -> None:
        self._lock = worker.model_lock
        self._start = start
        self._pieces: Iterator[Tensor] | None = None

    def next(self) -> Tensor | None:
        """Returns the next piece, None at the end."""
        with self._lock, torch.inference_mode():
            if self._pieces is None:
                self._pieces = self._start()
            return next(self._pieces, None)

    def close(self) -> None:
        """Lets go of what the stream holds."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()


async def _read(request: Request, limit: int) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise Refused(413, "body", f"body of more than {limit} bytes")
    return bytes(content)


def answer_errors(app: FastAPI, subject: str) -> None:
    """Answers mistakes in JSON; those that the engine finds are of the type `subject`."""

    def answer(status: int, kind: str, message: str) -> Response:
        # What a client still sends of a body that is refused is not read: the connection ends.
        headers = {429: {"Retry-After": "1"}, 413: {"Connection": "close"}, 408: {"Connection": "close"}}.get(
            status
        )
        return JSONResponse({"error": {"type": kind, "message": message}}, status, headers)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return answer(error.status, error.kind, str(error))

    @app.exception_handler(InputError)
    async def wrong(_: Request, error: InputError) -> Response:
        return answer(422, subject, str(error))

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> Response:
        return answer(503, "server", str(error))

    @app.exception_handler(StarletteHTTPException)
    async def unknown(_: Request, error: StarletteHTTPException) -> Response:
        return answer(error.status_code, "route", str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return answer(422, "query", str(error))

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return answer(500, "server", f"{type(error).__name__}; the server's log says more")


def metrics(server: Server) -> str:
    """Returns the numbers of a server as Prometheus reads them."""
    counts = server.worker.counts
    numbers = {
        "audiodiff_queue_depth": server.worker.waiting,
        "audiodiff_requests_total": server.requests,
        "audiodiff_requests_running": server.running,
        "audiodiff_streams": server.streams,
        "audiodiff_batches_total": counts.batches,
        "audiodiff_vocoded_total": counts.items,
        "audiodiff_dropped_total": counts.dropped,
        "audiodiff_failed_total": counts.failed,
        "audiodiff_audio_seconds_total": round(counts.audio_seconds, 3),
        "audiodiff_busy_seconds_total": round(counts.busy_seconds, 3),
    }
    lines = [f"{name} {value}" for name, value in numbers.items()]
    lines += [
        f'audiodiff_answers_total{{status="{status}"}} {count}'
        for status, count in sorted(server.answers.items())
    ]
    return "\n".join(lines) + "\n"


def _encode(waveform: Tensor, sample_rate: int, kind: str) -> bytes:
    if kind == "pcm":
        return _pcm(waveform)
    file = io.BytesIO()
    soundfile.write(file, waveform.clamp(-1, 1).numpy(), sample_rate, subtype="PCM_16", format=kind.upper())
    return file.getvalue()


def _pcm(waveform: Tensor) -> bytes:
    samples = (waveform.cpu().clamp(-1, 1).numpy() * 32767).round().astype(np.dtype("<i2"))
    return bytes(samples.tobytes())


def _endless_wav(sample_rate: int) -> bytes:
    """Returns the head of a WAV of unknown length: both sizes the largest there are, as players expect of a stream."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return b"RIFF" + b"\xff\xff\xff\xff" + b"WAVE" + form + b"data" + b"\xff\xff\xff\xff"
