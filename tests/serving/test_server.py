"""`asr serve` as its operator meets it: options, health, metrics, logs, TLS, and its end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal as signals
import socket
import ssl
import subprocess
import sys
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from uvicorn.server import ServerState
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from asr.bundle import Bundle
from asr.errors import UserError
from asr.serving import server as server_module
from asr.serving.command import main, parse
from asr.serving.config import BatcherConfig, ServeConfig
from asr.serving.logs import JsonLines
from asr.serving.metrics import Histogram
from asr.serving.refusal import Busy, Refusal
from asr.serving.run import AT_ONCE, Server, Tls
from asr.serving.server import Service, Session
from tests.serving.conftest import Running, pcm16, running
from tests.serving.test_native import TOKEN, client, transcribed


def metrics(server: Running) -> dict[str, float]:
    """Every sample's value, by name and labels."""
    answer = httpx.get(f"http://{server.host}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"]*"\})? \S+', line) for line in lines)
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_count_what_happens(babbler: Bundle, speech: NDArray[np.float32]) -> None:
    with running(babbler, ServeConfig(streams_per_client=1)) as server:
        with client(server) as caller:
            caller.receive()
            assert metrics(server)["asr_streams"] == 1
            assert metrics(server)['asr_sessions{protocol="native"}'] == 1
            with client(server) as other:
                assert other.until("error")["code"] == "busy"
            transcribed(caller, [pcm16(speech)])
            caller.code()
        after = metrics(server)
    assert after["asr_streams"] == after['asr_sessions{protocol="native"}'] == 0
    assert after['asr_sessions_total{protocol="native"}'] == 1
    assert after['asr_refusals_total{code="busy"}'] == 1
    assert after["asr_audio_seconds_total"] == pytest.approx(len(speech) / 16000, abs=0.01)
    assert after["asr_tick_seconds_count"] == after["asr_tick_streams_count"] > 0
    assert after['asr_lag_seconds_bucket{le="+Inf"}'] == after["asr_lag_seconds_count"] > 0


def test_a_histogram_counts_what_is_at_most_a_bound() -> None:
    histogram = Histogram("h", "", (1, 2))
    for value in (0.5, 1, 1.5, 9):
        histogram.observe(value)
    assert list(histogram.lines())[2:] == [
        'h_bucket{le="1"} 2',
        'h_bucket{le="2"} 3',
        'h_bucket{le="+Inf"} 4',
        "h_sum 12",
        "h_count 4",
    ]


def test_metrics_want_the_token_and_health_does_not(babbler: Bundle) -> None:
    with running(babbler, ServeConfig(token=TOKEN)) as server:
        assert httpx.get(f"http://{server.host}/healthz").json() == {"status": "ok", "streams": 0}
        assert httpx.get(f"http://{server.host}/metrics").status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.get(f"http://{server.host}/metrics", headers=headers).status_code == 200


def test_health_says_that_it_is_ending(babbler: Bundle) -> None:
    """While the last clients still take their words nobody new is sent to it."""
    with running(babbler) as server:
        future = server.loop.call_soon_threadsafe
        future(server.service.draining.set_result, None)
        answer = httpx.get(f"http://{server.host}/healthz")
        assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        with client(server) as caller:
            error = caller.until("error")
            assert error["code"] == "shutdown" and error["retry_after"] > 0
            assert caller.code() == 1012


def test_a_session_is_one_line_of_json_without_its_words(
    babbler: Bundle, speech: NDArray[np.float32], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asr.serving")
    with (
        running(babbler, ServeConfig(token=TOKEN)) as server,
        connect(
            f"ws://{server.host}/v1/stream", additional_headers={"Authorization": f"Bearer {TOKEN}"}
        ) as socket,
    ):
        socket.send('{"type": "start", "hotwords": ["fox"]}')
        socket.send(pcm16(speech))
        socket.send('{"type": "finish"}')
        while json.loads(socket.recv(60))["type"] != "finished":
            pass
    lines = [JsonLines().format(record) for record in caplog.records]
    session = next(line for line in map(json.loads, lines) if line["event"] == "session")
    assert session["outcome"] == "done" and session["protocol"] == "native"
    assert session["client"] == "127.0.0.1" and session["words"] > 0
    assert session["audio"] == pytest.approx(len(speech) / 16000, abs=0.01)
    assert not any(TOKEN in line or "fox" in line for line in lines)


def test_a_log_line_holds_its_traceback() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        record = logging.LogRecord("asr", 40, "", 1, "it failed", None, sys.exc_info())
    line = JsonLines().format(record)
    assert "\n" not in line and "why" in json.loads(line)["traceback"]


@pytest.mark.parametrize(
    ("code", "status", "close"), [("busy", 503, 1013), ("unauthorised", 401, 4401), ("too_large", 413, 1009)]
)
def test_a_refusal_knows_its_status_and_close_code(code: str, status: int, close: int) -> None:
    refusal = Refusal(code, "no")  # type: ignore[arg-type]
    assert (refusal.status, refusal.close_code) == (status, close)


def test_a_session_counts_even_if_it_never_opens_a_stream(babbler: Bundle) -> None:
    async def test() -> None:
        async with Service(babbler, ServeConfig(streams_per_client=2)) as service:
            async with service.admit("a", "test"), service.admit("a", "test"), service.admit("b", "test"):
                with pytest.raises(Busy):
                    async with service.admit("a", "test"):
                        raise AssertionError
            async with service.admit("a", "test"):
                assert len(service.sessions) == 1

    asyncio.run(test())


def test_opening_another_stream_closes_the_one_before(babbler: Bundle) -> None:
    async def test() -> None:
        config = ServeConfig(batcher=BatcherConfig(max_streams=1))
        async with Service(babbler, config) as service:
            async with service.admit("a", "test") as session:
                first = session.open()
                second = session.open()
                assert service.batcher.streams == {second} and first is not second
            assert not service.batcher.streams

    asyncio.run(test())


def test_a_flood_of_messages_is_slowed_down_and_a_burst_is_not(
    babbler: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than so many a second would take everybody's time."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def message() -> int:
        return 1

    async def test() -> None:
        async with Service(babbler, ServeConfig()) as service, service.admit("a", "test") as session:
            monkeypatch.setattr(server_module.time, "monotonic", lambda: 100.0)
            monkeypatch.setattr(server_module.asyncio, "sleep", sleep)
            for _ in range(server_module.BURST):
                assert await session.wait(message()) == 1
            assert not slept
            for _ in range(3):
                await session.wait(message())
            monkeypatch.undo()
        assert slept == pytest.approx([n / server_module.MESSAGES for n in (1, 2, 3)])

    asyncio.run(test())


def test_no_cancellation_is_lost_while_something_is_delivered_or_awaited(babbler: Bundle) -> None:
    """Or what the client's end should end would wait for ever."""

    async def message() -> None:
        await asyncio.sleep(0)

    async def serve(session: Session) -> None:
        await session.deliver(message())
        await session.wait(message())
        await asyncio.Event().wait()

    async def test() -> None:
        async with Service(babbler, ServeConfig()) as service, service.admit("a", "test") as session:
            for turns in range(12):
                task = asyncio.create_task(serve(session))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                assert (await asyncio.wait([task], timeout=60))[0] and task.cancelled()

    asyncio.run(test())


def test_a_websocket_reads_little_at_a_time(babbler: Bundle) -> None:
    """Else a quarter of a megabyte of tiny messages is taken apart before anybody else has a turn."""
    assert _SelectorSocketTransport.max_size > AT_ONCE  # it is what asyncio goes by

    async def test() -> int:
        async with Service(babbler, ServeConfig()) as service:
            config, loop = Server(service).config, asyncio.get_running_loop()
            one, other = socket.socketpair()
            protocol = config.ws_protocol_class(  # type: ignore[misc]
                config=config, server_state=ServerState(), app_state={}, _loop=loop
            )
            transport, _ = await loop.create_connection(lambda: protocol, sock=one)
            transport.close()
            other.close()
            return transport.max_size  # type: ignore[attr-defined]

    assert asyncio.run(test()) == AT_ONCE


# The command


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--host", "0.0.0.0"], "--no-token"),
        (["--host", "::"], "--no-token"),
        (["--host", "192.168.1.5"], "give --token"),
        (["--host", "example.org"], "give --token"),
        (["--token", TOKEN, "--wyoming-port", "10300", "--wyoming-host", "0.0.0.0"], "takes no token"),
        (["--token", "short"], "8 or more"),
        (["--token", "with spaces in it"], "openssl"),
        (["--token-file", "nowhere"], "cannot be read"),
        (["--tls-cert", "cert.pem"], "--tls-key"),
        (["--model", "nowhere"], "not a model bundle"),
    ],
)
def test_what_cannot_be_served_is_told_before_it_listens(
    bundle: Path, arguments: list[str], reason: str
) -> None:
    with pytest.raises(UserError, match=re.escape(reason)) as told:
        main(["--model", str(bundle), *arguments])
    assert "\n" not in str(told.value)


def test_a_port_that_is_taken_is_told(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(UserError, match="choose another --port"):
            main(["--model", str(bundle), "--port", port])
        with pytest.raises(UserError, match="choose another --wyoming-port"):
            main(["--model", str(bundle), "--port", "0", "--wyoming-port", port])


def test_a_certificate_that_is_none_is_told(bundle: Path, tmp_path: Path) -> None:
    nonsense = tmp_path / "cert.pem"
    nonsense.write_text("nonsense")
    with pytest.raises(UserError, match="--tls-cert"):
        main(["--model", str(bundle), "--port", "0", "--tls-cert", str(nonsense), "--tls-key", str(nonsense)])


@contextmanager
def serving(bundle: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process, and where it says that it listens."""
    command = [sys.executable, "-m", "asr", "serve", "--model", str(bundle), "--port", "0", *arguments]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        assert process.stderr
        try:
            for line in process.stderr:
                if (event := json.loads(line))["event"] == "listening":
                    yield process, event["urls"][0]
                    break
        finally:
            process.kill()


@pytest.mark.parametrize("signal", [signals.SIGTERM, signals.SIGINT])
def test_a_signal_ends_it_with_everybodys_last_words(bundle: Path, signal: signals.Signals) -> None:
    with serving(bundle, "--token", TOKEN, "--vad", "off") as (process, url):
        address = url.replace("http", "ws") + "v1/stream"
        with connect(address, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as socket:
            socket.send('{"type": "start"}')
            socket.send(b"\1\2" * 16000)
            while json.loads(socket.recv(60)).get("heard", 0) < 0.5:
                pass
            process.send_signal(signal)
            messages = []
            with suppress(ConnectionClosedError):  # 1012
                while True:
                    messages.append(json.loads(socket.recv(60)))
        assert [message["type"] for message in messages][-2:] == ["finished", "error"]
        assert messages[-2]["text"]
        assert process.wait(60) == 0
        assert process.stderr
        lines = [json.loads(line) for line in process.stderr]
        assert lines[-1]["event"] == "ended"
        assert next(line for line in lines if line["event"] == "session")["outcome"] == "shutdown"


@pytest.fixture
def certificate(tmp_path: Path) -> Tls:
    tls = Tls(tmp_path / "cert.pem", tmp_path / "key.pem")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext"
    try:
        subprocess.run(
            [*command.split(), "subjectAltName=IP:127.0.0.1", "-out", tls.certificate, "-keyout", tls.key],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate with")
    return tls


def test_tls_serves_websockets_and_http(babbler: Bundle, certificate: Tls) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate.certificate))
    with running(babbler, tls=certificate) as server:
        answer = httpx.get(f"https://{server.host}/healthz", verify=trusting)
        assert answer.json()["status"] == "ok"
        with connect(f"wss://{server.host}/v1/stream", ssl=trusting) as socket:
            socket.send('{"type": "start"}')
            assert json.loads(socket.recv(60))["type"] == "ready"
            with suppress(ConnectionClosedError):
                socket.send("A" * (ServeConfig().max_message + 1))
            with pytest.raises(ConnectionClosedError) as closed:
                socket.recv(60)
            assert closed.value.rcvd and closed.value.rcvd.code == 1009


def test_without_a_model_it_is_that_of_the_package() -> None:
    assert parse([]).model == "en-small"
