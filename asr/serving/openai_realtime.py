"""OpenAI's Realtime protocol, its transcription sessions: `/v1/realtime`, audio in base64 in, events out.

Words are told as they are final, in deltas of the item that they will belong to. With server VAD an item ends
where the stream has an endpoint; without, when the client commits. Both dialects are spoken, the one of
today's clients and the beta (`OpenAI-Beta: realtime=v1`), which names the same things otherwise.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from asr.decoding.hotwords import Hotword
from asr.errors import UserError
from asr.serving.batcher import Stream, Update
from asr.serving.messages import json_object
from asr.serving.openai_session import FORMATS, ServerVad, Settings, beta_update, shown, updated
from asr.serving.openai_shapes import Invalid, Json, delta, error_shape, hotwords_of, logprobs
from asr.serving.pcm import Pcm
from asr.serving.refusal import Refusal
from asr.serving.server import Service, Session
from asr.serving.sockets import attend, ended, receive
from asr.transcript import Record, Word, join

SUBPROTOCOL = "realtime"  # of browsers, beside their key
BETA = "openai-beta.realtime-v1"  # another, or the header's realtime=v1
TRANSCRIPTION = "conversation.item.input_audio_transcription"


def routes(service: Service) -> list[BaseRoute]:
    async def connected(websocket: WebSocket) -> None:
        offered = websocket.scope.get("subprotocols", [])
        beta = BETA in offered or "realtime=v1" in websocket.headers.get("openai-beta", "")

        async def talk(session: Session) -> None:
            await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
            await Talk(service, session, websocket, beta).run()

        await attend(service, websocket, "realtime", talk)

    return [WebSocketRoute("/v1/realtime", connected)]


@dataclass
class Item:
    """What the audio since the last item is going to be. Times in seconds of the session."""

    begin: float
    id: str = field(default_factory=lambda: unique("item"))
    words: list[Word] = field(default_factory=list)  # that have been told
    started: bool = False  # whether speech_started has been told
    spoken: float = 0.0  # until when there was speech


class Talk:
    """One connection: items one after the other, and a stream until it is committed or cleared."""

    def __init__(self, service: Service, session: Session, websocket: WebSocket, beta: bool) -> None:
        self.service, self.session, self.websocket, self.beta = service, session, websocket, beta
        self.id, self.settings = unique("sess"), Settings()
        self.hotwords: tuple[Hotword, ...] = ()
        self._stream: Stream | None = None
        self._telling: asyncio.Task[None] | None = None  # what the stream says
        self._before = self._heard = 0.0  # seconds of the streams before; of the session
        self._item = Item(0.0)
        self._previous: str | None = None  # the id of the item before

    async def run(self) -> None:
        await self._tell("session.created", session=self._shown())
        try:
            while True:
                await self._hear()
        except UserError as error:
            await self._tell("error", error=error_shape(error) | {"event_id": None})
            raise
        finally:
            await ended(self._telling)

    # What the client says

    async def _hear(self) -> None:
        """The client's next event; what is wrong with it is told, and the session goes on."""
        try:
            message = await receive(self.session, self.websocket)
        except Refusal:  # time is up: what was said is not lost
            if self._stream:
                await self._commit()
            raise
        event: Json = {}
        try:
            event = _parsed(message)
            await self._do(event)
        except UserError as error:
            if isinstance(error, Refusal) and error.code != "bad_message":
                raise
            await self._tell("error", error=error_shape(error) | {"event_id": event.get("event_id")})

    async def _do(self, event: Json) -> None:
        kind = event.get("type")
        if kind == "input_audio_buffer.append":
            await self._append(event.get("audio"))
        elif kind == "input_audio_buffer.commit":
            if not self._stream:
                message = "the buffer is empty: append audio before it is committed"
                raise Invalid(message, None, "input_audio_buffer_commit_empty")
            await self._commit()
        elif kind == "input_audio_buffer.clear":
            await self._clear()
        elif kind == ("transcription_session.update" if self.beta else "session.update"):
            await self._update(event.get("session"))
        else:
            raise Invalid(f"{kind!r} is no event of a transcription session", "type")

    async def _update(self, session: object) -> None:
        before, after = self.settings, updated(self.settings, beta_update(session) if self.beta else session)
        self.hotwords = hotwords_of(self.service, list(after.keywords), after.prompt)
        self.settings = after
        if self._stream and (before.vad, before.format) != (after.vad, after.format):
            await self._commit()  # the next audio is another stream
        elif self._stream:
            self._stream.set_hotwords(self.hotwords)
        await self._tell("session.updated", session=self._shown())

    async def _append(self, audio: object) -> None:
        try:
            data = base64.b64decode(audio if isinstance(audio, str) else "-", validate=True)
        except ValueError as error:
            raise Invalid(f"audio is not base64 ({error})", "audio") from error
        stream = self._stream or self._open()
        await self._send(stream, self._pcm.accept(data))

    def _open(self) -> Stream:
        vad, config = self.settings.vad, self.service.config
        format, rate = FORMATS[self.settings.format]
        rules = (vad.endpoints(config.endpointing), vad.gate(config.vad)) if vad else (None, config.vad)
        self._stream = stream = self.session.open(self.hotwords, *rules)
        self._pcm = Pcm(rate, stream.rate, format)
        self._sent = self._told_words = self._told_endpoints = 0  # of this stream; samples
        self._telling = asyncio.ensure_future(self._tell_all(stream))
        return stream

    async def _send(self, stream: Stream, samples: NDArray[np.float32]) -> None:
        self._sent += len(samples)
        await stream.send(samples)

    async def _commit(self) -> None:
        """The end of the stream, and of its last item; the next audio begins another."""
        stream, telling = self._stream, self._telling
        assert stream and telling
        await self._send(stream, self._pcm.finish())
        await stream.finish()
        await telling
        self._end(stream)
        await self._complete(self._before)

    async def _clear(self) -> None:
        if self._stream:
            await ended(self._telling)
            self._stream.close()
            self._sent += len(self._pcm.finish())
            self._end(self._stream)
            self._item = Item(self._before)
        await self._tell("input_audio_buffer.cleared")

    def _end(self, stream: Stream) -> None:
        self._before += self._sent / stream.rate
        self._heard, self._stream, self._telling = self._before, None, None

    # What the stream says

    async def _tell_all(self, stream: Stream) -> None:
        async for update in stream.updates():
            transcript, vad = update.transcript, self.settings.vad
            for endpoint in transcript.record.endpoints[self._told_endpoints : transcript.endpoint_count]:
                self._told_endpoints += 1
                await self._say(transcript.record, endpoint.words, vad)
                if self._item.started:
                    await self._stop(self._before + endpoint.time)
            await self._say(transcript.record, transcript.count, vad)
            if vad:
                await self._follow(update, vad)

    async def _say(self, record: Record, count: int, vad: ServerVad | None) -> None:
        """The stream's words up to the first `count`."""
        words = record.words[self._told_words : count]
        if not words:
            return
        self._told_words = count
        if vad and not self._item.started:
            await self._start(self._before + words[0].start, vad)
        first = not self._item.words
        self._item.words += words
        more = {"logprobs": logprobs(words, first)} if self.settings.logprobs else {}
        item = {"item_id": self._item.id, "content_index": 0}
        await self._tell(f"{TRANSCRIPTION}.delta", **item, delta=delta(words, first), **more)

    async def _follow(self, update: Update, vad: ServerVad) -> None:
        """Speech that begins before there are words, and such as never has any."""
        heard, item = self._before + update.heard, self._item
        if update.speech or update.transcript.tentative_words:
            item.spoken = heard
            if not item.started:
                await self._start(self._heard, vad)  # it began in what was heard since
        elif item.started and not item.words and heard - item.spoken >= vad.silence_duration_ms / 1000:
            await self._stop(heard)
        self._heard = heard

    async def _start(self, time: float, vad: ServerVad) -> None:
        self._item.started = True
        start = max(self._item.begin, time - vad.prefix_padding_ms / 1000)
        await self._tell(
            "input_audio_buffer.speech_started", audio_start_ms=round(1000 * start), item_id=self._item.id
        )

    async def _stop(self, time: float) -> None:
        await self._tell(
            "input_audio_buffer.speech_stopped", audio_end_ms=round(1000 * time), item_id=self._item.id
        )
        await self._complete(time)

    async def _complete(self, time: float) -> None:
        """The open item ends, and the next one begins."""
        item, previous = self._item, self._previous
        self._item, self._previous = Item(time), item.id
        text = join(item.words)
        shape: Json = {"id": item.id, "object": "realtime.item", "type": "message", "status": "completed"}
        shape |= {"role": "user", "content": [{"type": "input_audio", "transcript": text}]}
        order = {"previous_item_id": previous}
        await self._tell("input_audio_buffer.committed", item_id=item.id, **order)
        for kind in ("created",) if self.beta else ("added", "done"):
            await self._tell(f"conversation.item.{kind}", item=shape, **order)
        more = {"logprobs": logprobs(item.words, first=True)} if self.settings.logprobs else {}
        usage = {"type": "duration", "seconds": round(time - item.begin, 3)}
        place = {"item_id": item.id, "content_index": 0}
        await self._tell(f"{TRANSCRIPTION}.completed", **place, transcript=text, usage=usage, **more)

    def _shown(self) -> Json:
        return shown(self.settings, self.id, self.service.config.model, self.beta)

    async def _tell(self, kind: str, **event: object) -> None:
        if self.beta and kind.startswith("session."):
            kind = f"transcription_{kind}"
        message = {"type": kind, "event_id": unique("event"), **event}
        text = json.dumps(message)  # in ASCII: what a client set may be half of a surrogate pair
        await self.session.deliver(self.websocket.send_text(text))


def _parsed(message: str | bytes) -> Json:
    if isinstance(message, bytes):
        raise Invalid("a binary message: send audio as base64 in input_audio_buffer.append")
    return json_object(message)


def unique(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(8)}"
