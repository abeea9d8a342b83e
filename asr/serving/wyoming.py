"""The Wyoming protocol of Home Assistant on a TCP port of its own: lines of JSON, and PCM after them.

describe -> info; transcribe, audio-start, audio-chunk ..., audio-stop -> transcript-start, transcript-chunk
with words as they are final, transcript, transcript-stop; ping -> pong. What is wrong is an `error` event,
after which the connection is closed. The protocol knows no authentication: keep its port to hosts you trust.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioFormat, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, async_write_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.ping import Ping, Pong

from asr import __version__
from asr.decoding.hotwords import Hotword
from asr.errors import UserError
from asr.serving.batcher import Stream
from asr.serving.hints import suited
from asr.serving.messages import json_object
from asr.serving.pcm import Format, Pcm
from asr.serving.refusal import Refusal
from asr.serving.server import Service, Session
from asr.serving.sockets import ended
from asr.transcript import join

LINE = 1 << 16  # bytes of a header
WIDTHS: dict[int, Format] = {1: "u8", 2: "s16le", 4: "s32le"}  # bytes of a sample
LINGER = 2.0  # seconds in which a client may read why it was refused, while it still sends


async def serve(service: Service, host: str, port: int) -> asyncio.Server:
    """Listening, until it is closed. Connections end with their clients, or as the service shuts down."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The client has gone amid an event of ours; or the loop ends, which Python 3.11 would log as a fault.
        with suppress(OSError, asyncio.CancelledError):
            await attend(service, reader, writer)
        writer.close()

    return await asyncio.start_server(connected, host, port, limit=LINE)


async def attend(service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    client = writer.get_extra_info("peername") or ["unknown"]
    try:
        async with service.admit(client[0], "wyoming") as session:
            await Talk(service, session, reader, writer).run()
    except UserError as error:
        code = error.code if isinstance(error, Refusal) else "bad_message"
        await async_write_event(Error(str(error), code).event(), writer)
        await drained(reader, writer)


async def drained(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the client has gone: closing with bytes unread would reset the connection, and the last event
    with it."""

    async def rest() -> None:
        while await reader.read(LINE):
            pass

    writer.write_eof()
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(rest(), LINGER)


async def read_event(reader: asyncio.StreamReader, most: int) -> Event | None:
    """The next one, None where the client has gone; of at most so many bytes. (The package's own reads
    whatever length a header promises.) Raises Refusal."""
    try:
        header = json_object(await reader.readuntil())
        sizes = [header.get("data_length") or 0, header.get("payload_length") or 0]
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise Refusal("bad_message", "data_length and payload_length have to be counts of bytes")
        if sum(sizes) > most:
            raise Refusal("too_large", f"an event of {sum(sizes)} bytes: send {most} at most")
        more, payload = [await reader.readexactly(size) for size in sizes]
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as error:
        raise Refusal(
            "too_large", f"a header of more than {LINE} bytes: audio goes into the payload"
        ) from error
    data = header.get("data") or {}
    if not isinstance(data, dict):
        raise Refusal("bad_message", "an event's data are an object")
    return Event(str(header.get("type")), {**data, **json_object(more or b"{}")}, payload)


class Talk:
    """One connection: one stream of audio after the other."""

    def __init__(
        self,
        service: Service,
        session: Session,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.service, self.session, self.reader, self.writer = service, session, reader, writer
        self.hotwords: tuple[Hotword, ...] = ()
        self._stream: Stream | None = None
        self._telling: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        try:
            while event := await self._next():
                await self._do(event)
        finally:
            await ended(self._telling)

    async def _next(self) -> Event | None:
        try:
            return await self.session.wait(read_event(self.reader, self.service.config.max_message))
        except Refusal as refusal:
            if refusal.code in ("idle", "too_long", "shutdown"):
                await self._stop()  # what was said is not lost
            raise

    async def _do(self, event: Event) -> None:
        if Describe.is_type(event.type):
            await self._write(described(self.service).event())
        elif Ping.is_type(event.type):
            text = str(event.data.get("text") or "").encode(errors="replace").decode()
            await self._write(Pong(text).event())
        elif Transcribe.is_type(event.type):
            names = [event.data.get(name) for name in ("transcript_names", "transcript_terms")]
            self.hotwords = suited(self.service, [phrase for each in names for phrase in _list(each)])
        elif AudioStart.is_type(event.type):
            await self._start(event)
        elif AudioChunk.is_type(event.type):
            stream = self._stream or await self._start(event)
            if _format(event) != self._format:
                raise Refusal("bad_message", f"audio of {_format(event)} amid such of {self._format}")
            await stream.send(self._pcm.accept(event.payload or b""))
        elif AudioStop.is_type(event.type):
            await self._stop()
        # others are dropped, as the protocol wants it

    async def _start(self, event: Event) -> Stream:
        self._format = _format(event)
        await ended(self._telling)  # without audio-stop: the client has begun anew
        self._stream = stream = self.session.open(self.hotwords)
        self._pcm = Pcm(self._format.rate, stream.rate, WIDTHS[self._format.width], self._format.channels)
        self._telling = asyncio.ensure_future(self._tell(stream))
        return stream

    async def _stop(self) -> None:
        if not self._stream or not self._telling:
            return
        stream, telling = self._stream, self._telling
        self._stream = self._telling = None
        await stream.send(self._pcm.finish())
        update = await stream.finish()
        await telling
        await self._write(Transcript(update.transcript.text, language=self.service.config.language).event())
        await self._write(TranscriptStop().event())

    async def _tell(self, stream: Stream) -> None:
        await self._write(TranscriptStart(language=self.service.config.language).event())
        told = 0
        async for update in stream.updates():
            words = update.transcript.record.words[told : update.transcript.count]
            if words:
                await self._write(TranscriptChunk(join(words) if told == 0 else f" {join(words)}").event())
            told += len(words)

    async def _write(self, event: Event) -> None:
        async with self._writing:  # Python 3.10 lets one task wait for a slow client, not two
            await self.session.deliver(async_write_event(event, self.writer))


def described(service: Service) -> Info:
    config = service.config
    here = Attribution("asr", "")
    model = AsrModel(config.model, here, True, service.bundle.model.describe(), None, [config.language])
    program = AsrProgram("asr", here, True, "streaming speech recognition", __version__, [model])
    program.supports_transcript_streaming = True
    return Info(asr=[program])


def _format(event: Event) -> AudioFormat:
    rate, width, channels = (event.data.get(name) for name in ("rate", "width", "channels"))
    if type(rate) is not int or type(channels) is not int or width not in [*WIDTHS]:  # bool is no count
        raise Refusal("bad_message", "audio needs a rate, channels and a width of 1, 2 or 4 bytes")
    return AudioFormat(rate, width, channels)


def _list(value: object) -> list:
    return value if isinstance(value, list) else []
