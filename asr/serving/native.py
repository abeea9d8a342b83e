"""The server's own websocket, `/v1/stream`: audio in; committed and tentative words, endpoints and lag out.

docs/serving.md shows it, native.schema.json holds every message to it. Words are sent once, so that messages
stay small for hours. Two tasks serve a client: one hears it, the other sends it the newest update whenever it
has taken the last one.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from asr.errors import UserError
from asr.serving.batcher import Stream, Update
from asr.serving.messages import json_object
from asr.serving.pcm import Pcm
from asr.serving.refusal import Refusal
from asr.serving.server import Service, Session
from asr.serving.sockets import address, receive
from asr.transcript import Transcript, Word, join

SUBPROTOCOL = "asr"  # what browsers that send a token as a subprotocol get back
FORMATS = ("s16le", "f32le")
START = {"type", "rate", "format", "hotwords", "lag"}
AT_ONCE = 1 << 15  # bytes that are resampled in one go
LIMITS = ("idle", "too_long", "shutdown")  # end a stream whose words the client still wants


def routes(service: Service) -> list[BaseRoute]:
    async def attend(websocket: WebSocket) -> None:
        # Accepted before it is refused: scripts in a browser learn nothing of a handshake that fails.
        offered = SUBPROTOCOL in websocket.scope["subprotocols"]
        await websocket.accept(SUBPROTOCOL if offered else None)
        try:
            service.authorise(websocket)
            async with service.admit(address(websocket), "native") as session:
                await Conversation(service, session, websocket).run()
            await websocket.close()
        except WebSocketDisconnect:
            pass  # the client has gone
        except UserError as error:
            await refuse(
                websocket, error if isinstance(error, Refusal) else Refusal("bad_message", str(error))
            )

    return [WebSocketRoute("/v1/stream", attend)]


async def refuse(websocket: WebSocket, refusal: Refusal) -> None:
    message = {"type": "error", "code": refusal.code, "message": str(refusal)}
    if refusal.retry_after is not None:
        message["retry_after"] = refusal.retry_after  # type: ignore[assignment]
    if websocket.client_state == WebSocketState.CONNECTED:
        try:
            await websocket.send_text(json.dumps(message))
            await websocket.close(refusal.close_code)
        except WebSocketDisconnect:
            pass  # it did not wait


class Conversation:
    """With one client, from its first message to the last word."""

    def __init__(self, service: Service, session: Session, websocket: WebSocket) -> None:
        self.service, self.session, self.websocket = service, session, websocket

    async def run(self) -> None:
        start = self._text(await receive(self.session, self.websocket))
        if start.get("type") != "start":
            raise Refusal("bad_message", 'begin with {"type": "start", "rate": 16000, "format": "s16le"}')
        if unknown := sorted(start.keys() - START):
            raise Refusal("bad_message", f"start knows no {unknown[0]!r}: {', '.join(sorted(START))}")
        rate, format = start.get("rate", 16000), start.get("format", "s16le")
        if type(rate) is not int or format not in FORMATS:
            raise Refusal("bad_message", f"rate is a whole number of Hz, format one of {', '.join(FORMATS)}")
        stream = self.session.open(self.service.hotwords(start.get("hotwords", [])))
        pcm = Pcm(rate, stream.rate, format)
        await self._send(self._ready(rate))
        tasks = [
            asyncio.create_task(self._hear(stream, pcm)),
            asyncio.create_task(self._tell(stream, lag=start.get("lag") is True)),
        ]
        try:
            refusal, _ = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if refusal:
            raise refusal

    async def _hear(self, stream: Stream, pcm: Pcm) -> Refusal | None:
        """Until the client ends the stream; if a limit does, that."""
        refusal = None
        try:
            while isinstance(message := await receive(self.session, self.websocket), bytes) or self._control(
                stream, self._text(message)
            ):
                if isinstance(message, bytes):
                    for start in range(0, len(message), AT_ONCE):  # a second or so: others have their turn
                        await stream.send(pcm.accept(message[start : start + AT_ONCE]))
        except Refusal as error:
            if error.code not in LIMITS:
                raise
            refusal = error
        await stream.send(pcm.finish())
        await stream.finish()
        return refusal

    def _control(self, stream: Stream, message: dict[str, Any]) -> bool:
        """What a client may say between its audio. False: that it has ended."""
        kind = message.get("type")
        if kind == "hotwords":
            stream.set_hotwords(self.service.hotwords(message.get("hotwords")))
        elif kind != "finish":
            raise Refusal("bad_message", f"a message of type {kind!r}: send hotwords, finish or binary audio")
        return kind == "hotwords"

    async def _tell(self, stream: Stream, lag: bool) -> None:
        news = News(lag)
        async for update in stream.updates():
            await self._send(news.message(update))

    def _ready(self, rate: int) -> dict[str, Any]:
        model, batcher = self.service.bundle.model, self.service.batcher
        chunk = 1000 * batcher.chunk / batcher.rate
        latency = chunk + 1000 * model.lookahead * model.frame_seconds
        name = self.service.config.model
        return {"type": "ready", "rate": rate, "chunk_ms": chunk, "latency_ms": latency, "model": name}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.session.deliver(self.websocket.send_text(json.dumps(message, ensure_ascii=False)))

    def _text(self, message: str | bytes) -> dict[str, Any]:
        if isinstance(message, bytes):
            raise Refusal("bad_message", 'audio before {"type": "start"}: say first what it is')
        return json_object(message)


class News:
    """Updates as messages, each committed word and endpoint once."""

    def __init__(self, lag: bool) -> None:
        self.lag = lag
        self._words = self._endpoints = 0  # sent

    def message(self, update: Update) -> dict[str, Any]:
        transcript, text = update.transcript, {}
        words, endpoints = self._new(transcript)
        if update.finished:
            text = {"text": transcript.text}
        return {
            "type": "finished" if update.finished else "update",
            "committed": join(words),
            "words": [_shown(word) for word in words],
            "tentative": transcript.tentative,
            "tentative_words": [_shown(word) for word in transcript.tentative_words],
            "endpoints": endpoints,
            "heard": round(update.heard, 3),
            **({"lag": round(update.lag, 4)} if self.lag else {}),
            "speech": update.speech,
            **text,
        }

    def _new(self, transcript: Transcript) -> tuple[list[Word], list[dict[str, Any]]]:
        record = transcript.record
        words = record.words[self._words : transcript.count]
        endpoints = record.endpoints[self._endpoints : transcript.endpoint_count]
        self._words, self._endpoints = transcript.count, transcript.endpoint_count
        return words, [{**asdict(each), "time": round(each.time, 3)} for each in endpoints]


def _shown(word: Word) -> dict[str, Any]:
    return {
        "text": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": round(word.confidence, 3),
    }
