"""The HTTP face of a model: POST /v1/vocode, or /v1/audio/speech where it takes text; GET /health and /metrics."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool

from audiodiff import __version__
from audiodiff.serving.server import Counting, Server, answer_errors, metrics
from audiodiff.serving.speech import Speaking, add_speech
from audiodiff.serving.vocode import Vocoding, add_vocoding
from audiodiff.serving.worker import Limits
from audiodiff.synthesis.text_to_speech import TextToSpeech
from audiodiff.synthesis.vocoder import Vocoder


def create_app(served: Vocoder | TextToSpeech, limits: Limits | None = None) -> FastAPI:
    """Returns the application that serves a vocoder or a text model."""
    engine = Vocoding(served) if isinstance(served, Vocoder) else Speaking(served)
    server = Server(engine, Limits() if limits is None else limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.worker.start()
        yield
        await run_in_threadpool(server.worker.stop)

    app = FastAPI(title="audiodiff", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    answer_errors(app, "mel" if isinstance(engine, Vocoding) else "input")

    app.add_middleware(Counting, server=server)

    if isinstance(engine, Vocoding):
        add_vocoding(app, server, engine)
    else:
        add_speech(app, server, engine)

    @app.get("/health")
    async def health() -> Response:
        facts = {"status": "ok" if server.worker.alive else "down", "waiting": server.worker.waiting}
        return JSONResponse(facts | _facts(served), 200 if server.worker.alive else 503)

    @app.get("/metrics")
    async def numbers() -> Response:
        return PlainTextResponse(metrics(server), media_type="text/plain; version=0.0.4")

    return app


def _facts(served: Vocoder | TextToSpeech) -> dict[str, Any]:
    """Returns what a client may want to know of the model."""
    facts: dict[str, Any] = {"sample_rate": served.sample_rate}
    if isinstance(served, TextToSpeech):
        reads = {"language": served.front_end.language, "kind": served.front_end.kind}
        return facts | {"route": str(served.route), "voices": list(served.speakers), "text": reads}
    return facts | {
        "experiment": served.model.recipe.get("experiment"),
        "mel": served.log_mel.definition(),
        "labels": {name: list(values) for name, values in served.model.labels.items()},
    }
