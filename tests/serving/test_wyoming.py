"""The `wyoming` package's client, and so Home Assistant, is served on a port of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from asr.bundle import Bundle
from asr.decoding.hotwords import Hotword
from asr.serving.config import ServeConfig
from tests.serving.conftest import Running, alone, pcm16, running, speaking_wyoming


@pytest.fixture(scope="module")
def port(server: Running) -> Iterator[int]:
    with speaking_wyoming(server) as port:
        yield port


async def read(client: AsyncTcpClient) -> Event:
    event = await asyncio.wait_for(client.read_event(), 60)
    assert event
    return event


async def transcribe(
    client: AsyncTcpClient, data: bytes, rate: int = 16000, width: int = 2, channels: int = 1, **wanted: Any
) -> list[Event]:
    """As Home Assistant does it; the answers."""
    layout = {"rate": rate, "width": width, "channels": channels}
    await client.write_event(Transcribe(language="en", **wanted).event())
    await client.write_event(AudioStart(**layout).event())
    for start in range(0, len(data), 4096):
        await client.write_event(AudioChunk(audio=data[start : start + 4096], **layout).event())
    await client.write_event(AudioStop().event())
    events = [await read(client)]
    while not TranscriptStop.is_type(events[-1].type):
        events.append(await read(client))
    return events


def text_of(events: list[Event]) -> str:
    return next(Transcript.from_event(event).text for event in events if Transcript.is_type(event.type))


def test_it_describes_itself(port: int, server: Running) -> None:
    async def ask() -> Event:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Describe().event())
            return await read(client)

    (program,) = Info.from_event(asyncio.run(ask())).asr
    assert program.installed and program.supports_transcript_streaming
    (model,) = program.models
    assert (model.name, model.languages, model.installed) == ("asr", ["en"], True)


def test_chunks_come_before_the_transcript_and_are_its_text(
    port: int, babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    async def say() -> list[list[Event]]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            return [await transcribe(client, pcm16(speech)) for _ in range(2)]  # on one connection

    expected = alone(babbler, speech).text
    assert expected
    for events in asyncio.run(say()):
        start, *chunks, transcript, stop = events
        assert TranscriptStart.is_type(start.type) and TranscriptStop.is_type(stop.type)
        assert len(chunks) > 1
        assert "".join(TranscriptChunk.from_event(chunk).text for chunk in chunks) == expected
        assert Transcript.from_event(transcript) == Transcript(expected, language="en")


@pytest.mark.parametrize(("width", "channels"), [(4, 1), (2, 2), (4, 2)])
def test_other_widths_and_channels_are_the_same_sound(
    port: int, babbler: Bundle, speech: NDArray[np.float32], width: int, channels: int
) -> None:
    coded = (speech.astype(np.float64) * 2 ** (8 * width - 1)).astype(f"<i{width}")
    data = np.repeat(coded[:, None], channels, 1).tobytes()

    async def say() -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            return await transcribe(client, data, width=width, channels=channels)

    assert text_of(asyncio.run(say())) == alone(babbler, speech).text


def test_names_and_terms_are_hotwords_as_far_as_they_can_be(
    port: int, babbler: Bundle, speech: NDArray[np.float32]
) -> None:
    expected = alone(babbler, speech, [Hotword("jump"), Hotword("lazy dog")]).text
    assert expected != alone(babbler, speech).text

    async def say() -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            wanted = {"transcript_names": ["Jump", "\u4f60\u597d", ""], "transcript_terms": ["Lazy Dog"]}
            return await transcribe(client, pcm16(speech), **wanted)

    assert text_of(asyncio.run(say())) == expected


def test_silence_has_an_empty_transcript(port: int) -> None:
    async def say() -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            return await transcribe(client, bytes(32000))

    events = asyncio.run(say())
    assert [event.type for event in events] == ["transcript-start", "transcript", "transcript-stop"]
    assert text_of(events) == ""


def test_a_start_without_a_stop_begins_anew(port: int, speech: NDArray[np.float32]) -> None:
    async def say() -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            chunk = AudioChunk(rate=16000, width=2, channels=1, audio=pcm16(speech[:32000]))
            await client.write_event(chunk.event())
            return await transcribe(client, bytes(32000))

    assert text_of(asyncio.run(say())) == ""


def test_ping_is_answered_and_what_is_not_known_is_dropped(port: int) -> None:
    async def ask() -> Event:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Event("synthesize", {"text": "hello"}))
            await client.write_event(AudioStop().event())  # without a start
            await client.write_event(Ping("are you there").event())
            return await read(client)

    assert Pong.from_event(asyncio.run(ask())) == Pong("are you there")


def test_text_that_no_encoding_holds_is_no_end(port: int) -> None:
    async def ask() -> Event:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            assert client._writer
            client._writer.write(b'{"type": "ping", "data": {"text": "\\ud800"}}\n')
            return await read(client)

    assert Pong.from_event(asyncio.run(ask())) == Pong("?")


CHUNK = b'{"type": "audio-chunk", "payload_length": 1099511627776}\n'
START = b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 1}}\n'


@pytest.mark.parametrize(
    ("sent", "code", "text"),
    [
        (b"{garbage\n", "bad_message", "not JSON"),
        (b"[" * 50_000 + b"\n", "bad_message", "not JSON"),
        (b"\xff\xfe\n", "bad_message", "not JSON"),
        (b'{"type": "describe", "data": [1]}\n', "bad_message", "data are an object"),
        (b'{"type": "describe", "data_length": 1}\n[', "bad_message", "not JSON"),
        (b'{"type": "describe", "data_length": "many"}\n', "bad_message", "counts of bytes"),
        (b"x" * 200_000, "too_large", "a header of more than 65536 bytes"),
        (CHUNK, "too_large", "an event of 1099511627776 bytes"),
        (b'{"type": "audio-start", "data": {}}\n', "bad_message", "needs a rate"),
        (START.replace(b"16000", b"1"), "bad_message", "1 Hz"),
        (START.replace(b'"channels": 1', b'"channels": 99'), "bad_message", "99 channels"),
        (START.replace(b'"channels": 1', b'"channels": true'), "bad_message", "needs a rate, channels"),
        (START.replace(b'"width": 2', b'"width": 3'), "bad_message", "width of 1, 2 or 4"),
        (START + START.replace(b"start", b"chunk").replace(b"16000", b"8000"), "bad_message", "amid"),
    ],
)
def test_what_is_wrong_is_an_error_event_and_the_end(port: int, sent: bytes, code: str, text: str) -> None:
    async def send() -> tuple[list[Error], list[Event]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        writer.write(bytes(100_000))  # what follows is not read, and does not destroy the error
        answers = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        async with AsyncTcpClient("127.0.0.1", port) as other:
            return parsed(answers), await transcribe(other, bytes(3200))

    errors, other = asyncio.run(send())
    assert [error.code for error in errors] == [code]
    assert text in errors[0].text
    assert text_of(other) == ""


def parsed(answers: bytes) -> list[Error]:
    """The error events."""
    errors = []
    while answers:
        line, _, answers = answers.partition(b"\n")
        header = json.loads(line)
        data, answers = answers[: header.get("data_length", 0)], answers[header.get("data_length", 0) :]
        if Error.is_type(header["type"]):
            errors.append(Error.from_event(Event(header["type"], json.loads(data))))
    return errors


def test_a_client_that_vanishes_leaves_its_place(port: int, server: Running) -> None:
    async def vanish() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(START + b'{"type": "audio-chunk", "payload_length": 100000}\n' + bytes(1000))
        await writer.drain()
        writer.transport.abort()

    asyncio.run(vanish())
    deadline = time.monotonic() + 30
    while server.service.sessions and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not server.service.sessions


def test_who_finds_no_place_is_told(babbler: Bundle) -> None:
    async def come() -> Event:
        async with AsyncTcpClient("127.0.0.1", port) as first, AsyncTcpClient("127.0.0.1", port) as second:
            await first.write_event(Ping().event())
            await read(first)
            return await read(second)

    with running(babbler, ServeConfig(streams_per_client=1)) as server, speaking_wyoming(server) as port:
        assert Error.from_event(asyncio.run(come())).code == "busy"


def test_a_shutdown_is_preceded_by_the_transcript(babbler: Bundle, speech: NDArray[np.float32]) -> None:
    async def say(server: Running, port: int) -> list[Event]:
        async with AsyncTcpClient("127.0.0.1", port) as client:
            chunk = AudioChunk(rate=16000, width=2, channels=1, audio=pcm16(speech[:32000]))
            await client.write_event(chunk.event())  # without a start, which some clients leave away
            await client.write_event(Ping().event())
            events = [await read(client)]
            while not Pong.is_type(events[-1].type):  # then the audio has been read
                events.append(await read(client))
            asyncio.run_coroutine_threadsafe(server.service.drain(), server.loop)
            while not Error.is_type(events[-1].type):
                events.append(await read(client))
            return events

    with running(babbler) as server, speaking_wyoming(server) as port:
        events = asyncio.run(say(server, port))
    assert text_of(events) == alone(babbler, speech[:32000]).text != ""
    assert Error.from_event(events[-1]).code == "shutdown"
