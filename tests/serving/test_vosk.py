"""Clients of vosk-server work with this one: the messages of its test.py and its microphone clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from asr.audio import Resampler
from asr.bundle import Bundle
from asr.decoding.hotwords import Hotword
from asr.serving.config import BatcherConfig, ServeConfig
from asr.streaming import StreamingRecognizer
from tests.serving.conftest import Running, alone, pcm16, running

CONFIG = '{ "config" : { "sample_rate" : %d } }'
EOF = '{"eof" : 1}'


@pytest.fixture
def websocket(server: Running) -> Iterator[ClientConnection]:
    with connect(f"ws://{server.host}") as websocket:
        yield websocket


def talk(websocket: ClientConnection, data: bytes, piece: int) -> list[dict]:
    """As vosk-server's clients: after each piece they wait for one reply, after eof for the last."""
    replies = []
    for start in range(0, len(data), piece):
        websocket.send(data[start : start + piece])
        replies.append(json.loads(websocket.recv(30)))
    websocket.send(EOF)
    return [*replies, json.loads(websocket.recv(30))]


def said(replies: list[dict]) -> list[dict]:
    return [word for reply in replies for word in reply.get("result", [])]


def assert_closed(websocket: ClientConnection, code: int, reason: str) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        websocket.recv(30)
    assert closed.value.rcvd and closed.value.rcvd.code == code
    assert reason in closed.value.rcvd.reason


def test_a_file_is_answered_message_by_message_with_its_words(
    websocket: ClientConnection, babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    websocket.send(CONFIG % 16000)
    replies = talk(websocket, pcm16(speech), 2 * 3200)
    assert len(replies) == -(-len(speech) // 3200) + 1  # one a message, and there is no other
    assert_closed(websocket, 1000, "")
    expected = alone(babbler, speech)
    heard = [(word["word"], round(word["start"], 3), round(word["end"], 3)) for word in said(replies)]
    assert heard == [(word.text, round(word.start, 3), round(word.end, 3)) for word in expected.words]
    assert all(0 <= word["conf"] <= 1 for word in said(replies))
    results = [set(reply) for reply in replies if "partial" not in reply]
    assert results == [{"result", "text"}, {"result", "text"}, {"text"}]


def test_partials_are_of_the_utterance_that_is_being_said(
    websocket: ClientConnection, babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    websocket.send(CONFIG % 16000)
    replies = talk(websocket, pcm16(speech), 2 * 4000)
    first, second = (" ".join(word.text for word in segment) for segment in alone(babbler, speech).segments)
    results = [index for index, reply in enumerate(replies) if "text" in reply]
    assert [replies[index]["text"] for index in results] == [first, second, ""]
    partials = [reply["partial"] for reply in replies[: results[0]] if reply["partial"]]
    assert partials and first.startswith(partials[0].split()[0])
    later = [reply["partial"] for reply in replies[results[0] : results[1]] if reply.get("partial")]
    assert later and second.startswith(later[-1].split()[0]) and not first.startswith(later[0].split()[0])


def test_without_a_config_it_is_8_khz_as_with_vosk_server(
    websocket: ClientConnection, babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    down, up = Resampler(16000, 8000), Resampler(8000, 16000)
    narrow = np.clip(np.concatenate([down.accept(speech), down.finish()]), -1, 0.999)
    narrow = np.frombuffer(pcm16(narrow), "<i2").astype(np.float32) / 32768
    replies = talk(websocket, pcm16(narrow), 2 * 1600)
    expected = alone(babbler, np.concatenate([up.accept(narrow), up.finish()])).text
    assert expected
    assert " ".join(word["word"] for word in said(replies)) == expected


def test_one_message_with_all_has_all_that_ended_in_its_one_result(
    websocket: ClientConnection, babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    websocket.send(CONFIG % 16000)
    replies = talk(websocket, pcm16(speech), len(pcm16(speech)))
    assert [reply["text"] for reply in replies] == [alone(babbler, speech).text, ""]


def test_reset_ends_the_utterance_and_times_go_on(
    websocket: ClientConnection, babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    half = speech[:32000]
    websocket.send(CONFIG % 16000)
    websocket.send(pcm16(half))
    json.loads(websocket.recv(30))
    websocket.send('{"reset" : 1}')
    first = json.loads(websocket.recv(30))
    second = talk(websocket, pcm16(half), 2 * 3200)
    expected = alone(babbler, half)
    assert expected.words
    assert first["text"] == expected.text
    assert [word["word"] for word in said(second)] == [word.text for word in expected.words]
    assert [word["start"] for word in said(second)] == pytest.approx(
        [2 + word.start for word in expected.words], abs=1e-5
    )


def test_a_conversation_keeps_its_place_however_busy_the_server_is(babbler: Bundle) -> None:
    with running(babbler) as server, connect(f"ws://{server.host}") as websocket:
        for reset in ('{"reset" : 1}', EOF):
            websocket.send(bytes(3200))
            assert websocket.recv(30) == '{"partial": ""}'
            server.service.batcher.config = BatcherConfig(max_streams=0)
            websocket.send(reset)
            assert websocket.recv(30) == '{"text": ""}'


def test_words_and_alternatives_shape_the_results(server: Running, speech: NDArray[np.float32]) -> None:
    shapes = []
    for config in ({"words": False}, {"max_alternatives": 2}, {"max_alternatives": 2, "words": 0}):
        with connect(f"ws://{server.host}") as websocket:
            websocket.send(json.dumps({"config": {"sample_rate": 16000.0, **config}}))
            websocket.send(pcm16(speech[:32000]))
            websocket.recv(30)
            websocket.send(EOF)
            shapes.append(json.loads(websocket.recv(30)))
    text = shapes[0]["text"]
    assert text and shapes[0] == {"text": text}
    (best,) = shapes[1]["alternatives"]
    assert best["text"] == text and len(best["result"]) == len(text.split()) and 0 <= best["confidence"] <= 1
    assert shapes[2] == {"alternatives": [{"confidence": best["confidence"], "text": text}]}


def test_a_phrase_list_makes_hotwords(
    websocket: ClientConnection, babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    phrases = ["jump", "fox", "lazy dog"]
    expected = alone(babbler, speech, [Hotword(phrase) for phrase in phrases]).text
    assert expected != alone(babbler, speech).text
    websocket.send(json.dumps({"config": {"sample_rate": 16000, "phrase_list": [*phrases, "[unk]"]}}))
    replies = talk(websocket, pcm16(speech), 2 * 3200)
    assert " ".join(word["word"] for word in said(replies)) == expected


def test_a_phrase_list_amid_the_audio_holds_from_there(
    websocket: ClientConnection, babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    alike = StreamingRecognizer(babbler, BatcherConfig().chunk_ms)
    alike.accept(speech[:32000])
    alike.set_hotwords([Hotword("jump"), Hotword("lazy dog")])
    alike.accept(speech[32000:])
    expected = alike.finish().text
    assert expected != alone(babbler, speech).text
    websocket.send(CONFIG % 16000)
    websocket.send(pcm16(speech[:32000]))
    websocket.recv(30)
    websocket.send('{"config": {"phrase_list": ["jump", "lazy dog"]}}')
    replies = talk(websocket, pcm16(speech[32000:]), 2 * 3200)
    assert " ".join(word["word"] for word in said(replies)) == expected


def test_eof_without_audio_has_an_empty_result(websocket: ClientConnection) -> None:
    assert talk(websocket, b"", 1) == [{"text": ""}]
    assert_closed(websocket, 1000, "")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("{garbage", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"hello": 1}', '{"eof": 1}'),
        ('{"config": {"sample_rate": "fast"}}', "sample_rate has to be a number"),
        ('{"config": {"phrase_list": "open"}}', "hotwords are a list"),
        ('{"config": {"phrase_list": ["\u4f60"]}}', "is in no piece of the tokenizer"),
        ('{"config": {"sample_rate": 12}}', "12 Hz"),
    ],
)
def test_what_is_wrong_closes_the_connection_with_a_reason(
    websocket: ClientConnection, server: Running, message: str, reason: str
) -> None:
    websocket.send(message)
    with suppress(ConnectionClosed):  # it may have been closed by now
        websocket.send(bytes(3200))
    assert_closed(websocket, 1008, reason)
    with connect(f"ws://{server.host}") as other:
        assert talk(other, bytes(3200), 3200) == [{"partial": ""}, {"text": ""}]


def test_the_rate_cannot_change_amid_the_audio(websocket: ClientConnection) -> None:
    websocket.send(CONFIG % 16000)
    websocket.send(bytes(3200))
    websocket.send(CONFIG % 16000)
    websocket.send(bytes(3200))
    assert [websocket.recv(30) for _ in range(2)] == ['{"partial": ""}'] * 2
    websocket.send(CONFIG % 8000)
    assert_closed(websocket, 1008, "sample_rate cannot change")


def test_a_client_that_vanishes_leaves_its_place(server: Running) -> None:
    for _ in range(3):
        with connect(f"ws://{server.host}") as websocket:
            websocket.send(bytes(32000))
            websocket.socket.close()
    deadline = time.monotonic() + 30
    while server.service.sessions and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not server.service.sessions


def test_who_finds_no_place_or_has_no_token_is_told_by_an_http_status(babbler: Bundle) -> None:
    config = ServeConfig(token="secret", streams_per_client=1, batcher=BatcherConfig(max_streams=1))
    with running(babbler, config) as server:
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://{server.host}")
        assert refused.value.response.status_code == 401
        shown = {"Authorization": "Bearer secret"}
        with connect(f"ws://{server.host}", additional_headers=shown):
            with pytest.raises(InvalidStatus) as refused:
                connect(f"ws://{server.host}", additional_headers=shown)
            assert refused.value.response.status_code == 503
            assert int(refused.value.response.headers["Retry-After"]) > 0


def test_a_message_that_is_too_large_closes_the_connection(websocket: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        websocket.send(bytes(ServeConfig().max_message + 1))
    assert_closed(websocket, 1009, "")


def test_a_shutdown_is_preceded_by_the_result(babbler: Bundle, speech: NDArray[np.float32]) -> None:
    with running(babbler) as server, connect(f"ws://{server.host}") as websocket:
        websocket.send(CONFIG % 16000)
        websocket.send(pcm16(speech[:32000]))
        assert json.loads(websocket.recv(30))["partial"]
        draining = asyncio.run_coroutine_threadsafe(server.service.drain(), server.loop)
        assert json.loads(websocket.recv(30))["text"] == alone(babbler, speech[:32000]).text != ""
        assert_closed(websocket, 1012, "shutting down")
        draining.result(30)


def test_odd_pieces_lose_no_sample(
    websocket: ClientConnection, babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    websocket.send(CONFIG % 16000)
    replies = talk(websocket, pcm16(speech), 7777)
    assert " ".join(word["word"] for word in said(replies)) == alone(babbler, speech).text
