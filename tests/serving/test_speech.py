"""Speech over real HTTP: the fields of OpenAI's route, sentence by sentence or whole, and mistakes answered by name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import audiodiff
from tests.serving.test_server import Server, heard, npy, running
from tests.tiny_text import saved, text_recipe

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

JSON = {"Content-Type": "application/json"}
TEXT = "Good morning. It is 9:05 already!"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model") / "model", text_recipe("speakers"))


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    yield from running(model, "--characters", "200", "--body-megabytes", "1", "--timeout", "20")


def ask(server: Server, **fields: Any) -> tuple[int, dict[str, str], bytes]:
    return server.ask("POST", "/v1/audio/speech", json.dumps(fields).encode(), JSON)


def expected(model: Path, text: str, **manner: Any) -> np.ndarray:
    return audiodiff.TextToSpeech.load(model)(text, **manner).waveform.numpy()


def test_a_text_comes_back_as_the_models_speech(server: Server, model: Path) -> None:
    status, headers, content = ask(
        server, model="tts-1", input=TEXT, voice="bob", response_format="wav", speed=1.25, seed=7
    )
    assert (status, headers["content-type"]) == (200, "audio/wav"), content
    waveform, rate = heard(content)
    assert rate == 8000
    wanted = expected(model, TEXT, seed=7, speaker="bob", speed=1.25)
    assert len(waveform) == len(wanted)
    assert np.abs(waveform - wanted).max() < 1e-4  # 16 bits


def test_a_stream_is_the_whole_speech_in_pieces(server: Server, model: Path) -> None:
    status, headers, content = ask(server, input=TEXT, response_format="pcm", stream=True, seed=2)
    assert (status, headers.get("transfer-encoding")) == (200, "chunked"), content
    pieces = np.frombuffer(content, "<i2") / 32767
    wanted = expected(model, TEXT, seed=2)
    assert len(pieces) == len(wanted)
    assert np.abs(pieces - wanted).max() < 2e-4
    assert ask(server, input="Hello.", stream=True)[2][:4] == b"RIFF"


def test_texts_at_the_same_time_sound_as_alone_and_other_formats_come(server: Server, model: Path) -> None:
    items = server.metric("audiodiff_vocoded_total")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda seed: ask(server, input="Hello.", seed=seed), range(4)))
    for seed, (status, _, content) in enumerate(answers):
        assert status == 200
        assert np.abs(heard(content)[0] - expected(model, "Hello.", seed=seed)).max() < 1e-4
    assert server.metric("audiodiff_vocoded_total") - items == 4
    status, headers, content = ask(server, input="Hello.", response_format="flac")
    assert (status, headers["content-type"], content[:4]) == (200, "audio/flac", b"fLaC")


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({}, 400, "input: is missing"),
        ({"input": ""}, 422, "is empty"),
        ({"input": "😀"}, 422, "GRINNING FACE"),
        ({"input": "Привет"}, 422, "can say nothing"),
        ({"input": "<speak>Hi</speak>"}, 422, "markup"),
        ({"input": "a\x00b"}, 422, "U+0000"),
        ({"input": "\ud83d"}, 422, "no text"),
        ({"input": "a" * 201}, 413, "201 characters, at most 200"),
        ({"input": 5}, 400, "got '5', expected text"),
        ({"input": "Hi", "voice": "alloy"}, 400, "anna, bob"),
        ({"input": "Hi", "speed": 0}, 400, "speed"),
        ({"input": "Hi", "speed": float("nan")}, 400, "speed"),
        ({"input": "Hi", "speed": True}, 400, "a number"),
        ({"input": "Hi", "seed": -1}, 400, "seed"),
        ({"input": "Hi", "stream": "yes"}, 400, "true or false"),
        ({"input": "Hi", "response_format": "mp3"}, 400, "wav, flac or pcm"),
        ({"input": "Hi", "response_format": "flac", "stream": True}, 400, "flac not as a stream"),
        ({"input": "<b>Hi</b>", "stream": True}, 422, "markup"),
        ({"input": "Hi", "pitch": 2}, 400, "'pitch' is unknown"),
    ],
)
def test_a_mistake_is_answered_with_its_name(
    server: Server, fields: dict[str, Any], status: int, says: str
) -> None:
    got, headers, content = ask(server, **fields)
    told = json.loads(content)["error"]
    assert got == status, told
    assert headers["content-type"] == "application/json"
    assert says in f"{told['type']}: {told['message']}"
    assert server.ask("GET", "/health")[0] == 200


def test_what_is_no_json_and_what_is_no_route_is_refused(server: Server) -> None:
    for body, headers, status in (
        (b"{no", JSON, 400), (b"[1]", JSON, 400), (b"\xff", JSON, 400), (b"[" * 100_000, JSON, 400), (b"", JSON, 400),
        (b"input=Hi", {"Content-Type": "text/plain"}, 415), (b" " * 1_000_001, JSON, 413),
    ):  # fmt: skip
        got, _, content = server.ask("POST", "/v1/audio/speech", body, headers)
        assert (got, "message" in json.loads(content)["error"]) == (status, True), content
    mel = npy(np.zeros((6, 9), np.float32))
    assert server.ask("POST", "/v1/vocode", mel, {"Content-Type": "application/x-npy"})[0] == 404
    health = json.loads(server.ask("GET", "/health")[2])
    assert health["voices"] == ["anna", "bob"]
    assert health["text"] == {"language": "en", "kind": "graphemes"}


def test_what_the_queue_cannot_hold_is_answered_429_and_what_is_late_504(model: Path) -> None:
    long = "One more sentence of this text. " * 60
    options = ("--queue", "1", "--timeout", "0.5", "--characters", "5000")
    with contextlib.contextmanager(running)(model, *options) as server:
        with ThreadPoolExecutor(6) as pool:
            statuses = {answer[0] for answer in pool.map(lambda _: ask(server, input=long), range(6))}
        assert 429 in statuses
        assert statuses <= {200, 429, 504}
        assert server.ask("GET", "/health")[0] == 200
