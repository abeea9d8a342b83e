"""What all protocols share: one batcher, who may come in, how long they may stay, and counting them.

Protocols are modules with `routes(service)`; each makes its own messages of a stream's updates and its own
errors of `Refusal`. This file knows connections and limits, nothing of what is said on them.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from asyncio import FIRST_COMPLETED
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from asr.bundle import Bundle
from asr.decoding.hotwords import Hotword, check_hotwords
from asr.endpoint import EndpointConfig
from asr.errors import UserError
from asr.serving.batcher import REST, Batcher, Stream, Tick
from asr.serving.config import ServeConfig
from asr.serving.metrics import Metrics
from asr.serving.refusal import Busy, Refusal
from asr.text import normalise
from asr.vad import VadConfig

log = logging.getLogger("asr.serving")
Result = TypeVar("Result")
Configured = Literal["configured"]  # by the operator
MESSAGES, BURST = 500, 1000  # that a client may send a second, and at once
SUBPROTOCOLS = ("bearer.", "openai-insecure-api-key.")  # what precedes a token: browsers cannot set headers


class Service:
    """An async context manager, as its batcher."""

    def __init__(self, bundle: Bundle, config: ServeConfig) -> None:
        self.bundle, self.config = bundle, config
        self.metrics = Metrics()
        self.batcher = Batcher(bundle, config.batcher, self._watch)
        self.sessions: set[Session] = set()
        self._clients: Counter[str] = Counter()

    async def __aenter__(self) -> Service:
        self.draining: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = asyncio.Event()  # set whenever a session ends
        await self.batcher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.batcher.__aexit__(kind, error, trace)

    async def drain(self) -> None:
        """Before the end: nobody is let in any more, and whoever is here is told to finish (`Session.wait`).

        Returns when all have left, after `grace` seconds at the latest.
        """
        if not self.draining.done():
            self.draining.set_result(None)
        log.info("draining", extra={"fields": {"sessions": len(self.sessions)}})
        until = time.monotonic() + self.config.grace
        while self.sessions and (left := until - time.monotonic()) > 0:
            self._left.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._left.wait(), left)

    def authorise(self, connection: HTTPConnection) -> None:
        """Raises Refusal ("unauthorised") without the token, if there is one: `Authorization: Bearer TOKEN`,
        or for a browser's websocket the subprotocol `bearer.TOKEN` (or OpenAI's) beside the one it speaks.

        Without a token pages of other origins are refused, or every page on the web could use a server on
        its reader's own computer.
        """
        if self.config.token is None:
            origin = connection.headers.get("origin")
            if origin and urlsplit(origin).netloc != connection.headers.get("host"):
                raise Refusal("unauthorised", f"a page of {origin}: only the server's own, or with a token")
            return
        if not any(self.is_token(given) for given in _tokens(connection)):
            raise Refusal("unauthorised", "the token is missing or wrong: Authorization: Bearer TOKEN")

    def is_token(self, given: str) -> bool:
        """For what has no headers. True if the server has no token."""
        token = self.config.token
        return token is None or hmac.compare_digest(given.encode(), token.encode())

    @asynccontextmanager
    async def admit(self, client: str, protocol: str) -> AsyncIterator[Session]:
        """One connection or request. client: its address, by which streams are counted; protocol: a name for
        logs and metrics. Raises Refusal ("busy", "shutdown"); frees everything when left."""
        session = Session(self, client, protocol)
        try:
            self._check_room(client)
            self._enter(session)
            try:
                yield session
            finally:
                self._leave(session)
        except UserError as error:
            session.outcome = error.code if isinstance(error, Refusal) else "bad_message"
            self.metrics.refused.add(1, session.outcome)
            raise
        except BaseException as error:  # cancelled, disconnected, or a fault that is told elsewhere
            session.outcome = type(error).__name__
            raise
        finally:
            log.info("session", extra={"fields": session.summary()})

    def _check_room(self, client: str) -> None:
        if self.draining.done():
            raise _shutting_down()
        if self._clients[client] >= self.config.streams_per_client:
            raise Busy(f"{client} has as many streams as one may: close one first", REST)

    def _enter(self, session: Session) -> None:
        self._clients[session.client] += 1
        self.sessions.add(session)
        self.metrics.sessions.add(1, session.protocol)
        self.metrics.open.add(1, session.protocol)

    def _leave(self, session: Session) -> None:
        session.close()
        self.sessions.discard(session)
        self.metrics.open.add(-1, session.protocol)
        self._clients[session.client] -= 1
        self._clients = +self._clients  # forgets those that have left
        self._left.set()

    def report(self) -> str:
        """Of metrics, for Prometheus."""
        self.metrics.streams.values[""] = len(self.batcher.streams)
        return self.metrics.text()

    def _watch(self, tick: Tick) -> None:
        self.metrics.audio.add(tick.audio)
        self.metrics.tick.observe(tick.seconds)
        self.metrics.batch.observe(tick.streams)
        for lag in tick.lags:
            self.metrics.lag.observe(lag)

    def hotwords(self, phrases: object) -> tuple[Hotword, ...]:
        """A client's list of phrases, checked. Raises Refusal ("bad_message")."""
        if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
            raise Refusal("bad_message", 'hotwords are a list of phrases: ["first phrase", "second"]')
        if len(phrases) > self.config.max_hotwords:
            raise Refusal("bad_message", f"{len(phrases)} hotwords: send {self.config.max_hotwords} at most")
        hotwords = tuple(Hotword(normalise(phrase)) for phrase in phrases)
        check_hotwords(hotwords, self.bundle.tokenizer.pieces, self.bundle.tokenizer.lexicon)
        return hotwords


class Session:
    """One client's connection; at any time it has one stream of audio, or none."""

    def __init__(self, service: Service, client: str, protocol: str) -> None:
        self.service, self.client, self.protocol = service, client, protocol
        self.stream: Stream | None = None
        self.outcome = "done"
        self._began = time.monotonic()
        self._paced = 0.0  # when the next message may come
        self._heard, self._words = 0.0, 0  # of streams before this one

    def open(
        self,
        hotwords: Sequence[Hotword] = (),
        endpointing: EndpointConfig | Configured | None = "configured",
        vad: VadConfig | Configured | None = "configured",
    ) -> Stream:
        """A new stream; it takes the place of the one before, if any. Raises Busy, UserError for hotwords."""
        config, again = self.service.config, self.stream is not None
        self.close()
        self.stream = self.service.batcher.open(
            hotwords,
            config.endpointing if endpointing == "configured" else endpointing,
            config.vad if vad == "configured" else vad,
            again,
        )
        return self.stream

    async def wait(self, awaitable: Awaitable[Result]) -> Result:
        """What the client does next, as `await session.wait(websocket.receive())`.

        Raises Refusal where it takes too long ("idle"), the session does ("too_long"), or the server shuts
        down ("shutdown"); then finish the stream, `deliver` what it says, and close.
        """
        await self._pace()
        task: asyncio.Future[Result] = asyncio.ensure_future(awaitable)
        draining = self.service.draining
        config, left = self.service.config, self._began + self.service.config.session - time.monotonic()
        most = min(config.idle, left)
        try:
            if most > 0 and not draining.done():
                either: list[asyncio.Future[Any]] = [task, draining]
                await asyncio.wait(either, timeout=most, return_when=FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            task.cancel()
        if draining.done():
            raise _shutting_down()
        if left <= config.idle:
            raise Refusal("too_long", f"a session lasts {config.session:g} s at most: begin another")
        raise Refusal("idle", f"nothing came for {config.idle:g} s: connect again")

    async def _pace(self) -> None:
        """Every message has its cost, however small: who floods is slowed down to so many a second."""
        now = time.monotonic()
        self._paced = max(self._paced, now - BURST / MESSAGES) + 1 / MESSAGES
        if self._paced > now:
            await asyncio.sleep(self._paced - now)

    async def deliver(self, awaitable: Awaitable[Result]) -> Result:
        """What is sent to the client. Raises Refusal ("idle") if it does not take it; goes on in a shutdown,
        which ends by itself."""
        # Not wait_for: before Python 3.12 it may swallow that its caller is cancelled.
        task: asyncio.Future[Result] = asyncio.ensure_future(awaitable)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # the caller may have gone
        try:
            await asyncio.wait([task], timeout=self.service.config.idle)
            if task.done():
                return task.result()
        finally:
            task.cancel()
        raise Refusal("idle", "you do not read what is sent: connect again")

    def close(self) -> None:
        if self.stream:
            self.stream.close()
            heard, self.stream = self.stream.newest, None
            self._heard += heard.heard
            self._words += heard.transcript.count

    def summary(self) -> dict[str, str | float]:
        """For the log."""
        return {
            "client": self.client,
            "protocol": self.protocol,
            "outcome": self.outcome,
            "seconds": round(time.monotonic() - self._began, 3),
            "audio": round(self._heard, 3),
            "words": self._words,
        }


def _shutting_down() -> Refusal:
    return Refusal("shutdown", "the server is shutting down: connect again", REST)


def _tokens(connection: HTTPConnection) -> list[str]:
    scheme, _, given = connection.headers.get("authorization", "").partition(" ")
    tokens = [given.strip()] if scheme.lower() == "bearer" else []
    for protocol in connection.scope.get("subprotocols", []):
        tokens += [protocol[len(prefix) :] for prefix in SUBPROTOCOLS if protocol.startswith(prefix)]
    return tokens
