"""Vosk's websocket protocol, so that clients of vosk-server work as they are: `/`, binary PCM in, JSON out.

Every binary message has exactly one reply: a partial, or the result of what ended in it. Text messages are
`{"config": {...}}` (no reply), `{"reset": 1}` (the result so far) and `{"eof": 1}` (the last result, then the
end). The protocol has no message for errors; as with vosk-server the connection is closed, with a reason.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from asr.decoding.hotwords import Hotword
from asr.serving.batcher import Stream, Update
from asr.serving.messages import json_object
from asr.serving.pcm import Pcm
from asr.serving.refusal import Refusal
from asr.serving.server import Service, Session
from asr.serving.sockets import attend, receive
from asr.transcript import Word, join

RATE = 8000  # vosk-server's, for the clients that name none
UNKNOWN = "[unk]"  # stands in grammars for all other words, which hotwords leave possible anyway

Reply = dict[str, object]


def routes(service: Service) -> list[BaseRoute]:
    async def connected(websocket: WebSocket) -> None:
        async def talk(session: Session) -> None:
            await websocket.accept()
            await Talk(service, session, websocket).run()

        await attend(service, websocket, "vosk", talk)

    return [WebSocketRoute("/", connected)]


class Talk:
    """One connection: utterances one after the other, with times from its beginning."""

    def __init__(self, service: Service, session: Session, websocket: WebSocket) -> None:
        self.service, self.session, self.websocket = service, session, websocket
        self.rate = float(RATE)
        self.words, self.alternatives = True, 0  # how results are shown
        self.hotwords: tuple[Hotword, ...] = ()
        self._stream: Stream | None = None
        self._before = 0.0  # seconds of the utterances that a reset ended

    async def run(self) -> None:
        last = False
        while not last:
            try:
                message = await receive(self.session, self.websocket)
            except Refusal:  # time is up: what was said is not lost
                await self._send(await self._finish())
                raise
            if isinstance(message, bytes):
                await self._send(await self._heard(message))
            else:
                last = await self._told(message)

    async def _told(self, text: str) -> bool:
        """A text message; whether it was the last."""
        message = json_object(text)
        if isinstance(message.get("config"), dict):
            self._configure(message["config"])
        elif "eof" in message or "reset" in message:
            await self._send(await self._finish())
        else:
            raise Refusal(
                "bad_message", 'send {"config": {...}}, {"eof": 1}, {"reset": 1} or binary 16-bit PCM'
            )
        return "eof" in message

    def _configure(self, config: dict[str, object]) -> None:
        self.words = bool(config.get("words", self.words))
        self.alternatives = int(_number(config, "max_alternatives", self.alternatives))
        rate = _number(config, "sample_rate", self.rate)
        if self._stream and rate != self.rate:
            raise Refusal("bad_message", "sample_rate cannot change amid the audio: send eof or reset first")
        self.rate = rate
        if "phrase_list" in config:
            phrases = config["phrase_list"] or []
            if isinstance(phrases, list):
                phrases = [phrase for phrase in phrases if phrase != UNKNOWN]
            self.hotwords = self.service.hotwords(phrases)
            if self._stream:
                self._stream.set_hotwords(self.hotwords)

    async def _heard(self, data: bytes) -> Reply:
        if self._stream is None:
            self._stream = self.session.open(self.hotwords)
            self._pcm = Pcm(round(self.rate), self._stream.rate)
            self._told_words = self._told_endpoints = 0  # of the stream
        await self._stream.send(self._pcm.accept(data))
        update = await self._stream.settle()
        endpoints = update.transcript.endpoint_count
        if endpoints == self._told_endpoints:
            shown = (*self._new(update, update.transcript.count), *update.transcript.tentative_words)
            return {"partial": join(shown)}
        # Two in one message make one result: there is one reply.
        self._told_endpoints = endpoints
        end = update.transcript.record.endpoints[endpoints - 1].words
        words = self._new(update, end)
        self._told_words = end
        return self._result(words)

    async def _finish(self) -> Reply:
        """The result of what was not told yet; the next audio begins another stream."""
        if self._stream is None:
            return self._result([])
        stream, self._stream = self._stream, None
        await stream.send(self._pcm.finish())
        update = await stream.finish()
        result = self._result(self._new(update, update.transcript.count))
        self._before += update.heard
        return result

    def _new(self, update: Update, end: int) -> Sequence[Word]:
        return update.transcript.record.words[self._told_words : end]

    def _result(self, words: Sequence[Word]) -> Reply:
        result: Reply = {"text": join(words)}
        if self.words and words:
            result["result"] = [self._word(word) for word in words]
        if not self.alternatives:
            return result
        # The beam's others differ in words that are not final: there is one.
        confidence = sum(word.confidence for word in words) / max(1, len(words))
        return {"alternatives": [{"confidence": round(confidence, 6), **result}]}

    def _word(self, word: Word) -> Reply:
        return {
            "conf": round(word.confidence, 6),
            "end": round(self._before + word.end, 6),
            "start": round(self._before + word.start, 6),
            "word": word.text,
        }

    async def _send(self, reply: Reply) -> None:
        text = json.dumps(reply, ensure_ascii=False)
        await self.session.deliver(self.websocket.send_text(text))


def _number(config: dict[str, object], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise Refusal("bad_message", f"{key} has to be a number of at least 0, not {json.dumps(value)}")
    return value
