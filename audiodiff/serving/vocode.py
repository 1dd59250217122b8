"""POST /v1/vocode: a mel (.npy) or an audio file in, audio out; requests that wait are vocoded as one padded batch.

Each has its own seed, so that it sounds as it does alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import monotonic

import torch
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from torch import Tensor

from audiodiff.errors import InputError
from audiodiff.interval import choices
from audiodiff.serving.server import FORMATS, Refused, Server, content_type
from audiodiff.serving.worker import Job, Limits
from audiodiff.synthesis.resynthesis import read_source
from audiodiff.synthesis.vocoder import Vocoder

CONTENT_TYPES = {
    "application/x-npy": ".npy", "application/octet-stream": ".npy", "audio/wav": ".wav", "audio/x-wav": ".wav",
    "audio/wave": ".wav", "audio/flac": ".flac", "audio/x-flac": ".flac", "audio/ogg": ".ogg", "audio/mpeg": ".mp3",
}  # fmt: skip
"""What a body may be, and the suffix that says the same."""

_CHUNK_SECONDS = 1.0  # of mel given to a stream at a time


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


@dataclass(frozen=True, kw_only=True)
class MelJob(Job):
    """One mel to vocode.

    Attributes:
        mel: [n_mels, F], checked.
        length: samples wanted.
        labels: label name -> value.
        seed: of the noise.
    """

    mel: Tensor
    length: int
    labels: Mapping[str, str]
    seed: int


class Vocoding:
    """The engine of mels."""

    def __init__(self, vocoder: Vocoder) -> None:
        self.vocoder = vocoder

    @property
    def sample_rate(self) -> int:
        """Of the audio, hertz."""
        return self.vocoder.sample_rate

    def together(self, jobs: Sequence[MelJob], limits: Limits) -> bool:
        """Returns whether a padded batch of these is short enough, and all name the same labels."""
        seconds = len(jobs) * max(job.length for job in jobs) / self.sample_rate
        return seconds <= limits.batch_seconds and len({frozenset(job.labels) for job in jobs}) == 1

    def run(self, jobs: Sequence[MelJob]) -> list[Tensor]:
        """Returns the waveform [T] of each mel."""
        longest = max(job.mel.shape[1] for job in jobs)
        mel = torch.stack(
            [torch.cat([job.mel, job.mel[:, -1:].expand(-1, longest - job.mel.shape[1])], 1) for job in jobs]
        )
        labels = {name: [job.labels[name] for job in jobs] for name in jobs[0].labels}
        lengths = [job.length for job in jobs]
        waveforms = self.vocoder(mel, lengths, labels, [job.seed for job in jobs])
        return [waveform[:length].cpu() for waveform, length in zip(waveforms, lengths, strict=True)]

    def stream(self, job: MelJob) -> Iterator[Tensor]:
        """Yields the waveform [T] of a mel piece by piece.

        Raises:
            InputError: a model that cannot stream.
        """
        frames = max(1, round(_CHUNK_SECONDS * self.sample_rate / self.vocoder.log_mel.hop_length))
        labels = {name: [value] for name, value in job.labels.items()}
        left = job.length
        for piece in self.vocoder.stream(job.mel.split(frames, dim=1), labels, job.seed, mel_iterations=0):
            if left <= 0:
                return
            yield piece[:left]
            left -= piece.shape[0]

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
                raise Refused(400, "query", f"{name} {value!r} is unknown; choose {choices(known[name])}")
        if not seed.isascii() or not seed.isdigit() or int(seed) >= 2**64:
            raise Refused(400, "query", f"seed: got {seed!r}, expected a whole number from 0 to 2^64 - 1")
        if kind not in FORMATS or stream not in ("true", "false") or (stream == "true" and kind == "flac"):
            raise Refused(
                400,
                "query",
                f"format {kind!r}, stream {stream!r}: expected wav, flac or pcm; true or false, no flac stream",
            )
        return Wish(int(seed), {name: query.get(name, "") for name in known}, kind, stream == "true")

    def job(self, content: bytes, suffix: str, wish: Wish, deadline: float, limits: Limits) -> MelJob:
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
        if seconds > limits.request_seconds:
            raise Refused(
                413, "mel", f"{seconds:.1f} s of audio, at most {limits.request_seconds:g} are made"
            )
        return MelJob(deadline=deadline, mel=source.mel[0], length=length, labels=wish.labels, seed=wish.seed)


def add_vocoding(app: FastAPI, server: Server, engine: Vocoding) -> None:
    """Adds the route."""

    @app.post("/v1/vocode")
    async def vocode(request: Request) -> Response:
        deadline = monotonic() + server.limits.timeout_seconds
        kind = content_type(request, CONTENT_TYPES)
        wish = engine.wish(request)
        content = await server.body(request)
        job = await run_in_threadpool(engine.job, content, CONTENT_TYPES[kind], wish, deadline, server.limits)
        return await server.audio(request, job, wish.format, wish.stream)
