"""A real server over real HTTP: right audio, several at a time, and no client that can bring it down."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
import torch

from audiodiff.synthesis.vocoder import Vocoder
from tests.tiny import random_model, recipe_from, save_random_model

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

POST = (
    b"POST /v1/vocode HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\n"  # and how long the body is
)
NPY = {"Content-Type": "application/x-npy"}
RECIPE = (
    "experiment=mini",
    "size=tiny",
    "features=mel_8k40",
    "conditioner=mel_and_labels",
    "mel_iterations=0",
)


@dataclass
class Server:
    """A running `audiodiff serve`."""

    process: subprocess.Popen[str]
    host: str
    port: int
    model: Path

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def vocode(self, mel: np.ndarray, query: str = "") -> tuple[int, dict[str, str], bytes]:
        return self.ask("POST", f"/v1/vocode{query}", npy(mel), NPY)

    def metrics(self) -> dict[str, float]:
        lines = self.ask("GET", "/metrics")[2].decode().splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines)}

    def metric(self, name: str) -> float:
        return self.metrics()[name]

    def memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def running(model: Path, *options: str) -> Iterator[Server]:
    code = "from audiodiff.cli.app import main; main()"
    command = [sys.executable, "-c", code, "serve", str(model), "--port", "0", "--steps", "2", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().strip())
        assert address.hostname is not None
        assert address.port is not None
        server = Server(process, address.hostname, address.port, model)
        for _ in range(600):
            try:
                if server.ask("GET", "/health")[0] == 200:
                    break
            except OSError:
                time.sleep(0.05)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) in (0, 128 + signal.SIGINT), "the server did not end in good order"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, recipe = tmp_path_factory.mktemp("model") / "model", recipe_from(*RECIPE)
    model = random_model(recipe)
    with torch.no_grad():  # a sampler amplifies what random weights say: keep it off full scale
        model.representation.std.mul_(0.01)
    model.save(folder, recipe, {"updates": 0}, "# test\n")
    return folder


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    yield from running(model, "--body-megabytes", "4", "--timeout", "20")


@pytest.fixture(scope="module")
def mel(model: Path) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(1, 8000, generator=generator)
    return Vocoder.load(model).log_mel(noise)[0].numpy()


def sent_megabytes(client: socket.socket, megabytes: int) -> int:
    """Sends chunks of a mebibyte until the server ends the connection, and returns how many it took."""
    piece = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    for number in range(megabytes):
        try:
            client.sendall(piece)
        except OSError:
            return number
    return megabytes


def heard(content: bytes) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(content), dtype="float32")


def alone(server: Server, mel: np.ndarray, seed: int, sound: str = "") -> np.ndarray:
    from audiodiff.synthesis.sampling import SamplerChoice

    vocoder = Vocoder.load(server.model, choice=SamplerChoice(steps=2))
    return vocoder(mel, labels={"sound": [sound]}, seed=seed)[0].numpy()


def test_a_mel_comes_back_as_the_audio_of_the_model(server: Server, mel: np.ndarray) -> None:
    status, headers, content = server.vocode(mel, "?seed=7&sound=a")
    assert (status, headers["content-type"]) == (200, "audio/wav")
    waveform, rate = heard(content)
    assert rate == 8000
    expected = alone(server, mel, 7, "a")
    assert np.abs(waveform - expected).max() < 1e-4  # 16 bits
    assert 0.05 < np.abs(expected).max() < 0.99


def test_audio_comes_back_resynthesized_at_its_length_and_as_flac(server: Server) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 16001), 16000, format="WAV")  # resampled
    body, headers = file.getvalue(), {"Content-Type": "audio/wav"}
    status, answered, content = server.ask("POST", "/v1/vocode?format=flac", body, headers)
    assert (status, answered["content-type"]) == (200, "audio/flac"), content
    waveform, rate = heard(content)
    assert (rate, len(waveform)) == (8000, 8001)


def test_a_stream_is_the_whole_audio_in_pieces(server: Server, mel: np.ndarray) -> None:
    long = np.concatenate([mel] * 4, axis=1)
    whole = heard(server.vocode(long, "?seed=3")[2])[0]
    status, headers, content = server.vocode(long, "?seed=3&stream=true&format=pcm")
    assert (status, headers.get("transfer-encoding")) == (200, "chunked"), content[:300]
    pieces = np.frombuffer(content, "<i2") / 32767
    assert len(pieces) == len(whole)
    assert np.abs(pieces - whole).max() < 2e-4
    status, _, content = server.vocode(long, "?seed=3&stream=true")
    assert content[:4] == b"RIFF"
    assert np.abs(np.frombuffer(content[44:], "<i2") / 32767 - whole).max() < 2e-4


def test_requests_at_the_same_time_are_vocoded_together_and_each_sounds_as_alone(
    server: Server, mel: np.ndarray
) -> None:
    batches, items = server.metric("audiodiff_batches_total"), server.metric("audiodiff_vocoded_total")
    asked = [(seed, mel[:, : 60 + 10 * seed]) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda pair: server.vocode(pair[1], f"?seed={pair[0]}"), asked))
    for (seed, part), (status, _, content) in zip(asked, answers, strict=True):
        assert status == 200
        assert np.abs(heard(content)[0] - alone(server, part, seed)).max() < 2e-4
    assert server.metric("audiodiff_vocoded_total") - items == 6
    assert server.metric("audiodiff_batches_total") - batches < 6


@pytest.mark.parametrize(
    ("query", "headers", "body", "status", "says"),
    [
        ("", {"Content-Type": "text/plain"}, b"x", 415, "application/x-npy"),
        ("", {}, b"x", 415, "content-type"),
        ("", NPY, b"", 400, "empty body"),
        ("", NPY, b"no numpy file", 422, "cannot be read as a mel"),
        ("", {"Content-Type": "audio/wav"}, b"RIFF no wave", 422, "the body"),
        ("", NPY, npy(np.zeros((40, 0), np.float32)), 422, "mel"),
        ("", NPY, npy(np.zeros((80, 9), np.float32)), 422, "40"),
        ("", NPY, npy(np.full((40, 9), np.nan, np.float32)), 422, "finite"),
        ("", NPY, npy(np.full((40, 9), 50, np.float32)), 422, "mel"),
        ("", NPY, npy(np.array([{"code": 1}], dtype=object)), 422, "pickle"),
        ("?seed=-1", NPY, npy(np.zeros((40, 9), np.float32)), 400, "seed"),
        ("?seed=99999999999999999999999", NPY, b"x", 400, "seed"),
        ("?steps=3", NPY, b"x", 400, "unknown"),
        ("?sound=zebra", NPY, b"x", 400, "pluck_low"),
        ("?format=mp3", NPY, b"x", 400, "flac"),
    ],
)
def test_a_mistake_is_answered_with_its_name_and_the_server_lives(
    server: Server, query: str, headers: dict[str, str], body: bytes, status: int, says: str
) -> None:
    got, answered, content = server.ask("POST", "/v1/vocode" + query, body, headers)
    told = json.loads(content)["error"]
    assert got == status
    assert answered["content-type"] == "application/json"
    assert says in told["message"] or says in told["type"]
    assert server.ask("GET", "/health")[0] == 200


def test_unknown_routes_and_methods_are_answered_in_json(server: Server) -> None:
    assert server.ask("GET", "/nothing")[0] == 404
    status, _, content = server.ask("GET", "/v1/vocode")
    assert (status, json.loads(content)["error"]["type"]) == (405, "route")


def test_a_body_of_a_gigabyte_is_refused_before_it_is_read(server: Server) -> None:
    with socket.create_connection((server.host, server.port), timeout=30) as client:
        client.sendall(POST + b"Content-Length: 1000000000\r\n\r\n")
        assert b" 413 " in client.recv(200)
    before = server.memory()
    with socket.create_connection((server.host, server.port), timeout=30) as client:
        # The same without telling how long it is.
        client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        assert sent_megabytes(client, 1000) < 100
    assert server.memory() - before < 50e6
    assert server.ask("GET", "/health")[0] == 200


def test_clients_that_hang_up_half_way_cost_nothing_lasting(server: Server, mel: np.ndarray) -> None:
    long = np.concatenate([mel] * 8, axis=1)
    body = npy(long)
    before = server.metrics()["audiodiff_requests_total"]
    for query, wait in (("", 0.0), ("?stream=true", 0.3), ("?stream=true&format=pcm", 0.0)):
        for _ in range(4):
            with socket.create_connection((server.host, server.port), timeout=30) as client:
                head = f"POST /v1/vocode{query} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\n"
                client.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
                time.sleep(wait)
    with socket.create_connection((server.host, server.port), timeout=30) as client:
        client.sendall(b"POST /v1/vocode HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")  # and no more
    deadline, asked = time.monotonic() + 60, 1

    def gone(now: dict[str, float]) -> bool:
        """Whether all twelve have come and ended (a request may come long after its client went), and nothing waits."""
        came = now["audiodiff_requests_total"] - before - asked
        return (came, now["audiodiff_requests_running"], now["audiodiff_queue_depth"]) == (12, 1, 0)

    while not gone(now := server.metrics()) and time.monotonic() < deadline:
        asked += 1
        time.sleep(0.2)
    assert gone(now), now
    assert now["audiodiff_streams"] == 0
    assert server.vocode(mel)[0] == 200


@pytest.mark.parametrize("heard", [0, 1, 2, 3, None], ids=lambda heard: f"after {heard}")
def test_a_stream_ends_with_its_client_whenever_that_hangs_up(
    model: Path, mel: np.ndarray, heard: int | None
) -> None:
    """`heard`: messages of the answer that come first: its head, the WAV head, pieces; None for all of them."""
    from audiodiff.serving.app import create_app
    from audiodiff.synthesis.sampling import SamplerChoice

    app = create_app(Vocoder.load(model, choice=SamplerChoice(steps=2)))
    sent: list[dict[str, Any]] = []

    async def client() -> None:
        gone = asyncio.Event()
        if heard == 0:
            gone.set()
        body = iter([npy(np.concatenate([mel] * 4, axis=1))])

        async def receive() -> dict[str, Any]:
            for content in body:
                return {"type": "http.request", "body": content, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)
            if len(sent) == heard or (heard is None and not message.get("more_body", True)):
                gone.set()

        scope = {
            "type": "http", "asgi": {"spec_version": "2.3"}, "method": "POST", "path": "/v1/vocode",
            "query_string": b"stream=true", "headers": [(b"content-type", b"application/x-npy")],
        }  # fmt: skip
        await asyncio.wait_for(app(scope, receive, send), 60)

    asyncio.run(client())
    server = app.state.server
    assert (server.streams, server.running, server.requests) == (0, 0, 1)
    assert server.answers == {499 if heard == 0 else 200: 1}  # before it began, nothing is made
    seconds = sum(len(message.get("body", b"")) for message in sent) / 2 / 8000
    if heard is None:
        assert seconds == pytest.approx(4 * 126 * 64 / 8000, abs=0.1)
    else:
        assert seconds < 2


def test_under_load_what_the_queue_cannot_hold_is_answered_429_and_memory_comes_back(
    model: Path, mel: np.ndarray
) -> None:
    with contextlib.contextmanager(running)(model, "--queue", "2", "--batch", "1") as server:
        assert server.vocode(mel)[0] == 200
        before = server.memory()
        long = np.concatenate([mel] * 20, axis=1)
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda seed: server.vocode(long, f"?seed={seed}"), range(24)))
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {200, 429}
        busy = next(answer for answer in answers if answer[0] == 429)
        assert busy[1]["retry-after"] == "1"
        assert "2 requests wait" in json.loads(busy[2])["error"]["message"]
        assert server.vocode(mel)[0] == 200
        assert server.memory() - before < 150e6
        answered = server.ask("GET", "/metrics")[2].decode()
        assert f'audiodiff_answers_total{{status="429"}} {statuses.count(429)}' in answered


def test_a_request_that_takes_too_long_is_answered_504_and_not_made(model: Path, mel: np.ndarray) -> None:
    with contextlib.contextmanager(running)(model, "--timeout", "0.3", "--batch", "1") as server:
        server.vocode(mel[:, :5])
        long = np.concatenate([mel] * 100, axis=1)
        with ThreadPoolExecutor(4) as pool:
            answers = [status for status, _, _ in pool.map(server.vocode, [long] * 4)]
        assert 504 in answers
        assert set(answers) <= {200, 504}
        with socket.create_connection((server.host, server.port), timeout=30) as client:
            client.sendall(POST + b"Content-Length: 99\r\n\r\nabc")
            assert b" 408 " in client.recv(200)
        assert server.ask("GET", "/health")[0] == 200


def test_a_taken_port_or_a_model_without_mel_is_one_line(model: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from audiodiff.cli.app import app
    from audiodiff.errors import InputError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(InputError, match="in use"):
            CliRunner().invoke(app, ["serve", str(model), "--port", port], catch_exceptions=False)
    other = save_random_model(tmp_path / "digits", "experiment=mini", "size=tiny")
    with pytest.raises(InputError, match="not conditioned on a mel"):
        CliRunner().invoke(app, ["serve", str(other)], catch_exceptions=False)
