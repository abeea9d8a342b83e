"""The server as a process: sockets, TLS, signals, and an end that lets everybody take their last words."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from asr.bundle import Bundle
from asr.errors import UserError
from asr.serving import wyoming
from asr.serving.app import app
from asr.serving.config import ServeConfig
from asr.serving.server import Service

log = logging.getLogger("asr.serving")
AT_ONCE = 1 << 14  # bytes that are read of a connection before others have their turn
LEAVING = 5  # seconds for connections to close once everything has been said


class Tls(NamedTuple):
    """Files in PEM."""

    certificate: Path
    key: Path


class Address(NamedTuple):
    host: str
    port: int


class Websocket(WebSocketsSansIOProtocol):
    """Reads little at a time: what has been read is taken apart in one go, and of messages of one byte a
    quarter of a megabyte holds so many that everybody else would wait.

    What breaks the protocol, such as a message that is too large, is read to its end: closed with something
    unread, a connection is reset, and the client never hears why.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.max_size = AT_ONCE  # type: ignore[attr-defined]  # of asyncio's selector transport
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self.close_sent or self.conn.parser_exc is None:
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        closed = self.conn.close_sent
        assert closed is not None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.transport.can_write_eof():  # not with TLS
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(LEAVING, self.transport.close)


class Server(uvicorn.Server):
    """Stops by `should_exit` or a signal: drains, then closes. A second signal does not wait."""

    def __init__(self, service: Service, tls: Tls | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app(service),
                log_config=None,
                access_log=False,  # sessions are logged
                server_header=False,
                lifespan="off",
                ssl_certfile=tls and tls.certificate,
                ssl_keyfile=tls and tls.key,
                loop="asyncio",
                ws=Websocket,
                ws_max_size=service.config.max_message,
                ws_per_message_deflate=False,  # audio does not get smaller
                # While a client's audio waits nothing is read of it, no pong either. `idle` ends the dead.
                ws_ping_timeout=None,
                timeout_graceful_shutdown=LEAVING,
            )
        )
        self.service = service
        try:
            self.config.load()
        except (OSError, ssl.SSLError) as error:
            raise UserError(
                f"the certificate and its key cannot be used ({error}): check --tls-cert, --tls-key"
            ) from error

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._draining = asyncio.ensure_future(self.service.drain())
        await asyncio.wait([self._draining])
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            if hasattr(self, "_draining"):
                self._draining.cancel()
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn, which would raise the signal again, and so kill what still has to be closed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


async def serve(
    bundle: Bundle, config: ServeConfig, address: Address, tls: Tls | None, home: Address | None
) -> None:
    """Until a signal ends it. home: where Wyoming listens, if it does."""
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(Service(bundle, config))
        server = Server(service, tls)
        opened = listening(address, "--port")
        if home:
            other = await _wyoming(service, home)
            stack.callback(other.close)
        urls = [f"{'https' if tls else 'http'}://{_shown(address.host)}:{opened.getsockname()[1]}/"]
        urls += [f"tcp://{_shown(home.host)}:{home.port}"] if home else []
        log.info("listening", extra={"fields": {"urls": urls, "model": bundle.model.describe()}})
        await server.serve([opened])
    log.info("ended")


def listening(address: Address, option: str) -> socket.socket:
    """Raises UserError where the port is taken or not ours."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        raise _unopened(address, option, error) from error


async def _wyoming(service: Service, address: Address) -> asyncio.Server:
    try:
        return await wyoming.serve(service, *address)
    except OSError as error:
        raise _unopened(address, "--wyoming-port", error) from error


def _unopened(address: Address, option: str, error: OSError) -> UserError:
    where = f"{_shown(address.host)}:{address.port}"
    return UserError(f"{where}: cannot listen there ({error.strerror or error}): choose another {option}")


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
