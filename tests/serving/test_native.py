"""The server's own websocket, as its clients see it; every message both ways is held to the schema."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from numpy.typing import NDArray
from websockets import Subprotocol
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from asr import audio
from asr.bundle import Bundle
from asr.decoding.config import DecodingConfig
from asr.serving.config import BatcherConfig, ServeConfig
from asr.transcript import Transcript
from tests.serving.conftest import Running, alone, pcm16, running

SCHEMA = json.loads((files("asr.serving") / "native.schema.json").read_text(encoding="utf-8"))
CLIENT, SERVER = (
    Draft202012Validator({"$ref": f"#/$defs/{side}", "$defs": SCHEMA["$defs"]})
    for side in ("client", "server")
)
TOKEN = "a-secret-of-ours"


class Client:
    """Keeps what the server has said."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []

    def say(self, **message: Any) -> None:
        CLIENT.validate(message)
        with suppress(ConnectionClosed):  # who is refused may learn it before
            self.socket.send(json.dumps(message))

    def receive(self) -> dict[str, Any]:
        message = json.loads(self.socket.recv(timeout=60))
        SERVER.validate(message)
        self.heard.append(message)
        return message

    def until(self, *kinds: str) -> dict[str, Any]:
        while (message := self.receive())["type"] not in kinds:
            pass
        return message

    def code(self) -> int | None:
        """With which the server closes."""
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                self.socket.recv(timeout=60)
        return closed.value.rcvd.code if closed.value.rcvd else None

    def words(self) -> list[dict[str, Any]]:
        return [word for message in self.heard for word in message.get("words", [])]


@contextmanager
def client(server: Running, **start: Any) -> Iterator[Client]:
    with connect(f"ws://{server.host}/v1/stream", max_size=None) as socket:
        client = Client(socket)
        client.say(type="start", **start)
        yield client


def transcribed(client: Client, pieces: list[bytes]) -> dict[str, Any]:
    for piece in pieces:
        client.socket.send(piece)
    client.say(type="finish")
    return client.until("finished")


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def assert_said(client: Client, final: dict[str, Any], expected: Transcript) -> None:
    assert final["text"] == expected.text != ""
    assert [(word["text"], word["start"], word["end"]) for word in client.words()] == [
        (word.text, round(word.start, 3), round(word.end, 3)) for word in expected.words
    ]
    committed = [message["committed"] for message in client.heard if message.get("committed")]
    assert " ".join(committed) == expected.text
    endpoints = [end for message in client.heard for end in message.get("endpoints", [])]
    assert [(end["words"], end["reason"]) for end in endpoints] == [
        (end.words, end.reason) for end in expected.endpoints
    ]


@pytest.mark.parametrize("size", [1, 1001, 3200, 100000])
def test_a_recording_gives_the_words_of_the_file(
    server: Running, babbler: Bundle, speech: NDArray[np.float32], size: int
) -> None:
    """Whatever the pieces, odd numbers of bytes too."""
    speech = speech[: 1600 if size == 1 else None]
    with client(server) as caller:
        assert caller.receive()["type"] == "ready"
        final = transcribed(caller, cut(pcm16(speech), size))
        assert final["heard"] == pytest.approx(len(speech) / 16000, abs=1e-3)
        assert caller.code() == 1000
    if size > 1:
        assert_said(caller, final, alone(babbler, speech))


@pytest.mark.parametrize(("rate", "format"), [(8000, "s16le"), (48000, "f32le"), (44100, "s16le")])
def test_any_rate_and_format_gives_the_words_of_the_file(
    server: Running, babbler: Bundle, speech: NDArray[np.float32], rate: int, format: str
) -> None:
    away, back = audio.Resampler(16000, rate), audio.Resampler(rate, 16000)
    sent = np.concatenate([away.accept(speech), away.finish()])
    data = sent.astype("<f4").tobytes() if format == "f32le" else pcm16(sent.clip(-1, 1))
    if format == "s16le":
        sent = np.frombuffer(data, "<i2").astype(np.float32) / 32768
    heard = np.concatenate([back.accept(sent), back.finish()])
    with client(server, rate=rate, format=format) as caller:
        final = transcribed(caller, cut(data, 4000))
    assert_said(caller, final, alone(babbler, heard))


def test_lag_is_told_on_request(server: Running, speech: NDArray[np.float32]) -> None:
    for asked in (True, False):
        with client(server, lag=asked) as caller:
            transcribed(caller, [pcm16(speech[:16000])])
        updates = [message for message in caller.heard if message["type"] in ("update", "finished")]
        assert updates and all(("lag" in message) == asked for message in updates)


def test_it_hears_when_there_is_speech(server: Running, speech: NDArray[np.float32]) -> None:
    with client(server) as caller:
        for piece in cut(pcm16(speech[: len(speech) // 2560 * 2560]), 5120):
            caller.socket.send(piece)
            caller.until("update")  # a chunk after the other: no update is left out
        transcribed(caller, [])
    speaking = [message["speech"] for message in caller.heard if message["type"] == "update"]
    assert speaking[0] is False and True in speaking and speaking[-1] is False


def test_hotwords_are_taken_at_the_start_and_later(server: Running, speech: NDArray[np.float32]) -> None:
    with client(server, hotwords=["Fox", "lazy dog"]) as caller:
        caller.socket.send(pcm16(speech[:16000]))
        caller.say(type="hotwords", hotwords=["zebras"])
        assert transcribed(caller, [pcm16(speech[16000:])])["type"] == "finished"


def test_ready_says_what_to_expect(server: Running, babbler: Bundle) -> None:
    with client(server, rate=8000) as caller:
        ready = caller.receive()
    assert ready["rate"] == 8000 and ready["chunk_ms"] == 160
    assert ready["latency_ms"] == 160 + babbler.model.lookahead * 40


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (["nonsense"], "JSON"),
        (["[1]"], "object"),
        (["{}"], "begin with"),
        (['{"type": "finish"}'], "begin with"),
        ([b"\0" * 640], "first"),
        (['{"type": "start", "rate": "fast"}'], "whole number"),
        (['{"type": "start", "rate": true}'], "whole number"),
        (['{"type": "start", "rate": 7}'], "4000"),
        (['{"type": "start", "format": "mp3"}'], "s16le"),
        (['{"type": "start", "format": []}'], "s16le"),
        (['{"type": "start", "speed": 1}'], "speed"),
        (['{"type": "start", "hotwords": "fox"}'], "list"),
        (['{"type": "start", "hotwords": ["\u0436"]}'], "no piece"),
        (['{"type": "start", "hotwords": ["  "]}'], "empty"),
        (['{"type": "start"}', '{"type": "start"}'], "type 'start'"),
        (['{"type": "start"}', '{"type": "hotwords"}'], "list"),
        (['{"type": "start", "format": "f32le"}', np.array([np.nan], "<f4").tobytes()], "NaN"),
        (['{"type": "start", "format": "f32le"}', np.array([1e30], "<f4").tobytes()], "far outside"),
    ],
)
def test_garbage_is_told_from_audio(server: Running, messages: list[str | bytes], reason: str) -> None:
    with connect(f"ws://{server.host}/v1/stream") as socket:
        caller = Client(socket)
        for message in messages:
            socket.send(message)
        error = caller.until("error")
        assert error["code"] == "bad_message" and reason in error["message"]
        assert caller.code() == 1008


def test_a_message_that_is_too_large_ends_the_connection(babbler: Bundle) -> None:
    with running(babbler, ServeConfig(max_message=1 << 16)) as server, client(server) as caller:
        caller.receive()
        caller.socket.send(b"\0" * (1 << 17))
        assert caller.code() == 1009


def test_too_many_hotwords_are_refused(babbler: Bundle) -> None:
    phrases = ["fox", "dog", "box"]
    with running(babbler, ServeConfig(max_hotwords=2)) as server, client(server, hotwords=phrases) as caller:
        assert "2 at most" in caller.until("error")["message"]


# Who may come in


def test_without_the_token_nobody_comes_in(babbler: Bundle, speech: NDArray[np.float32]) -> None:
    with running(babbler, ServeConfig(token=TOKEN)) as server:
        url = f"ws://{server.host}/v1/stream"
        for headers in ({}, {"Authorization": "Bearer wrong-secret"}, {"Authorization": TOKEN}):
            with connect(url, additional_headers=headers) as socket:
                caller = Client(socket)
                assert caller.until("error")["code"] == "unauthorised"
                assert caller.code() == 4401
        with connect(url, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as socket:
            caller = Client(socket)
            caller.say(type="start")
            assert transcribed(caller, [pcm16(speech[:16000])])["type"] == "finished"


def test_a_browser_sends_its_token_as_a_subprotocol(babbler: Bundle) -> None:
    with running(babbler, ServeConfig(token=TOKEN)) as server:
        for secret, kind in ((TOKEN, "ready"), ("wrong-secret", "error")):
            offered = [Subprotocol("asr"), Subprotocol(f"bearer.{secret}")]
            with connect(f"ws://{server.host}/v1/stream", subprotocols=offered) as socket:
                assert socket.subprotocol == "asr"
                caller = Client(socket)
                caller.say(type="start")
                assert caller.receive()["type"] == kind


def test_without_a_token_pages_of_others_are_refused(babbler: Bundle) -> None:
    with running(babbler) as server:
        for origin, kind in (("https://evil.example", "error"), (f"http://{server.host}", "ready")):
            with connect(f"ws://{server.host}/v1/stream", additional_headers={"Origin": origin}) as socket:
                caller = Client(socket)
                caller.say(type="start")
                assert caller.receive()["type"] == kind


def test_who_comes_when_it_is_full_is_told_when_to_come_back(babbler: Bundle) -> None:
    with running(babbler, ServeConfig(batcher=BatcherConfig(max_streams=1))) as server:
        with client(server) as first:
            first.receive()
            with client(server) as second:
                error = second.until("error")
                assert error["code"] == "busy" and error["retry_after"] > 0
                assert second.code() == 1013
            assert transcribed(first, [])["text"] == ""
        with client(server) as third:
            assert third.receive()["type"] == "ready"


def test_one_address_has_so_many_streams(babbler: Bundle) -> None:
    with running(babbler, ServeConfig(streams_per_client=1)) as server, client(server) as first:
        first.receive()
        with client(server) as second:
            error = second.until("error")
        assert error["code"] == "busy" and "127.0.0.1" in error["message"]


# How long it lasts


@pytest.mark.parametrize(("config", "code"), [({"idle": 0.2}, "idle"), ({"session": 0.5}, "too_long")])
def test_a_limit_ends_a_session_with_its_words(
    babbler: Bundle, speech: NDArray[np.float32], config: dict[str, float], code: str
) -> None:
    with running(babbler, ServeConfig(**config)) as server, client(server) as caller:  # type: ignore[arg-type]
        caller.socket.send(pcm16(speech))
        final = caller.until("finished")
        heard = alone(babbler, speech[: round(16000 * final["heard"])])  # a slow machine hears less in time
        assert final["text"] == heard.text
        assert caller.receive()["code"] == code
        assert caller.code() == 1008


def test_shutting_down_lets_everybody_take_their_last_words(
    babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    """Those who speak, those who are silent, and those who come now."""
    with running(babbler) as server, client(server) as speaking, client(server) as silent:
        speaking.receive(), silent.receive()
        for piece in cut(pcm16(speech), 3200):
            speaking.socket.send(piece)
        while not speaking.receive().get("words"):
            pass
        server.stop()
        final = speaking.until("finished")
        heard = alone(babbler, speech[: round(16000 * final["heard"])])
        assert_said(speaking, final, heard)
        assert speaking.receive()["code"] == "shutdown"
        assert speaking.code() == 1012
        assert silent.until("finished")["text"] == ""
        assert silent.receive()["code"] == "shutdown"


def test_a_client_that_never_reads_does_not_hold_up_a_shutdown(
    babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    with (
        running(babbler, ServeConfig(grace=0.5)) as server,
        connect(f"ws://{server.host}/v1/stream", max_queue=1, close_timeout=0.1) as socket,
    ):
        socket.send('{"type": "start", "lag": true}')
        for piece in cut(pcm16(np.tile(speech, 3)), 5120):
            socket.send(piece)
        server.stop()  # leaving `running` asserts that it ends


def test_clients_that_vanish_leave_nothing_behind(babbler: Bundle, speech: NDArray[np.float32]) -> None:
    with running(babbler) as server:
        for _ in range(5):
            with client(server) as caller:
                caller.receive()
                caller.socket.send(pcm16(speech))
                caller.socket.socket.close()  # no goodbye
        with client(server) as caller:
            assert_said(caller, transcribed(caller, [pcm16(speech)]), alone(babbler, speech))
        server.stop()
        while server.service.sessions:
            pass
        assert not server.service.batcher.streams and not server.service._clients


def test_many_clients_at_once_get_their_own_words(
    server: Running, babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    """Each other audio, at other rates and in other pieces, beside some that send garbage and vanish."""
    sounds = [np.roll(speech, 7000 * number)[: 40000 + 9000 * number] for number in range(6)]
    failed: list[BaseException] = []

    def call(number: int) -> None:
        try:
            with client(server) as caller:
                final = transcribed(caller, cut(pcm16(sounds[number]), 700 + 501 * number))
            assert_said(caller, final, alone(babbler, sounds[number]))
        except BaseException as error:
            failed.append(error)

    def disturb(number: int) -> None:
        with connect(f"ws://{server.host}/v1/stream") as socket:
            socket.send('{"type": "start"}')
            for piece in (b"\1", b"x" * 99999, "{" * number):
                socket.send(piece)
            if number % 2:
                socket.socket.close()

    threads = [threading.Thread(target=target, args=(n,)) for n in range(6) for target in (call, disturb)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed


def test_a_model_without_a_beam_says_that_it_has_no_hotwords(babbler: Bundle) -> None:
    greedy = Bundle(babbler.model, babbler.tokenizer, DecodingConfig(beam=1))
    with running(greedy) as server, client(server, hotwords=["fox"]) as caller:
        assert "--beam 8" in caller.until("error")["message"]
