"""The HTTP face of a vocoder: POST /v1/vocode, GET /health, GET /metrics.

A request's body is a mel (.npy) or an audio file; the answer is a WAV or FLAC file, or a stream of it while it is being
made. Mistakes are answered with a 4xx status and {"error": {"type", "message"}}, a full queue with 429 and Retry-After.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import monotonic
from typing import Any

import numpy as np
import soundfile
import torch
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from torch import Tensor

from audiodiff import __version__
from audiodiff.errors import InputError
from audiodiff.serving.worker import Busy, Job, Limits, Worker
from audiodiff.synthesis.resynthesis import read_source
from audiodiff.synthesis.vocoder import Vocoder

CONTENT_TYPES = {
    "application/x-npy": ".npy", "application/octet-stream": ".npy", "audio/wav": ".wav", "audio/x-wav": ".wav",
    "audio/wave": ".wav", "audio/flac": ".flac", "audio/x-flac": ".flac", "audio/ogg": ".ogg", "audio/mpeg": ".mp3",
}  # fmt: skip
"""What a body may be, and the suffix that says the same."""

FORMATS = {"wav": "audio/wav", "flac": "audio/flac", "pcm": "audio/L16"}
_CHUNK_SECONDS = 1.0  # of mel given to a stream at a time
_POLL_SECONDS = 0.05  # between looks at whether the client is still there


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass(frozen=True)
class Wish:
    """What a request asks besides its body.

    Attributes:
        seed: of the noise.
        labels: label name -> value, from query parameters of the labels' names.
        format: wav, flac or pcm (16 bit, little endian, mono).
        stream: whether the audio is sent while it is made.
    """

    seed: int
    labels: dict[str, str]
    format: str
    stream: bool


class Server:
    """What the routes share."""

    def __init__(self, vocoder: Vocoder, limits: Limits) -> None:
        self.vocoder = vocoder
        self.limits = limits
        self.worker = Worker(vocoder, limits)
        self.answers: Counter[int] = Counter()
        self.streams = 0

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
            raise Refused(400, "body", "empty body; expected a mel (.npy) or an audio file")
        return content

    def wish(self, request: Request) -> Wish:
        """Returns what the query asks.

        Raises:
            Refused: an unknown parameter or value.
        """
        query = dict(request.query_params)
        seed, kind, stream = query.pop("seed", "0"), query.pop("format", "wav"), query.pop("stream", "false")
        known = self.vocoder.model.labels
        for name, value in query.items():
            if name not in known:
                raise Refused(
                    400,
                    "query",
                    f"parameter {name!r} is unknown; expected seed, format, stream or {[*known]}",
                )
            if value and value not in known[name]:
                raise Refused(
                    400, "query", f"{name} {value!r} is unknown; choose one of {', '.join(known[name])}"
                )
        if not seed.isascii() or not seed.isdigit() or int(seed) >= 2**64:
            raise Refused(400, "query", f"seed: got {seed!r}, expected a whole number from 0 to 2^64 - 1")
        if kind not in FORMATS or stream not in ("true", "false") or (stream == "true" and kind == "flac"):
            raise Refused(
                400,
                "query",
                f"format {kind!r}, stream {stream!r}: expected wav, flac or pcm; true or false, no flac stream",
            )
        return Wish(int(seed), {name: query.get(name, "") for name in known}, kind, stream == "true")

    def job(self, content: bytes, suffix: str, wish: Wish, deadline: float) -> Job:
        """Returns the job of a body.

        Raises:
            InputError: a body that cannot be read or breaks the contract of the mel.
            Refused: longer than a request may be, or audio of several channels.
        """
        with NamedTemporaryFile(suffix=suffix) as file:
            Path(file.name).write_bytes(content)
            try:
                source = read_source(self.vocoder, Path(file.name))
            except InputError as error:
                raise InputError(str(error).replace(file.name, "the body")) from None
        if source.mel.shape[0] != 1:
            raise Refused(422, "mel", f"{source.mel.shape[0]} channels or items, expected 1")
        log_mel = self.vocoder.log_mel
        length = log_mel.samples(source.mel.shape[2]) if source.lengths is None else source.lengths[0]
        seconds = length / self.vocoder.sample_rate
        if seconds > self.limits.request_seconds:
            raise Refused(
                413, "mel", f"{seconds:.1f} s of audio, at most {self.limits.request_seconds:g} are made"
            )
        return Job(source.mel[0], length, wish.labels, wish.seed, deadline)

    async def whole(self, request: Request, job: Job, wish: Wish) -> Response:
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
        content = await run_in_threadpool(_encode, waveform, self.vocoder.sample_rate, wish.format)
        return Response(content, media_type=FORMATS[wish.format])

    async def stream(self, job: Job, wish: Wish) -> Response:
        """Returns the audio piece by piece; the first piece is made before the answer begins.

        Raises:
            Refused: as many streams as may run do so.
            InputError: a model that cannot stream.
        """
        if self.streams >= self.limits.streams:
            raise Refused(429, "queue", f"{self.limits.streams} streams run already; try again later")
        self.streams += 1
        pieces = _Pieces(self.worker, job)
        try:
            first = await run_in_threadpool(pieces.next)
        except BaseException:
            self.streams -= 1
            raise
        head = _endless_wav(self.vocoder.sample_rate) if wish.format == "wav" else b""
        return StreamingResponse(self._send(pieces, head, first), media_type=FORMATS[wish.format])

    async def _send(self, pieces: _Pieces, head: bytes, piece: Tensor | None) -> AsyncIterator[bytes]:
        try:
            yield head
            while piece is not None:
                yield _pcm(piece)
                piece = await run_in_threadpool(pieces.next)
        finally:
            self.streams -= 1
            pieces.close()


class _Pieces:
    """The pieces of one stream; the model is taken for one piece at a time, so that others get their turns."""

    def __init__(self, worker: Worker, job: Job) -> None:
        vocoder = worker.vocoder
        frames = max(1, round(_CHUNK_SECONDS * vocoder.sample_rate / vocoder.log_mel.hop_length))
        self._lock = worker.model_lock
        self._left = job.length
        labels = {name: [value] for name, value in job.labels.items()}
        chunks = job.mel.split(frames, dim=1)
        self._pieces: Iterator[Tensor] = vocoder.stream(chunks, labels, job.seed, mel_iterations=0)

    def next(self) -> Tensor | None:
        """Returns the next piece, None at the end."""
        with self._lock, torch.inference_mode():
            piece = next(self._pieces, None)
        if piece is None or self._left <= 0:
            return None
        piece = piece[: self._left]
        self._left -= piece.shape[0]
        return piece

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


def create_app(vocoder: Vocoder, limits: Limits | None = None) -> FastAPI:
    """Returns the application that serves a vocoder."""
    server = Server(vocoder, Limits() if limits is None else limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.worker.start()
        yield
        await run_in_threadpool(server.worker.stop)

    app = FastAPI(title="audiodiff", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    _answer_errors(app)

    @app.middleware("http")
    async def count(request: Request, call_next: Any) -> Response:
        answer: Response = await call_next(request)
        server.answers[answer.status_code] += 1
        return answer

    @app.post("/v1/vocode")
    async def vocode(request: Request) -> Response:
        deadline = monotonic() + server.limits.timeout_seconds
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind not in CONTENT_TYPES:
            raise Refused(
                415, "content-type", f"got {kind or 'none'}; expected one of {', '.join(CONTENT_TYPES)}"
            )
        wish = server.wish(request)
        content = await server.body(request)
        job = await run_in_threadpool(server.job, content, CONTENT_TYPES[kind], wish, deadline)
        return await (server.stream(job, wish) if wish.stream else server.whole(request, job, wish))

    @app.get("/health")
    async def health() -> Response:
        facts = {
            "status": "ok" if server.worker.alive else "down",
            "experiment": vocoder.model.recipe.get("experiment"),
            "sample_rate": vocoder.sample_rate,
            "mel": vocoder.log_mel.definition(),
            "labels": {name: list(values) for name, values in vocoder.model.labels.items()},
            "waiting": server.worker.waiting,
        }
        return JSONResponse(facts, 200 if server.worker.alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(_metrics(server), media_type="text/plain; version=0.0.4")

    return app


def _answer_errors(app: FastAPI) -> None:
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
        return answer(422, "mel", str(error))

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


def _metrics(server: Server) -> str:
    counts = server.worker.counts
    numbers = {
        "audiodiff_queue_depth": server.worker.waiting,
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
