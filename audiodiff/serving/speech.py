"""POST /v1/audio/speech: text in, audio out, with the fields of OpenAI's route of this name.

{"input": "Hello.", "voice": "anna", "response_format": "wav", "speed": 1.0, "seed": 0, "stream": false}

`model` is accepted and not looked at, since a server has one. `seed` and `stream` are this package's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from torch import Tensor

from audiodiff.errors import InputError
from audiodiff.serving.server import FORMATS, Refused, Server, content_type
from audiodiff.serving.worker import Job, Limits
from audiodiff.synthesis.speech import Manner
from audiodiff.synthesis.text_to_speech import TextToSpeech

_FIELDS: dict[str, tuple[tuple[type, ...], str, Any]] = {
    "model": ((str,), "text", ""),
    "input": ((str,), "text", None),
    "voice": ((str, type(None)), "text", None),
    "response_format": ((str,), "text", "wav"),
    "speed": ((int, float), "a number", 1.0),
    "seed": ((int,), "a whole number", 0),
    "stream": ((bool,), "true or false", False),
}
"""What a request may hold: types, their name, what holds without; None for what must be there or may be null."""

_ONE_VOICE = "default"


@dataclass(frozen=True)
class SpeechWish:
    """What a request asks.

    Attributes:
        text: to speak.
        manner: how.
        format: wav, flac or pcm (16 bit, little endian, mono).
        stream: whether the audio is sent while it is made, sentence by sentence.
    """

    text: str
    manner: Manner
    format: str
    stream: bool


@dataclass(frozen=True, kw_only=True)
class SpeechJob(Job):
    """One text to speak.

    Attributes:
        text: as it is written.
        manner: how it is spoken.
    """

    text: str
    manner: Manner


class Speaking:
    """The engine of texts, one at a time: the sentences of each are a batch already."""

    def __init__(self, tts: TextToSpeech) -> None:
        self.tts = tts

    @property
    def sample_rate(self) -> int:
        """Of the audio, hertz."""
        return self.tts.sample_rate

    def together(self, jobs: Sequence[SpeechJob], limits: Limits) -> bool:
        """Returns whether there is one."""
        return len(jobs) == 1

    def run(self, jobs: Sequence[SpeechJob]) -> list[Tensor]:
        """Returns the waveform [T] of each text."""
        return [next(self.tts.many([job.text], job.manner)).waveform for job in jobs]

    def stream(self, job: SpeechJob) -> Iterator[Tensor]:
        """Yields the waveform [T] of a text sentence by sentence."""
        return self.tts.stream(job.text, job.manner)

    def wish(self, content: bytes, limits: Limits) -> SpeechWish:
        """Returns what a body asks.

        Raises:
            Refused: no JSON object, an unknown or missing field, or a value that is not possible.
        """
        fields = _fields(content)
        text, voice, kind = fields["input"], fields["voice"], fields["response_format"]
        if len(text) > limits.characters:
            raise Refused(
                413,
                "input",
                f"text of {len(text)} characters, at most {limits.characters} are spoken at once",
            )
        if kind not in FORMATS or (fields["stream"] and kind == "flac"):
            raise Refused(
                400, "response_format", f"got {kind!r}, expected wav, flac or pcm, and flac not as a stream"
            )
        known = self.tts.speakers or (_ONE_VOICE,)
        if voice and voice not in known:
            raise Refused(400, "voice", f"{voice!r} is unknown; choose one of {', '.join(known)}")
        try:
            manner = Manner(fields["seed"], voice if self.tts.speakers else None, fields["speed"])
        except InputError as error:
            raise Refused(400, "body", str(error)) from None
        return SpeechWish(text, manner, kind, fields["stream"])


def _fields(content: bytes) -> dict[str, Any]:
    """Returns the fields of a body, completed.

    Raises:
        Refused: no JSON object, an unknown or missing field, or one of another type.
    """
    try:
        given = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "body", f"no JSON ({type(error).__name__}: {str(error)[:80]})") from None
    if not isinstance(given, dict):
        raise Refused(400, "body", f"got JSON of {type(given).__name__}, expected an object with `input`")
    unknown = sorted(set(given) - set(_FIELDS))
    if unknown:
        raise Refused(400, "body", f"field {unknown[0][:40]!r} is unknown; expected {', '.join(_FIELDS)}")
    for name, (types, expected, _) in _FIELDS.items():
        value = given.get(name)
        if name == "input" and value is None:
            raise Refused(400, "input", "is missing, expected the text to speak")
        # To Python true is a whole number.
        if name in given and (
            not isinstance(value, types) or (isinstance(value, bool) and bool not in types)
        ):
            raise Refused(400, name, f"got {str(value)[:40]!r}, expected {expected}")
    return {name: given.get(name, default) for name, (_, _, default) in _FIELDS.items()}


def add_speech(app: FastAPI, server: Server, engine: Speaking) -> None:
    """Adds the route."""

    @app.post("/v1/audio/speech")
    async def speech(request: Request) -> Response:
        deadline = monotonic() + server.limits.timeout_seconds
        content_type(request, ["application/json"])
        wish = engine.wish(await server.body(request), server.limits)
        job = SpeechJob(deadline=deadline, text=wish.text, manner=wish.manner)
        return await server.audio(request, job, wish.format, wish.stream)
