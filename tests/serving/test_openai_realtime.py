"""The `openai` package speaks with this server's Realtime transcription as with OpenAI's, in two dialects."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from openai import AsyncOpenAI, OpenAI
from openai.resources.realtime.realtime import RealtimeConnection
from openai.types.realtime import RealtimeErrorEvent
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from asr.audio import Resampler
from asr.bundle import Bundle
from asr.decoding.hotwords import Hotword
from asr.serving.config import BatcherConfig, ServeConfig
from asr.streaming import ENDPOINTING, StreamingRecognizer
from asr.text import BLANK
from asr.transcript import Transcript
from tests.serving.conftest import Running, pcm16, running

TRANSCRIPTION = "conversation.item.input_audio_transcription"
PIECE = 24000 // 5  # samples


@pytest.fixture
def connection(server: Running) -> Iterator[RealtimeConnection]:
    client = OpenAI(api_key="none", base_url=f"http://{server.host}/v1")
    with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        assert connection.recv().type == "session.created"
        yield connection


@pytest.fixture(scope="module")
def speech24(speech: NDArray[np.float32]) -> NDArray[np.float32]:
    up = Resampler(16000, 24000)
    return np.frombuffer(pcm16(np.concatenate([up.accept(speech), up.finish()])), "<i2").astype("f4") / 32768


def expected_of(
    bundle: Bundle,
    samples: NDArray[np.float32],
    rate: int = 24000,
    hotwords: tuple[Hotword, ...] = (),
    silence: float | None = 0.5,
) -> Transcript:
    down = Resampler(rate, 16000)
    endpoints = replace(ENDPOINTING, silence=silence, no_speech=None) if silence else None
    recognizer = StreamingRecognizer(bundle, hotwords=hotwords, endpointing=endpoints)
    recognizer.accept(np.concatenate([down.accept(samples), down.finish()]))
    return recognizer.finish()


def append(connection: Any, data: bytes) -> None:
    for start in range(0, len(data), 2 * PIECE):
        audio = base64.b64encode(data[start : start + 2 * PIECE]).decode()
        connection.input_audio_buffer.append(audio=audio)


def until(connection: Any, kind: str, count: int = 1) -> list[Any]:
    """The events up to the count-th of a kind."""
    events: list[Any] = []
    while count:
        events.append(connection.recv())
        assert events[-1].type != "error", events[-1]
        count -= events[-1].type == kind
    return events


def items(events: list[Any]) -> list[str]:
    """The deltas of each item, together."""
    texts: dict[str, str] = {}
    for event in events:
        if event.type == f"{TRANSCRIPTION}.delta":
            texts[event.item_id] = texts.get(event.item_id, "") + event.delta
    return list(texts.values())


def of(events: list[Any], kind: str) -> list[Any]:
    return [event for event in events if event.type == kind]


def transcripts(events: list[Any]) -> list[str]:
    return [event.transcript for event in of(events, f"{TRANSCRIPTION}.completed")]


def test_server_vad_makes_an_item_of_each_segment(
    connection: RealtimeConnection, babbler: Bundle, speech24: NDArray[np.float32]
) -> None:
    expected = expected_of(babbler, speech24)
    texts = [" ".join(word.text for word in segment) for segment in expected.segments]
    assert len(texts) >= 2
    append(connection, pcm16(speech24))
    events = until(connection, f"{TRANSCRIPTION}.completed", len(texts))
    assert transcripts(events) == items(events) == texts
    kinds = [event.type for event in events if event.type != f"{TRANSCRIPTION}.delta"]
    item = [
        *("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"),
        *("input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"),
        f"{TRANSCRIPTION}.completed",
    ]
    assert kinds == item * len(texts)


def test_items_have_their_times_and_their_order(
    connection: RealtimeConnection, babbler: Bundle, speech24: NDArray[np.float32]
) -> None:
    segments = expected_of(babbler, speech24).segments
    append(connection, pcm16(speech24))
    events = until(connection, f"{TRANSCRIPTION}.completed", len(segments))
    starts = [event.audio_start_ms / 1000 for event in of(events, "input_audio_buffer.speech_started")]
    ends = [event.audio_end_ms / 1000 for event in of(events, "input_audio_buffer.speech_stopped")]
    for words, start, end in zip(segments, starts, ends, strict=True):
        assert start <= words[0].start < words[-1].end <= end
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    committed = of(events, "input_audio_buffer.committed")
    ids = [event.item_id for event in committed]
    assert [event.previous_item_id for event in committed] == [None, *ids[:-1]]
    assert [event.item.id for event in of(events, "conversation.item.done")] == ids
    completed = of(events, f"{TRANSCRIPTION}.completed")
    assert sum(event.usage.seconds for event in completed) == pytest.approx(ends[-1], abs=0.01)


def test_without_turn_detection_the_client_commits(
    connection: RealtimeConnection, babbler: Bundle, speech24: NDArray[np.float32]
) -> None:
    connection.session.update(session={"type": "transcription", "audio": {"input": {"turn_detection": None}}})
    assert connection.recv().session.audio.input.turn_detection is None
    text = expected_of(babbler, speech24, silence=None).text
    for _ in range(2):
        append(connection, pcm16(speech24))
        connection.input_audio_buffer.commit()
        events = until(connection, f"{TRANSCRIPTION}.completed")
        assert transcripts(events) == items(events) == [text]
        assert not any("speech" in event.type for event in events)


def test_a_commit_ends_the_item_amid_speech(
    connection: RealtimeConnection, babbler: Bundle, speech24: NDArray[np.float32]
) -> None:
    said = speech24[: 24000 * 2]
    append(connection, pcm16(said))
    connection.input_audio_buffer.commit()
    events = until(connection, f"{TRANSCRIPTION}.completed")
    assert transcripts(events) == [expected_of(babbler, said).text] != [""]
    assert "input_audio_buffer.speech_stopped" not in {event.type for event in events}


def test_what_is_cleared_is_not_said(
    connection: RealtimeConnection, babbler: Bundle, speech24: NDArray[np.float32]
) -> None:
    append(connection, pcm16(speech24[: 24000 * 2]))
    connection.input_audio_buffer.clear()
    cleared = until(connection, "input_audio_buffer.cleared")
    assert not transcripts(cleared)
    append(connection, pcm16(speech24))
    connection.input_audio_buffer.commit()
    events = until(connection, f"{TRANSCRIPTION}.completed", 3)
    assert " ".join(transcripts(events)).strip() == expected_of(babbler, speech24).text
    (start, *_) = of(events, "input_audio_buffer.speech_started")
    assert start.audio_start_ms >= 2000  # counted from the first audio of the session


def test_an_update_amid_audio_ends_the_item_where_it_says_how_items_end(
    connection: RealtimeConnection, babbler: Bundle, speech24: NDArray[np.float32]
) -> None:
    said = speech24[: 24000 * 2]
    append(connection, pcm16(said))
    given = {"turn_detection": None}
    connection.session.update(session={"type": "transcription", "audio": {"input": given}})
    events = until(connection, "session.updated")
    assert transcripts(events) == [expected_of(babbler, said).text] != [""]
    append(connection, pcm16(said))
    given = {"transcription": {"keywords": ["jump"]}}
    connection.session.update(session={"type": "transcription", "audio": {"input": given}})
    assert not transcripts(until(connection, "session.updated"))  # hotwords are set and nothing ends


def test_speech_without_words_is_an_item_without_text(babbler: Bundle, speech24: NDArray[np.float32]) -> None:
    mute = replace(babbler, model=copy.deepcopy(babbler.model))
    with torch.no_grad():
        mute.model.head.bias[BLANK] += 1000
    with running(mute) as server:
        client = OpenAI(api_key="none", base_url=f"http://{server.host}/v1")
        with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            append(connection, pcm16(speech24))
            events = until(connection, f"{TRANSCRIPTION}.completed", 2)
    assert transcripts(events) == ["", ""] and not items(events)
    starts = [event.audio_start_ms for event in of(events, "input_audio_buffer.speech_started")]
    ends = [event.audio_end_ms for event in of(events, "input_audio_buffer.speech_stopped")]
    assert starts[0] < 500 and 2500 < ends[0] <= starts[1] < 4000 < 6000 < ends[1]


def test_an_update_sets_what_it_names_and_the_rest_stays(connection: RealtimeConnection) -> None:
    for given in (
        {"turn_detection": {"type": "server_vad", "silence_duration_ms": 900}},
        {"transcription": {"model": "gpt-4o-transcribe", "language": "en", "keywords": ["jump"]}},
        {"format": {"type": "audio/pcmu"}, "noise_reduction": {"type": "near_field"}},
    ):
        connection.session.update(session={"type": "transcription", "audio": {"input": given}})
        event = connection.recv()
        assert event.type == "session.updated"
    held = event.session.audio.input
    assert held.turn_detection.silence_duration_ms == 900 and held.turn_detection.threshold == 0.5
    assert (held.transcription.language, held.transcription.keywords) == ("en", ["jump"])
    assert held.format.type == "audio/pcmu"
    assert held.noise_reduction is None  # there is none, and it is not shown as if there were


def test_keywords_are_hotwords(
    connection: RealtimeConnection, babbler: Bundle, speech24: NDArray[np.float32]
) -> None:
    hotwords = (Hotword("jump"), Hotword("lazy dog"))
    expected = expected_of(babbler, speech24, hotwords=hotwords, silence=None).text
    assert expected != expected_of(babbler, speech24, silence=None).text
    given = {"turn_detection": None, "transcription": {"keywords": ["Jump"], "prompt": "Lazy dog"}}
    connection.session.update(session={"type": "transcription", "audio": {"input": given}})
    assert connection.recv().type == "session.updated"
    append(connection, pcm16(speech24))
    connection.input_audio_buffer.commit()
    assert transcripts(until(connection, f"{TRANSCRIPTION}.completed")) == [expected]


def test_logprobs_come_where_they_are_asked_for(
    connection: RealtimeConnection, speech24: NDArray[np.float32]
) -> None:
    connection.session.update(
        session={"type": "transcription", "include": ["item.input_audio_transcription.logprobs"]}
    )
    append(connection, pcm16(speech24))
    events = until(connection, f"{TRANSCRIPTION}.completed")
    assert "".join(each.token for each in events[-1].logprobs) == events[-1].transcript != ""
    for event in of(events, f"{TRANSCRIPTION}.delta"):
        assert "".join(each.token for each in event.logprobs) == event.delta


def test_telephone_codings_are_heard(
    connection: RealtimeConnection, speech: NDArray[np.float32], babbler: Bundle
) -> None:
    down = Resampler(16000, 8000)
    narrow = np.concatenate([down.accept(speech), down.finish()])
    codes = np.arange(256) ^ 0xFF  # G.711, u-law: sign, segment, step
    sizes = ((2 * (codes & 15) + 33) << (codes >> 4 & 7) + 2) - 132
    values = np.where(codes & 0x80, -sizes, sizes) / 32768
    order = np.argsort(values, kind="stable")
    coded = order[np.searchsorted(values[order], narrow).clip(0, 255)].astype(np.uint8)
    given = {"format": {"type": "audio/pcmu"}, "turn_detection": None}
    connection.session.update(session={"type": "transcription", "audio": {"input": given}})
    assert connection.recv().type == "session.updated"
    connection.input_audio_buffer.append(audio=base64.b64encode(coded.tobytes()).decode())
    connection.input_audio_buffer.commit()
    heard = values[coded].astype(np.float32)
    expected = expected_of(babbler, heard, 8000, silence=None).text
    assert transcripts(until(connection, f"{TRANSCRIPTION}.completed")) == [expected] != [""]


def test_the_beta_has_its_own_names(server: Running, babbler: Bundle, speech24: NDArray[np.float32]) -> None:
    url = f"ws://{server.host}/v1"
    client = OpenAI(api_key="none", base_url=f"http://{server.host}/v1", websocket_base_url=url)
    with client.beta.realtime.connect(model="any", extra_query={"intent": "transcription"}) as connection:
        assert connection.recv().type == "transcription_session.created"
        connection.transcription_session.update(
            session={
                "input_audio_format": "pcm16",
                "input_audio_transcription": {"model": "whisper-1"},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 600},
            }
        )
        event = connection.recv()
        assert event.type == "transcription_session.updated"
        assert event.session.turn_detection.silence_duration_ms == 600
        assert event.session.input_audio_format == "pcm16"
        append(connection, pcm16(speech24))
        texts = [
            " ".join(word.text for word in segment)
            for segment in expected_of(babbler, speech24, silence=0.6).segments
        ]
        events = until(connection, f"{TRANSCRIPTION}.completed", len(texts))
    assert transcripts(events) == texts
    assert "conversation.item.created" in {event.type for event in events}


@pytest.mark.parametrize(
    ("sent", "message", "param"),
    [
        ("{garbage", "not JSON", None),
        ("[" * 100_000, "not JSON", None),
        ("[]", "not a JSON object", None),
        ({}, "no event of a transcription session", "type"),
        ({"type": "response.create"}, "no event of a transcription session", "type"),
        ({"type": "input_audio_buffer.append"}, "not base64", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "&&&&"}, "not base64", "audio"),
        ({"type": "input_audio_buffer.commit"}, "the buffer is empty", None),
        ({"type": "session.update"}, "has to be an object", "session"),
        ({"type": "session.update", "session": {"type": "realtime"}}, "transcription", "session.type"),
        ({"format": {"type": "audio/pcm", "rate": 16000}}, "24000 samples a second", "format.rate"),
        ({"format": {"type": "audio/opus"}}, "audio/pcm, audio/pcmu", "format.type"),
        ({"format": "pcm16"}, "has to be an object", "format"),
        ({"turn_detection": {"type": "semantic_vad"}}, "server_vad or null", "turn_detection.type"),
        ({"turn_detection": {"type": "server_vad", "threshold": 7}}, "0.01 to 1", "turn_detection.threshold"),
        ({"transcription": {"keywords": "jump"}}, "list of strings", "transcription.keywords"),
        ({"transcription": {"keywords": ["\u4f60"]}}, "in no piece of the tokenizer", None),
        ({"transcription": {"prompt": 1}}, "have to be strings", "transcription"),
    ],
)
def test_what_is_wrong_is_an_error_event_and_the_session_goes_on(
    connection: RealtimeConnection, sent: Any, message: str, param: str | None
) -> None:
    if isinstance(sent, dict) and sent and "type" not in sent:
        session = {"type": "transcription", "audio": {"input": sent}}
        sent = {"type": "session.update", "session": session}
        param = param and f"session.audio.input.{param}"
    if isinstance(sent, dict):
        sent = json.dumps({"event_id": "mine", **sent})
    connection.send_raw(sent)
    event = connection.recv()
    assert isinstance(event, RealtimeErrorEvent)
    assert event.error.type == "invalid_request_error"
    assert message in event.error.message and event.error.param == param
    assert event.error.event_id == ("mine" if "mine" in sent else None)
    connection.input_audio_buffer.clear()
    assert connection.recv().type == "input_audio_buffer.cleared"


def test_text_that_no_encoding_holds_is_told_back_as_it_came(connection: RealtimeConnection) -> None:
    session = {"type": "transcription", "audio": {"input": {"transcription": {"prompt": "\ud800"}}}}
    connection.send_raw(json.dumps({"type": "session.update", "session": session}))
    assert connection.recv().session.audio.input.transcription.prompt == "\ud800"
    connection.send_raw(json.dumps({"type": "\ud800", "event_id": "\ud800"}))
    assert connection.recv().error.event_id == "\ud800"


def test_a_binary_message_is_an_error_event(connection: RealtimeConnection) -> None:
    connection.send_raw(bytes(100))
    event = connection.recv()
    assert isinstance(event, RealtimeErrorEvent) and "binary" in event.error.message


def test_a_client_that_vanishes_leaves_its_place(server: Running) -> None:
    for _ in range(3):
        with connect(f"ws://{server.host}/v1/realtime?intent=transcription") as websocket:
            audio = base64.b64encode(bytes(48000)).decode()
            websocket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            websocket.socket.close()
    deadline = time.monotonic() + 30
    while server.service.sessions and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not server.service.sessions


def test_who_finds_no_place_has_an_error_event_and_the_end(babbler: Bundle) -> None:
    with running(babbler, ServeConfig(batcher=BatcherConfig(max_streams=0))) as server:
        client = OpenAI(api_key="none", base_url=f"http://{server.host}/v1")
        with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            connection.recv()
            append(connection, bytes(4800))
            event = connection.recv()
            assert isinstance(event, RealtimeErrorEvent) and event.error.code == "busy"
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv()
            assert closed.value.rcvd and closed.value.rcvd.code == 1013


def test_the_key_is_the_token_in_a_header_or_a_browsers_subprotocol(babbler: Bundle) -> None:
    with running(babbler, ServeConfig(token="secret")) as server:
        client = OpenAI(api_key="secret", base_url=f"http://{server.host}/v1")
        with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            assert connection.recv().type == "session.created"
        wrong = OpenAI(api_key="wrong", base_url=f"http://{server.host}/v1")
        with pytest.raises(InvalidStatus) as refused:
            wrong.realtime.connect(extra_query={"intent": "transcription"}).enter()
        assert refused.value.response.status_code == 401
        offered = ["realtime", "openai-insecure-api-key.secret"]
        with connect(f"ws://{server.host}/v1/realtime", subprotocols=offered) as websocket:
            assert websocket.subprotocol == "realtime"
            assert json.loads(websocket.recv(30))["type"] == "session.created"


def test_a_message_that_is_too_large_closes_the_connection(connection: RealtimeConnection) -> None:
    with suppress(ConnectionClosed):
        connection.input_audio_buffer.append(audio="A" * ServeConfig().max_message)
    with pytest.raises(ConnectionClosed) as closed:
        connection.recv()
    assert closed.value.rcvd and closed.value.rcvd.code == 1009


def test_a_client_hears_why_while_it_is_still_sending(server: Running) -> None:
    head = (
        f"GET /v1/realtime?intent=transcription HTTP/1.1\r\nHost: {server.host}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    size = ServeConfig().max_message + 1
    host, port = server.host.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(head.encode())
        received = b""
        while b"session.created" not in received:
            received += client.recv(1 << 16)
        client.sendall(b"\x81\xff" + struct.pack(">Q", size) + b"\0" * 4)  # text, masked, so long
        client.recv(1, socket.MSG_PEEK)  # the server has said why, and waits for the rest
        client.sendall(b" " * size)
        received = b""
        while more := client.recv(1 << 16):
            received += more
    assert received[:1] == b"\x88" and received[2:4] == struct.pack(">H", 1009)


def test_a_shutdown_is_preceded_by_the_items_transcript(
    babbler: Bundle, speech24: NDArray[np.float32]
) -> None:
    said = speech24[: 24000 * 2]
    with running(babbler) as server:
        client = OpenAI(api_key="none", base_url=f"http://{server.host}/v1")
        with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            connection.input_audio_buffer.append(audio=base64.b64encode(pcm16(said)).decode())
            until(connection, "input_audio_buffer.speech_started")  # then the audio has been read
            asyncio.run_coroutine_threadsafe(server.service.drain(), server.loop)
            events = until(connection, f"{TRANSCRIPTION}.completed")
            assert "".join(items(events)) in transcripts(events)[0] == expected_of(babbler, said).text != ""
            event = connection.recv()
            assert isinstance(event, RealtimeErrorEvent) and event.error.code == "shutdown"


def test_the_asynchronous_client_works_too(server: Running, speech24: NDArray[np.float32]) -> None:
    async def say() -> list[str]:
        client = AsyncOpenAI(api_key="none", base_url=f"http://{server.host}/v1")
        async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            await connection.input_audio_buffer.append(audio=base64.b64encode(pcm16(speech24)).decode())
            kinds = []
            async for event in connection:
                kinds.append(event.type)
                if event.type == f"{TRANSCRIPTION}.completed":
                    return kinds
        return kinds

    assert {"session.created", f"{TRANSCRIPTION}.delta"} <= set(asyncio.run(say()))
